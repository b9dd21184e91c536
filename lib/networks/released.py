"""3D CNNs whose layers have the names of their released checkpoints.

The networks of the STA paper: 3D ResNets and ResNeXt (Hara et al., CVPR
2018), which are MARS's streams too, P3D (Qiu et al., ICCV 2017) and C3D (Tran
et al., ICCV 2015), up to the last map: the last layer is the classifier's.
All map clips ``(N, T, 3, H, W)``, floats in [0, 1], or flow ``(N, T, 2, H,
W)`` in pixels per frame, to ``(N, T', channels, h, w)``.
"""


from collections import OrderedDict
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from lib.networks.cnn3d import KINETICS, ClipCNN, Loaded


class NamedCNN(nn.Module):
    """What they share: the layout, and the mean and deviation they expect.

    Args:
        channels: of the last map.
        head: name of the checkpoints' last layer, which stays outside.
        mean, std: per input channel.
    """

    def __init__(self, channels: int, head: str, mean: tuple[float, ...],
                 std: tuple[float, ...]):
        super().__init__()
        self.channels, self.head = channels, head
        for name, value in (("mean", mean), ("std", std)):
            value = torch.tensor(value).view(-1, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def forward(self, clips: Tensor) -> Tensor:
        """``(N, T, 3 or 2, H, W) -> (N, T', channels, h, w)``.

        Raises:
            ValueError: if these are no clips of floats of as many channels,
                or the network cannot take their size.
        """
        if not clips.is_floating_point():
            raise ValueError("clips must be floats in [0, 1]: divide by 255")
        if clips.ndim != 5 or clips.shape[2] != len(self.mean):
            raise ValueError(f"clips must be (N, T, {len(self.mean)}, H, W), "
                             f"got {tuple(clips.shape)}: 3 channels are RGB, "
                             "2 are flow")
        x = rearrange((clips - self.mean) / self.std, "n t c h w -> n c t h w")
        return rearrange(self.maps(x), "n c t h w -> n t c h w")

    def maps(self, x: Tensor) -> Tensor:
        """The layers, ``(N, C, T, H, W)`` to the last map."""
        raise NotImplementedError


class Basic(nn.Module):
    """Two 3x3x3 convolutions beside a shortcut, then ReLU."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int,
                 groups: int):
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, outputs, 3, 1, 1, groups=groups,
                               bias=False)
        self.bn2 = nn.BatchNorm3d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(y)) + self.downsample(x)).relu()


class Bottleneck(nn.Module):
    """1x1x1, 3x3x3 in groups, 1x1x1 beside a shortcut, then ReLU (Fig. 4)."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int,
                 groups: int):
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, 3, stride, 1, groups=groups,
                               bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + self.downsample(x)).relu()


def _shortcut(inputs: int, outputs: int, stride: int | tuple[int, int, int],
              conv: type[nn.Module] = nn.Conv3d,
              norm: type[nn.Module] = nn.BatchNorm3d) -> nn.Module:
    """Nothing, or a 1x1x1 convolution where the size changes (type B)."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(
        conv(inputs, outputs, 1, stride, bias=False), norm(outputs))


class ResNet3D(NamedCNN):
    """ResNet and ResNeXt in three dimensions.

    conv1 halves the frame, a pooling and layer2 to layer4 halve frame and
    time: 64 x 112 x 112 gives layer3's map 8 x 7 x 7 and the last 4 x 4 x 4,
    16 frames 2 x 7 x 7 and 1 x 4 x 4.

    Args:
        block: Basic or Bottleneck.
        depths, widths: blocks of layer1 to layer4, and channels inside.
        expansion: of those to a block's output.
        groups: of the 3x3x3 convolution in a Bottleneck, 32 in ResNeXt.
        inputs: channels of a frame, 3 for RGB, 2 for flow.
    """

    def __init__(self, block: type[nn.Module], depths: tuple[int, ...],
                 widths: tuple[int, ...], expansion: int, groups: int = 1,
                 inputs: int = 3, **statistics: tuple[float, ...]):
        super().__init__(widths[-1] * expansion, "fc", **statistics)
        self.conv1 = nn.Conv3d(inputs, 64, 7, (1, 2, 2), 3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        self.maxpool = nn.MaxPool3d(3, 2, 1)
        last = 64
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = []
            for j in range(depth):
                stride = 2 if i and not j else 1
                blocks.append(block(
                    last, width, width * expansion, stride, groups))
                last = width * expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        _draw(self)

    def maps(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class PseudoBlock(nn.Module):
    """P3D's bottleneck: 1x3x3 (S) and 3x1x1 (T) for one 3x3x3.

    kind: "A" is T after S, "B" both beside each other, "C" S plus T after S.
    """

    def __init__(self, inputs: int, width: int, stride: int, kind: str):
        super().__init__()
        self.kind, strides = kind, (1, stride, stride)
        self.conv1 = nn.Conv3d(inputs, width, 1, strides, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, (1, 3, 3), padding=(0, 1, 1),
                               bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0),
                               bias=False)
        self.bn3 = nn.BatchNorm3d(width)
        self.conv4 = nn.Conv3d(width, 4 * width, 1, bias=False)
        self.bn4 = nn.BatchNorm3d(4 * width)
        self.downsample = _shortcut(
            inputs, 4 * width, 1 if stride == 1 else strides)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        space = self.bn2(self.conv2(y)).relu()
        time = self.bn3(self.conv3(y if self.kind == "B" else space)).relu()
        y = self.bn4(self.conv4(time if self.kind == "A" else space + time))
        return (y + self.downsample(x)).relu()


class FlatBlock(nn.Module):
    """P3D's last stage: a plain bottleneck on each step by itself."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv_normal = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn_normal = nn.BatchNorm2d(width)
        self.conv4 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn4 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(
            inputs, 4 * width, stride, nn.Conv2d, nn.BatchNorm2d)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn_normal(self.conv_normal(y)).relu()
        return (self.bn4(self.conv4(y)) + self.downsample(x)).relu()


class P3D(NamedCNN):
    """Pseudo-3D ResNet: blocks A, B, C in turn; layer4 knows no time.

    16 x 160 x 160 gives layer3's map 2 x 10 x 10 and the last 1 x 5 x 5. As
    layer4 sees single steps, modules go "late" into layer3.
    """

    places = {"late": r"layer3\.\d+"}

    def __init__(self, depths: tuple[int, ...], widths: tuple[int, ...],
                 **statistics: tuple[float, ...]):
        super().__init__(4 * widths[-1], "fc", **statistics)
        self.conv1_custom = nn.Conv3d(
            3, 64, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        self.maxpool = nn.MaxPool3d((2, 3, 3), 2, (0, 1, 1))
        self.maxpool_2 = nn.MaxPool3d((2, 1, 1))  # after layer1, 2 and 3
        kinds, last = cycle("ABC"), 64
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = []
            for j in range(depth):
                stride = 2 if i and not j else 1
                blocks.append(
                    PseudoBlock(last, width, stride, next(kinds)) if i < 3
                    else FlatBlock(last, width, stride))
                last = 4 * width
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        _draw(self)

    def maps(self, x: Tensor) -> Tensor:
        if x.shape[2] < 16:
            raise ValueError(f"P3D halves time four times: give clips of 16 "
                             f"frames or more, not {x.shape[2]}")
        x = self.maxpool(self.bn1(self.conv1_custom(x)).relu())
        for layer in (self.layer1, self.layer2, self.layer3):
            x = self.maxpool_2(layer(x))
        steps = self.layer4(rearrange(x, "n c t h w -> (n t) c h w"))
        return rearrange(steps, "(n t) c h w -> n c t h w", n=len(x))


def _draw(net: nn.Module) -> None:
    """New weights as He et al. (2015) draw them."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="relu")


class ConvReLU(nn.Conv3d):
    """A convolution and its ReLU under the convolution's name."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class C3D(NamedCNN):
    """Eight 3x3x3 convolutions, five poolings, fc6 and fc7.

    Takes 16 x 112 x 112, whose map at conv5b is 2 x 7 x 7; the last is fc7's
    4096 numbers as ``(N, 1, 4096, 1, 1)``. Its weights read blue first.
    `backbones3d.c3d` is the same network for other sizes and names.
    """

    places = {"early": r"conv2", "late": r"conv5b"}

    def __init__(self, **statistics: tuple[float, ...]):
        super().__init__(4096, "fc8", **statistics)
        last = 3
        for name, width in (("1", 64), ("2", 128), ("3a", 256), ("3b", 256),
                            ("4a", 512), ("4b", 512), ("5a", 512),
                            ("5b", 512)):
            self.add_module(f"conv{name}", ConvReLU(last, width, 3, padding=1))
            last = width
        for i in range(1, 6):
            self.add_module(f"pool{i}", nn.MaxPool3d(
                (1 if i == 1 else 2, 2, 2),
                padding=(0, 1, 1) if i == 5 else 0))
        self.fc6, self.fc7 = nn.Linear(8192, 4096), nn.Linear(4096, 4096)
        self.dropout = nn.Dropout(0.5)

    def maps(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (16, 112, 112):
            raise ValueError("C3D's fc6 takes clips of 16 x 112 x 112, not "
                             f"{tuple(x.shape[2:])}")
        x = x.flip(1)  # to blue, green, red
        x = self.pool2(self.conv2(self.pool1(self.conv1(x))))
        for i in (3, 4, 5):
            for name in (f"conv{i}a", f"conv{i}b", f"pool{i}"):
                x = self.get_submodule(name)(x)
        for layer in (self.fc6, self.fc7):
            x = self.dropout(layer(x.flatten(1)).relu())
        return x[:, :, None, None, None]

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
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

WIDTHS = (64, 128, 256, 512)
RESNEXT = (Bottleneck, (3, 4, 23, 3), (128, 256, 512, 1024), 2, 32)
MAKERS = {
    # released in 2020; the file of 2018 has shortcuts of another type
    "resnet18": lambda: ResNet3D(Basic, (2, 2, 2, 2), WIDTHS, 1, **HARA_2020),
    "resnet152": lambda: ResNet3D(
        Bottleneck, (3, 8, 36, 3), WIDTHS, 4, **ACTIVITYNET),
    "resnext101": lambda: ResNet3D(*RESNEXT, **ACTIVITYNET),
    "resnext101_flow": lambda: ResNet3D(*RESNEXT, inputs=2, **FLOW),
    "p3d199": lambda: P3D((3, 8, 36, 3), WIDTHS, **IMAGENET),
    "c3d": lambda: C3D(**C3D_MEAN),
}
TORCHVISION = ("r3d_18", "mc3_18", "r2plus1d_18")


def pretrained3d(name: str = "resnext101", weights: str | None = None,
                 head: nn.Linear | None = None) -> NamedCNN | ClipCNN:
    """A backbone by name, without its last layer.

    Args:
        name: one of MAKERS or TORCHVISION; the latter have the stages stem
            and layer1 to layer4.
        weights: None; "kinetics" for torchvision's; else a released file.
        head: takes the file's last layer (`load_released`).

    Raises:
        ValueError: for an unknown name, or weights that do not fit.
        FileNotFoundError: for a file that is not there.
    """
    if name in TORCHVISION:
        return _torchvision(name, weights)
    if name not in MAKERS:
        raise ValueError(f"network {name!r}: one of "
                         f"{[*MAKERS, *TORCHVISION]}")
    if weights == "kinetics":
        raise ValueError(f"weights='kinetics' are for {TORCHVISION}; for "
                         f"{name} give the path of the released file")
    net = MAKERS[name]()
    if weights is not None:
        load_released(net, weights, head)
    return net


def _torchvision(name: str, weights: str | None) -> ClipCNN:
    """torchvision's network up to layer4: 16 x 112 x 112 gives 2 x 7 x 7."""
    from torchvision.models import get_model, get_model_weights

    if weights not in (None, "kinetics"):
        raise ValueError(f"weights={weights!r}: use None or 'kinetics'")
    net = get_model(name, weights=None)
    if weights:
        # weights_only: never run what a downloaded file brings along
        net.load_state_dict(get_model_weights(name).DEFAULT.get_state_dict(
            progress=False, check_hash=True, weights_only=True))
    names = ("stem", "layer1", "layer2", "layer3", "layer4")
    return ClipCNN(OrderedDict((n, net.get_submodule(n)) for n in names),
                   (64, *WIDTHS), **KINETICS)


def load_released(net: NamedCNN, weights: str | Path | Mapping[str, Tensor],
                  head: nn.Linear | None = None) -> Loaded:
    """Copy a released checkpoint's weights into a network, in place.

    Inserted modules keep theirs and are named in `missing`; the last layer
    goes to `head`, or is named in `unused`.

    Args:
        weights: a file, or what it holds: a state_dict or a dict with one
            under "state_dict", its names with or without "module." in front.

    Raises:
        ValueError: if the network lacks a layer or has another shape than
            the checkpoint's, or `head` has other classes.
        FileNotFoundError: for a file that is not there.
    """
    if not isinstance(weights, Mapping):
        if not Path(weights).is_file():
            raise FileNotFoundError(
                f"no weights at {weights}: download the released file, as "
                "the network's authors describe")
        weights = torch.load(weights, "cpu", weights_only=True)
    state = {_plain(name): value
             for name, value in weights.get("state_dict", weights).items()}
    own = net.state_dict()
    # files older than torch 0.4.1 have no counts of batches
    missing = [name for name in own if name not in state
               and not name.endswith("num_batches_tracked")]
    if lost := [name for name in missing if ".attention." not in name]:
        raise ValueError(f"the checkpoint lacks {len(lost)} of {len(own)} "
                         f"names, {lost[:3]} among them: is it this network?")
    _fit(net, {name: state[name] for name in own if name in state})
    last = {} if head is None else {
        part: state.get(f"{net.head}.{part}") for part in ("weight", "bias")}
    if None in last.values():
        raise ValueError(f"the checkpoint has no last layer {net.head!r} for "
                         "`head`: load it without")
    if head is not None:
        _fit(head, last)
    unused = [name for name in state if name not in own
              and name not in [f"{net.head}.{part}" for part in last]]
    return Loaded([n for n in own if n in state], missing, unused)


def _fit(module: nn.Module, state: dict[str, Tensor]) -> None:
    own = module.state_dict()
    for name, value in state.items():
        if own[name].shape != value.shape:
            raise ValueError(
                f"{name} is {tuple(value.shape)} in the checkpoint, here "
                f"{tuple(own[name].shape)}: another network, number of "
                "classes, or stream (RGB or flow)?")
    module.load_state_dict(state, strict=False)


def _plain(name: str) -> str:
    """Without what nn.DataParallel adds; C3D's numbered layers by name."""
    name = name.removeprefix("module.")
    kind, number, part = (name.split(".") + ["", ""])[:3]
    layer = _C3D.get((kind, number))
    return f"{layer}.{part}" if layer else name


# The file that C3D's code loads counts the layers of two chains.
_C3D = {("features", str(i)): f"conv{name}" for i, name in (
    (0, "1"), (3, "2"), (6, "3a"), (8, "3b"), (11, "4a"), (13, "4b"),
    (16, "5a"), (18, "5b"))}
_C3D |= {("classifier", str(i)): f"fc{n}" for i, n in ((0, 6), (3, 7), (6, 8))}
