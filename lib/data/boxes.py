"""Boxes around the pixels of a mask."""

import torch
from torch import Tensor


def tight_boxes(mask: Tensor) -> Tensor:
    """The tightest boxes (..., 4) of masks (..., H, W); NaN where empty.

    `x1 y1 x2 y2` in pixels, float32, the far edges exclusive.
    """
    corners = []
    for line in mask.any(-2), mask.any(-1):  # columns, rows
        first = line.int().argmax(-1)
        last = line.shape[-1] - line.flip(-1).int().argmax(-1)
        corners.append((first, last))
    (x1, x2), (y1, y2) = corners
    boxes = torch.stack((x1, y1, x2, y2), -1).float()
    empty = ~mask.flatten(-2).any(-1, keepdim=True)
    return boxes.masked_fill(empty, float("nan"))
