"""Videos are cut into clips: whole, in order, and as long as they are."""

import pytest
import torch

from lib.data import sampling


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
    expected = [list(range(8 * i, 8 * i + 8)) for i in range(count)]
    assert numbers(clips) == [expected] * 2


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
    with pytest.raises(ValueError, match=r"\(B, n, 3, H, W\)"):
        sampling.clips_of(torch.rand(8, 3, 4, 4))
    with pytest.raises(ValueError, match=r"\(B, n, 3, H, W\)"):
        sampling.clips_of(video(1, 0))
    for length in (0, 9):
        with pytest.raises(ValueError, match=f"{length}.*hold 8 frames"):
            sampling.clips_of(video(2, 8), lengths=torch.tensor([8, length]))
