"""2D CNNs that turn frames into feature maps, with named stages.

One small network for laptops, whose puppet-trained weights are kept beside
this file, and torchvision's ResNets. All map ``(B, T, 3, H, W)`` floats in
[0, 1] to ``(B, T, C, h, w)``; each owns the mean and deviation it expects.
"""

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "weights"
SMALL = {"small_narrow": 8, "small": 16, "small_wide": 24}
RESNETS = ("resnet18", "resnet50", "resnet101", "resnet152")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class FrameCNN(nn.Module):
    """A 2D CNN run on every frame of a batch of videos.

    Args:
        stages: name -> module, in order; `forward` stops after `stage`.
        channels: of the last stage, C.
        mean, std: per RGB channel of inputs in [0, 1].
    """

    def __init__(
        self,
        stages: "OrderedDict[str, nn.Module]",
        channels: int,
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        std: tuple[float, float, float] = (0.25, 0.25, 0.25),
    ):
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.channels = channels
        for name, value in (("mean", mean), ("std", std)):
            value = torch.tensor(value).view(3, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def forward(self, video: Tensor, stage: str | None = None) -> Tensor:
        """``(B, T, 3, H, W) -> (B, T, C, h, w)``, after `stage` or the last.

        Raises:
            ValueError: if the frames are not floats, or no stage has the name.
        """
        if not video.is_floating_point():
            raise ValueError("frames must be floats in [0, 1]: divide by 255")
        if stage is not None and stage not in self.stages:
            raise ValueError(f"stage {stage!r}: one of {list(self.stages)}")
        x = rearrange((video - self.mean) / self.std, "b t ... -> (b t) ...")
        for name, module in self.stages.items():
            x = module(x)
            if name == stage:
                break
        return rearrange(x, "(b t) ... -> b t ...", b=len(video))


def small_cnn(width: int) -> FrameCNN:
    """Four stages of two 3x3 convolutions, stride 8: 64 px give 8x8 maps.

    Channels width, 2, 4 and 4 times width.
    """
    widths = [width, 2 * width, 4 * width, 4 * width]
    stages, inputs = OrderedDict(), 3
    for i, outputs in enumerate(widths):
        stages[f"conv{i + 1}"] = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, 1 + (i < 3), 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )
        inputs = outputs
    return FrameCNN(stages, widths[-1])


def resnet(name: str, pretrained: bool) -> FrameCNN:
    """torchvision's ResNet up to layer4: 224 px give 7x7 maps."""
    from torchvision import models

    net = models.get_model(name, weights=None)
    if pretrained:
        weights = models.get_model_weights(name).DEFAULT
        # weights_only: never run what a downloaded file brings along
        net.load_state_dict(weights.get_state_dict(
            progress=False, check_hash=True, weights_only=True))
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    stages = OrderedDict(conv1=stem)
    for layer in ("layer1", "layer2", "layer3", "layer4"):
        stages[layer] = getattr(net, layer)
    return FrameCNN(stages, net.fc.in_features, *IMAGENET)


def frame_cnn(name: str = "small", weights: str | None = None) -> FrameCNN:
    """A backbone by name.

    Args:
        name: "small", "small_narrow", "small_wide" or a ResNet.
        weights: None, "puppets" (small networks, kept in the repository),
            "imagenet" (ResNets, downloaded by torchvision), or the path of a
            safetensors file written by `save_weights`.

    Raises:
        ValueError: for an unknown name or weights that it does not have.
    """
    if name in RESNETS:
        if weights == "puppets":
            raise ValueError(f"{name} has no puppet-trained weights")
        net = resnet(name, weights == "imagenet")
    elif name in SMALL:
        if weights == "imagenet":
            raise ValueError(f"{name} has no ImageNet weights; use 'puppets'")
        net = small_cnn(SMALL[name])
    else:
        raise ValueError(f"backbone {name!r}: one of {[*SMALL, *RESNETS]}")
    if weights == "puppets":
        load_weights(net, WEIGHTS / f"{name}_puppets.safetensors")
    elif weights not in (None, "imagenet"):
        load_weights(net, Path(weights))
    return net


def save_weights(net: nn.Module, path: Path) -> None:
    """Write float16 weights beside and rename."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    half = {
        key: value.half() if value.is_floating_point() else value
        for key, value in net.state_dict().items()
    }
    save_file(half, beside)
    beside.replace(path)


def load_weights(net: nn.Module, path: Path) -> None:
    """Read what `save_weights` wrote; names and shapes must all agree."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(
            f"no weights at {path}: run data_scripts/pretrain_backbone.py"
        )
    net.load_state_dict({k: v.float() for k, v in load_file(path).items()})


def fingerprint(name: str, weights: str | None) -> str:
    """What tells these weights from others: their file's digest if kept here.

    For the registry: retrained puppet weights make other results.
    """
    if weights != "puppets":
        return str(weights)
    path = WEIGHTS / f"{name}_puppets.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


class FrameAverageOutput(NamedTuple):
    """What the baseline answers: a class, and nothing of where and when."""

    logits: Tensor  # (B, K)
    spans: Tensor  # (T, 2)


class FrameAverage(nn.Module):
    """The baseline without attention: mean over frames and positions, then fc.

    Sees each frame by itself and forgets where and when: what the papers call
    the fine-tuned CNN. Takes features ``(B, T, C, h, w)``, or videos if a
    backbone is given.
    """

    def __init__(
        self, channels: int, classes: int, backbone: nn.Module | None = None
    ):
        super().__init__()
        self.backbone = backbone or nn.Identity()
        self.classify = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> FrameAverageOutput:
        x = reduce(self.backbone(x), "b t c h w -> b t c", "mean")
        steps = torch.arange(x.shape[1], device=x.device)
        return FrameAverageOutput(
            self.classify(x.mean(1)), torch.stack((steps, steps + 1), -1)
        )
