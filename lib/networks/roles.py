"""3D CNNs by what they are for, at the scale of a backbone.

The STA paper puts modules into several networks: its base network, the
streams of MARS, C3D, P3D-199 and ResNet-152. Here each of these `ROLES` has a
network beside a small backbone too, as far as one was trained on puppets.
"""

import copy
import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from lib import ROOT
from lib.networks import cnn3d, pretrained, released3d

ROLES = ("base", "MARS", "flow", "C3D", "P3D-199", "ResNet-152")
LENGTHS = {"c3d": 16, "p3d199": 16, "resnet152": 16}  # made for clips of 16
# The last stage of the small networks that stays as it is, and how many
# frames a step of its map stands for.
FROZEN = {"base": ("identity4b", 4), "MARS": ("identity4b", 4),
          "flow": ("identity4b", 4), "C3D": ("conv4", 8)}
# What trains: the last stage, by the names that the networks have.
LAST = re.compile(r"(stages\.)?(layer4|(conv|identity)5[ab]?|fc[67])")


def network(role: str, backbone: str) -> str:
    """The name of a role's network; ValueError if it has no small form."""
    small = backbone.endswith("_small")
    if small and role in ("P3D-199", "ResNet-152"):
        raise ValueError(f"{role} has no small form: use backbone=resnext101")
    return {"flow": f"{backbone}_flow", "C3D": "c3d_small" if small else "c3d",
            "P3D-199": "p3d199", "ResNet-152": "resnet152"}.get(role, backbone)


class Stream(NamedTuple):
    """A network, the frames it sees at once, and the stage that trains."""

    net: nn.Module
    length: int
    parts: list[str]  # names of its modules


def stream(role: str, backbone: str, weights: str = "none",
           files: Mapping[str, str] | None = None, *, size: int = 112,
           window: int = 64) -> Stream:
    """The network of a role, with its first weights.

    weights: "puppets", "kinetics" or "none". files: of some roles a released
        file instead, from the project's root. size: pixels, for the scale of
        flow. window: the length, where the network has none of its own.
    """
    name, files = network(role, backbone), files or {}
    start = None if weights == "none" else weights
    if name in cnn3d.MAKERS and name != "c3d":
        net = cnn3d.clip_cnn(name, start)
    else:
        net = released3d.pretrained3d(
            name, ROOT / files[role] if role in files else start)
        if role == "flow":
            # learned on frames whose shorter side is 256; a video of 4:3 is
            # 3/4 of `size` high
            net.std *= 0.75 * size / 256
    return Stream(net, LENGTHS.get(name, window),
                  [part for part, _ in net.named_modules()
                   if LAST.fullmatch(part)])


def fingerprint(role: str, backbone: str, weights: str,
                files: Mapping[str, str]) -> str:
    """What tells the first weights of a role from others."""
    if role in files:
        return pretrained.file_digest(ROOT / files[role])
    return pretrained.fingerprint(network(role, backbone), weights)


class Stem(nn.Module):
    """The frozen stages of a `ClipCNN` up to one of them, for `extract`.

    frames: of the clips that it sees, whose maps are joined in time; None:
        all at once. A network that was trained on clips of 8 frames has seen
        longer ones nowhere.
    """

    def __init__(self, net: cnn3d.ClipCNN, stage: str,
                 frames: int | None = None):
        super().__init__()
        self.net, self.stage, self.frames = net, stage, frames

    def forward(self, video: Tensor) -> Tensor:
        """Maps ``(B, l, c, h, w)`` of the stage."""
        clips = video.unflatten(1, (-1, self.frames or video.shape[1]))
        maps = self.net(clips.flatten(0, 1), self.stage)
        return maps.unflatten(0, clips.shape[:2]).flatten(1, 2)

    def features(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Its maps, and their means."""
        maps = self(video)
        return maps, maps.mean((3, 4))


class Known(Stem):
    """What a frozen `ClipCNN` gives: maps of a stage, and of the last.

    For `extract`; the latter take the place of the means.
    """

    def __init__(self, net: cnn3d.ClipCNN, stage: str, frames: int):
        super().__init__(net, stage, frames)
        self.tail = Tail(net, stage)

    def features(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Both of each clip, joined in time."""
        clips = video.unflatten(1, (-1, self.frames))
        maps = self.net(clips.flatten(0, 1), self.stage)
        first, last = (x.unflatten(0, clips.shape[:2]).flatten(1, 2)
                       for x in (maps, self.tail(maps)))
        return first, last


class Tail(nn.Module):
    """The stages of a `ClipCNN` behind one, on maps ``(N, l, c, h, w)``."""

    def __init__(self, net: cnn3d.ClipCNN, stage: str):
        super().__init__()
        names = [*net.stages]
        behind = names[names.index(stage) + 1:]
        self.stages = nn.ModuleDict({
            name: copy.deepcopy(net.stages[name]) for name in behind})
        self.channels = net.channels

    def forward(self, maps: Tensor) -> Tensor:
        x = maps.transpose(1, 2)
        for stage in self.stages.values():
            x = stage(x)
        return x.transpose(1, 2)
