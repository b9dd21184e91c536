"""What one projection before the loop saves, and how RSTAN's cost grows.

Where there is a GPU, the forward step is also compiled.
"""

from functools import partial

import pytest
import torch
from machine import DEVICE, measure, peak, train_step

from lib.papers import rstan
from lib.scores import metrics

# (B, T, side, d, d_a): one stream at the paper's sizes, of fewer videos on
# a CPU, where eight take five seconds a step
PAPER = (8 if DEVICE == "cuda" else 1, 16, 7, 1024, 512)


class Literal(rstan.RSTAN):
    """The vectorised literal form: A_cv CV again at each step, Eq. (2)."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        for stream in self.streams:  # nothing is left to do before the loop
            stream.spatial.project = stream.spatial.from_input
            stream.spatial.from_input = torch.nn.Identity()

    def attend(self, keys, cubes, *rest):
        keys = [s.spatial.project(x)
                for s, x in zip(self.streams, cubes, strict=True)]
        return super().attend(keys, cubes, *rest)


FORMS = {"lib": rstan.RSTAN, "literal": Literal}


def network(form="lib", channels=64, units=64, hidden=64):
    torch.manual_seed(0)
    return FORMS[form]([channels], [channels], 14, hidden=hidden,
                       units=units).to(DEVICE)


def features(batch, steps, side, channels):
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, steps, channels, side, side), (batch, steps, channels)]
    return [torch.rand(*shape, generator=generator).to(DEVICE)
            for shape in shapes]


def at_paper_size(form):
    batch, steps, side, channels, units = PAPER
    net = network(form, channels, units, hidden=1024)
    return net, features(batch, steps, side, channels)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.benchmark(group="forward and backward, 16 x 49 x 1024")
def test_loop(benchmark, form):
    net, xs = at_paper_size(form)
    other, _ = at_paper_size("lib")
    torch.testing.assert_close(
        net(*xs).steps, other(*xs).steps, rtol=0, atol=1e-5)
    benchmark.extra_info["GMAC"] = multiply_adds(form, *PAPER) / 1e9
    measure(benchmark, train_step, net, *xs)


def multiply_adds(form, batch, steps, side, channels, units):
    net = network(form, channels, units, hidden=1024)
    return metrics.flops(net, *features(batch, steps, side, channels)) / 2


def test_peak_memory_is_no_larger():
    bytes_of = {}
    for form in FORMS:
        net, xs = at_paper_size(form)
        bytes_of[form] = peak(partial(train_step, net, *xs))
    assert bytes_of["lib"] <= bytes_of["literal"], bytes_of


@pytest.mark.skipif(DEVICE == "cpu", reason="compiling gains on a GPU only")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.benchmark(group="forward, compiled step")
def test_compiled(benchmark, compiled):
    """One graph: with gradients the first step would need one of its own."""
    net, xs = at_paper_size("lib")
    if compiled:
        net.attend = torch.compile(net.attend)
    with torch.inference_mode():
        measure(benchmark, net, *xs)
