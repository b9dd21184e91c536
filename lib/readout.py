"""From attention to answers: boxes out of maps, segments out of weights.

Two recipes each for Where-and-When (Meng et al., ICLR 2019 submission):
``"paper"`` is what section 4.2 says, ``"released"`` what the released scripts
do. Any model's ``where`` and ``when`` will do.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

BOXES = {
    "paper": {"stretch": False, "threshold": 0.5, "largest": False},
    "released": {"stretch": True, "threshold": 200 / 255, "largest": True},
}
# The released threshold is 0.023 for windows of 50 frames, whose uniform
# weight is 0.02: kept as a multiple of uniform, so that it fits any n.
SEGMENTS = {
    "paper": {"stretch": True, "threshold": 0.5},
    "released": {"stretch": False, "threshold": 0.023 * 50},
}


def stretch(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Shift and scale to [0, 1] over `dims`; a constant becomes zero."""
    low, high = x.amin(dims, keepdim=True), x.amax(dims, keepdim=True)
    return (x - low) / (high - low).clamp_min(1e-12)


def boxes_from_maps(
    where: Tensor, size: tuple[int, int], *, recipe: str = "paper"
) -> Tensor:
    """The tightest box around each thresholded map, ``(B, T, 4)`` pixels.

    Maps ``(B, T, h, w)`` are resized to `size` (height, width) by bilinear
    interpolation, then thresholded at or above the recipe's value. "paper":
    values as they are, all regions together; "released": each frame stretched
    to [0, 1], its largest 8-connected region. Nothing above the threshold:
    NaN, which every metric counts as a miss. x2 and y2 are exclusive.

    Raises:
        ValueError: for an unknown recipe.
    """
    settings = pick(BOXES, recipe)
    # float64: a map of exactly the threshold must not fall below by rounding
    maps = F.interpolate(
        where.double(), size=size, mode="bilinear", align_corners=False
    )
    if settings["stretch"]:
        maps = stretch(maps, (-2, -1))
    inside = maps >= settings["threshold"] - 1e-9
    if settings["largest"]:
        inside = largest_region(inside)
    return tightest_boxes(inside)


def largest_region(inside: Tensor) -> Tensor:
    """Keep the largest 8-connected region of each mask ``(..., H, W)``."""
    flat = inside.flatten(0, -3).numpy()
    kept = np.zeros_like(flat)
    for i, mask in enumerate(flat):
        regions, count = ndimage.label(mask, structure=np.ones((3, 3)))
        if count:
            kept[i] = regions == 1 + np.bincount(regions.flat)[1:].argmax()
    return torch.from_numpy(kept).view(inside.shape)


def tightest_boxes(inside: Tensor) -> Tensor:
    """Boxes ``(..., 4)`` around masks ``(..., H, W)``; NaN if empty."""
    height, width = inside.shape[-2:]
    corners = []
    for line, length in ((inside.any(-2), width), (inside.any(-1), height)):
        first = line.int().argmax(-1)
        last = length - line.flip(-1).int().argmax(-1)
        corners.append((first, last))
    (x1, x2), (y1, y2) = corners
    boxes = torch.stack((x1, y1, x2, y2), -1).float()
    empty = ~inside.flatten(-2).any(-1)
    return boxes.masked_fill(empty.unsqueeze(-1), float("nan"))


def segments_from_weights(
    when: Tensor, fps: float, *, recipe: str = "paper"
) -> list[Tensor]:
    """Runs of frames whose weight reaches a threshold, one tensor per video.

    Weights ``(B, T)`` give for each video ``(K, 3)``: start and end in
    seconds (frame index / `fps`) and the mean weight inside. "paper": weights
    stretched to [0, 1] per video, threshold 0.5; "released": weights as they
    are, threshold 1.15 times uniform. Uniform weights give no segment.

    Raises:
        ValueError: for an unknown recipe.
    """
    settings = pick(SEGMENTS, recipe)
    if settings["stretch"]:
        above = stretch(when, (-1,)) >= settings["threshold"]
    else:
        above = when >= settings["threshold"] / when.shape[-1]
    found = []
    for weights, inside in zip(when, above, strict=True):
        steps = F.pad(inside.int(), (1, 1)).diff()
        starts = (steps == 1).nonzero().flatten().tolist()
        ends = (steps == -1).nonzero().flatten().tolist()
        runs = [
            (start / fps, end / fps, weights[start:end].mean().item())
            for start, end in zip(starts, ends, strict=True)
        ]
        found.append(torch.tensor(runs).reshape(-1, 3))
    return found


def pick(recipes: dict[str, dict], name: str) -> dict:
    """The settings of a recipe; a ValueError lists those that there are."""
    if name not in recipes:
        raise ValueError(f"recipe {name!r}: choose one of {list(recipes)}")
    return recipes[name]
