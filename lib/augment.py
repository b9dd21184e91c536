"""Crops and mirrors, as temporal segment networks (TSN) take them.

Wang et al., ECCV 2016. For training, corners or centre in several scales, at
random; for the test, ten crops:

    fit(model, Crops(train, 224), step, ...)
    ten = [predict(model, Crops(test, 224, i), keys=("snippets",))
           for i in range(10)]
"""

from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lib import clips

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
    seen = clips.transform(seen, lambda h, w: [v2.Lambda(resized, Tensor)])
    if crop.mirror:
        seen = clips.flip(seen, p=1)
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
