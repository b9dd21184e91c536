"""The built-in videos' actions, and that every answer given is true."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from lib.worlds import film, people, scene
from lib.worlds.actions import (
    ACTIONS,
    CLASSES,
    FPS,
    IDLE,
    JOINTS,
    PAIRS,
    Body,
    poses,
    skeleton,
)
from lib.worlds.film import PAUSE
from lib.worlds.worlds import ALONE, WORLDS, Puppets

LONG = WORLDS["alone_long"]
CALM = replace(ALONE, size=128, front=0.0)
WINDOW = np.ones((3, 3), np.uint8)


# ------------------------------------------------------------ the actions


@pytest.mark.parametrize("first, second", PAIRS)
def test_reversed_pairs_share_their_poses(first, second):
    u = np.linspace(0, 1, 41)
    there, back = poses(ACTIONS[first], u), poses(ACTIONS[second], 1 - u)
    np.testing.assert_allclose(there, back, atol=1e-9)
    assert np.ptp(there, axis=0).max() > 60  # degrees: something happens
    assert ACTIONS[first].reversed() == ACTIONS[second]


@pytest.mark.parametrize("name", CLASSES)
def test_tables_are_sound(name):
    action = ACTIONS[name]
    phase = [row[0] for row in action.rows]
    assert phase == sorted(set(phase)) and phase[0] == 0 and phase[-1] == 1
    if action.rate:
        assert action.rows[0][1:] == action.rows[-1][1:], "the cycle closes"
        assert action.rate < FPS / 2 / 1.15, "faster than frames can show"
    else:
        assert IDLE in (action.rows[0][1:], action.rows[-1][1:])


@pytest.mark.parametrize("name", CLASSES)
def test_bodies_stay_in_one_piece_and_above_the_floor(name):
    body = Body()
    pose = poses(ACTIONS[name], np.linspace(0, 1, 33))
    joints = skeleton(pose, body).joints
    at = dict(zip(JOINTS, np.moveaxis(joints, 1, 0), strict=True))
    for start, end, length in (
        ("shoulder", "elbow", body.upper),
        ("elbow2", "hand2", body.fore),
        ("knee", "ankle", body.shin),
        ("hip", "neck", body.torso),
    ):
        distance = np.linalg.norm(at[end] - at[start], axis=1)
        np.testing.assert_allclose(distance, length, atol=1e-9)
    lowest = np.maximum(at["ankle"], at["ankle2"])[:, 1]
    assert lowest.max() <= -body.sole + 1e-9
    assert np.ptp(at["ankle2"][:, 0]) < 1e-9, "the far foot is planted"


# ------------------------------------------------------------ the answers


@pytest.mark.parametrize("name", ["kick", "jump", "walk", "pick_up", "clap"])
def test_flow_carries_each_frame_onto_the_next(name, monkeypatch):
    """Look up the next frame where the flow says: inside the actor's limbs
    it shows the same colours.

    Compared are pixels one pixel off every edge, now and there, and not
    hidden by another limb there: 99 % agree within 8 of 255 grey levels,
    which is for the smooth edges of a thin limb. Left unmoved or moved the
    wrong way, many more pixels miss their limb.
    """
    shown = []
    paint = scene.paint

    def remember(*given):
        shown.append(paint(*given))
        return shown[-1]

    monkeypatch.setattr(scene, "paint", remember)
    data = Puppets("test", 3, classes=[name], dials=CALM, extras=["flow"])
    share = {1: [], 0: [], -1: []}
    agree = []
    y, x = np.mgrid[: CALM.size, : CALM.size].astype(np.float32)
    for sample in data:
        flow = sample["flow"].permute(0, 2, 3, 1).numpy()
        video, labels = shown[-1]
        for t in torch.nonzero(sample["relevant"][:-1]).flatten().tolist():
            now, then = (
                np.where(cv2.erode(label, WINDOW) == cv2.dilate(label, WINDOW),
                         label, 0) for label in labels[t : t + 2])
            inside = (now > 0) & sample["mask"][t].numpy()
            for sign in share:
                to = [x + sign * flow[t, ..., 0], y + sign * flow[t, ..., 1]]
                there = cv2.remap(then, *to, cv2.INTER_NEAREST)
                found = inside & (there == now)
                share[sign].append(found.sum() / inside.sum())
                if sign == 1:
                    seen = cv2.remap(video[t + 1], *to, cv2.INTER_LINEAR)
                    error = np.abs(seen.astype(int) - video[t]).max(axis=-1)
                    agree.append(error[found] <= 8)
    assert np.concatenate(agree).mean() > 0.99
    assert np.mean(share[1]) > 0.65  # the others are hidden
    assert np.mean(share[0]) < np.mean(share[1]) - 0.1
    assert np.mean(share[-1]) < np.mean(share[0])


def test_flow_at_the_head_is_the_motion_of_the_head():
    """Within 0.3 px: the head also turns, and its pixel is rounded. The
    hands stay away from the head in these actions."""
    data = Puppets("val", 4, classes=["sit_down", "walk"], dials=CALM,
                   extras=["flow", "joints"])
    furthest = 0.0
    for sample in data:
        head = sample["joints"][:, JOINTS.index("head")]
        for t in range(CALM.frames - 1):
            x, y = (head[t] - 0.5).round().long().tolist()
            step = head[t + 1] - head[t]
            error = sample["flow"][t, :, y, x] - step
            assert error.abs().max() < 0.3
            furthest = max(furthest, step.abs().max().item())
    assert furthest > 5, "the test saw no motion"


def test_flow_of_the_room_is_the_camera():
    still = replace(CALM, camera=(0, 0), clutter=(0, 0), bystander=0)
    sample = Puppets("train", 1, dials=still, extras=["flow"])[0]
    room = ~sample["mask"][:-1, None].expand(-1, 2, -1, -1)
    held = sample["flow"][room]  # the box lies still until it is taken
    assert (held.abs() < 1e-4).float().mean() > 0.99
    swaying = replace(still, camera=(0.05, 0.05))
    sample = Puppets("train", 1, dials=swaying, extras=["flow"])[0]
    corner = sample["flow"][:, :, 0, 0]
    assert corner.abs().max() > 0.3
    assert torch.allclose(sample["flow"][:, :, 0, -1], corner)


def test_boxes_are_the_tightest():
    for sample in Puppets("train", 28):
        for mask, box in zip(sample["mask"], sample["boxes"], strict=True):
            y, x = torch.nonzero(mask, as_tuple=True)
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_mask_is_what_differs_when_the_actor_is_recoloured(monkeypatch):
    """Paint all of the actor in one colour: what changes is the actor.

    The smooth edges reach two pixels over the mask at most. In these
    actions nothing stands before the actor; through the smooth edge of a
    thing in front, some of the actor would shine.
    """
    data = Puppets("train", 4, classes=["wave", "jump"],
                   dials=replace(ALONE, bystander=0, front=0))
    before = [data[i] for i in range(4)]
    costume = people.costume
    monkeypatch.setattr(people, "costume", lambda *given: [
        part if part.bone in ("shadow", "box")
        else part._replace(colour=(0, 255, 0))
        for part in costume(*given)
    ])
    for i, old in enumerate(before):
        changed = (data[i]["video"] != old["video"]).any(dim=1).numpy()
        for now, mask in zip(changed, old["mask"].numpy(), strict=True):
            assert now[mask].mean() > 0.98
            near = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5)))
            assert not now[near == 0].any()


def test_joints_lie_on_the_actor_and_in_the_frame():
    sides = [JOINTS.index(n) for n in ("head", "neck", "hip", "elbow", "knee")]
    hits = []
    for sample in Puppets("val", 28, dials=CALM, extras=["joints"]):
        joints = sample["joints"]
        assert (joints >= 0).all() and (joints <= CALM.size).all()
        x, y = joints[:, sides].floor().long().unbind(-1)
        hits.append(sample["mask"][torch.arange(len(x))[:, None], y, x])
    assert torch.stack(hits).float().mean() > 0.99


@pytest.fixture
def cast(monkeypatch):
    """The people of the films made by and by."""
    seen = []

    class Remembered(film.Person):
        def __init__(self, actor, script, rng, **given):
            super().__init__(actor, script, rng, **given)
            self.actor, self.script = actor, script
            seen.append(self)

    monkeypatch.setattr(film, "Person", Remembered)
    return seen


def test_a_bystander_idles_or_is_missing(cast):
    with_one = replace(ALONE, bystander=1.0)
    for sample in Puppets("test", 14, dials=with_one, extras=["rivals"]):
        actor, other = cast[-2:]
        assert actor.script and not other.script
        box = sample["rivals"].squeeze(1)
        assert not torch.isnan(box).all()
        seen = box[~torch.isnan(box).any(dim=1)]
        assert (seen[:, :2] < seen[:, 2:]).all()
    alone = replace(ALONE, bystander=0.0)
    sample = Puppets("test", 1, dials=alone, extras=["rivals"])[0]
    assert sample["rivals"].shape == (ALONE.frames, 0, 4)


@pytest.mark.parametrize("name", WORLDS)
def test_who_counts_and_what_counts(name, cast):
    """The label is the one action of the one in yellow while it is light;
    all that is not relevant, and all that rivals do, is of other classes."""
    dials = WORLDS[name]
    data = Puppets("train", 28, dials=dials, extras=["rivals"])
    numbers = set()
    for sample in data:
        label = data.classes[sample["label"]]
        actor, *others = cast
        done = {True: set(), False: set()}
        for action, start, end in actor.script:
            inside = sample["relevant"][start:end]
            assert inside.all() or not inside.any()
            done[bool(inside[0])].add(action)
        assert done[True] == {label} and label not in done[False]
        assert bool(done[False]) == (0 < dials.lit < dials.instances[1])
        if dials.rivals[1]:
            numbers.add(len(others))
            assert all(other.script for other in others)
            assert not any(label == action for other in others
                           for action, *_ in other.script)
            assert actor.look.shirt == scene.YELLOW
            assert not {scene.YELLOW, scene.MUSTARD} & {
                other.look.shirt for other in others}
        assert len({one.actor for one in cast}) == len(cast)
        there = ~torch.isnan(sample["rivals"]).any(-1)
        assert there.any(0).sum() == len(others)
        cast.clear()
    if dials.rivals[1]:
        assert numbers == {*range(dials.rivals[0], dials.rivals[1] + 1)}


def test_rivals_act_in_their_own_time(cast):
    times = []
    for _ in Puppets("train", 20, dials=WORLDS["crowd"]):
        actor, *others = cast
        times += [(other.script[0][1:] == actor.script[0][1:])
                  for other in others]
        cast.clear()
    assert np.mean(times) < 0.3


@pytest.mark.parametrize("name", ["lights", "stage", "lights_long"])
def test_the_light_is_on_in_the_relevant_frames(name, monkeypatch):
    dials = WORLDS[name]
    dark = list(Puppets("val", 4, dials=dials))
    monkeypatch.setattr(film.scene, "dim", lambda *given: None)
    for lit, sample in zip(Puppets("val", 4, dials=dials), dark, strict=True):
        on = sample["relevant"]
        assert 0 < on.sum() < len(on)
        assert torch.equal(lit["video"][on], sample["video"][on])
        want = lit["video"][~on] * film.DARK
        assert (sample["video"][~on] - want).abs().max() <= 0.51


@pytest.mark.parametrize("name", ["crowd", "stage_long"])
def test_the_one_who_counts_is_seen_in_the_crowd(name):
    """Inside the frame, mostly in front or beside, and all in yellow."""
    data = Puppets("test", 28, dials=replace(WORLDS[name], size=96),
                   extras=["joints"])
    share, yellow = [], []
    for sample in data:
        joints = sample["joints"]
        assert (joints > -2).all() and (joints < 98).all()
        at = [JOINTS.index(j) for j in ("head", "neck", "hip", "knee")]
        x, y = joints[:, at].floor().long().clamp(0, 95).unbind(-1)
        share.append(sample["mask"][torch.arange(len(x))[:, None], y, x]
                     .float().mean())
        red, green, blue = sample["video"][sample["relevant"]].movedim(1, 0)
        mask = sample["mask"][sample["relevant"]]
        bright = (red > 200) & (green > 170) & (blue < 90)
        yellow.append((bright & mask).sum() / bright.sum().clamp(min=1))
    assert np.mean(share) > 0.8
    assert np.mean(yellow) > 0.95


def test_a_walk_ends_at_the_stool(cast):
    """Sitting down after a walk, the actor is back where the stool is."""
    plan = [("walk", 2, 8), ("sit_down", 10, 16)]
    common = {"frames": 20, "size": 64, "tall": (0.5, 0.5), "room": 64}
    walked, sat = (film.Person(5, acts, np.random.default_rng(0), **common)
                   for acts in (plan, plan[1:]))
    hip = JOINTS.index("hip")
    assert np.allclose(walked.joints[10:16, hip], sat.joints[10:16, hip])
    ahead = np.diff(walked.joints[1:8, hip, 0])
    assert (ahead > 0.01).all()
    assert walked.joints[8, hip, 0] == pytest.approx(
        walked.joints[7, hip, 0], abs=0.01)


# --------------------------------------------------------------- the time


@pytest.mark.parametrize("dials", [ALONE, LONG])
def test_relevant_agrees_with_the_segments(dials):
    time = torch.arange(dials.frames) / FPS
    shares = []
    for sample in Puppets("train", 20, dials=dials):
        inside = torch.zeros(dials.frames, dtype=torch.bool)
        for start, end in sample["segments"]:
            inside |= (start <= time) & (time < end)
        assert torch.equal(inside, sample["relevant"])
        shares.append(1 - inside.float().mean().item())
    half = 0.5 / dials.frames  # segments are whole frames
    assert min(shares) >= dials.idle[0] - half
    assert max(shares) <= dials.idle[1] + half


def test_untrimmed_videos_hold_several_instances():
    counts = set()
    for sample in Puppets("val", 20, dials=LONG):
        segments = sample["segments"]
        counts.add(len(segments))
        assert segments.min() >= 0
        assert segments.max() <= LONG.frames / FPS
        assert (segments[:, 0] < segments[:, 1]).all()
        gaps = segments[1:, 0] - segments[:-1, 1]
        assert (gaps >= PAUSE / FPS).all()
    low, high = LONG.instances
    assert counts == {*range(low, high + 1)}


def test_idle_frames_do_not_tell_the_class():
    """The same scene with another action: outside the segments the actor
    stands in the same way, and only there. Pixels are compared by joints,
    since a jumping or walking actor needs another place in the frame."""
    one, other = (
        Puppets("train", 6, classes=[name], extras=["joints"])
        for name in ("kick", "sit_down"))
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a["relevant"], b["relevant"])
        assert a["group"] == b["group"]
        hip = JOINTS.index("hip")
        pose_a, pose_b = (
            s["joints"] - s["joints"][:, hip : hip + 1] for s in (a, b))
        apart = (pose_a - pose_b).abs().amax(dim=(1, 2))
        assert apart[~a["relevant"]].max() < 1e-3
        assert apart[a["relevant"]].max() > 2
