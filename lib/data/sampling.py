"""Which frames of a video are seen, and which of them make a clip."""

import numbers
from typing import Any

import torch
from torch import Tensor


def at_least(least: int, **given: int) -> None:
    """Raise a ValueError that names what is no whole number >= `least`."""
    for name, value in given.items():
        whole = isinstance(value, numbers.Integral)
        if not whole or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}={value!r}: use a whole number, "
                             f"at least {least}")


def sample_uniform(total: int, n: int) -> Tensor:
    """The centres (n,) of n equal segments; frames repeat if total < n."""
    at_least(1, total=total, n=n)
    return (2 * torch.arange(n) + 1) * total // (2 * n)


def sample_segments(
    total: int, n: int, generator: torch.Generator | None = None
) -> Tensor:
    """A random frame (n,) of each of n equal segments, as in TSN."""
    at_least(1, total=total, n=n)
    place = torch.rand(n, generator=generator, dtype=torch.float64)
    index = ((torch.arange(n) + place) * total / n).long()
    return index.clamp(max=total - 1)


def sample_windows(total: int, length: int, stride: int) -> Tensor:
    """Windows (K, length) every `stride` frames, covering the tail.

    If the stride misses the end, one more window ends at the last frame. A
    video shorter than `length` gives one window that holds its last frame.
    """
    at_least(1, total=total, length=length, stride=stride)
    last = max(total - length, 0)
    starts = [*range(0, last, stride), last]
    index = torch.tensor(starts)[:, None] + torch.arange(length)
    return index.clamp(max=total - 1)


def sample_clips(total: int, length: int = 8) -> Tensor:
    """Consecutive clips (K, length) without overlap.

    The frames of an incomplete last clip are left out, so that no frame
    counts twice; a video shorter than `length` gives one clip that holds
    its last frame.
    """
    at_least(1, total=total, length=length)
    clips = max(total // length, 1)
    index = torch.arange(clips * length).view(clips, length)
    return index.clamp(max=total - 1)


def sample_part(
    total: int, n: int, part: tuple[float, float] = (0.0, 1.0)
) -> Tensor:
    """As `sample_uniform`, from the shares [start, end) of the video."""
    start, end = part
    if not 0 <= start < end <= 1:
        raise ValueError(f"part {part}: use 0 <= start < end <= 1")
    # 2/3 is no binary number: rounding keeps 2/3 of 30 frames at 20
    first, last = round(start * total), round(end * total)
    first = min(first, total - 1)
    return first + sample_uniform(max(last - first, 1), n)


def flow_runs(index: Tensor, total: int, fields: int) -> Tensor:
    """The frames (n, fields + 1) between which `fields` flows are measured.

    They start at the sampled frames `index` (n,); near the end they end with
    the last frame, which repeats if the video is too short for them.
    """
    first = index.clamp(max=max(total - 1 - fields, 0))
    run = first[:, None] + torch.arange(fields + 1)
    return run.clamp(max=total - 1)


def thin(
    sample: dict[str, Any], frames: int,
    part: tuple[float, float] = (0.0, 1.0),
) -> dict[str, Any]:
    """Keep the centres of `frames` equal segments of a whole sample.

    What a reader does while it decodes. `fps` becomes the rate of the kept
    frames; `segments` stay in seconds of the whole video. Flow knows no
    frames left out: it is dropped. part: see `sample_part`.
    """
    total = len(sample["video"])
    kept = sample_part(total, frames, part)
    thinned = {
        key: value[kept] if key != "segments" and torch.is_tensor(value)
        else value for key, value in sample.items() if key != "flow"}
    share = part[1] - part[0]
    return thinned | {"fps": sample["fps"] * frames / (share * total)}


def clips_of(video: Tensor, length: int = 8,
             lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Cut videos into t = floor(n / length) clips; the rest is left out.

    A video shorter than one clip repeats its last frame until it is one.

    Args:
        video: ``(B, n, 3, H, W)``.
        lengths: frames ``(B,)`` of each video, where the rest is padding.

    Returns:
        The clips ``(B, t, length, 3, H, W)``, and which are real, ``(B, t)``:
        False where a clip is padding.

    Raises:
        ValueError: if `video` has another layout or holds no frame, or
            `lengths` are not from 1 to n.
    """
    if video.ndim != 5 or not video.shape[1]:
        raise ValueError("videos must be (B, n, 3, H, W), n at least 1, got "
                         f"{tuple(video.shape)}")
    batch, frames = video.shape[:2]
    if lengths is None:
        lengths = torch.full((batch,), frames)
    lengths = lengths.to(video.device)[:, None]
    if (lengths < 1).any() or (lengths > frames).any():
        raise ValueError(f"lengths {lengths.flatten().tolist()} of videos "
                         f"that hold {frames} frames: from 1 to that")
    frame = torch.arange(max(1, frames // length) * length,
                         device=video.device)
    rows = torch.arange(batch, device=video.device)[:, None]
    clips = video[rows, torch.minimum(frame, lengths - 1)]
    real = frame[::length] + length <= lengths.clamp_min(length)
    return clips.unflatten(1, (-1, length)), real


def some_clips(clips: Tensor, real: Tensor,
               count: int) -> tuple[Tensor, Tensor]:
    """`count` random clips of each video, in their order, of `clips_of`.

    A video of fewer real clips has padding behind them, as before.
    """
    draw = torch.rand(real.shape).to(real.device).masked_fill(~real, -1)
    pick = draw.topk(min(count, real.shape[1])).indices.sort(1).values
    rows = torch.arange(len(clips), device=clips.device)[:, None]
    return clips[rows, pick], real[rows, pick]
