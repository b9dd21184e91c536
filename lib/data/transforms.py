"""What is seen of a frame: resized, letterboxed, cropped and mirrored.

All that lies on the pixels of a sample moves with its frames (`cut`). For
training, `Crops` takes corners or the centre in several scales at random, as
temporal segment networks do (TSN, Wang et al., ECCV 2016); for the test, ten
crops or the 22 sequences of RSTAN:

    fit(model, Crops(train, 224), step, ...)
    ten = [predict(model, Crops(test, 224, i), keys=("snippets",))
           for i in range(10)]
    more = [through(splits.test, view) for view in spatio_temporal_22()]
"""

from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from lib.data.sampling import at_least

SCALES = (1.0, 0.875, 0.75, 0.66)  # TSN's; for flow the first three
# Entries (T, 2L, H, W) in pixels, x first; `flow` is exact, others measured.
FLOWS = ("motion", "warped", "flow")
BOXES = ("boxes", "rivals")  # entries (T, 4) and (T, N, 4)
GREY = 128  # of the margins of a letterboxed video


class Crop(NamedTuple):
    """A part of the frame in pixels; mirrored after it is cut out."""

    top: int
    left: int
    height: int
    width: int
    mirror: bool = False


def cut(sample: dict[str, Any], crop: Crop,
        size: int | tuple[int, int]) -> dict[str, Any]:
    """The crop of a sample, resized to `size`: height and width, or both.

    Video, mask, boxes and joints go together. Flow (FLOWS) is resized like an
    image; its values, pixels per frame, grow with it. In a mirror x changes
    its sign, and `main_actor` the side. A box of which nothing is left is
    NaN. A joint's (0, 0) is the middle of the first pixel.

    Raises:
        ValueError: if a mask is not as large as the frames, or joints are to
            be mirrored: their left and right would be wrong.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2.functional import resized_crop

    top, left, rows, columns, mirror = crop
    height, width = (size, size) if isinstance(size, int) else size
    corner = torch.tensor([left, top])
    part = torch.tensor([columns, rows])
    scale = torch.tensor([width / columns, height / rows])
    if mirror and "joints" in sample:
        raise ValueError("joints cannot be mirrored, since left and right "
                         "would change places: drop them first")

    def seen(image: Tensor, mode: str = "BILINEAR") -> Tensor:
        image = resized_crop(image, top, left, rows, columns, [height, width],
                             InterpolationMode[mode], antialias=True)
        return image.flip(-1) if mirror else image

    moved = dict(sample)
    for key, value in sample.items():
        if key == "video":
            moved[key] = seen(value)
        elif key == "mask":
            if value.shape[-2:] != sample["video"].shape[-2:]:
                raise ValueError(
                    f"a mask {tuple(value.shape[-2:])} does not belong to "
                    f"frames {tuple(sample['video'].shape[-2:])}")
            moved[key] = seen(value.to(torch.uint8), "NEAREST").bool()
        elif key in FLOWS:
            flow = seen(value.float())
            flow[:, 0::2] *= -scale[0] if mirror else scale[0]
            flow[:, 1::2] *= scale[1]
            moved[key] = flow.to(value.dtype)
        elif key in BOXES:
            box = value.unflatten(-1, (2, 2)) - corner
            box = box.clamp(min=0).minimum(part) * scale
            if mirror:
                box[..., 0] = (width - box[..., 0]).flip(-1)
            gone = (box[..., 1, :] <= box[..., 0, :]).any(-1)
            box[gone] = float("nan")
            moved[key] = box.flatten(-2)
        elif key == "joints":
            moved[key] = (value + 0.5 - corner) * scale - 0.5
        elif key == "main_actor" and mirror:
            other = {"left": "right", "right": "left"}
            moved[key] = other.get(value, value)
    return moved


def resize(sample: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """Stretch a sample to height x width pixels; see `cut`."""
    at_least(2, height=height, width=width)  # torch makes no single pixel
    frame = sample["video"].shape[-2:]
    return cut(sample, Crop(0, 0, *frame), (height, width))


def letterbox(sample: dict[str, Any], size: int) -> dict[str, Any]:
    """Fit a sample into size x size: aspect kept, the rest grey; see `cut`.

    The frames are centred; the mask is False in the margins.
    """
    at_least(2, size=size)
    frame = sample["video"].shape[-2:]
    scale = size / max(frame)
    height, width = (max(round(side * scale), 1) for side in frame)
    top, left = (size - height) // 2, (size - width) // 2
    margins = (left, size - width - left, top, size - height - top)
    corner = torch.tensor([left, top])
    moved = cut(sample, Crop(0, 0, *frame), (height, width))
    for key, value in moved.items():
        if key in ("video", "mask", *FLOWS):
            moved[key] = F.pad(value, margins,
                               value=GREY if key == "video" else 0)
        elif key in (*BOXES, "joints"):
            moved[key] = value + corner.repeat(value.shape[-1] // 2)
    return moved


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
    side, place, mirror = (
        int(torch.randint(n, ())) for n in (len(sides), 5, 2))
    rows, columns = sides[side]
    places = _places(height - rows, width - columns)
    return Crop(*places[place], rows, columns, bool(mirror))


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


def _places(down: int, right: int) -> list[tuple[int, int]]:
    """Corners and centre, when a crop can move so far."""
    # rounded as torchvision does it
    centre = int(round(down / 2)), int(round(right / 2))
    return [(0, 0), (0, right), (down, 0), (down, right), centre]


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
    """A part of a video in time and space, of any length and size.

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

    def crop(self, height: int, width: int) -> Crop:
        """The crop in whole pixels; it never leaves the frame."""
        rows, columns = (max(round(self.side * n), 1) for n in (height, width))
        return Crop(min(round(self.top * height), height - rows),
                    min(round(self.left * width), width - columns),
                    rows, columns, self.mirror)


def spatio_temporal_22() -> list[View]:
    """The 22 sequences of RSTAN's multi-scale test (Du et al., section IV-D).

    Ten are spatial: the four corners and the centre, of 224 of 256 pixels,
    and their mirrors, all over the whole video. Twelve are spatio-temporal:
    the first two thirds, the last two thirds and the whole video, each in
    two sizes, 256 x 256 and 192 x 192 "with center crops", and mirrored.

    No crop of 224 pixels fits in a frame of 192. Here the two sizes are
    centre crops of 256 and 192 of a frame's 256 pixels, resized to what
    the network takes. So read, no two of the 22 are the same.
    """
    whole, parts = (0.0, 1.0), ((0.0, 2 / 3), (1 / 3, 1.0), (0.0, 1.0))
    far = 32 / 256
    seen = [(whole, *corner, 224 / 256) for corner in (
        *product((0.0, far), repeat=2), (far / 2, far / 2))]
    seen += [(part, (1 - side) / 2, (1 - side) / 2, side)
             for part, side in product(parts, (256 / 256, 192 / 256))]
    return [View(*one, mirror) for one in seen for mirror in (False, True)]


class _Through(Dataset):
    """A dataset through a view; see `through`."""

    def __init__(self, data: Dataset, view: View):
        self.data, self.view, self.classes = data, view, data.classes

    def identity(self, i: int) -> str:
        """All that sample i depends on: that of the data, and the view."""
        return repr((self.data.identity(i), self.view))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.data[index]
        frame = tuple(sample["video"].shape[-2:])
        return cut(sample, self.view.crop(*frame), frame)


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
    return _Through(data.between(*view.part), view)
