"""The built-in videos as a data set: honest draws, clear errors, files."""

from dataclasses import replace

import av
import numpy as np
import puppets as writer
import pytest
import torch

from lib.worlds.actions import CLASSES, FPS, JOINTS
from lib.worlds.worlds import ACTORS, ALONE, EXTRAS, Dials, Puppets, camel

ALWAYS = ("video", "mask", "boxes", "segments", "relevant")


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in ALWAYS)


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
        t, side = ALONE.frames, ALONE.size
        assert sample["video"].shape == (t, 3, side, side)
        assert sample["video"].dtype == torch.uint8
        assert sample["mask"].shape == (t, side, side)
        assert sample["mask"].dtype == torch.bool
        assert sample["boxes"].shape == (t, 4)
        assert sample["flow"].shape == (t - 1, 2, side, side)
        assert sample["joints"].shape == (t, len(JOINTS), 2)
        for key in ("boxes", "segments", "flow", "joints", "rivals"):
            assert sample[key].dtype == torch.float32
        action = camel(data.classes[sample["label"]])
        assert sample["name"].startswith(f"v_{action}_{sample['group']}_c")
        assert sample["fps"] == FPS
        assert sample["mask"].any(dim=(1, 2)).float().mean() > 0.9


@pytest.mark.parametrize("size", [48, 112, 224])
def test_scenes_scale_with_the_frame(size):
    """The same scene at another size, seen at 48 px, is nearly the same."""
    small = Puppets("train", 2, dials=replace(ALONE, size=48))
    large = Puppets("train", 2, dials=replace(ALONE, size=size))
    for a, b in zip(small, large, strict=True):
        share = b["mask"].float().mean() / a["mask"].float().mean()
        assert 0.85 < share < 1.15
        scaled = b["boxes"] * 48 / size
        assert torch.nanmean((scaled - a["boxes"]).abs()) < 1.0


@pytest.mark.parametrize("wrong", [
    {"size": 8}, {"frames": 1}, {"actor": (0.7, 0.5)}, {"actor": 0.5},
    {"clutter": (-1, 2)}, {"front": 2.0}, {"bystander": -0.1},
    {"idle": (0.5, 0.99)}, {"instances": (0, 1)}, {"instances": (1, 9)},
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


def test_written_files_are_the_videos(tmp_path):
    """Mean error under 6 grey levels: the codec halves the resolution of
    colours, which costs about 4 at 64 px."""
    counts = writer.main(tmp_path, n_train=28, n_test=14)
    assert counts == {"classes": 14, "train": 28, "test": 14, "written": 42}
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


def test_writing_again_mends_and_refuses_a_mixture(tmp_path):
    small = {"n_train": 14, "n_test": 14, "size": 32, "frames": 10}
    writer.main(tmp_path, **small)
    assert writer.main(tmp_path, **small)["written"] == 0
    next(tmp_path.rglob("*.avi")).unlink()
    assert writer.main(tmp_path, **small)["written"] == 1
    with pytest.raises(ValueError, match="other settings"):
        writer.main(tmp_path, **small | {"seed": 1})
    with pytest.raises(ValueError, match="even"):
        writer.main(tmp_path / "odd", **small | {"size": 33})
