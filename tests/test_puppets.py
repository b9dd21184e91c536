"""The built-in videos: their answers are true, and their draws honest."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from lib import ROOT, puppet_people, puppet_scene
from lib.puppet_actions import (
    ACTIONS,
    CLASSES,
    IDLE,
    JOINTS,
    PAIRS,
    Body,
    poses,
    skeleton,
)
from lib.puppets import (
    ACTORS,
    DIALS,
    EXTRAS,
    FPS,
    PAUSE,
    UNTRIMMED,
    Dials,
    Puppets,
    camel,
)

CALM = replace(DIALS, size=128, front=0.0)
WINDOW = np.ones((3, 3), np.uint8)
ALWAYS = ("video", "mask", "boxes", "segments", "relevant")


def writer():
    """The script as a module; its folder is no package."""
    path = ROOT / "data_scripts" / "puppets.py"
    spec = importlib.util.spec_from_file_location("write_puppets", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in ALWAYS)


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
    paint = puppet_scene.paint

    def remember(*given):
        shown.append(paint(*given))
        return shown[-1]

    monkeypatch.setattr(puppet_scene, "paint", remember)
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
    costume = puppet_people.costume
    monkeypatch.setattr(puppet_people, "costume", lambda *given: [
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


# -------------------------------------------------------------- the draws


def test_same_seed_same_bytes():
    a, b = Puppets("train", 6, seed=3), Puppets("train", 60, seed=3)
    c, d = Puppets("train", 6, seed=4), Puppets("val", 6, seed=3)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    for i in (5, 0):
        assert same(a[i], b[i])
    assert (before[0] == np.random.get_state()[1]).all()
    assert torch.equal(before[1], torch.get_rng_state())
    for other in (c, d):
        pairs = list(zip(a, other, strict=True))
        for one, two in pairs:  # another room, seen in the corner
            corners = (s["video"][:, :, :8, :8] for s in (one, two))
            assert not torch.equal(*corners)
        assert not all(torch.equal(one["relevant"], two["relevant"])
                       for one, two in pairs)


def test_extras_change_no_pixel():
    plain, rich = Puppets("test", 8), Puppets("test", 8, extras=EXTRAS)
    for a, b in zip(plain, rich, strict=True):
        assert same(a, b)
        assert set(b) - set(a) == set(EXTRAS)


def test_splits_share_no_group():
    groups = {split: {sample["group"] for sample in Puppets(split, 60)}
              for split in ACTORS}
    assert all(len(seen) > 15 for seen in groups.values())
    names = list(groups)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert not groups[one] & groups[other]


def test_samples_keep_the_contract():
    data = Puppets("train", 42, extras=EXTRAS)
    samples = list(data)
    counts = np.bincount([sample["label"] for sample in samples])
    assert counts.tolist() == [3] * len(CLASSES)
    assert len({sample["name"] for sample in samples}) == len(samples)
    for sample in samples[: len(CLASSES)]:
        t, side = DIALS.frames, DIALS.size
        assert sample["video"].shape == (t, 3, side, side)
        assert sample["video"].dtype == torch.uint8
        assert sample["mask"].shape == (t, side, side)
        assert sample["mask"].dtype == torch.bool
        assert sample["boxes"].shape == (t, 4)
        assert sample["flow"].shape == (t - 1, 2, side, side)
        assert sample["joints"].shape == (t, len(JOINTS), 2)
        for key in ("boxes", "segments", "flow", "joints", "distractor"):
            assert sample[key].dtype == torch.float32
        action = camel(data.classes[sample["label"]])
        assert sample["name"].startswith(f"v_{action}_{sample['group']}_c")
        assert sample["fps"] == FPS
        assert sample["mask"].any(dim=(1, 2)).float().mean() > 0.9


@pytest.mark.parametrize("size", [48, 112, 224])
def test_scenes_scale_with_the_frame(size):
    """The same scene at another size, seen at 48 px, is nearly the same."""
    small = Puppets("train", 2, dials=replace(DIALS, size=48))
    large = Puppets("train", 2, dials=replace(DIALS, size=size))
    for a, b in zip(small, large, strict=True):
        share = b["mask"].float().mean() / a["mask"].float().mean()
        assert 0.85 < share < 1.15
        scaled = b["boxes"] * 48 / size
        assert torch.nanmean((scaled - a["boxes"]).abs()) < 1.0


@pytest.mark.parametrize("wrong", [
    {"size": 8}, {"frames": 1}, {"actor": (0.7, 0.5)}, {"actor": 0.5},
    {"clutter": (-1, 2)}, {"front": 2.0}, {"bystander": -0.1},
    {"irrelevant": (0.5, 0.99)}, {"instances": (0, 1)}, {"instances": (1, 9)},
])
def test_bad_dials_are_refused(wrong):
    with pytest.raises(ValueError, match="Dials: "):
        Dials(**wrong)


@pytest.mark.parametrize("wrong, word", [
    ({"split": "tset"}, "split"), ({"classes": ["fly"]}, "fly"),
    ({"classes": []}, "classes"), ({"extras": ["flwo"]}, "flwo"),
])
def test_bad_arguments_are_named(wrong, word):
    with pytest.raises(ValueError, match=word):
        Puppets(**{"split": "train", "n": 2} | wrong)


# -------------------------------------------------------------- the files


def test_written_files_are_the_videos(tmp_path: Path):
    """Mean error under 6 grey levels: the codec halves the resolution of
    colours, which costs about 4 at 64 px."""
    script = writer()
    counts = script.main(tmp_path, n_train=28, n_test=14)
    assert counts == {
        "classes": 14, "train": 28, "test": 14, "written": 42}
    data = Puppets("train", 28)
    for i in (0, 13, 27):
        name = data.name(i)
        path = tmp_path / "UCF-101" / name.split("_")[1] / f"{name}.avi"
        with av.open(str(path)) as file:
            frames = [frame.to_ndarray(format="rgb24")
                      for frame in file.decode(video=0)]
            assert file.streams.video[0].codec_context.codec_tag == "XVID"
            assert file.streams.video[0].average_rate == FPS
        want = data[i]["video"].permute(0, 2, 3, 1).numpy()
        assert len(frames) == len(want)
        error = np.abs(np.stack(frames).astype(int) - want)
        assert error.mean() < 6


def test_written_lists_are_as_official_ones(tmp_path: Path):
    script = writer()
    script.main(tmp_path, n_train=28, n_test=14, size=32, frames=10)
    lists = tmp_path / "ucfTrainTestlist"
    classes = [line.split() for line in
               (lists / "classInd.txt").read_text().splitlines()]
    number = {name: n for n, name in classes}
    assert [n for n, _ in classes] == [str(i) for i in range(1, 15)]
    train = (lists / "trainlist01.txt").read_text().splitlines()
    test = (lists / "testlist01.txt").read_text().splitlines()
    assert (len(train), len(test)) == (28, 14)
    for line in train:
        path, given = line.split()
        assert number[path.split("/")[0]] == given
        assert (tmp_path / "UCF-101" / path).is_file()
    groups = [{line.split("_")[2] for line in lines}
              for lines in (train, test)]
    assert not groups[0] & groups[1]
    assert not list(tmp_path.rglob("*.part"))


def test_writing_again_mends_and_refuses_a_mixture(tmp_path: Path):
    script = writer()
    small = {"n_train": 14, "n_test": 14, "size": 32, "frames": 10}
    script.main(tmp_path, **small)
    assert script.main(tmp_path, **small)["written"] == 0
    next(tmp_path.rglob("*.avi")).unlink()
    assert script.main(tmp_path, **small)["written"] == 1
    with pytest.raises(ValueError, match="other settings"):
        script.main(tmp_path, **small | {"seed": 1})
    with pytest.raises(ValueError, match="even"):
        script.main(tmp_path / "odd", **small | {"size": 33})
