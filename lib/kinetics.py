"""torchvision's weights for Kinetics-400 in networks of our own layout.

Needs torch, and torchvision to download.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn


def r3d_18_weights() -> dict[str, Tensor]:
    """The published weights of an r3d_18, downloaded once by torch."""
    from torchvision.models.video import R3D_18_Weights

    # weights_only: never run what a downloaded file brings along
    return R3D_18_Weights.DEFAULT.get_state_dict(
        progress=False, check_hash=True, weights_only=True)


class Loaded(NamedTuple):
    """Names of parameters and buffers: what was loaded, and what not."""

    loaded: list[str]  # ours that took torchvision's values
    missing: list[str]  # ours that kept their own
    unused: list[str]  # torchvision's that found no place


def load_r3d_18(net: nn.Module, state: Mapping[str, Tensor]) -> Loaded:
    """Copy an r3d_18's weights to where name and shape agree, in place.

    net: a `backbones3d.ClipCNN`, or what holds one under the same names.
    r3d_18 (Tran et al., CVPR 2018) is `resnet3d` but for the shortcut of
    conv2a, which it leaves out: there ours becomes the identity if the rest
    of conv2a was loaded, so that in eval mode both give the same map.
    A stage that was replaced keeps its weights.
    """
    own = net.state_dict()
    renamed = {_renamed(name): name for name in state}
    loaded = [name for name in own
              if name in renamed
              and own[name].shape == state[renamed[name]].shape]
    net.load_state_dict(
        {name: state[renamed[name]] for name in loaded}, strict=False)
    if "stages.conv2a.conv1.0.weight" in loaded:
        _make_identity(net.stages["conv2a"].downsample)
    return Loaded(
        loaded, [name for name in own if name not in loaded],
        [name for ours, name in renamed.items() if ours not in loaded])


def _renamed(name: str) -> str:
    """torchvision's name of a weight -> ours: layer2.1 is identity3b."""
    layer, _, rest = name.partition(".")
    if layer == "stem":
        return f"stages.conv1.{rest}"
    if not layer.startswith("layer"):
        return name
    block, _, rest = rest.partition(".")
    kind = ("conv{}a", "identity{}b")[int(block)]
    return f"stages.{kind.format(int(layer[5:]) + 1)}.{rest}"


def _make_identity(shortcut: nn.Sequential) -> None:
    conv, norm = shortcut
    norm.reset_parameters()
    with torch.no_grad():
        nn.init.dirac_(conv.weight)
        norm.weight.fill_((1 + norm.eps) ** 0.5)  # what the norm divides by
