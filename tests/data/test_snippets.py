"""Snippets of puppets and of files: where they lie and what moves in them."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_datasets import record, write
from video_files import real

from lib.data import datasets
from lib.data.sets import ut_interaction
from lib.data.sets.flying_chairs import FlyingChairs
from lib.data.snippets import Snippets, Streams, Whole, keep
from lib.data.transforms import Crops, ten_crops
from lib.worlds import worlds

DIALS = replace(worlds.ALONE, size=48)


@functools.cache
def whole(extras=()):
    return Whole(datasets.Thinned(worlds.Puppets(
        "train", 3, dials=DIALS, extras=extras), 4), (48, 48))


@functools.cache
def kept():
    return keep(whole(("flow",)), ("motion", "warped"))


def files(tmp_path, counts=(20,), **more):
    items = [record(write(tmp_path / f"{n}.avi", n), **more) for n in counts]
    return Whole(datasets.Videos(items, classes=["x"], size=32), (24, 32))


@pytest.mark.parametrize("fields", [1, 2, 5])
def test_a_snippet_is_neighbouring_frames_and_their_flow(fields):
    """Of the middles of nine equal parts; 16 frames, none is left out."""
    keys = ("video", "motion", "flow", "relevant", "mask", "name")
    one = Snippets(kept(), 9, fields=fields, keys=keys, sampling="uniform")[1]
    source = kept()[1]
    assert set(one) == set(keys) and one["name"] == source["name"]
    assert one["video"].shape == (9, 2, 3, 48, 48)
    assert one["motion"].shape == (9, 2 * fields, 48, 48)
    assert one["motion"].dtype == one["flow"].dtype == torch.float16
    for i in range(9):
        t = min(int((i + 0.5) * 16 / 9), 15 - fields)
        assert torch.equal(one["video"][i], source["video"][t:t + 2])
        for key in ("motion", "flow"):
            assert torch.equal(one[key][i],
                               source[key][t:t + fields].flatten(0, 1))
        assert one["relevant"][i] == source["relevant"][t]
        assert torch.equal(one["mask"][i], source["mask"][t])


def test_kept_flow_is_the_flow_measured_at_each_access():
    keys = ("motion", "warped", "video")
    found = []
    for data in (kept(), whole()):
        torch.manual_seed(0)
        found.append(Snippets(data, 5, fields=2, keys=keys)[2])
    for key in keys:
        # float16 before or after nothing: the same fields
        assert torch.equal(found[0][key], found[1][key]), key
    assert not torch.equal(found[1]["motion"], found[1]["warped"])


def test_flow_may_be_measured_otherwise():
    def at_rest(frames):
        return torch.zeros(len(frames) - 1, 2, *frames.shape[2:])

    for one in (Snippets(whole(), 2, keys=("motion",), measure=at_rest)[0],
                keep(whole(), ("motion",), at_rest)[0]):
        assert one["motion"].eq(0).all()


def test_snippets_are_random_and_in_their_segments():
    data = Snippets(kept(), 4, keys=("video",))
    frames = kept()[0]["video"]
    torch.manual_seed(0)
    seen = set()
    for _ in range(30):
        at = [[torch.equal(f, frame) for frame in frames].index(True)
              for f in data[0]["video"][:, 0]]
        # the last snippet cannot begin with the last frame
        assert [t // 4 for t in at] == [0, 1, 2, 3] and max(at) < 15
        seen.add(tuple(at))
    assert len(seen) > 20


@pytest.mark.parametrize("total", [1, 2, 3])
def test_videos_shorter_than_a_snippet_stand_still_at_the_end(total, tmp_path):
    data = files(tmp_path, (total,))
    for source in (data, keep(data, ("motion",))):
        one = Snippets(source, 9, fields=5, keys=("video", "motion"))[0]
        assert one["video"].shape == (9, 2, 3, 24, 32)
        moves = one["motion"].flatten(2).abs().amax(2)
        assert (moves[:, 2 * (total - 1):] == 0).all()


def test_files_give_what_they_hold(tmp_path):
    """Stretched, not letterboxed, to the size that is asked for."""
    data = files(tmp_path, (20, 12), spans=((5, 15),), main_actor="left")
    one = Snippets(data, 4, keys=("video", "relevant", "main_actor"),
                   sampling="uniform")[0]
    # frames 2, 7, 12, 17 of a video that brightens by 10 a frame
    red = one["video"][:, :, 0, 12, 16].float()
    want = torch.tensor([60.0, 110, 160, 210])
    assert (red - torch.stack((want, want + 10), 1)).abs().max() < 5
    assert one["relevant"].tolist() == [False, True, True, False]
    assert one["main_actor"] == "left" and len(data) == 2
    assert len(keep(data)[1]["video"]) == 12


def test_crops_of_snippets():
    keys = ("video", "flow", "mask")
    data = Snippets(kept(), 3, keys=keys, sampling="uniform")
    plain, seen = data[0], Crops(data, 40, 9)[0]
    assert ten_crops(48, 48, 40)[9] == (4, 4, 40, 40, True)
    assert torch.equal(seen["video"], plain["video"][..., 4:44, 4:44].flip(-1))
    assert torch.equal(seen["flow"][:, 0],
                       -plain["flow"][:, 0, 4:44, 4:44].flip(-1))
    assert torch.equal(seen["mask"], plain["mask"][:, 4:44, 4:44].flip(-1))


def test_wrong_snippets_are_explained():
    for wrong in ({"n": 0}, {"sampling": "random"}, {"fields": 0}):
        with pytest.raises(ValueError, match="at least one"):
            Snippets(whole(), **{"n": 3} | wrong)
    with pytest.raises(KeyError, match="no 'flow' in whole samples"):
        Snippets(whole(), 3, keys=("flow",))[0]


def test_flying_chairs_are_snippets(tmp_path):
    """One pair is one snippet, with the flow of the file."""
    folder = tmp_path / "flying_chairs" / "data"
    folder.mkdir(parents=True)
    (folder.parent / "FlyingChairs_train_val.txt").write_text("1\n")
    pixels = np.arange(2 * 6 * 8 * 3, dtype=np.uint8).reshape(2, 6, 8, 3)
    for name, frame in zip(("img1", "img2"), pixels, strict=True):
        Image.fromarray(frame).save(folder / f"00001_{name}.ppm")
    field = np.random.default_rng(0).normal(size=(6, 8, 2)).astype("<f4")
    head = b"PIEH" + np.int32([8, 6]).tobytes()
    (folder / "00001_flow.flo").write_bytes(head + field.tobytes())
    data = Snippets(FlyingChairs(tmp_path, "train"), 1, keys=("video", "flow"))
    assert torch.equal(data[0]["video"][0],
                       torch.from_numpy(pixels).permute(0, 3, 1, 2))
    torch.testing.assert_close(
        data[0]["flow"][0], torch.from_numpy(field).permute(2, 0, 1).half())
    assert Crops(data, 4, 0)[0]["flow"].shape == (1, 2, 4, 4)


def test_real_clips():
    lists = ut_interaction.read(real("ut_interaction"))
    data = datasets.Videos(lists.test[:1], classes=lists.classes)
    one = Snippets(Whole(data, (72, 96)), 3, fields=2,
                   keys=("video", "motion", "relevant"))[0]
    assert one["video"].shape == (3, 2, 3, 72, 96)
    assert one["motion"].float().abs().amax((1, 2, 3)).min() > 0
    assert one["relevant"].shape == (3,)


def streams_of(fields=2):
    return Streams((48, 48), 32, fields), datasets.Thinned(
        worlds.Puppets("test", 3, dials=DIALS), 16)


def test_streams_read_videos_once_and_give_each_stream_its_entry():
    streams, videos = streams_of()
    for stream, key in Streams.KEYS.items():
        one = streams(videos, stream, 3, 4)[1]
        assert {key, "label"} <= {*one} and one[key].shape[0] == 3
        assert one[key].shape[-2:] == (32, 32)
        if stream != "RGB":
            assert one[key].shape[1] == 2 * streams.fields
    assert streams.whole(videos) is streams.whole(videos)
    assert torch.equal(*(streams(videos, "flow", 3, 4)[1]["motion"]
                         for _ in range(2)))
    # and what is known of the snippets
    one, truth = streams.sample(videos, 1, 5), streams.truth(videos, 5)
    assert one["video"].shape == (5, 3, 32, 32)
    assert one["mask"].shape == (5, 32, 32)
    assert torch.equal(truth["relevant"][1], one["relevant"])
    assert truth["label"].tolist() == [videos[i]["label"] for i in range(3)]


@pytest.mark.parametrize("target, key", [("exact", "flow"), ("dis", "motion")])
def test_pairs_of_frames_come_with_the_flow_to_learn(target, key):
    streams, videos = streams_of(fields=1)
    one = streams.pairs(videos, target, 4)[0]
    assert one["video"].shape == (1, 2, 3, 32, 32)
    assert one[key].shape == (1, 2, 32, 32)
    assert "flow" not in videos[0]  # the videos are as they were
