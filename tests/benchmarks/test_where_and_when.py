"""What the work taken out of the loop saves."""

import pytest
import torch
from einops import einsum
from machine import DEVICE, measure
from torch.nn import functional as F

from lib.papers import where_and_when as ww

C, D, CLASSES = 64, 24, 14


def network(**options):
    torch.manual_seed(0)
    return ww.WhereAndWhen(
        C, CLASSES, hidden=D, mask_channels=(32, 16), **options
    ).eval().to(DEVICE)


def features(videos, frames, side):
    return torch.rand(videos, frames, C, side, side, device=DEVICE)


def literal_form(net, x):
    x = x * net.mask(x)
    mean = x.mean(1)
    hidden, cell = net.init_hidden(mean), net.init_cell(mean)
    kernel = torch.cat(
        (net.lstm.from_input.weight, net.lstm.from_hidden.weight), 1)
    states = []
    for _ in range(x.shape[1]):
        w = net.attention(net.attention.project(x), hidden)
        y = einsum(w, x, "b n, b n c h w -> b c h w")
        gates = F.conv2d(
            torch.cat((y, hidden), 1), kernel, net.lstm.from_hidden.bias,
            padding=1,
        )  # fmt: skip
        i, f, o, g = gates.chunk(4, 1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        states.append(hidden)
    return net.classify(torch.stack(states).mean((0, 3, 4)))


def train_step(net, forward, x):
    forward(x).square().sum().backward()
    net.zero_grad()


@pytest.mark.parametrize("form", ["lib", "literal"])
@pytest.mark.benchmark(group="forward and backward, n=16")
def test_loop(benchmark, form):
    net, x = network().double(), features(8, 16, 8)
    forms = {
        "lib": lambda x: net(x).logits,
        "literal": lambda x: literal_form(net, x)}
    with torch.no_grad():  # in float64, as a GPU rounds to TF32
        torch.testing.assert_close(
            forms["lib"](x.double()), forms["literal"](x.double()))
    net.float()
    measure(benchmark, train_step, net, forms[form], x)
