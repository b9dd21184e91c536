"""Crops and mirrors, as temporal segment networks (TSN) take them.

Wang et al., ECCV 2016. For training, corners or centre in several scales, at
random; for the test, ten crops:

    fit(model, Crops(train, 224), step, ...)
    ten = [predict(model, Crops(test, 224, i), keys=("snippets",))
           for i in range(10)]
"""


from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lib.data.sampling import at_least

SCALES = (1.0, 0.875, 0.75, 0.66)  # TSN's; for flow the first three
# Entries (T, 2L, H, W) in pixels, x first; `flow` is exact, others measured.
FLOWS = ("motion", "warped", "flow")


class Crop(NamedTuple):
    """A part of the frame in pixels; mirrored after it is cut out."""

    top: int
    left: int
    height: int
    width: int
    mirror: bool = False


def random_crop(height: int, width: int,
                scales: tuple[float, ...] = SCALES) -> Crop:
    """A corner or the centre, of random height and width; torch's global RNG.

    The sides are `scales` times the frame's shorter one, at most one scale
    apart, so that little is distorted; half of the crops are mirrored.
    """
    short = min(height, width)
    sides = [(round(a * short), round(b * short))
             for (i, a), (j, b) in product(enumerate(scales), repeat=2)
             if abs(i - j) <= 1]
    rows, columns = sides[_draw(len(sides))]
    places = _places(height - rows, width - columns)
    return Crop(*places[_draw(5)], rows, columns, bool(_draw(2)))


def ten_crops(height: int, width: int, size: int) -> list[Crop]:
    """Four corners and the centre of size x size, then mirrored.

    Raises:
        ValueError: if the frame is smaller than that.
    """
    if size > min(height, width):
        raise ValueError(f"no crop of {size} x {size} in frames of {height} "
                         f"x {width}: load larger ones")
    return [Crop(*place, size, size, mirror) for mirror in (False, True)
            for place in _places(height - size, width - size)]


def _draw(n: int) -> int:
    return int(torch.randint(n, ()))


def _places(down: int, right: int) -> list[tuple[int, int]]:
    """Corners and centre, when a crop can move so far."""
    # rounded as torchvision does it
    centre = int(round(down / 2)), int(round(right / 2))
    return [(0, 0), (0, right), (down, 0), (down, right), centre]


def cut(sample: dict[str, Any], crop: Crop, size: int) -> dict[str, Any]:
    """The crop of a sample, resized to size x size.

    Video, mask and boxes go together. Flow (FLOWS) is resized like an image;
    its values, pixels per frame, grow with it, and in a mirror x changes its
    sign. Raises ValueError for the other keys of `clips.FIXED`.
    """
    from torchvision.transforms import v2

    def resized(image: Tensor) -> Tensor:
        return v2.functional.resized_crop(
            image, *crop[:4], [size, size], antialias=True)

    flows = {key: sample[key] for key in FLOWS if key in sample}
    seen = {key: x for key, x in sample.items() if key not in flows}
    seen = transform(seen, lambda h, w: [v2.Lambda(resized, Tensor)])
    if crop.mirror:
        seen = flip(seen, p=1)
    for key, value in flows.items():
        flow = resized(value.float())
        flow[:, 0::2] *= size / crop.width
        flow[:, 1::2] *= size / crop.height
        if crop.mirror:
            flow = flow.flip(-1)
            flow[:, 0::2] *= -1
        seen[key] = flow.to(value.dtype)
    return seen


class Crops(Dataset):
    """A data set, of whose samples size x size pixels are seen.

    which: one of the `ten_crops`, from 0 to 9; None is a `random_crop`, anew
        at every access, the same for all snippets of a video.
    """

    def __init__(self, data: Dataset, size: int, which: int | None = None,
                 scales: tuple[float, ...] = SCALES):
        if which is not None and which not in range(10):
            raise ValueError(f"which={which}: from 0 to 9, or None")
        self.data, self.size, self.which = data, size, which
        self.scales, self.classes = scales, data.classes

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.data[index]
        frame = sample["video"].shape[-2:]
        crop = (random_crop(*frame, self.scales) if self.which is None
                else ten_crops(*frame, self.size)[self.which])
        return cut(sample, crop, self.size)


@dataclass(frozen=True)
class View:
    """One look at a video.

    part: the shares (start, end) of its length to sample frames from.
    top, left: the crop's corner, in shares of the frame's height and width.
    side: the crop's height and width, in the same shares: the crop has the
        frame's aspect. It is resized to the size of the frame.
    mirror: left and right change places, after the crop.
    """

    part: tuple[float, float] = (0.0, 1.0)
    top: float = 0.0
    left: float = 0.0
    side: float = 1.0
    mirror: bool = False

    def __post_init__(self):
        start, end = self.part
        corner, far = min(self.top, self.left), max(self.top, self.left)
        inside = corner >= 0 and self.side > 0 and far + self.side < 1 + 1e-9
        if not (0 <= start < end <= 1 and inside):
            raise ValueError(
                f"{self}: a part needs 0 <= start < end <= 1, a crop must "
                "lie in the frame, whose height and width are 1")


WHOLE = View()
"""The whole video, the whole frame."""


def spatio_temporal_22() -> list[View]:
    """The 22 looks of RSTAN's multi-scale test (Du et al., section IV-D).

    Ten are spatial: the four corners and the centre, of 224 of 256 pixels,
    and their mirrors, all over the whole video. Twelve are spatio-temporal:
    the first two thirds, the last two thirds and the whole video, each in
    two sizes, 256 x 256 and 192 x 192 "with center crops", and mirrored.

    No crop of 224 pixels fits in a frame of 192. Here the two sizes are
    centre crops of 256 and 192 of a frame's 256 pixels, resized to what
    the network takes. So read, no two of the 22 are the same.
    """
    side = 224 / 256
    far, middle = 1 - side, (1 - side) / 2
    corners = [*product((0.0, far), repeat=2), (middle, middle)]
    views = [View((0.0, 1.0), *corner, side, mirror)
             for corner, mirror in product(corners, (False, True))]
    parts = ((0.0, 2 / 3), (1 / 3, 1.0), (0.0, 1.0))
    for part, side in product(parts, (256 / 256, 192 / 256)):
        middle = (1 - side) / 2
        views += [View(part, middle, middle, side, mirror)
                  for mirror in (False, True)]
    return views


class _Seen(Dataset):
    """A dataset through a view; see `through`."""

    def __init__(self, data: Dataset, view: View):
        self.data, self.view, self.classes = data, view, data.classes

    def identity(self, i: int) -> str:
        """All that sample i depends on: that of the data, and the view."""
        return repr((self.data.identity(i), self.view))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return look(self.data[index], self.view)


def through(data: Dataset, view: View) -> Dataset:
    """`data` as seen through `view`; samples keep their shapes.

    data: of `datasets.load`, whose `between` samples the view's part. The
        part is of the whole video, whatever `data` was sampled from.
    The result has `classes` and `identity` as `data` has.
    """
    if not hasattr(data, "between"):
        raise TypeError(
            f"a {type(data).__name__} cannot sample a part of its videos: "
            "give a dataset of datasets.load")
    return _Seen(data.between(*view.part), view)


def look(sample: dict[str, Any], view: View) -> dict[str, Any]:
    """Crop, resize to the frame's own size and mirror a sample.

    Video, mask and boxes go together, `main_actor` changes sides. `motion`
    is resized like an image; its values, pixels per frame, grow with it,
    and its x channels change their sign in a mirror. The view's part is the
    dataset's to sample. Raises ValueError for the keys of `clips.FIXED`.
    """
    from torchvision.transforms import v2

    height, width = sample["video"].shape[-2:]
    top, rows = _pixels(view.top, view.side, height)
    left, columns = _pixels(view.left, view.side, width)

    def crop(image: Tensor) -> Tensor:
        return v2.functional.resized_crop(
            image, top, left, rows, columns, [height, width], antialias=True)

    seen = {key: x for key, x in sample.items() if key != "motion"}
    seen = transform(seen, lambda h, w: [v2.Lambda(crop, Tensor)])
    if view.mirror:
        seen = flip(seen, p=1)
    if "motion" in sample:
        motion = crop(sample["motion"].float())
        motion[:, 0::2] *= width / columns
        motion[:, 1::2] *= height / rows
        if view.mirror:
            motion = motion.flip(-1)
            motion[:, 0::2] *= -1
        seen["motion"] = motion.to(sample["motion"].dtype)
    return seen


def _pixels(start: float, side: float, total: int) -> tuple[int, int]:
    """First pixel and length of a crop; it never leaves the frame."""
    length = max(round(side * total), 1)
    return min(round(start * total), total - length), length

# What depends on the pixel grid in ways these transforms do not know.
FIXED = ("flow", "motion", "joints", "distractor")


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
