"""Frames and clips are chosen as told, from all of a video or a part."""

import numpy as np
import pytest
import torch
from checks import refused

from lib.data import sampling


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
    assert torch.equal(*(
        sampling.sample_segments(total, n, torch.Generator().manual_seed(1))
        for _ in range(2)))


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


@pytest.mark.parametrize(("sample", "given"), [
    (sampling.sample_uniform, (0, 4)), (sampling.sample_segments, (4, 0)),
    (sampling.sample_windows, (0, 4, 1)), (sampling.sample_clips, (0,)),
    (sampling.sample_windows, (8, 4, 0))])
def test_nothing_can_be_sampled_from_nothing(sample, given):
    refused("1", sample, *given)


def test_a_part_of_a_video():
    assert sampling.sample_part(30, 4, (0, 2 / 3)).tolist() == [2, 7, 12, 17]
    assert sampling.sample_part(30, 2, (2 / 3, 1)).tolist() == [22, 27]
    assert sampling.sample_part(1, 2, (0.9, 1)).tolist() == [0, 0]
    for part in ((0.5, 0.5), (-0.1, 1), (0, 1.1)):
        refused("0 <= start < end <= 1", sampling.sample_part, 30, 4, part)


def test_flow_runs_end_with_the_last_frame():
    runs = sampling.flow_runs(torch.tensor([2, 13, 15]), 16, 2)
    assert runs.tolist() == [[2, 3, 4], [13, 14, 15], [13, 14, 15]]
    short = sampling.flow_runs(torch.tensor([1]), 2, 3)
    assert short.tolist() == [[0, 1, 1, 1]]


def video(batch, frames, side=4):
    """Frame i of every video is all i."""
    x = torch.arange(float(frames)).view(1, -1, 1, 1, 1)
    return x.expand(batch, -1, 3, side, side)


def numbers(clips):
    return clips[..., 0, 0, 0].int().tolist()


@pytest.mark.parametrize(("frames", "count"), [(8, 1), (15, 1), (16, 2),
                                               (29, 3)])
def test_clips_are_whole_and_in_order(frames, count):
    clips, real = sampling.clips_of(video(2, frames))
    assert clips.shape == (2, count, 8, 3, 4, 4) and real.all()
    assert numbers(clips.flatten(1, 2)) == [[*range(8 * count)]] * 2


def test_a_short_video_repeats_its_last_frame():
    clips, real = sampling.clips_of(video(1, 5))
    assert numbers(clips) == [[[0, 1, 2, 3, 4, 4, 4, 4]]]
    assert real.tolist() == [[True]]
    clips, _ = sampling.clips_of(video(1, 5), length=2)
    assert numbers(clips) == [[[0, 1], [2, 3]]]


def test_padded_videos_are_cut_as_if_they_came_alone():
    lengths = torch.tensor([24, 3, 16, 15])
    clips, real = sampling.clips_of(video(4, 24), lengths=lengths)
    assert real.sum(1).tolist() == [3, 1, 2, 1]
    for row, length in enumerate(lengths):
        alone, _ = sampling.clips_of(video(1, int(length)))
        assert numbers(clips[row][real[row]]) == numbers(alone[0])


def test_wrong_input_is_explained():
    refused(r"\(B, n, 3, H, W\)", sampling.clips_of, torch.rand(8, 3, 4, 4))
    refused(r"\(B, n, 3, H, W\)", sampling.clips_of, video(1, 0))
    for length in (0, 9):
        with pytest.raises(ValueError, match=f"{length}.*hold 8 frames"):
            sampling.clips_of(video(2, 8), lengths=torch.tensor([8, length]))


def test_some_clips_are_real_ones_in_their_order():
    clips = torch.arange(6).expand(200, 6)
    real = torch.ones(200, 6).bool()
    real[0, 2:] = False
    torch.manual_seed(0)
    found, kept = sampling.some_clips(clips, real, 3)
    assert found.shape == kept.shape == (200, 3)
    assert (found.diff(dim=1) > 0).all()
    assert kept[1:].all() and kept[0].sum() == 2
    assert found[0, kept[0]].tolist() == [0, 1]
    counts = torch.bincount(found[1:].flatten(), minlength=6)
    assert (counts > 60).all()  # each is drawn in about half of the videos
    assert sampling.some_clips(clips, real, 9)[0].shape == (200, 6)
