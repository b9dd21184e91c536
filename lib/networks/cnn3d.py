"""3D CNNs that turn clips into feature maps, with named stages.

The 3D ResNet of JSTA (Yu et al., Pattern Recognition Letters 112, 2018) and
C3D, each also in a size for laptops. All map clips ``(N, T, 3, H, W)``,
floats in [0, 1], to ``(N, T', C, h, w)``; each owns the mean and deviation it
expects. Inside, stages hand on ``(N, C, T', h, w)``, as torch's 3D layers do.
Networks with released weights of their own are in released3d.py.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping

import torch
from einops import rearrange
from torch import Tensor, nn

from lib.data.sampling import clips_of
from lib.networks.pretrained import (
    FLOW_STD,
    KINETICS,
    load_weights,
    puppet_weights,
    torchvision,
)

Sizes = int | tuple[int, int, int]  # over time, height and width


class ClipCNN(nn.Module):
    """A 3D CNN run on a batch of clips.

    A stage can be replaced: ``net.stages["identity3b"] = module`` puts in any
    module that maps ``(N, C, T', h, w)`` to the same shape, and an
    ``nn.Sequential(net.stages["identity3b"], module)`` lets it follow.

    Args:
        stages: name -> module, in order; `forward` stops after `stage`.
        widths: the channels of each stage's map.
        mean, std: per channel of the input, 3 of RGB in [0, 1] or 2 of flow.
        shortest: frames of the shortest clip that it can take.
        places: pattern of the names of its modules behind which "early" and
            "late" attention goes, if they are not those of a ResNet's blocks.
    """

    def __init__(self, stages: "OrderedDict[str, nn.Module]",
                 widths: Iterable[int],
                 mean: tuple[float, ...] = (0.5, 0.5, 0.5),
                 std: tuple[float, ...] = (0.25, 0.25, 0.25), *,
                 shortest: int = 1, places: Mapping[str, str] | None = None):
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.widths = dict(zip(stages, widths, strict=True))
        self.channels = self.widths[next(reversed(stages))]
        self.shortest, self.places = shortest, dict(places or {})
        for name, value in (("mean", mean), ("std", std)):
            value = torch.tensor(value).view(-1, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def forward(self, clips: Tensor, stage: str | None = None) -> Tensor:
        """``(N, T, 3, H, W) -> (N, T', C, h, w)``, after `stage` or the last.

        Raises:
            ValueError: if these are no clips of floats of as many channels
                and frames, or no stage has the name.
        """
        if not clips.is_floating_point():
            raise ValueError("clips must be floats in [0, 1]: divide by 255")
        channels = self.mean.shape[0]
        if clips.ndim != 5 or clips.shape[2] != channels:
            raise ValueError(f"clips must be (N, T, {channels}, H, W), got "
                             f"{tuple(clips.shape)}: 3 channels are RGB, 2 "
                             "are flow")
        if clips.shape[1] < self.shortest:
            raise ValueError(f"give clips of {self.shortest} frames or more, "
                             f"not {clips.shape[1]}: poolings halve time")
        if stage is not None and stage not in self.stages:
            raise ValueError(f"stage {stage!r}: one of {list(self.stages)}")
        x = rearrange((clips - self.mean) / self.std, "n t c h w -> n c t h w")
        if x.device.type == "cpu":  # halves the time of the small network
            x = x.contiguous(memory_format=torch.channels_last_3d)
        for name, module in self.stages.items():
            x = module(x)
            if name == stage:
                break
        return rearrange(x, "n c t h w -> n t c h w")

    def above(self, stage: str, more: int = 0) -> "ClipCNN":
        """The stages behind `stage`, as a network that reads its maps.

        ``net.above(stage)(net(clips, stage))`` is ``net(clips)``: so what
        comes before can be frozen, and its maps computed once (`Below`).
        more: channels that come beside the maps' own.
        """
        names = [*self.stages]
        names = names[names.index(stage) + 1:]
        channels = self.widths[stage] + more
        return ClipCNN(
            OrderedDict((name, self.stages[name]) for name in names),
            [self.widths[name] for name in names],
            (0.0,) * channels, (1.0,) * channels)


class Below(nn.Module):
    """A network up to a stage, for `lib.lab.features.extract`.

    Run on all clips of 8 frames of a video. Without a stage, the mean over
    positions of the last map.
    """

    def __init__(self, net: nn.Module, stage: str | None = None):
        super().__init__()
        self.net, self.stage = net, stage

    def features(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """The clips' maps, one behind the other, and their means."""
        clips, _ = clips_of(video)
        maps = self.net(clips.flatten(0, 1), self.stage)
        if self.stage is None:
            maps = maps.mean((3, 4), keepdim=True)
        maps = maps.unflatten(0, clips.shape[:2]).flatten(1, 2)
        return maps, maps.mean((3, 4))


class OnVideos(nn.Module):
    """A network of clips, on whole videos ``(B, n, 3, H, W)``.

    net: called with what `clips_of` makes of the videos, as `jsta.JSTA`.
    length: frames of a clip; or, of videos that are the maps of a network's
        lower stages (`Below`), steps of a clip's map.
    """

    def __init__(self, net: nn.Module, length: int = 8):
        super().__init__()
        self.net, self.length = net, length

    def forward(self, video: Tensor) -> tuple:
        """Whatever the network returns; `spans` count frames, 8 a clip."""
        out = self.net(*clips_of(video, self.length))
        if self.length != 8 and hasattr(out, "spans"):
            out = out._replace(spans=out.spans * 8 // self.length)
        return out


def conv_bn(inputs: int, outputs: int, kernel: Sizes, stride: Sizes = 1,
            groups: int = 1) -> list[nn.Module]:
    """A 3D convolution without bias that keeps the size, and its norm."""
    sides = (kernel,) * 3 if isinstance(kernel, int) else kernel
    conv = nn.Conv3d(inputs, outputs, kernel, stride,
                     tuple(side // 2 for side in sides), groups=groups,
                     bias=False)
    return [conv, nn.BatchNorm3d(outputs)]


class Residual(nn.Module):
    """Two 3x3x3 convolutions beside a shortcut, then ReLU.

    With a `stride` it is a "convolution block", whose shortcut is a 1x1x1
    convolution, else an "identity block". Parts are named as in torchvision.
    """

    def __init__(self, inputs: int, outputs: int, stride: int | None = None):
        super().__init__()
        self.conv1 = nn.Sequential(
            *conv_bn(inputs, outputs, 3, stride or 1), nn.ReLU())
        self.conv2 = nn.Sequential(*conv_bn(outputs, outputs, 3))
        self.downsample = nn.Sequential(
            *conv_bn(inputs, outputs, 1, stride) if stride else ())

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv2(self.conv1(x)) + self.downsample(x))


def resnet3d(widths: tuple[int, int, int, int, int], inputs: int = 3,
             **statistics: tuple[float, ...]) -> ClipCNN:
    """JSTA's ResNet3D (section 4.1, and its released layout).

    Stages conv1, conv2a, identity2b, ..., conv5a, identity5b, of `widths`
    conv1 to conv5. conv1 halves the frame, there is no pooling, and conv3a,
    conv4a and conv5a halve frame and time: 8 x 112 x 112 give conv3's map
    4 x 28 x 28 and the last 1 x 7 x 7. `inputs`: 3 channels of RGB or 2 of
    flow; `statistics`: their `mean` and `std`.
    """
    conv1 = nn.Sequential(*conv_bn(inputs, widths[0], (3, 7, 7), (1, 2, 2)),
                          nn.ReLU())
    stages, channels = OrderedDict(conv1=conv1), [widths[0]]
    for i, outputs in enumerate(widths[1:], 2):
        stages[f"conv{i}a"] = Residual(
            channels[-1], outputs, stride=1 if i == 2 else 2)
        stages[f"identity{i}b"] = Residual(outputs, outputs)
        channels += [outputs, outputs]
    return ClipCNN(stages, channels, **statistics)


def c3d(widths: tuple[int, int, int, int, int], units: int, side: int,
        dropout: float = 0.5,
        **statistics: tuple[float, float, float]) -> ClipCNN:
    """C3D (Tran et al., ICCV 2015): stages conv1 to conv5, fc6 and fc7.

    Eight 3x3x3 convolutions, a max pooling after each stage, and two fully
    connected layers of `units` with dropout, here as convolutions, so that
    fc7's map is ``(N, 1, units, 1, 1)``. Poolings round up, as Caffe's do.

    Published: 16 x 112 x 112, whose last map is 1 x 4 x 4 = `side`. Of 8
    frames one step is left after pool4 already, so pool5 pools space alone,
    and all weights stay the same. Other sizes are averaged over time and
    resampled to `side` before fc6. New weights are drawn as He et al. (2015)
    do: without a norm, smaller ones would not carry a signal through.
    """
    stages, inputs = OrderedDict(), 3
    for i, outputs in enumerate(widths, 1):
        layers = []
        for _ in range(1 if i < 3 else 2):
            layers += [nn.Conv3d(inputs, outputs, 3, padding=1), nn.ReLU()]
            inputs = outputs
        pool = nn.MaxPool3d((1 if i == 1 else 2, 2, 2), ceil_mode=True)
        stages[f"conv{i}"] = nn.Sequential(*layers, pool)
    for name, kernel in (("fc6", (1, side, side)), ("fc7", 1)):
        stages[name] = nn.Sequential(
            nn.Conv3d(inputs, units, kernel), nn.ReLU(), nn.Dropout(dropout))
        inputs = units
    stages["fc6"].insert(0, nn.AdaptiveAvgPool3d((1, side, side)))
    # attention goes behind the ReLU of a stage's last convolution
    net = ClipCNN(stages, (*widths, units, units), **statistics, places={
        "early": r"stages\.conv2\.1", "late": r"stages\.conv5\.3"})
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return net


MAKERS = {
    "resnet3d": lambda: resnet3d((64, 64, 128, 256, 512), **KINETICS),
    "resnet3d_small": lambda: resnet3d((8, 8, 16, 32, 64)),
    "resnet3d_small_flow": lambda: resnet3d(
        (8, 8, 16, 32, 64), 2, mean=(0.0, 0.0), std=(FLOW_STD, FLOW_STD)),
    "c3d": lambda: c3d((64, 128, 256, 512, 512), 4096, side=4),
    # one so small learns nothing with dropout
    "c3d_small": lambda: c3d((8, 16, 32, 64, 64), 128, side=2, dropout=0.0),
}


def clip_cnn(name: str = "resnet3d_small",
             weights: str | None = None) -> ClipCNN:
    """A backbone by name.

    Args:
        name: "resnet3d" and "c3d" have the published widths and are meant
            for 112 pixels, "resnet3d_small" and "c3d_small" for 64;
            "resnet3d_small_flow" sees flow, in pixels per frame.
        weights: None; "puppets" for the small ones, trained by
            data_scripts/pretrain_clip_backbone.py; "kinetics" for
            "resnet3d": torchvision's of r3d_18, downloaded.

    Raises:
        ValueError: for an unknown name or weights that it does not have.
        FileNotFoundError: for a file of weights that is not there.
    """
    if name not in MAKERS:
        raise ValueError(f"backbone {name!r}: one of {[*MAKERS]}")
    trained = {"resnet3d": "kinetics", "c3d": None}.get(name, "puppets")
    if weights not in (None, trained):
        raise ValueError(f"weights={weights!r}: {name} takes None or "
                         f"{trained!r}")
    net = MAKERS[name]()
    if weights == "puppets":
        load_weights(net, puppet_weights(name))
    if weights == "kinetics":
        load_r3d_18(net, torchvision("r3d_18", True).state_dict())
    return net


def load_r3d_18(net: ClipCNN, state: Mapping[str, Tensor]) -> None:
    """Copy the weights of torchvision's r3d_18 into a `resnet3d`, in place.

    r3d_18 (Tran et al., CVPR 2018) is the same network but for the shortcut
    of conv2a, which it leaves out: there ours becomes the identity, so that
    in eval mode both give the same map.
    """
    conv, norm = net.stages["conv2a"].downsample
    norm.reset_parameters()
    with torch.no_grad():
        nn.init.dirac_(conv.weight)
        norm.weight.fill_((1 + norm.eps) ** 0.5)  # what the norm divides by
    net.load_state_dict(net.state_dict() | {
        _renamed(name): value for name, value in state.items()
        if not name.startswith("fc.")})


def _renamed(name: str) -> str:
    """torchvision's name of a weight -> ours: layer2.1 is identity3b."""
    name = re.sub(r"^layer(\d)\.(\d)", lambda found: (
        ("conv{}a", "identity{}b")[int(found[2])].format(int(found[1]) + 1)),
        name)
    return "stages." + re.sub(r"^stem\b", "conv1", name)
