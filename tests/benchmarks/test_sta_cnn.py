"""What selecting snippets saves, in time and memory, and what the SAN costs.

Where there is a GPU, BN-Inception is measured at 224 pixels: it waits for
Python between the small network's kernels.
"""

import time
from functools import partial

import pytest
import torch
from machine import DEVICE, measure, peak

from lib.networks import cnn2d
from lib.papers import sta_cnn
from lib.papers.sta_cnn import TS, AttentionNetwork
from lib.scores import metrics

N, C = 9, 14
# network, side of its attention map, side in pixels
NAME, SIDE, PIXELS = (("bninception", 7, 224) if DEVICE == "cuda"
                      else ("small", 8, 64))
# What trains: all nine snippets, one of them, or one snippet that is all
FORMS = {
    "all nine": (N, TS(1, 9, 9), True),
    "one of nine, one pass": (N, TS(1, 9, 1), False),
    "one of nine, two passes": (N, TS(1, 9, 1), True),
    "TS(3x3, 3x1), two passes": (N, TS(3, 3, 1), True),
    "one alone": (1, TS(1, 1, 1), True),
}


def network(name="small", side=8, san=None):
    torch.manual_seed(0)
    cnn = cnn2d.frame_cnn(name)
    return sta_cnn.STACNN(
        cnn, cnn.channels, C, side=side, san=san).to(DEVICE).train()


def videos(batch, snippets, pixels):
    torch.manual_seed(0)
    return (torch.rand(batch, snippets, 2, 3, pixels, pixels, device=DEVICE),
            torch.arange(batch, device=DEVICE) % C)


def train_step(net, x, label, ts, two_pass):
    net.zero_grad(set_to_none=False)
    sta_cnn.loss(net(x, ts=ts, two_pass=two_pass), label)["loss"].backward()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.benchmark(group="8 videos of 9 snippets, forward and backward")
def test_training_step(benchmark, form):
    snippets, ts, two_pass = FORMS[form]
    net, batch = network(NAME, SIDE), videos(8, snippets, PIXELS)
    measure(benchmark, train_step, net, *batch, ts, two_pass)


@pytest.mark.skipif(DEVICE == "cuda", reason="kernels too short for a GPU")
@pytest.mark.parametrize("san", [False, True])
def test_one_of_nine_costs_less_than_60_percent(san):
    """Of training on all nine: 9 looks and 1 step instead of 9 steps.

    Processor time, and the best of ten rounds, for the sake of busy machines.
    """
    net = network(san=AttentionNetwork((8, 16, 16, 32, 32, 32), 3)
                  if san else None)
    x, label = videos(8, N, 64)
    best = {}
    for _ in range(10):
        for form in ("all nine", "one of nine, two passes"):
            start = time.process_time()
            train_step(net, x, label, *FORMS[form][1:])
            spent = time.process_time() - start
            best[form] = min(best.get(form, spent), spent)
    share = best["one of nine, two passes"] / best["all nine"]
    print(f"TS(9, 1) takes {share:.0%} of training on all nine")
    assert share < 0.6, best


def test_two_passes_need_the_memory_of_the_selected():
    """BN-Inception, whose many layers make the backward pass's memory large
    beside that of any single layer, as in the paper. A look at all nine holds
    two maps of its first layer, more than one snippet's backward pass does.
    """
    pixels, side, batch = (224, 7, 8) if DEVICE == "cuda" else (128, 4, 4)
    net = network("bninception", side)
    for parameter in net.parameters():  # all forms need these
        parameter.grad = torch.zeros_like(parameter)
    bytes_of = {}
    for form, (snippets, *how) in FORMS.items():
        x = videos(batch, snippets, pixels)
        bytes_of[form] = peak(partial(train_step, net, *x, *how))
    print({form: f"{size / 2**20:.0f} MiB" for form, size in bytes_of.items()})
    assert bytes_of["one of nine, two passes"] < 2 * bytes_of["one alone"]
    whole = bytes_of["all nine"]
    assert bytes_of["one of nine, two passes"] < 0.25 * whole
    assert bytes_of["TS(3x3, 3x1), two passes"] < 0.45 * whole
    assert bytes_of["one of nine, one pass"] > 0.9 * whole


@pytest.mark.parametrize("stream", ["plain", "flow", "RGB"])
@pytest.mark.benchmark(group="8 snippets, forward")
def test_cost_of_the_attention_network(benchmark, stream):
    """Section IV-G: the flow stream shares its convolutions, RGB does not."""
    san = AttentionNetwork(poolings=3) if stream == "RGB" else None
    net = network(side=None if stream == "plain" else 8, san=san).eval()
    x, _ = videos(1, 8, 64)
    benchmark.extra_info["parameters"] = metrics.parameters(net)
    benchmark.extra_info["GMAC a snippet"] = (
        metrics.flops(net, x[:, :1]) / 2e9)
    with torch.inference_mode():
        measure(benchmark, net, x)
