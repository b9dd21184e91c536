"""2D CNNs that turn frames into feature maps, with named stages.

Small ones for laptops, with puppet-trained weights, and published ones. From
``(B, T, 3, H, W)`` floats in [0, 1], or stacks of L flow fields ``(B, T, 2L,
H, W)`` in pixels per frame, to ``(B, T, C, h, w)``; each owns mean and std.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from einops import reduce
from torch import Tensor, nn

from lib import ROOT
from lib.networks import bninception
from lib.networks.pretrained import (
    FLOW_STD,
    IMAGENET,
    load_weights,
    puppet_weights,
    torchvision,
)

SMALL = {"small_narrow": 12, "small": 24, "small_wide": 32}
RESNETS = ("resnet18", "resnet50", "resnet101", "resnet152")
PUBLISHED = (*RESNETS, "vgg16", "googlenet")  # with ImageNet weights


class FrameCNN(nn.Module):
    """A 2D CNN run on every frame of a batch of videos.

    Args:
        stages: name -> module, in order; `forward` stops after `stage`.
        channels: of the last stage, C.
        mean, std: per RGB channel of inputs in [0, 1].
        cube: the stage that makes the cube of `features`, and its channels;
            by default the last.
        head: makes the vector of `features` from the last stage's map, and
            the vector's length; by default the mean over positions.
    """

    def __init__(self, stages: "OrderedDict[str, nn.Module]", channels: int,
                 mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
                 std: tuple[float, float, float] = (0.25, 0.25, 0.25),
                 cube: tuple[str, int] | None = None,
                 head: tuple[nn.Module, int] | None = None):
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.channels = channels
        last = next(reversed(stages))
        self.cube, self.cube_channels = cube or (last, channels)
        average = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head, self.vector_channels = head or (average, channels)
        for name, value in (("mean", mean), ("std", std)):
            value = torch.tensor(value).view(3, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def extra_repr(self) -> str:
        return f"cube={self.cube!r}"  # caches tell networks apart by repr

    def forward(self, video: Tensor, stage: str | None = None) -> Tensor:
        """``(B, T, 3, H, W) -> (B, T, C, h, w)``, after `stage` or the last.

        Raises:
            ValueError: if the frames are not floats or have other channels
                than the network, or no stage has the name.
        """
        if not video.is_floating_point():
            raise ValueError("frames must be floats in [0, 1]: divide by 255")
        if (given := video.shape[-3]) != (wanted := len(self.mean)):
            raise ValueError(f"{given} channels for a network that reads "
                             f"{wanted}: 3 are RGB, 2L are flow")
        if stage is not None and stage not in self.stages:
            raise ValueError(f"stage {stage!r}: one of {list(self.stages)}")
        x = ((video - self.mean) / self.std).flatten(0, 1)
        for name, module in self.stages.items():
            x = module(x)
            if name == stage:
                break
        return x.unflatten(0, video.shape[:2])

    def features(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """What attention reads, and what sums up each frame, in one pass.

        Returns the cube (B, T, cube_channels, h, w), a stage's map, and the
        vector (B, T, vector_channels). Raises as `forward` does.
        """
        cube = self(video, self.cube)
        x, names = cube.flatten(0, 1), list(self.stages)
        for name in names[names.index(self.cube) + 1:]:
            x = self.stages[name](x)
        return cube, self.head(x).unflatten(0, cube.shape[:2])


def small_cnn(width: int) -> FrameCNN:
    """Stages conv1 to conv4, stride 8: 64 pixels give 8x8 maps.

    Channels width, 2, 4 and 4 times width. A cell sees 29x29 pixels, less
    than half of such a frame, so that it is a place: behind the pooling of
    conv3 all kernels are 1x1.
    """
    layers = {"conv1": ((5, 2),), "conv2": ((3, 2), (3, 1), (3, 1)),
              "conv3": ((1, 1), (1, 1)), "conv4": ((1, 1),)}
    stages, inputs = OrderedDict(), 3
    for (name, kernels), wide in zip(layers.items(), (1, 2, 4, 4),
                                     strict=True):
        stage = [nn.MaxPool2d(2)] if name == "conv3" else []
        for kernel, stride in kernels:
            stage += [nn.Conv2d(inputs, wide * width, kernel, stride,
                                kernel // 2, bias=False),
                      nn.BatchNorm2d(wide * width), nn.ReLU()]
            inputs = wide * width
        stages[name] = nn.Sequential(*stage)
    return FrameCNN(stages, inputs)


def resnet(name: str, pretrained: bool) -> FrameCNN:
    """torchvision's ResNet up to layer4: 224 px give 7x7 maps."""
    net = torchvision(name, pretrained)
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    stages = OrderedDict(conv1=stem, layer1=net.layer1, layer2=net.layer2,
                         layer3=net.layer3, layer4=net.layer4)
    return FrameCNN(stages, net.fc.in_features, **IMAGENET)


def _pooled(layers: Iterable[nn.Module]) -> Iterator[nn.Sequential]:
    """Cut a chain of layers behind every max pooling."""
    piece = []
    for layer in layers:
        piece.append(layer)
        if isinstance(layer, nn.MaxPool2d):
            yield nn.Sequential(*piece)
            piece = []


def vgg(name: str, pretrained: bool) -> FrameCNN:
    """torchvision's VGG (Simonyan and Zisserman, 2015) up to its fc6.

    Stages conv1 to conv5 end with their pooling: 224 px give 512 x 7 x 7.
    The vector is fc6 after ReLU, 4096: RSTAN's GPCNN (section IV-B).
    """
    net = torchvision(name, pretrained, init_weights=not pretrained)
    stages = OrderedDict(
        (f"conv{i}", s) for i, s in enumerate(_pooled(net.features), 1))
    head = nn.Sequential(net.avgpool, nn.Flatten(), *net.classifier[:2])
    return FrameCNN(stages, 512, **IMAGENET, head=(head, 4096))


def googlenet(name: str, pretrained: bool) -> FrameCNN:
    """torchvision's GoogLeNet (Szegedy et al., 2015): 224 px, 7x7 maps.

    The cube is inception5a (832 channels), the vector inception5b's mean.
    """
    net = torchvision(name, pretrained, aux_logits=False,
                      init_weights=not pretrained)
    names = ("conv1", "conv2", "inception3", "inception4")
    stages = OrderedDict(zip(names, _pooled(net.children()), strict=True))
    stages |= {"inception5a": net.inception5a, "inception5b": net.inception5b}
    # its weights expect [-1, 1]: what torchvision's transform_input restores
    half = (0.5,) * 3
    return FrameCNN(stages, 1024, half, half, ("inception5a", 832))


def for_flow(net: FrameCNN, channels: int) -> FrameCNN:
    """Make an RGB network read flow, in place; returns it.

    Its first kernels are averaged over RGB and repeated for each of the
    `channels` = 2L: the cross-modality initialisation of temporal segment
    networks (Wang et al., 2016). ValueError for an odd number of channels.
    """
    if channels < 2 or channels % 2:
        raise ValueError(f"{channels} channels: 3 are RGB, 2L are flow")
    first = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    grey = first.weight.detach().mean(1, keepdim=True)
    first.weight = nn.Parameter(grey.repeat(1, channels, 1, 1))
    first.in_channels = channels
    net.mean = net.mean.new_zeros(channels, 1, 1)
    net.std = net.std.new_full((channels, 1, 1), FLOW_STD)
    return net


def frame_cnn(name: str = "small", weights: str | None = None,
              channels: int = 3) -> FrameCNN:
    """A backbone by name.

    Args:
        name: one of SMALL, one of PUBLISHED, or "bninception".
        weights: None, "puppets" (SMALL, kept in the repository), "imagenet"
            (PUBLISHED, downloaded), or the path of a safetensors file.
        channels: 3 for RGB; 2L for a flow network. "imagenet" gives it the
            start of `for_flow`; "puppets" is kept for "small" and 4 alone.

    Raises:
        ValueError: for an unknown name, channels that are not 3 and not
            even, weights that it does not have, or a file that does not fit.
        FileNotFoundError: for a file of weights that is not there.
    """
    if name not in (known := [*SMALL, *PUBLISHED, "bninception"]):
        raise ValueError(f"backbone {name!r}: one of {known}")
    if name in PUBLISHED:
        make = {"vgg16": vgg, "googlenet": googlenet}.get(name, resnet)
        net = make(name, weights == "imagenet")
    elif weights == "imagenet":
        raise ValueError(f"{name}: no ImageNet weights in torchvision")
    elif name == "bninception":
        net = FrameCNN(**bninception.parts())
    else:
        net = small_cnn(SMALL[name])
    if channels != 3:
        net = for_flow(net, channels)
    if weights == "puppets":
        load_weights(net, puppet_weights(name, channels))
    elif weights not in (None, "imagenet"):
        load_weights(net, Path(weights))
    return net


def stream_cnn(name: str, weights: str, channels: int = 3) -> FrameCNN:
    """A backbone of an RGB or a flow stream, from a notebook's parameters.

    weights: as in `frame_cnn`, or "none"; a file is counted from the
    project's root, and holds RGB weights: those of a flow stream are the
    start of `for_flow`.
    """
    if weights in ("none", "puppets", "imagenet"):
        return frame_cnn(name, None if weights == "none" else weights,
                         channels)
    net = frame_cnn(name, str(ROOT / weights))
    return net if channels == 3 else for_flow(net, channels)


class FrameAverageOutput(NamedTuple):
    """The baseline's output: a class, and nothing of where and when."""

    logits: Tensor  # (B, K)
    spans: Tensor  # (T, 2)


class FrameAverage(nn.Module):
    """The baseline without attention: mean over frames and positions, then fc.

    Sees each frame by itself and forgets where and when: what the papers call
    the fine-tuned CNN. Takes features ``(B, T, C, h, w)``, or videos if a
    backbone is given.

    standardise: the means first, by a batch norm without weights. The
        channels of a frozen network differ in size by orders of magnitude,
        and one learning rate does not suit all of them.
    """

    def __init__(self, channels: int, classes: int,
                 backbone: nn.Module | None = None, *,
                 standardise: bool = False):
        super().__init__()
        self.backbone = backbone or nn.Identity()
        self.norm = (nn.BatchNorm1d(channels, affine=False) if standardise
                     else nn.Identity())
        self.classify = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> FrameAverageOutput:
        x = reduce(self.backbone(x), "b t c h w -> b t c", "mean")
        steps = torch.arange(x.shape[1], device=x.device)
        return FrameAverageOutput(
            self.classify(self.norm(x.mean(1))),
            torch.stack((steps, steps + 1), -1))
