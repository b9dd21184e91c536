"""Video files for tests: frames that carry their number; equal samples."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from lib.data.sets.records import data_folder

CELL = 8
FORMATS = [
    ("clip.avi", "mpeg4", "yuv420p"),
    ("clip.avi", "mjpeg", "yuvj420p"),
    ("clip.mp4", "libx264", "yuv420p"),
    ("clip.mkv", "libx264", "yuv420p"),
    ("clip.webm", "libvpx-vp9", "yuv420p"),
]


def coded(count, height=48, width=64):
    """Frames (T, H, W, 3) that carry their number in six squares."""
    rng = np.random.default_rng(0)
    frames = rng.integers(60, 190, (1, height // 8, width // 8, 3))
    frames = frames.repeat(8, 1).repeat(8, 2).repeat(count, 0)
    for t in range(count):
        frames[t] = np.roll(frames[t], 5 * t, 1)
        for bit in range(6):
            at = slice(bit * CELL, (bit + 1) * CELL)
            frames[t, :CELL, at] = 255 * (t >> bit & 1)
    return frames.astype(np.uint8)


def noisy(count):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 96, 128, 3), dtype=np.uint8)


def numbers(clip):
    """The numbers that the frames of a clip (T, 3, H, W) carry."""
    top = clip[:, :, :CELL, : 6 * CELL].float().mean(1)
    squares = top.unflatten(2, (6, CELL))[:, 2:6, :, 2:6].mean((1, 3))
    return ((squares > 127) * 2 ** torch.arange(6)).sum(1).tolist()


def write(path, frames, codec="mpeg4", pix_fmt="yuv420p", times=None,
          b_frames=None, base=Fraction(1, 25), **settings):
    """Encode frames (T, H, W, 3) at 25 per second, or `times` of `base`."""
    with av.open(str(path), "w", **settings) as file:
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.codec_context.gop_size = 10
        stream.codec_context.time_base = base
        if b_frames is not None:
            stream.codec_context.max_b_frames = b_frames
        for t, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.time_base = base
            frame.pts = t if times is None else times[t]
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return Path(path)


# 20 frames in 0.2 seconds, then 20 in 3.8: milliseconds
UNEVEN = [*range(0, 200, 10), *range(200, 4000, 190)]


def uneven(path, codec="libx264"):
    return write(path, coded(40), codec, times=UNEVEN, b_frames=0,
                 base=Fraction(1, 1000))


def pictures(folder, frames, name="img_{:05d}.png", start=1):
    """A folder of images, as many copies of data sets have them."""
    folder.mkdir(parents=True)
    for t, pixels in enumerate(frames, start):
        Image.fromarray(pixels).save(folder / name.format(t))
    return folder


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def real(*names):
    """The folder of the real data; skips where it has none of `names`."""
    folder = data_folder()
    if not any((folder / name).exists() for name in names):
        pytest.skip(f"no {names[0]} below DATA_ROOT")
    return folder


def real_samples():
    return sorted((real("samples") / "samples").iterdir())


def same(one, other):
    """Samples or batches have the same keys, values and types."""
    assert one.keys() == other.keys()
    for key, value in one.items():
        if torch.is_tensor(value) or (
                isinstance(value, list) and torch.is_tensor(value[0])):
            torch.testing.assert_close(
                value, other[key], rtol=0, atol=0, equal_nan=True,
                msg=lambda text, key=key: f"{key}: {text}")
        else:
            assert value == other[key] and type(value) is type(other[key])
