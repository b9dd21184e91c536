"""What JSTA's block adds to its backbone, and how cost grows with clips.

    pytest tests/benchmarks/test_jsta.py --benchmark-group-by=group

Read ratios within a group; absolute times belong to one machine. Where there
is a GPU, the paper's own sizes are measured instead of the small ones.
"""

import pytest
import torch
from machine import DEVICE, measure
from torch import nn
from torch.nn import functional as F

from lib.networks import cnn3d
from lib.papers import jsta
from lib.scores import metrics

# backbone, side in pixels, clips in a batch
NAME, SIDE, CLIPS = (("resnet3d", 112, 32) if DEVICE == "cuda"
                     else ("resnet3d_small", 64, 8))
KINDS = ["plain", "replace_3b", "after_3b"]


class Literal(jsta.SpatialAttention):
    """Eq. (12)-(17) one by one, with both ReLUs."""

    def forward(self, x):
        g = self.softmax(self.in_space(x) + self.in_time(x))
        o = F.relu(g * x)
        a = self.softmax(self.overall(x))
        return F.relu(o * a) + x


def network(kind):
    torch.manual_seed(0)
    cnn = cnn3d.clip_cnn(NAME)
    block = jsta.SpatialAttention(cnn.widths["identity3b"])
    if kind != "plain":
        cnn.stages["identity3b"] = block if kind == "replace_3b" else (
            nn.Sequential(cnn.stages["identity3b"], block))
    return jsta.ClipClassifier(cnn, cnn.channels, 14).to(DEVICE)


def clips(videos=1, each=CLIPS):
    return torch.rand(videos, each, 8, 3, SIDE, SIDE, device=DEVICE)


def train_step(net, x):
    net.zero_grad()
    output = net(x)
    output = output.logits if hasattr(output, "logits") else output
    output.square().sum().backward()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.benchmark(group="one batch of clips, forward and backward")
def test_block_beside_its_backbone(benchmark, kind):
    net, x = network(kind), clips()
    benchmark.extra_info["parameters"] = metrics.parameters(net)
    benchmark.extra_info["GMAC a clip"] = (
        metrics.flops(net, x[:, :1]) / 2e9)
    measure(benchmark, train_step, net, x)


@pytest.mark.parametrize("form", [jsta.SpatialAttention, Literal])
@pytest.mark.parametrize("over", ["spatial", "channel", "spatiotemporal"])
@pytest.mark.benchmark(group="the block alone, forward and backward")
def test_one_relu_for_two(benchmark, form, over):
    """At the paper's 128 x 4 x 28 x 28."""
    torch.manual_seed(0)
    net, other = form(128, over).to(DEVICE), Literal(128, over).to(DEVICE)
    other.load_state_dict(net.state_dict())
    x = torch.rand(1 if DEVICE == "cpu" else 32, 128, 4, 28, 28,
                   device=DEVICE)
    torch.testing.assert_close(net(x), other(x), rtol=1e-4, atol=1e-4)
    measure(benchmark, train_step, net, x)


@pytest.mark.parametrize("part", ["woTA", "wiTA"])
@pytest.mark.parametrize("number", [4, 16])
@pytest.mark.benchmark(group="second step on 32 videos of 512 numbers a clip")
def test_second_step(benchmark, part, number):
    """The paper's sizes: 512 units in each direction, 101 classes."""
    torch.manual_seed(0)
    attention = jsta.TemporalAttention(512) if part == "wiTA" else None
    net = jsta.TemporalClassifier(512, 101, attention=attention).to(DEVICE)
    x = torch.rand(32, number, 512, device=DEVICE)
    measure(benchmark, train_step, net, x)
