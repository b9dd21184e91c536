"""The STA paper's 3D CNNs by name, with their released weights.

What is downloaded by torchvision has weights="kinetics"; for the others give
the released file. MARS is "resnext101" with MARS's weights, its flow stream
"resnext101_flow"; of both there are files for 16 and for 64 frames.
"""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lib.backbones3d import KINETICS, ClipCNN
from lib.kinetics import Loaded
from lib.nets3d import C3D, P3D, Basic, Bottleneck, NamedCNN, ResNet3D

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
