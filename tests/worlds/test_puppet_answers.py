"""The built-in videos' actions, and that every answer given is true."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from lib.worlds import people, scene
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
from lib.worlds.puppets import DIALS, PAUSE, UNTRIMMED, Puppets

CALM = replace(DIALS, size=128, front=0.0)
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
            assert box.tolist() == [
                x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_mask_is_what_differs_when_the_actor_is_recoloured(monkeypatch):
    """Paint all of the actor in one colour: what changes is the actor.

    The smooth edges reach two pixels over the mask at most. In these
    actions nothing stands before the actor; through the smooth edge of a
    thing in front, some of the actor would shine.
    """
    data = Puppets("train", 4, classes=["wave", "jump"],
                   dials=replace(DIALS, bystander=0, front=0))
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


def test_distractor_is_someone_else_or_missing():
    with_one = replace(DIALS, bystander=1.0)
    for sample in Puppets("test", 14, dials=with_one, extras=["distractor"]):
        box = sample["distractor"]
        assert not torch.isnan(box).all()
        seen = box[~torch.isnan(box).any(dim=1)]
        assert (seen[:, :2] < seen[:, 2:]).all()
    alone = replace(DIALS, bystander=0.0)
    sample = Puppets("test", 1, dials=alone, extras=["distractor"])[0]
    assert torch.isnan(sample["distractor"]).all()


# --------------------------------------------------------------- the time


@pytest.mark.parametrize("dials", [DIALS, UNTRIMMED])
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
    assert min(shares) >= dials.irrelevant[0] - half
    assert max(shares) <= dials.irrelevant[1] + half


def test_untrimmed_videos_hold_several_instances():
    counts = set()
    for sample in Puppets("val", 20, dials=UNTRIMMED):
        segments = sample["segments"]
        counts.add(len(segments))
        assert segments.min() >= 0
        assert segments.max() <= UNTRIMMED.frames / FPS
        assert (segments[:, 0] < segments[:, 1]).all()
        gaps = segments[1:, 0] - segments[:-1, 1]
        assert (gaps >= PAUSE / FPS).all()
    assert counts == set(
        range(UNTRIMMED.instances[0], UNTRIMMED.instances[1] + 1))


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
