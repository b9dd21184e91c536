"""Boxes around the pixels of a mask."""


import numpy as np
import torch
from torch import Tensor


def tight_boxes(mask: np.ndarray) -> np.ndarray:
    """The tightest boxes (T, 4) of masks (T, H, W); NaN where empty."""
    ends = []
    for axis in (1, 2):
        hit = mask.any(axis=axis)
        ends += [hit.argmax(axis=1),
                 hit.shape[1] - hit[:, ::-1].argmax(axis=1)]
    boxes = np.stack([ends[0], ends[2], ends[1], ends[3]], axis=1)
    seen = mask.any(axis=(1, 2))[:, None]
    return np.where(seen, boxes, np.nan).astype(np.float32)


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
