"""BN-Inception: its published layout, and weights by published names."""

import importlib
from collections import OrderedDict

import pytest
import torch
from checks import refused
from torch import nn
from torch.testing import assert_close

from lib import ROOT
from lib.networks import bninception
from lib.networks import cnn2d as bb
from lib.scores import metrics

# Output channels and side at 224 pixels (Ioffe and Szegedy, Fig. 5, and the
# published model, which widens 4b to 4d).
MAPS = {
    "conv1": (64, 56), "conv2": (192, 28), "inception_3a": (256, 28),
    "inception_3b": (320, 28), "inception_3c": (576, 14),
    "inception_4a": (576, 14), "inception_4b": (576, 14),
    "inception_4c": (608, 14), "inception_4d": (608, 14),
    "inception_4e": (1056, 7), "inception_5a": (1024, 7),
    "inception_5b": (1024, 7)}


def test_layout_is_the_published_one():
    with torch.device("meta"):
        net = bb.frame_cnn("bninception").eval()
        assert list(net.stages) == list(MAPS)
        frames = torch.rand(1, 1, 3, 224, 224)
        x = frames[0]
        for name, stage in net.stages.items():
            x = stage(x)
            assert x.shape[1:] == (MAPS[name][0], *2 * [MAPS[name][1]]), name
        cube, vector = net.features(frames)  # that RSTAN reads
    assert cube.shape == (1, 1, 1024, 7, 7) and vector.shape == (1, 1, 1024)
    assert net.cube_channels == net.vector_channels == net.channels == 1024
    # 11,295,240 with the last layer of 1000 classes
    assert metrics.parameters(net) + 1025 * 1000 == 11_295_240


def test_sides_that_cannot_be_halved_are_explained():
    net = bb.frame_cnn("bninception").eval()
    assert net(torch.rand(1, 1, 3, 32, 96)).shape[-2:] == (1, 3)
    refused("7, 7.*multiples of 32", net, torch.rand(1, 1, 3, 112, 112))


def published(seed=0):
    """A state dict by the Caffe model's names, as it is passed around."""
    generator = torch.Generator().manual_seed(seed)
    state = OrderedDict()
    for name, value in bb.frame_cnn("bninception").state_dict().items():
        short = ".".join(name.split(".")[-2:])
        if not name.endswith("num_batches_tracked"):
            state[short] = torch.rand(value.shape, generator=generator)
    state["fc.weight"] = torch.rand(1000, 1024, generator=generator)
    return state


def test_published_weights_load_and_see_bgr():
    net, state = bb.frame_cnn("bninception"), published()
    assert {"conv1_7x7_s2_bn.running_mean", "conv2_3x3_reduce.bias",
            "inception_3c_double_3x3_2_bn.weight",
            "inception_5b_pool_proj_bn.running_var"} < {*state}
    # 69 convolutions with bias, each with the four numbers of its norm
    assert len(state) == 69 * 6 + 1
    # the norms' numbers are (1, C) in some files
    rows = OrderedDict((k, v[None] if "_bn." in k else v)
                       for k, v in state.items())
    bninception.load_published(net, rows)
    own = net.stages["inception_4a"].branches[0].inception_4a_1x1
    assert torch.equal(own.weight, state["inception_4a_1x1.weight"])
    rgb = torch.rand(1, 3, 32, 32)
    bgr = 255 * rgb.flip(1) - torch.tensor([104.0, 117, 128]).view(3, 1, 1)
    theirs = nn.Conv2d(3, 64, 7, 2, 3)
    theirs.load_state_dict({
        part: state[f"conv1_7x7_s2.{part}"] for part in ("weight", "bias")})
    ours = net.stages["conv1"][0].conv1_7x7_s2((rgb - net.mean) / net.std)
    # sums of 147 products of up to 128: float32 keeps 1e-3
    assert_close(ours, theirs(bgr), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("change", ["missing", "shape", "other network"])
def test_other_weights_are_refused_and_nothing_is_changed(change):
    net, state = bb.frame_cnn("bninception"), published()
    if change == "missing":
        del state["inception_3b_3x3.weight"]
    elif change == "shape":
        state["inception_3b_3x3.weight"] = torch.rand(3)
    else:
        state = {"conv1.weight": torch.rand(3)}
    before = {k: v.clone() for k, v in net.state_dict().items()}
    refused("Caffe model's names", bninception.load_published, net, state)
    assert_close(net.state_dict(), before)


def test_the_script_makes_a_backbone_of_them(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "data_scripts")
    monkeypatch.delitem(importlib.sys.modules, "bninception", raising=False)
    script = importlib.import_module("bninception")
    state = published()
    # too large for float16, as the published variances are
    state["conv1_7x7_s2_bn.running_var"] *= 1e6
    torch.save(state, tmp_path / "theirs.pth")
    made = tmp_path / "to" / "ours.safetensors"
    script.main(["--from", str(tmp_path / "theirs.pth"), "--to", str(made)])
    assert str(made) in capsys.readouterr().out
    assert [p.name for p in made.parent.iterdir()] == [made.name]
    net = bb.frame_cnn("bninception", str(made))
    assert_close(
        net.stages["conv1"][0].conv1_7x7_s2_bn.running_var,
        state["conv1_7x7_s2_bn.running_var"])
    flow = bb.for_flow(net, 10)
    assert_close(
        flow.stages["conv1"][0].conv1_7x7_s2.weight[:, 7],
        state["conv1_7x7_s2.weight"].mean(1))
