"""A clip out of a video: which frames, in what size, kept where.

Samples (the dicts of `lib/__init__.py`) are resized, cropped and flipped as
a whole: frames, masks and boxes together.
"""

import hashlib
import io
import numbers
import os
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

# What depends on the pixel grid in ways these transforms do not know.
FIXED = ("flow", "motion", "joints", "distractor")

# What numpy raises for a file that is missing, cut or altered.
DAMAGED = (
    OSError, EOFError, ValueError, KeyError, NotImplementedError,
    RuntimeError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


def at_least(least: int, **given: int) -> None:
    """Raise a ValueError that names what is no whole number >= `least`."""
    for name, value in given.items():
        whole = isinstance(value, numbers.Integral)
        if not whole or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}={value!r}: use a whole number, "
                             f"at least {least}")


def _counts(total: int, n: int) -> None:
    if total < 1 or n < 1:
        raise ValueError(f"cannot sample {n} of {total} frames: both >= 1")


def sample_uniform(total: int, n: int) -> torch.Tensor:
    """The centres (n,) of n equal segments; frames repeat if total < n."""
    _counts(total, n)
    return (2 * torch.arange(n) + 1) * total // (2 * n)


def sample_segments(
    total: int, n: int, generator: torch.Generator | None = None
) -> torch.Tensor:
    """A random frame (n,) of each of n equal segments, as in TSN."""
    _counts(total, n)
    place = torch.rand(n, generator=generator, dtype=torch.float64)
    index = ((torch.arange(n) + place) * total / n).long()
    return index.clamp(max=total - 1)


def sample_windows(total: int, length: int, stride: int) -> torch.Tensor:
    """Windows (K, length) every `stride` frames, covering the tail.

    If the stride misses the end, one more window ends at the last frame. A
    video shorter than `length` gives one window that holds its last frame.
    """
    _counts(total, length)
    if stride < 1:
        raise ValueError(f"stride {stride}: at least 1")
    last = max(total - length, 0)
    starts = [*range(0, last, stride), last]
    index = torch.tensor(starts)[:, None] + torch.arange(length)
    return index.clamp(max=total - 1)


def sample_clips(total: int, length: int = 8) -> torch.Tensor:
    """Consecutive clips (K, length) without overlap.

    The frames of an incomplete last clip are left out, so that no frame
    counts twice; a video shorter than `length` gives one clip that holds
    its last frame.
    """
    _counts(total, length)
    clips = max(total // length, 1)
    index = torch.arange(clips * length).view(clips, length)
    return index.clamp(max=total - 1)


def sample_part(
    total: int, n: int, part: tuple[float, float] = (0.0, 1.0)
) -> torch.Tensor:
    """As `sample_uniform`, from the shares [start, end) of the video."""
    start, end = part
    if not 0 <= start < end <= 1:
        raise ValueError(f"part {part}: use 0 <= start < end <= 1")
    # 2/3 is no binary number: rounding keeps 2/3 of 30 frames at 20
    first, last = round(start * total), round(end * total)
    first = min(first, total - 1)
    return first + sample_uniform(max(last - first, 1), n)


def flow_runs(index: torch.Tensor, total: int, fields: int) -> torch.Tensor:
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
        key: value[kept]
        if isinstance(value, torch.Tensor) and key != "segments"
        else value
        for key, value in sample.items() if key != "flow"
    }
    share = part[1] - part[0]
    return thinned | {"fps": sample["fps"] * frames / (share * total)}


def transform(
    sample: dict[str, Any], steps: Callable[[int, int], list]
) -> dict[str, Any]:
    """Apply torchvision's transforms to video, mask and boxes together.

    `steps` makes them from the height and width of the frames.
    """
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    if fixed := [key for key in FIXED if key in sample]:
        raise ValueError(
            f"{fixed} cannot be resized or cropped: render or compute them "
            "at the final size, or drop them first"
        )
    height, width = sample["video"].shape[-2:]
    wrapped = {"video": tv_tensors.Video(sample["video"])}
    if "mask" in sample:
        wrapped["mask"] = tv_tensors.Mask(sample["mask"].to(torch.uint8))
    if "boxes" in sample:
        wrapped["boxes"] = tv_tensors.BoundingBoxes(
            sample["boxes"], format="XYXY", canvas_size=(height, width)
        )
    moved = v2.Compose(steps(height, width))(wrapped)
    result = dict(sample)
    for key, value in moved.items():
        result[key] = value.as_subclass(torch.Tensor)
    if "mask" in result:
        result["mask"] = result["mask"].bool()
    if "boxes" in result:
        x1, y1, x2, y2 = result["boxes"].unbind(1)
        # A crop leaves nothing of a box outside: no box in this frame.
        gone = (x2 <= x1) | (y2 <= y1)
        result["boxes"] = result["boxes"].masked_fill(
            gone[:, None], float("nan")
        )
    return result


def resize(sample: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """Stretch a sample to height x width pixels; boxes move along."""
    from torchvision.transforms import v2

    at_least(2, height=height, width=width)
    return transform(
        sample, lambda h, w: [v2.Resize((height, width), antialias=True)]
    )


def _fitted(height: int, width: int, size: int) -> tuple[int, ...]:
    """Height, width, top and left of a frame fitted into size x size."""
    scale = size / max(height, width)
    new_h, new_w = (max(round(n * scale), 1) for n in (height, width))
    return new_h, new_w, (size - new_h) // 2, (size - new_w) // 2


def letterbox(
    sample: dict[str, Any], size: int, *, fill: int = 128
) -> dict[str, Any]:
    """Fit a sample into size x size: aspect kept, the rest grey `fill`.

    The frames are centred; the mask is False in the margins. Joints come
    along; their (0, 0) is the middle of the first pixel.
    """
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    at_least(2, size=size)  # torch resizes nothing to a single pixel
    height, width = sample["video"].shape[-2:]
    if (mask := sample.get("mask")) is not None and (
            mask.shape[-2:] != (height, width)):
        raise ValueError(f"a mask {tuple(mask.shape[-2:])} does not belong to "
                         f"frames of {height} x {width} pixels")

    def steps(h: int, w: int) -> list:
        new_h, new_w, top, left = _fitted(h, w, size)
        margins = [left, top, size - new_w - left, size - new_h - top]
        fills = {tv_tensors.Video: fill, "others": 0}
        return [
            v2.Resize((new_h, new_w), antialias=True),
            v2.Pad(margins, fill=fills),
        ]

    joints = sample.get("joints")
    moved = transform(
        {key: x for key, x in sample.items() if key != "joints"}, steps)
    if joints is not None:
        new_h, new_w, top, left = _fitted(height, width, size)
        scale = joints.new_tensor([new_w / width, new_h / height])
        corner = joints.new_tensor([left, top])
        moved["joints"] = (joints + 0.5) * scale - 0.5 + corner
    return moved


def centre_crop(sample: dict[str, Any], size: int) -> dict[str, Any]:
    """Cut the central size x size pixels; boxes are cut at the edge."""
    from torchvision.transforms import v2

    at_least(1, size=size)
    height, width = sample["video"].shape[-2:]
    if size > min(height, width):
        raise ValueError(
            f"no {size} x {size} crop in {height} x {width} frames: resize "
            "or letterbox first"
        )
    return transform(sample, lambda h, w: [v2.CenterCrop(size)])


def flip(
    sample: dict[str, Any],
    p: float = 0.5,
    generator: torch.Generator | None = None,
) -> dict[str, Any]:
    """Mirror a whole sample left to right with probability p."""
    from torchvision.transforms import v2

    if torch.rand((), generator=generator) >= p:
        return sample
    mirrored = transform(sample, lambda h, w: [v2.RandomHorizontalFlip(1)])
    if actor := sample.get("main_actor"):
        other = {"left": "right", "right": "left"}
        mirrored["main_actor"] = other.get(actor, actor)
    return mirrored


def stamp(path: Path) -> tuple[int, int, int]:
    """Number, bytes and times of the files of a path: they tell a change.

    path: a video file, or a folder that holds a video's frames.
    """
    files = os.scandir(path) if path.is_dir() else [path]
    found = [file.stat() for file in files]
    return (len(found), sum(status.st_size for status in found),
            sum(status.st_mtime_ns for status in found))


class ClipCache:
    """Decoded clips on disk, as uint8; safe to share between processes.

    A clip is found again by its file (path, size, time) and the settings
    that made it. Files are written beside and renamed, and checked by their
    checksum when read: a damaged one is made again. Where nothing can be
    written, as on a full disk, a warning says so once and clips are made
    whenever they are asked for.
    """

    def __init__(self, folder: Path):
        self.folder, self.writes = folder, True
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._stop(error)

    def _stop(self, error: OSError) -> None:
        self.writes = False
        warnings.warn(
            f"{self.folder} takes no more clips ({error}): they are decoded "
            "at each access, which is slow; make room there, start again",
            stacklevel=3)

    def get(
        self,
        path: Path,
        settings: tuple,
        make: Callable[[], dict[str, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        """What `make` gives for this file, from disk if it is there."""
        try:
            key = repr((str(path.resolve()), stamp(path), settings))
        except (OSError, ValueError):
            return make()  # which says what is wrong with the file
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        file = self.folder / f"{name}.npz"
        try:
            with file.open("rb") as raw, np.load(raw) as kept:
                # by the names: zip's checksums miss an entry that has gone
                return {str(k): torch.from_numpy(kept[k])
                        for k in kept["names"]}
        except DAMAGED:
            pass
        made = make()
        if self.writes:
            try:
                self._write(file, made)
            except OSError as error:
                self._stop(error)
        return made

    def _write(self, file: Path, made: dict[str, torch.Tensor]) -> None:
        data = io.BytesIO()  # on a full disk NumPy leaves a zip half open
        np.savez(data, names=np.array([*made]),
                 **{k: v.numpy() for k, v in made.items()})
        beside = file.with_suffix(f".{os.getpid()}.part")
        try:
            beside.write_bytes(data.getbuffer())
            os.replace(beside, file)
        finally:
            beside.unlink(missing_ok=True)
