"""Frames are chosen as told, samples move as a whole, the cache heals."""

import os

import numpy as np
import pytest
import torch

from lib.data import decode, sampling, store, transforms


@pytest.mark.parametrize("total", [1, 2, 5, 16, 17, 300])
@pytest.mark.parametrize("n", [1, 4, 16])
def test_uniform_is_the_centre_of_equal_segments(total, n):
    index = sampling.sample_uniform(total, n)
    centres = (np.arange(n) + 0.5) * total / n
    assert index.tolist() == np.floor(centres).astype(int).tolist()
    if total == n:
        assert index.tolist() == list(range(n))


@pytest.mark.parametrize(("total", "n"), [(100, 7), (16, 16), (3, 8), (1, 4)])
def test_segments_stay_in_their_segment_and_reach_all_of_it(total, n):
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(300):
        index = sampling.sample_segments(total, n, generator)
        low = torch.floor(torch.arange(n) * total / n)
        high = torch.ceil((torch.arange(n) + 1) * total / n)
        assert (low <= index).all() and (index < high).all()
        seen.update(index.tolist())
    assert seen == set(range(total))
    again = [
        sampling.sample_segments(total, n, torch.Generator().manual_seed(1))
        for _ in range(2)
    ]
    assert torch.equal(*again)


def test_windows_cover_the_tail():
    windows = sampling.sample_windows(20, 8, 5)
    assert windows[:, 0].tolist() == [0, 5, 10, 12]
    assert windows[-1].tolist() == list(range(12, 20))
    for total in range(8, 40):
        windows = sampling.sample_windows(total, 8, 5)
        assert set(windows.flatten().tolist()) == set(range(total))
        assert len(set(windows[:, 0].tolist())) == len(windows)
    assert sampling.sample_windows(3, 8, 5).tolist() == [[0, 1, 2] + [2] * 5]


def test_clips_do_not_overlap_and_leave_out_the_rest():
    index = sampling.sample_clips(27)
    assert index.flatten().tolist() == list(range(24))
    assert index.shape == (3, 8)
    assert sampling.sample_clips(8, 8).tolist() == [list(range(8))]
    assert sampling.sample_clips(2, 4).tolist() == [[0, 1, 1, 1]]


def test_nothing_can_be_sampled_from_nothing():
    calls = (
        lambda: sampling.sample_uniform(0, 4),
        lambda: sampling.sample_segments(4, 0),
        lambda: sampling.sample_windows(0, 4, 1),
        lambda: sampling.sample_clips(0),
        lambda: sampling.sample_windows(8, 4, 0),
    )
    for call in calls:
        with pytest.raises(ValueError, match="1"):
            call()


def boxed(height, width, *boxes):
    """A sample whose boxes are white in the video and True in the mask."""
    shape = (len(boxes), height, width)
    mask = torch.zeros(shape, dtype=torch.bool)
    for t, (x1, y1, x2, y2) in enumerate(boxes):
        if x1 == x1:
            mask[t, y1:y2, x1:x2] = True
    frames = mask[:, None].expand(-1, 3, -1, -1).to(torch.uint8) * 255
    return {"video": frames, "mask": mask, "name": "a", "label": 3,
            "boxes": torch.tensor(boxes, dtype=torch.float32)}


def tight(mask):
    """The tightest box of a mask, with exclusive far edges."""
    ys, xs = mask.nonzero().unbind(1)
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1,
            int(ys.max()) + 1]


NOWHERE = (float("nan"),) * 4
MOVES = {
    "resize": lambda s: transforms.resize(s, 40, 120),
    "letterbox": lambda s: transforms.letterbox(s, 120),
    "centre_crop": lambda s: transforms.centre_crop(s, 32),
    "flip": lambda s: transforms.flip(s, p=1.0),
}


@pytest.mark.parametrize("name", MOVES)
def test_frames_masks_and_boxes_move_together(name):
    sample = boxed(40, 60, (20, 8, 36, 24), NOWHERE)
    kept = {key: str(value) for key, value in sample.items()}
    moved = MOVES[name](sample)
    assert {key: str(value) for key, value in sample.items()} == kept
    assert moved["video"].dtype == torch.uint8
    assert moved["mask"].dtype == torch.bool
    assert moved["boxes"].dtype == torch.float32
    for key in ("video", "mask", "boxes"):
        assert type(moved[key]) is torch.Tensor
    assert moved["boxes"][0].tolist() == tight(moved["mask"][0])
    assert moved["boxes"][1].isnan().all() and not moved["mask"][1].any()
    white = moved["video"][0, 0] > 191
    assert (white == moved["mask"][0]).float().mean() > 0.99
    assert (moved["name"], moved["label"]) == ("a", 3)
    assert moved["mask"].shape[-2:] == moved["video"].shape[-2:]


@pytest.mark.parametrize(("height", "width"), [(40, 60), (61, 33), (7, 500)])
def test_letterbox_keeps_the_aspect_ratio(height, width):
    bright = torch.full((2, 3, height, width), 250, dtype=torch.uint8)
    frames = transforms.letterbox({"video": bright}, 64)["video"]
    assert frames.shape == (2, 3, 64, 64)
    picture = frames[0, 0] > 200
    x1, y1, x2, y2 = tight(picture)
    assert picture[y1:y2, x1:x2].all()
    assert (frames[0, 0][~picture] == 128).all()
    scale = 64 / max(height, width)
    assert abs((x2 - x1) - width * scale) <= 0.5
    assert abs((y2 - y1) - height * scale) <= 0.5
    assert abs(x1 - (64 - x2)) <= 1 and abs(y1 - (64 - y2)) <= 1


def test_a_box_outside_the_crop_is_none():
    sample = boxed(40, 60, (0, 0, 4, 4), (0, 0, 30, 20))
    boxes = transforms.centre_crop(sample, 32)["boxes"]
    assert boxes[0].isnan().all()
    assert boxes[1].tolist() == [0, 0, 16, 16]


def test_flip_twice_is_nothing_and_swaps_the_actor():
    sample = boxed(40, 60, (20, 8, 36, 24), NOWHERE)
    sample["main_actor"] = "left"
    once = transforms.flip(sample, p=1.0)
    assert once["main_actor"] == "right"
    assert once["boxes"][0].tolist() == [24, 8, 40, 24]
    twice = transforms.flip(once, p=1.0)
    assert torch.equal(twice["video"], sample["video"])
    assert twice["main_actor"] == "left"
    assert transforms.flip(sample, p=0.0) is sample


def test_flip_is_a_coin():
    sample = boxed(40, 60, (0, 0, 4, 4))
    generator = torch.Generator().manual_seed(0)
    flips = sum(
        transforms.flip(sample, 0.25, generator) is not sample for _ in range(200)
    )
    assert 30 < flips < 70


def test_what_cannot_move_is_refused():
    sample = boxed(40, 60, (0, 0, 4, 4)) | {"flow": torch.zeros(0, 2, 40, 60)}
    with pytest.raises(ValueError, match="flow"):
        transforms.letterbox(sample, 64)
    with pytest.raises(ValueError, match="40 x 60"):
        transforms.centre_crop(boxed(40, 60, (0, 0, 4, 4)), 48)


def test_video_offers_them_too():
    for name in ("letterbox", "resize", "centre_crop", "flip",
                 "sample_uniform", "sample_segments", "sample_windows",
                 "sample_clips"):
        assert getattr(decode, name) is getattr(sampling, name)


class Maker:
    """Makes a clip, and counts how often."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        clip = torch.arange(2 * 3 * 8 * 8, dtype=torch.uint8)
        return {"video": clip.view(2, 3, 8, 8),
                "fps": torch.tensor(29.97, dtype=torch.float64)}


def test_cache_keeps_and_tells_apart(tmp_path):
    path = tmp_path / "a.avi"
    path.write_bytes(b"1")
    cache, make = store.ClipCache(tmp_path / "cache"), Maker()
    first = cache.get(path, (16, 64), make)
    second = cache.get(path, (16, 64), make)
    assert make.calls == 1
    for key, value in first.items():
        assert torch.equal(value, second[key])
        assert value.dtype == second[key].dtype
    cache.get(path, (16, 32), make)
    assert make.calls == 2
    path.write_bytes(b"22")
    cache.get(path, (16, 64), make)
    assert make.calls == 3
    assert {p.suffix for p in cache.folder.iterdir()} == {".npz"}


def test_a_damaged_cache_file_is_made_again(tmp_path):
    path = tmp_path / "a.avi"
    path.write_bytes(b"1")
    cache, make = store.ClipCache(tmp_path / "cache"), Maker()
    want = cache.get(path, (), make)
    file = next(cache.folder.iterdir())
    good = file.read_bytes()
    rng = np.random.default_rng(0)
    damages = [b"", good[:1], good[:100], good[:-1], b"nothing" * 50]
    for _ in range(200):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        damages.append(bytes(bad))
    for bad in damages:
        file.write_bytes(bad)
        got = cache.get(path, (), make)
        assert got.keys() == want.keys()
        assert all(torch.equal(got[key], want[key]) for key in want)
    # Most bits are covered by a checksum or a name, some mean nothing.
    assert make.calls > 150
    file.write_bytes(b"")
    cache.get(path, (), make)
    assert file.read_bytes() == good


def test_a_cache_file_that_lost_an_entry_is_made_again(tmp_path):
    """A flipped bit in zip's directory can hide one from every checksum."""
    path = tmp_path / "a.avi"
    path.write_bytes(b"1")
    cache, make = store.ClipCache(tmp_path / "cache"), Maker()
    want = cache.get(path, (), make)
    file = next(cache.folder.iterdir())
    with np.load(file) as kept:
        arrays = {key: kept[key] for key in kept.files}
    del arrays[next(iter(want))]
    np.savez(file, **arrays)
    assert cache.get(path, (), make).keys() == want.keys()
    assert make.calls == 2


def test_a_full_disk_ends_nothing(tmp_path):
    """The clip is given, nothing half written stays, one warning says so."""
    import resource

    path = tmp_path / "a.avi"
    path.write_bytes(b"1")
    cache, make = store.ClipCache(tmp_path / "cache"), Maker()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        with pytest.warns(UserWarning, match="cache takes no more") as said:
            for size in (16, 32, 64):
                got = cache.get(path, (size,), make)
                assert torch.equal(got["video"], make()["video"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(said) == 1 and not list(cache.folder.iterdir())


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.avi"
    path.write_bytes(b"1")
    cache = store.ClipCache(tmp_path / "cache")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sampling.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.get(path, (), Maker())
    assert not list(cache.folder.iterdir())


def test_a_cache_without_a_place_is_no_must(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.warns(UserWarning, match="file takes no more"):
        cache = store.ClipCache(tmp_path / "file")
    make = Maker()
    assert cache.get(tmp_path / "file", (), make)["fps"] and make.calls == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_of_frames_is_stamped_by_its_files(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"1")
    stamps = {store.stamp(tmp_path)}
    (tmp_path / "2.jpg").write_bytes(b"")
    stamps.add(store.stamp(tmp_path))
    (tmp_path / "1.jpg").write_bytes(b"2")
    os.utime(tmp_path / "1.jpg", ns=(0, 1))
    stamps.add(store.stamp(tmp_path))
    assert len(stamps) == 3


@pytest.mark.parametrize("size", [0, -8, 1, 2.5, "8", None, True])
def test_sizes_are_named(size):
    sample = boxed(40, 60, (0, 0, 4, 4))
    for call in (lambda: transforms.letterbox(sample, size),
                 lambda: transforms.resize(sample, 20, size),
                 lambda: transforms.resize(sample, size, 20)):
        with pytest.raises(ValueError, match=r"(size|width|height)=.*whole"):
            call()
