"""Backbones of action detectors: what is frozen of them, and what trains.

S-CNN's networks read windows of 16 frames, by a 3D ResNet or by C3D. R-C3D
reads whole buffers, by C3D up to conv5b. Of the small networks all but the
last stage is frozen and computed once; of the published ones the first layers
are, as in R-C3D's released code.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib.networks import roles

# The last frozen stage, of the small network and of the published one.
FROZEN = {"base": ("identity4b", "conv1"), "C3D": ("conv4", "conv2")}
STRIDE = 8  # frames that a step of conv5b's map stands for
CHUNK = 8  # windows at once: more of them leave the processor's cache


class Parts(NamedTuple):
    """A backbone in two parts, and the channels of its last map."""

    frozen: roles.Stem
    rest: roles.Tail
    channels: int


def for_windows(role: str, backbone: str, weights: str = "none",
                files: Mapping[str, str] | None = None) -> Parts:
    """The backbone of S-CNN's networks: of role "base" or "C3D"."""
    cnn = roles.stream(role, backbone, weights, files).net
    stage = FROZEN[role][not backbone.endswith("_small")]
    return Parts(roles.Stem(cnn, stage), roles.Tail(cnn, stage),
                 cnn.channels)


def for_buffers(backbone: str, weights: str = "none",
                files: Mapping[str, str] | None = None,
                stride: int = STRIDE) -> Parts:
    """R-C3D's base: C3D to conv5b, of the size of `backbone`.

    stride: frames of a step of its map, 8 as published, or 4: then pool4
    keeps time, for videos of few frames a second.

    Raises:
        ValueError: for another stride.
    """
    if stride not in (STRIDE // 2, STRIDE):
        raise ValueError(f"stride={stride}: use 4 or 8")
    cnn = roles.stream("C3D", backbone, weights, files).net
    if stride < STRIDE:
        pool = cnn.stages["conv4"][-1]
        pool.kernel_size = pool.stride = (1, 2, 2)
    stage = FROZEN["C3D"][not backbone.endswith("_small")]
    rest = roles.Tail(cnn, stage)
    for name in ("fc6", "fc7"):
        del rest.stages[name]
    rest.stages["conv5"] = rest.stages["conv5"][:-1]
    return Parts(roles.Stem(cnn, stage), rest, cnn.widths["conv5"])


class OnWindows(nn.Module):
    """A frozen network on windows of each video, for `extract`.

    frames: (W, n), the frames that it sees of each of W windows. Its maps
    (l, c, h, w) of all windows are joined in time.
    """

    def __init__(self, net: roles.Stem, frames: Tensor):
        super().__init__()
        self.net = net
        self.register_buffer("frames", frames)

    def features(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Maps ``(B, W l, c, h, w)`` and each window's mean ``(B, W, c)``."""
        maps = torch.stack([
            torch.cat([self.net(one[some])
                       for some in self.frames.split(CHUNK)])
            for one in video])
        return maps.flatten(1, 2), maps.mean((2, 4, 5))
