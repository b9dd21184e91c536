"""Published 3D CNNs with their released weights.

The networks of the STA paper: 3D ResNets and ResNeXt (Hara et al., CVPR
2018), P3D (Qiu et al., ICCV 2017), C3D (Tran et al., ICCV 2015), and
torchvision's, up to the last map: the last layer is the classifier's. MARS is
"resnext101" with MARS's weights, its flow stream "resnext101_flow"; of both
there are files for 16 and for 64 frames.

All are `cnn3d.ClipCNN`s: clips ``(N, T, 3, H, W)``, floats in [0, 1], or flow
``(N, T, 2, H, W)`` in pixels per frame, to ``(N, T', channels, h, w)``.
`pretrained3d` makes one by name.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib.networks.cnn3d import ClipCNN, Residual, Sizes, c3d, conv_bn
from lib.networks.pretrained import IMAGENET, KINETICS, torchvision

# Of inputs in [0, 1], what the weights expect: Hara et al. (2018) and MARS
# subtract ActivityNet's mean from 0..255 and do not divide,
BYTE = 1 / 255
ACTIVITYNET = {"mean": (114.7748 * BYTE, 107.7354 * BYTE, 99.475 * BYTE),
               "std": (BYTE,) * 3}
# MARS's flow came as bytes, 127.5 for rest, of -20 to 20 pixels per frame on
# frames whose shorter side is 256,
FLOW = {"mean": (0.0, 0.0), "std": (40 * BYTE,) * 2}
# C3D's code subtracts a mean too,
C3D_MEAN = {"mean": (102 * BYTE, 98 * BYTE, 90 * BYTE), "std": (BYTE,) * 3}
# the ResNets released in 2020 divide, and P3D's as ImageNet's do.
HARA_2020 = {"mean": (0.4345, 0.4051, 0.3775),
             "std": (0.2768, 0.2713, 0.2737)}


class Bottleneck(nn.Module):
    """1x1x1, 3x3x3 in groups, 1x1x1 beside a shortcut, then ReLU (Fig. 4)."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int,
                 groups: int = 1):
        super().__init__()
        self.conv1 = nn.Sequential(*conv_bn(inputs, width, 1), nn.ReLU())
        self.conv2 = nn.Sequential(
            *conv_bn(width, width, 3, stride, groups), nn.ReLU())
        self.conv3 = nn.Sequential(*conv_bn(width, outputs, 1))
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(self.conv2(self.conv1(x)))
        return (y + self.downsample(x)).relu()


class PseudoBlock(nn.Module):
    """P3D's bottleneck: 1x3x3 (S) and 3x1x1 (T) for one 3x3x3.

    kind: "A" is T after S, "B" both beside each other, "C" S plus T after S,
    "S" the plain bottleneck of the last stage, on each step by itself.
    """

    def __init__(self, inputs: int, width: int, stride: int, kind: str):
        super().__init__()
        self.kind, strides = kind, (1, stride, stride)
        self.conv1 = nn.Sequential(
            *conv_bn(inputs, width, 1, strides), nn.ReLU())
        self.conv2 = nn.Sequential(
            *conv_bn(width, width, (1, 3, 3)), nn.ReLU())
        if kind != "S":
            self.conv3 = nn.Sequential(
                *conv_bn(width, width, (3, 1, 1)), nn.ReLU())
        self.conv4 = nn.Sequential(*conv_bn(width, 4 * width, 1))
        self.downsample = _shortcut(
            inputs, 4 * width, 1 if stride == 1 else strides)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(x)
        y = self.conv2(first)
        if self.kind == "A":
            y = self.conv3(y)
        elif self.kind in "BC":
            y = y + self.conv3(first if self.kind == "B" else y)
        return (self.conv4(y) + self.downsample(x)).relu()


def _shortcut(inputs: int, outputs: int, stride: Sizes) -> nn.Sequential:
    """Nothing, or a 1x1x1 convolution where the size changes (type B)."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(*conv_bn(inputs, outputs, 1, stride))


def _basic(inputs: int, width: int, outputs: int, stride: int,
           groups: int) -> Residual:
    same = stride == 1 and inputs == outputs
    return Residual(inputs, outputs, None if same else stride)


def resnet(block: Callable[..., nn.Module], depths: tuple[int, ...],
           widths: tuple[int, ...], expansion: int, groups: int = 1,
           inputs: int = 3, **statistics: tuple[float, ...]) -> ClipCNN:
    """ResNet and ResNeXt in three dimensions.

    The stem halves the frame, its pooling and layer2 to layer4 halve frame
    and time: 64 x 112 x 112 gives layer3's map 8 x 7 x 7 and the last 4 x 4 x
    4, 16 frames 2 x 7 x 7 and 1 x 4 x 4.

    Args:
        block: called as block(inputs, width, outputs, stride, groups).
        depths, widths: blocks of layer1 to layer4, and channels inside.
        expansion: of those to a block's output.
        groups: of the 3x3x3 convolution in a Bottleneck, 32 in ResNeXt.
        inputs: channels of a frame, 3 for RGB, 2 for flow.
    """
    stages = OrderedDict(stem=nn.Sequential(
        *conv_bn(inputs, 64, 7, (1, 2, 2)), nn.ReLU(), nn.MaxPool3d(3, 2, 1)))
    last = 64
    for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        blocks = []
        for j in range(depth):
            blocks.append(block(last, width, width * expansion,
                                2 if i and not j else 1, groups))
            last = width * expansion
        stages[f"layer{i + 1}"] = nn.Sequential(*blocks)
    return _drawn(ClipCNN(
        stages, (64, *(width * expansion for width in widths)), **statistics))


def p3d(depths: tuple[int, ...], widths: tuple[int, ...],
        **statistics: tuple[float, ...]) -> ClipCNN:
    """Pseudo-3D ResNet: blocks A, B, C in turn; layer4 knows no time.

    16 x 160 x 160 gives layer3's map 2 x 10 x 10 and the last 1 x 5 x 5. As
    layer4 sees single steps, modules go "late" into layer3.
    """
    stages = OrderedDict(stem=nn.Sequential(
        *conv_bn(3, 64, (1, 7, 7), (1, 2, 2)), nn.ReLU(),
        nn.MaxPool3d((2, 3, 3), 2, (0, 1, 1))))
    kinds, channels = cycle("ABC"), [64]
    for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        blocks = []
        for j in range(depth):
            blocks.append(PseudoBlock(
                4 * width if j else channels[-1], width,
                2 if i and not j else 1, next(kinds) if i < 3 else "S"))
        stages[f"layer{i + 1}"] = nn.Sequential(*blocks)
        channels.append(4 * width)
        if i < 3:
            stages[f"pool{i + 1}"] = nn.MaxPool3d((2, 1, 1))
            channels.append(4 * width)
    return _drawn(ClipCNN(stages, channels, **statistics, shortest=16,
                          places={"late": r"stages\.layer3\.\d+"}))


def _drawn(net: ClipCNN) -> ClipCNN:
    """New weights as He et al. (2015) draw them."""
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="relu")
    return net


def _c3d() -> ClipCNN:
    net = c3d((64, 128, 256, 512, 512), 4096, side=4, **C3D_MEAN)
    # the released code pads the last map, where Caffe's rounds up
    net.stages["conv5"][-1] = nn.MaxPool3d(2, padding=(0, 1, 1))
    net.shortest = 16
    return net


WIDTHS = (64, 128, 256, 512)
RESNEXT = (Bottleneck, (3, 4, 23, 3), (128, 256, 512, 1024), 2, 32)
MAKERS = {
    # released in 2020; the file of 2018 has shortcuts of another type
    "resnet18": lambda: resnet(_basic, (2, 2, 2, 2), WIDTHS, 1, **HARA_2020),
    "resnet152": lambda: resnet(
        Bottleneck, (3, 8, 36, 3), WIDTHS, 4, **ACTIVITYNET),
    "resnext101": lambda: resnet(*RESNEXT, **ACTIVITYNET),
    "resnext101_flow": lambda: resnet(*RESNEXT, inputs=2, **FLOW),
    "p3d199": lambda: p3d((3, 8, 36, 3), WIDTHS, **IMAGENET),
    "c3d": _c3d,
}
TORCHVISION = ("r3d_18", "mc3_18", "r2plus1d_18")


def pretrained3d(name: str = "resnext101",
                 weights: str | Path | None = None) -> ClipCNN:
    """A backbone by name, without its last layer.

    Args:
        name: one of MAKERS or TORCHVISION. All but C3D have the stages stem
            and layer1 to layer4; of 16 x 112 x 112 torchvision's make maps
            of 7 x 7.
        weights: None; "kinetics" for torchvision's; else a released file.

    Raises:
        ValueError: for an unknown name, or weights that do not fit.
        FileNotFoundError: for a file that is not there.
    """
    if name in TORCHVISION:
        if weights not in (None, "kinetics"):
            raise ValueError(f"weights={weights!r}: use None or 'kinetics'")
        net = torchvision(name, weights is not None)
        stages = ("stem", "layer1", "layer2", "layer3", "layer4")
        return ClipCNN(OrderedDict((n, net.get_submodule(n)) for n in stages),
                       (64, *WIDTHS), **KINETICS)
    if name not in MAKERS:
        raise ValueError(f"network {name!r}: one of "
                         f"{[*MAKERS, *TORCHVISION]}")
    if weights == "kinetics":
        raise ValueError(f"weights='kinetics' are for {TORCHVISION}; for "
                         f"{name} give the path of the released file")
    net = MAKERS[name]()
    if weights is not None:
        load_released(net, weights)
    return net


def load_released(net: ClipCNN, weights: str | Path | Mapping[str, Tensor],
                  ) -> NamedTuple:
    """Copy a released checkpoint's weights into a network, in place.

    Args:
        weights: a file, or what it holds: a state_dict or a dict with one
            under "state_dict", its names with or without "module." in front.

    Returns:
        `missing_keys`, the names of inserted modules, which keep their
        weights, and `unexpected_keys`: the file's last layer.

    Raises:
        ValueError: if the checkpoint lacks a layer of the network or has it
            in another shape; nothing is copied then.
        FileNotFoundError: for a file that is not there.
    """
    if not isinstance(weights, Mapping):
        if not Path(weights).is_file():
            raise FileNotFoundError(
                f"no weights at {weights}: download the released file, as "
                "the network's authors describe")
        weights = torch.load(weights, "cpu", weights_only=True)
    own, state, is_c3d = net.state_dict(), {}, "fc6" in net.stages
    for name, value in weights.get("state_dict", weights).items():
        ours = _ours(name.removeprefix("module."), is_c3d)
        if ours in own:
            # where a layer is another kind, the same numbers in the same
            # order: 2D convolutions in P3D, fully connected ones in C3D
            fits = (value.shape[:1] == own[ours].shape[:1]
                    and value.numel() == own[ours].numel())
            if not fits:
                raise ValueError(
                    f"{name} is {tuple(value.shape)} in the checkpoint, here "
                    f"{tuple(own[ours].shape)}: another network, or stream "
                    "(RGB or flow)?")
            value = value.view_as(own[ours])
        state[ours] = value
    # files older than torch 0.4.1 have no counts of batches
    if lost := [name for name in own if name not in state and not (
            ".attention." in name or name.endswith("num_batches_tracked"))]:
        raise ValueError(f"the checkpoint lacks {len(lost)} of {len(own)} "
                         f"names, {lost[:3]} among them: is it this network?")
    if is_c3d:  # whose weights read blue first
        first = "stages.conv1.0.weight"
        state[first] = state[first].flip(1)
    return net.load_state_dict(state, strict=False)


# What is replaced in a released name to make it ours, in turn.
_RESNET = ((r"^(layer\d\.\d+)\.(conv|bn)_normal\.", r"\1.\g<2>2."),  # P3D's
           (r"^(layer\d\.\d+)\.conv(\d)\.", r"\1.conv\2.0."),
           (r"^(layer\d\.\d+)\.bn(\d)\.", r"\1.conv\2.1."),
           (r"^conv1(_custom)?\.", "stem.0."), (r"^bn1\.", "stem.1."))
# The file that C3D's code loads counts the layers of two chains.
_COUNTED = {f"features.{i}": f"conv{name}" for i, name in (
    (0, "1"), (3, "2"), (6, "3a"), (8, "3b"), (11, "4a"), (13, "4b"),
    (16, "5a"), (18, "5b"))} | {
    f"classifier.{i}": f"fc{n}" for i, n in ((0, 6), (3, 7), (6, 8))}
_C3D = (*((rf"^{re.escape(counted)}\.", f"{name}.")
          for counted, name in _COUNTED.items()),
        (r"^conv(\d)a?\.", r"conv\1.0."), (r"^conv(\d)b\.", r"conv\1.2."),
        (r"^fc6\.", "fc6.1."), (r"^fc7\.", "fc7.0."))


def _ours(name: str, is_c3d: bool) -> str:
    """Our name of a weight; of the last layer the released one."""
    for pattern, new in _C3D if is_c3d else _RESNET:
        name = re.sub(pattern, new, name)
    return name if name.startswith(("fc.", "fc8.")) else f"stages.{name}"
