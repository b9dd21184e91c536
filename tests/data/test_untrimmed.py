"""Every action of long videos, drawn and real, and the buffers they are in."""

import pytest
import torch
from checks import refused
from torch.testing import assert_close
from video_files import real, write

from lib.data import untrimmed
from lib.papers import detection
from lib.scores import detections as scored
from lib.worlds import worlds
from lib.worlds.actions import FPS

DIALS = {"instances": (2, 4), "idle": (0.3, 0.5)}


def drawn(world="lights_long", n=6, **more):
    splits = untrimmed.load(world, dials=DIALS, frames=64, size=32,
                            n_train=n, n_val=1, n_test=n, **more)
    return splits.train


@pytest.mark.parametrize("world", ["lights_long", "stage_long", "alone_long"])
def test_all_actions_hold_those_that_the_video_tells(world):
    """The script is read as it was filmed: the labelled actions are in it."""
    data = drawn(world)
    for i in range(len(data)):
        told, known = data.data[i], data.videos[i]
        own = known.labels == told["label"]
        assert_close(known.segments[own], told["segments"])
        assert known.name == told["name"]
        count = len(known.labels)
        assert count == len(told["segments"]) if world == "alone_long" else (
            count > len(told["segments"]) or count == 1)
        frames = (known.segments * FPS).round().long()
        assert (frames[1:, 0] > frames[:-1, 1]).all()


def test_dark_actions_move_and_idle_frames_hardly_do():
    """Where the script says that nothing happens, the actor stands still."""
    data = worlds.Puppets("train", 8, dials=worlds.WORLDS["lights_long"],
                          extras=["joints"])
    for i in range(8):
        joints, busy = data[i]["joints"], torch.zeros(63, dtype=torch.bool)
        ends, _ = untrimmed.all_actions(data, i)
        near = busy.clone()
        for start, end in ends.tolist():
            busy[start:end - 1] = True
            near[max(0, start - 1):end] = True
        speed = (joints[1:] - joints[:-1]).norm(dim=2).amax(1)
        assert speed[busy].mean() > 2 * speed[~near].mean()


def test_a_sample_and_its_rows():
    data = drawn()
    sample = data[1]
    assert sample["video"].shape == (64, 3, 32, 32)
    assert sample["actions"].shape == (4, 3)
    segments, labels = untrimmed.answers(sample["actions"])
    assert_close(segments, data.videos[1].segments)
    assert torch.equal(labels, data.videos[1].labels)
    assert torch.equal(data.film(1), sample["video"])
    assert data.seconds[1] == 8
    assert data.identity(0) != data.identity(1)
    assert drawn().contents() == data.contents()


def test_buffers_begin_by_halves_and_end_with_the_video():
    assert untrimmed.starts(10.0, 4.0) == [0, 2, 4, 6]
    assert untrimmed.starts(9.0, 4.0) == [0, 2, 4, 5]
    assert untrimmed.starts(4.0, 4.0) == untrimmed.starts(3.0, 4.0) == [0]


def test_what_a_buffer_shows():
    video = untrimmed.Annotated(
        "v", torch.tensor([[1.0, 3], [3.5, 6.5], [9.8, 20]]),
        torch.tensor([4, 5, 6]), torch.tensor([[0.0, 0.5], [5, 7]]))
    segments, labels, unsure = untrimmed.cut(video, 2.0, 8.0)
    # all of 5 is inside; half of 4 and a little of 6, which is unsure then
    assert labels.tolist() == [5]
    assert_close(segments, torch.tensor([[1.5, 4.5]]))
    assert_close(unsure, torch.tensor([[3.0, 5], [0, 1], [7.8, 8]]))


@pytest.fixture
def thumos(tmp_path):
    """Two videos in each part, of four and nine seconds, ever brighter."""
    for part, long in (("val", "validation"), ("test", "test")):
        films = tmp_path / "thumos14" / "videos" / long
        lists = tmp_path / "thumos14" / f"annotation_{part}"
        lists.mkdir(parents=True)
        films.mkdir(parents=True)
        for i, frames in enumerate((100, 225)):
            grey = torch.arange(20, 20 + frames, dtype=torch.uint8)
            write(films / f"video_{long}_000000{i}.mp4", grey[
                :, None, None, None].expand(-1, 48, 64, 3).numpy())
        (lists / f"Diving_{part}.txt").write_text(
            f"video_{long}_0000000 1.0 3.0\nvideo_{long}_0000001 2.0 6.0")
        (lists / f"Shotput_{part}.txt").write_text(
            f"video_{long}_0000001 7.0 8.5")
        (lists / f"Ambiguous_{part}.txt").write_text(
            f"video_{long}_0000001 0.0 0.5")
    return tmp_path


def test_thumos14_in_buffers(thumos):
    splits = untrimmed.load("thumos14", data_root=thumos, frames=32, size=32,
                            rate=8.0, cache=str(thumos / "cache"))
    data = splits.test
    assert splits.classes == ["Diving", "Shotput"]
    assert [v.name for v in data.videos] == ["video_test_0000000",
                                             "video_test_0000001"]
    # every tenth training video is for validation
    assert (len(splits.val.videos), len(splits.train.videos)) == (1, 1)
    assert data.seconds == [4, 9]
    assert data.places == [(0, 0), (1, 0), (1, 2), (1, 4), (1, 5)]
    assert data.film(0) is None
    sample = data[3]
    assert sample["video"].shape == (32, 3, 32, 32)
    assert (sample["name"], sample["start"], sample["fps"]) == (
        "video_test_0000001", 4.0, 8.0)
    segments, labels = untrimmed.answers(sample["actions"])
    assert_close(segments, torch.tensor([[3.0, 4.0]])[:len(labels)])
    # frame i is the one shown at 4 + (i + 0.5) / 8 seconds
    shown = 4 + (torch.arange(32) + 0.5) / 8
    middle = sample["video"][:, :, 16, 16].float().mean(1)
    assert (middle - (20 + (shown * 25).floor())).abs().max() < 6
    again = splits.test[3]  # from the cache
    assert torch.equal(again["video"], sample["video"])
    refused("splits", untrimmed.load, "thumos14", data_root=thumos, split="2")


def test_only_some_data_sets_tell_when():
    refused("only thumos14 and the built-in worlds", untrimmed.load, "ucf101")


def test_official_annotations_and_the_ignore_rules():
    videos, classes = untrimmed.official(real("annotations/thumos14"), "test")
    assert len(classes) == 20 and len(videos) == 210
    unsure = torch.cat([video.ambiguous for video in videos])
    assert len(unsure) > 80
    perfect = [detection.Detected(v.segments, v.labels,
                                  torch.ones(len(v.labels))) for v in videos]
    found = scored.map_scores(perfect, videos, (0.7,))["mAP@0.7"]
    # suppression by class: a few true actions overlap one of their class
    assert found > 0.99
    # misses on ambiguous segments cost nothing, whatever their score
    wrong = [detection.Detected(
        torch.cat((one.segments, v.ambiguous)),
        torch.cat((one.labels, one.labels[:1].expand(len(v.ambiguous)))),
        torch.cat((one.scores, torch.full((len(v.ambiguous),), 2.0))))
        for one, v in zip(perfect, videos, strict=True)]
    assert scored.map_scores(wrong, videos, (0.7,))["mAP@0.7"] > 0.97


def test_windows_of_thumos14_reach_most_actions():
    """S-CNN's windows, at ten frames a second, in the whole videos."""
    videos, _ = untrimmed.official(real("annotations/thumos14"), "test")
    videos = [v for v in videos[:40] if len(v.labels)]
    some = [detection.windows(max(64, int(v.segments.max() * 10) + 64),
                              (16, 32, 64, 128, 256, 512)[:4]) / 10
            for v in videos]
    assert scored.recall(some, videos, 0.5) > 0.8
