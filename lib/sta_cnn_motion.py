"""STA-CNN's attention network, and the flow that it learns to predict first.

Yang et al., IEEE Transactions on Image Processing 29, 2020, Fig. 4. The
layers are those of FlowNetSimple (Dosovitskiy et al., ICCV 2015). To predict
the flow between two frames a network must know where things move; its
features then feed the attention of sta_cnn.py. Needs torch and einops only:
copy the file.

    predictor = FlowPredictor(AttentionNetwork())
    flow_loss(predictor(pairs), flow).backward()
    STACNN(backbone, 1024, 101, side=7, san=predictor.san)
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

KERNELS = (7, 5, 5, 3, 3, 3)  # of each stage's first convolution


def _conv(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """A convolution that keeps the size, and FlowNet's activation."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    # without batch norms, smaller weights lose the signal in ten layers
    nn.init.kaiming_normal_(conv.weight, a=0.1)
    nn.init.zeros_(conv.bias)
    return [conv, nn.LeakyReLU(0.1)]


class AttentionNetwork(nn.Module):
    """The SAN f_san: ten convolutions and six max-poolings.

    Pairs of frames ``(n, 2, 3, H, W)`` in [0, 1] to features ``(n, M, h,
    w)``: six stages, of two convolutions from the third on; a pooling after
    each stage's first.

    Args:
        widths: channels of the stages; the last is M = `channels`.
        poolings: how many stages halve the map, rounding up: six make 4 x 4
            of 224 pixels; three leave 8 x 8 of 64.
    """

    def __init__(
        self, widths: tuple[int, ...] = (64, 128, 256, 512, 512, 1024),
        poolings: int = 6,
    ):
        super().__init__()
        if len(widths) != 6 or not 2 <= poolings <= 6:
            raise ValueError(f"widths={widths}, poolings={poolings}: the six "
                             "stages' channels, and from 2 to 6")
        self.widths, self.poolings = widths, poolings
        self.channels = widths[-1]
        self.stages, inputs = nn.Sequential(), 6
        for i, (outputs, kernel) in enumerate(
                zip(widths, KERNELS, strict=True)):
            stage = _conv(inputs, outputs, kernel)
            if i < poolings:
                stage.append(nn.MaxPool2d(2, ceil_mode=True))
            if i >= 2:
                stage += _conv(outputs, outputs, 3)
            self.stages.add_module(f"conv{i + 1}", nn.Sequential(*stage))
            inputs = outputs

    def forward(self, pairs: Tensor) -> Tensor:
        if pairs.shape[1:3] != (2, 3) or not pairs.is_floating_point():
            raise ValueError(f"{pairs.dtype} {tuple(pairs.shape)}: give pairs "
                             "of frames (n, 2, 3, H, W) as floats in [0, 1]")
        x = rearrange(pairs, "n t c h w -> n (t c) h w")
        return self.stages(4 * x - 2)


class FlowPredictor(nn.Module):
    """The SAN with its Expanded Part f_exp, sta_cnn Eq. (3).

    Pairs ``(n, 2, 3, H, W)`` to the flow ``(n, 2, H/4, W/4)`` from the first
    frame to the second, in pixels of the input frames, x first. Four
    convolutions; before each the map is doubled (unpooling) until it is a
    quarter of the frame: four times behind six poolings.
    """

    def __init__(self, san: AttentionNetwork):
        super().__init__()
        self.san = san
        widths = [san.channels, *san.widths[3:0:-1]]
        self.expand = nn.ModuleList(
            nn.Sequential(*_conv(inputs, outputs, 3))
            for inputs, outputs in zip(widths[:-1], widths[1:], strict=True))
        self.expand.append(nn.Conv2d(widths[-1], 2, 3, padding=1))

    def forward(self, pairs: Tensor) -> Tensor:
        x = self.san(pairs)
        for i, conv in enumerate(self.expand, 1):
            # by sizes, not factors: poolings round up
            share = 2 ** max(self.san.poolings - i, 2)
            size = [-(-side // share) for side in pairs.shape[-2:]]
            x = conv(F.interpolate(x, size=size))
        return x


def flow_loss(predicted: Tensor, flow: Tensor, *,
              literal: bool = False) -> Tensor:
    """Squared error beyond a tolerance theta, sta_cnn Eq. (4).

    predicted: ``(n, 2, h, w)``. flow: ``(n, 2, H, W)``, the real one, which
        is averaged to h x w. Both in pixels of the frames: theta = exp(-2
        |f|) is one pixel where nothing moves and 0.14 where f is one. In
        other units it is another loss; an answer of zero costs nothing up
        to 0.43 pixels.
    literal: as printed, the sum, and exp(-2 f), which forgives everything
        that moves left or up. By default the mean, and |f|.
    """
    real = F.interpolate(flow, size=predicted.shape[-2:], mode="area")
    theta = torch.exp(-2 * (real if literal else real.abs()))
    beyond = F.relu((predicted - real).abs() - theta).square()
    return beyond.sum() if literal else beyond.mean()
