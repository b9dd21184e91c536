"""Motion, parts of a video and identities, of puppets and of files."""

import pytest
import torch
from video_files import noisy, write

from lib.data import datasets, flow, sampling
from lib.data.sets.records import Record
from lib.worlds import puppets


def record(path):
    return Record(path, 0, path.stem, "g01")


@pytest.fixture
def both(tmp_path):
    """A puppet's frames, and a file that holds them without loss."""
    whole = puppets.Puppets("test", 1)[0]["video"]
    path = tmp_path / "clip.avi"
    write(path, whole.permute(0, 2, 3, 1).numpy(), "ffv1", "bgr0")
    return whole, path


def test_motion_is_the_flow_that_follows_each_frame():
    plain = datasets.load(n_train=1, n_val=1, n_test=2, frames=4).test
    moving = datasets.load(n_train=1, n_val=1, n_test=2, frames=4,
                           fields=2).test
    assert "motion" not in plain[1]
    assert torch.equal(plain[1]["video"], moving[1]["video"])
    whole = moving.data[1]["video"]
    motion = moving[1]["motion"]
    assert motion.shape == (4, 4, 64, 64) and motion.dtype == torch.float16
    for row, start in enumerate([2, 6, 10, 13]):  # 13: frames end at 15
        by_hand = flow.dis(whole[start:start + 3]).flatten(0, 1)
        assert torch.equal(motion[row], by_hand.half())


def test_motion_of_a_file_follows_its_own_frames(both):
    whole, path = both
    data = datasets.Videos([record(path)], classes=["x"], frames=4, size=64,
                           fields=2)
    sample = data[0]
    kept = sampling.sample_uniform(16, 4)
    assert torch.equal(sample["video"], whole[kept])
    starts = torch.tensor([2, 6, 10, 13])  # frames end at 15
    by_hand = flow.stacked(whole[starts[:, None] + torch.arange(3)])
    assert torch.equal(sample["motion"], by_hand)


def test_a_part_of_each_video(both):
    whole, path = both
    real = datasets.Videos([record(path)], classes=["x"], frames=4, size=64,
                           fields=1)
    drawn = datasets.load(n_train=1, n_val=1, n_test=1, frames=4,
                          fields=1).test
    for data in (real, drawn):
        first, last = data.between(0, 0.5)[0], data.between(0.5, 1)[0]
        assert torch.equal(first["video"], whole[[1, 3, 5, 7]])
        assert torch.equal(last["video"], whole[[9, 11, 13, 15]])
        # 4 of 8 frames at the file's rate
        assert first["fps"] == pytest.approx(2 * data[0]["fps"])
        # no frame follows the last one: its run begins a frame earlier
        assert torch.equal(last["motion"][3],
                           flow.dis(whole[[14, 15]])[0].half())
        with pytest.raises(ValueError, match="part"):
            data.between(0.5, 0.2)[0]
        names = {data.identity(0), data.between(0, 0.5).identity(0)}
        assert len(names) == 2 and data.identity(0) in names


def test_identity_tells_what_a_sample_depends_on(tmp_path):
    path = tmp_path / "clip.avi"
    write(path, noisy(10))
    names = [
        datasets.Videos([record(path)], classes=["x"], **options).identity(0)
        for options in ({}, {"frames": 8}, {"size": 32}, {"fields": 1})]
    write(path, noisy(11))
    names.append(
        datasets.Videos([record(path)], classes=["x"]).identity(0))
    drawn = {"n_train": 1, "n_val": 1, "n_test": 3}
    for options in ({}, {"frames": 8}, {"size": 32}, {"fields": 1},
                    {"seed": 1}, {"classes": ["walk"]}):
        test = datasets.load(**drawn, **options).test
        names += [test.identity(0), test.identity(2)]
    assert len(set(names)) == len(names) == 17
    assert datasets.load(**drawn).test.identity(2) in names
