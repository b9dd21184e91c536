"""What STA adds to ResNeXt-101, and how its cost grows with T.

Whole training steps in pairs, without and with modules, each first in turn,
so that a machine that slows down slows both. `more` is the median over pairs
of the one's time over the other's, less one; read it with the quartiles
beside it. On a CPU there is time for few steps, of one clip.
"""

import statistics
from functools import partial

import pytest
import torch
from machine import DEVICE, measure, seconds

from lib.networks.released3d import pretrained3d
from lib.papers import sta_networks
from lib.scores import metrics

BATCH, PAIRS, WARM = (16, 12, 3) if DEVICE == "cuda" else (1, 6, 1)
PLACES = {"late": "late", "late_single": ["stages.layer3.22"],
          "early": "early"}


def network(kind, at="late", frames=16, device=DEVICE):
    torch.manual_seed(0)
    with torch.device(device):
        net = pretrained3d("resnext101")
        if kind:
            clip = torch.rand(1, frames, 3, 112, 112)
            sta_networks.insert(net, clip, sta_networks.MODULES[kind], at)
        return sta_networks.STAClassifier(net, net.channels, 51).train()


def train_step(net, optimiser, x, label):
    optimiser.zero_grad()
    sta_networks.loss(net(x), label)["loss"].backward()
    optimiser.step()


@pytest.mark.parametrize("at", PLACES if DEVICE == "cuda" else ["late"])
@pytest.mark.benchmark(group="full training step, 16 frames, with modules")
def test_what_sta_adds(benchmark, at):
    x = torch.rand(BATCH, 16, 3, 112, 112, device=DEVICE)
    label = torch.arange(BATCH, device=DEVICE)
    steps = []
    for kind in (None, "sta"):
        net = network(kind, PLACES[at])
        optimiser = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9)
        steps.append(partial(train_step, net, optimiser, x, label))
    for _ in range(WARM):
        seconds(steps[0]), seconds(steps[1])
    ratios = []
    for i in range(PAIRS):
        took = {j: seconds(steps[j]) for j in ((0, 1) if i % 2 else (1, 0))}
        ratios.append(took[1] / took[0])
    ratios.sort()
    more = statistics.median(ratios) - 1
    low, high = ratios[len(ratios) // 4] - 1, ratios[-len(ratios) // 4] - 1
    benchmark.extra_info |= {
        "more": f"{more:+.2%}", "quartiles": f"{low:+.2%} {high:+.2%}",
        "flops": f"{flops('sta', PLACES[at]) / flops(None) - 1:+.5%}"}
    print(at, benchmark.extra_info)
    benchmark.pedantic(steps[1], rounds=1)


def flops(kind, at="late", frames=16):
    net = network(kind, at, frames, "meta")
    with torch.device("meta"):
        return metrics.flops(net.backbone, torch.rand(1, frames, 3, 112, 112))


@pytest.mark.parametrize("frames", [2, 8, 32, 128])
@pytest.mark.parametrize("kind", sta_networks.MODULES)
@pytest.mark.benchmark(group="a module alone, forward and backward, by T")
def test_growth_with_t(benchmark, kind, frames):
    """At 1024 x T x 7 x 7; STC's second branch has c^2 T^2 / r weights."""
    if kind == "stc" and frames == 128:
        pytest.skip("over a thousand million weights")
    torch.manual_seed(0)
    net = sta_networks.MODULES[kind](1024, (frames, 7, 7)).to(DEVICE)
    x = torch.rand(2, 1024, frames, 7, 7, device=DEVICE)
    benchmark.extra_info["parameters"] = metrics.parameters(net)

    def step():
        net.zero_grad()
        net(x).square().mean().backward()

    measure(benchmark, step)
