"""What selecting snippets saves, in time and memory, and what the SAN costs.

    pytest tests/benchmarks/test_sta_cnn.py --benchmark-group-by=group

Read ratios within a group; absolute times belong to one machine. Where there
is a GPU, BN-Inception is measured at 224 pixels instead of 128.
"""

import subprocess
import sys
import time

import pytest
import torch

from lib import ROOT, backbones2d, metrics, sta_cnn
from lib.sta_cnn import TS
from lib.sta_cnn_motion import AttentionNetwork

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
N, C = 9, 14
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
    cnn = backbones2d.frame_cnn(name)
    return sta_cnn.STACNN(
        cnn, cnn.channels, C, side=side, san=san).to(DEVICE).train()


def videos(batch, snippets, pixels):
    torch.manual_seed(0)
    return (torch.rand(batch, snippets, 2, 3, pixels, pixels, device=DEVICE),
            torch.arange(batch, device=DEVICE) % C)


def train_step(net, x, label, ts, two_pass):
    net.zero_grad(set_to_none=False)
    sta_cnn.loss(net(x, ts, two_pass=two_pass), label)["loss"].backward()
    if DEVICE == "cuda":
        torch.cuda.synchronize()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.benchmark(group="8 videos of 9 snippets, forward and backward")
def test_training_step(benchmark, form):
    snippets, ts, two_pass = FORMS[form]
    net, batch = network(), videos(8, snippets, 64)
    benchmark.pedantic(train_step, (net, *batch, ts, two_pass), rounds=10,
                       warmup_rounds=2)


@pytest.mark.parametrize("san", [False, True])
def test_one_of_nine_costs_less_than_60_percent(san):
    """Of training on all nine: 9 looks and 1 step instead of 9 steps.

    The best of ten rounds each, in turns, so that a busy machine slows both.
    """
    net = network(san=AttentionNetwork((8, 16, 16, 32, 32, 32), 3)
                  if san else None)
    x, label = videos(8, N, 64)
    best = {}
    for _ in range(10):
        for form in ("all nine", "one of nine, two passes"):
            start = time.perf_counter()
            train_step(net, x, label, *FORMS[form][1:])
            spent = time.perf_counter() - start
            best[form] = min(best.get(form, spent), spent)
    share = best["one of nine, two passes"] / best["all nine"]
    print(f"TS(9, 1) takes {share:.0%} of training on all nine")
    assert share < 0.6, best


PEAK = """
import sys
sys.path[:0] = ["tests/benchmarks"]
import resource, test_sta_cnn as t
def peak():
    if t.DEVICE == "cuda":
        return t.torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def now():
    if t.DEVICE == "cuda":
        return t.torch.cuda.memory_allocated()
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * resource.getpagesize()
pixels, side = (224, 7) if t.DEVICE == "cuda" else (128, 4)
net = t.network("bninception", side)
for parameter in net.parameters():  # all forms need these
    parameter.grad = t.torch.zeros_like(parameter)
snippets, ts, two_pass = t.FORMS[sys.argv[1]]
x, label = t.videos(8, snippets, pixels)
before = now()
t.train_step(net, x, label, ts, two_pass)
print(peak() - before)
"""


def test_two_passes_need_the_memory_of_the_selected():
    """Of the GPU, or of a process; a quarter more for the look at all nine.

    BN-Inception, whose many layers make the backward pass's memory large
    beside that of any single layer, as in the paper.
    """
    peak = {
        form: int(subprocess.run(
            [sys.executable, "-c", PEAK, form], cwd=ROOT, timeout=300,
            capture_output=True, text=True, check=True).stdout)
        for form in FORMS
    }
    print({form: f"{size / 2**20:.0f} MiB" for form, size in peak.items()})
    assert peak["one of nine, two passes"] < 1.25 * peak["one alone"], peak
    assert peak["one of nine, two passes"] < 0.25 * peak["all nine"], peak
    assert peak["TS(3x3, 3x1), two passes"] < 0.45 * peak["all nine"], peak
    assert peak["one of nine, one pass"] > 0.9 * peak["all nine"], peak


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
        benchmark.pedantic(net, (x,), rounds=5, warmup_rounds=1)
