"""What JSTA's block adds to its backbone, and how cost grows with clips.

Where there is a GPU, the paper's own sizes are measured, not small ones.
"""

import pytest
import torch
from machine import DEVICE, measure, train_step
from torch import nn

from lib.networks import cnn3d
from lib.papers import jsta
from lib.scores import metrics

# backbone, side in pixels, clips in a batch
NAME, SIDE, CLIPS = (("resnet3d", 112, 32) if DEVICE == "cuda"
                     else ("resnet3d_small", 64, 8))
KINDS = ["plain", "replace_3b", "after_3b"]


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.benchmark(group="one batch of clips, forward and backward")
def test_block_beside_its_backbone(benchmark, kind):
    net, x = network(kind), clips()
    benchmark.extra_info["parameters"] = metrics.parameters(net)
    benchmark.extra_info["GMAC a clip"] = (metrics.flops(net, x[:, :1]) / 2e9)
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
