"""BN-Inception (Ioffe and Szegedy, ICML 2015), the network of TSN.

GoogLeNet with a batch norm behind every convolution and two 3x3 convolutions
in the place of a 5x5. Layers have the names of the published Caffe model that
temporal segment networks (Wang et al., 2016) fine-tune, such as
`inception_3a_double_3x3_1_bn`; `cnn2d.frame_cnn` makes it a backbone.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

# The published weights expect BGR in [0, 255] less (104, 117, 128); as RGB
# in [0, 1] that is:
MEAN = (128 / 255, 117 / 255, 104 / 255)
STD = (1 / 255, 1 / 255, 1 / 255)
# Channels of each block's branches: 1x1; reduced and 3x3; reduced and double
# 3x3; projected behind the pooling. Without 1x1 and projection the branches
# halve the map, and the pooled input is passed on as it is.
BLOCKS = {
    "inception_3a": (64, (64, 64), (64, 96), 32),
    "inception_3b": (64, (64, 96), (64, 96), 64),
    "inception_3c": (None, (128, 160), (64, 96), None),
    "inception_4a": (224, (64, 96), (96, 128), 128),
    "inception_4b": (192, (96, 128), (96, 128), 128),
    "inception_4c": (160, (128, 160), (128, 160), 128),
    "inception_4d": (96, (128, 192), (160, 192), 128),
    "inception_4e": (None, (128, 192), (192, 256), None),
    "inception_5a": (352, (192, 320), (160, 224), 128),
    "inception_5b": (352, (192, 320), (192, 224), 128),
}


def _layer(name: str, inputs: int, outputs: int, kernel: int = 1,
           stride: int = 1) -> nn.Sequential:
    """A convolution, as published with a bias, its norm and ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
    return nn.Sequential(OrderedDict([
        (name, conv), (f"{name}_bn", nn.BatchNorm2d(outputs)),
        (f"{name}_relu", nn.ReLU())]))


class Inception(nn.Module):
    """Branches beside each other, joined over channels; see BLOCKS."""

    def __init__(self, name: str, inputs: int, single: int | None,
                 three: tuple[int, int], double: tuple[int, int],
                 projected: int | None):
        super().__init__()
        self.halves = single is None
        stride = 2 if self.halves else 1
        self.channels = ((single or 0) + three[1] + double[1]
                         + (projected or inputs))
        self.branches = nn.ModuleList([
            nn.Sequential(
                _layer(f"{name}_3x3_reduce", inputs, three[0]),
                _layer(f"{name}_3x3", *three, 3, stride)),
            nn.Sequential(
                _layer(f"{name}_double_3x3_reduce", inputs, double[0]),
                _layer(f"{name}_double_3x3_1", *double, 3),
                _layer(f"{name}_double_3x3_2", double[1], double[1], 3,
                       stride))])
        if self.halves:
            self.branches.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            return
        # only the last block pools by the maximum, as published
        pool = nn.MaxPool2d if name == "inception_5b" else nn.AvgPool2d
        self.branches.insert(0, _layer(f"{name}_1x1", inputs, single))
        self.branches.append(nn.Sequential(
            pool(3, 1, 1), _layer(f"{name}_pool_proj", inputs, projected)))

    def forward(self, x: Tensor) -> Tensor:
        if self.halves and any(side % 2 for side in x.shape[-2:]):
            raise ValueError(f"a map {tuple(x.shape[-2:])} cannot be halved: "
                             "give frames whose sides are multiples of 32")
        return torch.cat([branch(x) for branch in self.branches], 1)


def parts() -> dict[str, Any]:
    """What `cnn2d.FrameCNN` needs to be a BN-Inception.

    Stages conv1, conv2, inception_3a to inception_5b: 224 pixels end as 1024
    x 7 x 7. The cube is inception_5a, which RSTAN reads (section IV-B).
    """
    made = OrderedDict(
        conv1=nn.Sequential(
            _layer("conv1_7x7_s2", 3, 64, 7, 2),
            nn.MaxPool2d(3, 2, ceil_mode=True)),
        conv2=nn.Sequential(
            _layer("conv2_3x3_reduce", 64, 64),
            _layer("conv2_3x3", 64, 192, 3),
            nn.MaxPool2d(3, 2, ceil_mode=True)))
    inputs = 192
    for name, branches in BLOCKS.items():
        made[name] = Inception(name, inputs, *branches)
        inputs = made[name].channels
    return {"stages": made, "channels": inputs, "mean": MEAN, "std": STD,
            "cube": ("inception_5a", 1024)}


def load_published(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy published weights into a network made of `parts`, in place.

    state: name -> tensor, as ``conv1_7x7_s2.weight``; it expects BGR, so the
        first kernels are turned over, and its last layer is left out.

    Raises:
        ValueError: if a layer is missing or has another shape.
    """
    found = {}
    for name, own in net.state_dict().items():
        published = ".".join(name.split(".")[-2:])
        if name.endswith("num_batches_tracked"):  # younger than they
            continue
        given = state.get(published, torch.empty(0))
        if given.numel() != own.numel():
            raise ValueError(
                f"{published} is missing or of another shape: give "
                "BN-Inception's weights, by the Caffe model's names")
        # some files hold the norms' numbers as (1, C)
        found[name] = given.view_as(own)
    found["stages.conv1.0.conv1_7x7_s2.weight"] = (
        state["conv1_7x7_s2.weight"].flip(1))
    net.load_state_dict(found, strict=False)
