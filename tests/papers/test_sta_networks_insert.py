"""STA networks: modules into the blocks of every 3D CNN, and MARS."""

import copy
import os
import re
import subprocess
import sys
from functools import partial

import pytest
import torch
from checks import as_if_trained, refused
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from lib import ROOT
from lib.networks import cnn3d, released3d
from lib.networks.released3d import pretrained3d
from lib.papers import sta_networks
from lib.scores import metrics


def tiny(seed=0):
    """A ResNet of the published shape in a size for tests, part trained."""
    torch.manual_seed(seed)
    return as_if_trained(released3d.resnet(
        released3d.Bottleneck, (1, 1, 1, 2), (4, 4, 8, 8), 2,
        mean=(0.5,) * 3, std=(0.25,) * 3))


def with_modules(order="pre_sum"):
    """The same with modules whose gates differ much, by name; and clips."""
    net, x = tiny(), clips()
    added = sta_networks.insert(net, x[:1], sta_networks.STA, order=order)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in added.values():
            module.conv2.weight.normal_(0, 1, generator=generator)
            module.conv2.bias.normal_(0, 1, generator=generator)
    return net, x, added


def clips(batch=2, frames=16, side=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, frames, 3, side, side, generator=generator)


THREE = [f"stages.layer4.{i}.conv3.1" for i in range(3)]
TWO = [f"stages.layer4.{i}.conv2.1" for i in range(2)]
# name -> clip (T, side), what "late" puts a module behind, the module's map,
# and how many modules are "early"
BACKBONES = {
    "resnet18": ((16, 112), TWO, (512, 4, 4), 2),
    "resnet152": ((16, 112), THREE, (2048, 4, 4), 3),
    "resnext101": ((64, 112), THREE, (2048, 4, 4), 3),
    "resnext101_flow": ((16, 112), THREE, (2048, 4, 4), 3),
    "p3d199": ((16, 160), [f"stages.layer3.{i}.conv4.1" for i in range(36)],
               (1024, 10, 10), 3),
    "c3d": ((16, 112), ["stages.conv5.3"], (512, 7, 7), 1),
    "r3d_18": ((16, 112), TWO, (512, 7, 7), 2),
    "mc3_18": ((16, 112), TWO, (512, 7, 7), 2),
    "r2plus1d_18": ((16, 112), TWO, (512, 7, 7), 2),
    "resnet3d_small": (
        (8, 64), ["stages.conv5a.conv2.1", "stages.identity5b.conv2.1"],
        (64, 4, 4), 2),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_insertion_into_every_backbone_keeps_the_shape(name):
    (frames, side), hosts, (c, h, w), early = BACKBONES[name]
    make = cnn3d.clip_cnn if name == "resnet3d_small" else pretrained3d
    with torch.device("meta"):
        clip = torch.rand(
            1, frames, 2 if name.endswith("flow") else 3, side, side)
        net = make(name)
        before, names = net(clip).shape, {*net.state_dict()}
        count = metrics.parameters(net)
        added = sta_networks.insert(net, clip, sta_networks.STA)
        assert [*added] == hosts
        assert net(clip).shape == before and before[2] == net.channels
        assert all(m.map == (c, None, h, w) for m in added.values())
        assert metrics.parameters(net) - count == len(added) * (
            c * (h * w + 4) + 5)
        new = {*net.state_dict()} - names
        assert names < {*net.state_dict()}
        assert all(".attention." in n for n in new)
        net = make(name)
        added = sta_networks.insert(
            net, clip, sta_networks.STA, "early", order="post_sum")
        assert len(added) == early and net(clip).shape == before
        assert all(re.match(r"stages\.(layer1|conv2|identity2)", n)
                   for n in added)


def test_table_iii_fits_one_module_or_three():
    """+0.1 M parameters and +0.0005 G: both places give such figures."""
    with torch.device("meta"):
        clip, bare = torch.rand(1, 64, 3, 112, 112), pretrained3d("resnext101")
        assert metrics.parameters(bare) == 47_521_216
        base = metrics.flops(bare, clip) // 2
        assert round(base / 1e9, 3) == 38.268
        for at, more in ((["stages.layer3.22"], 54_277), ("late", 122_895)):
            net = pretrained3d("resnext101")
            sta_networks.insert(net, clip, sta_networks.STA, at)
            assert metrics.parameters(net) - 47_521_216 == more
            extra = metrics.flops(net, clip) // 2 - base
            assert 0.0004 < extra / 1e9 < 0.0005  # about 0.001 %


@pytest.mark.parametrize("name", ["r3d_18", "mc3_18", "r2plus1d_18"])
def test_torchvision_s_own_networks_take_modules_too(name):
    from torchvision.models import get_model

    torch.manual_seed(0)
    with torch.device("meta"):
        net = get_model(name, weights=None)
        bare = net.state_dict()
        clip = torch.rand(1, 3, 8, 64, 64)
        added = sta_networks.insert(net, clip, sta_networks.STA)
        done = net.load_state_dict(bare, strict=False)
        assert not done.unexpected_keys
        assert {n.rsplit(".attention.")[0] for n in done.missing_keys} == {
            *added}
        assert net(clip).shape == (1, 400)


def by_hand(net, x):
    x = net.stages["stem"](((x - net.mean) / net.std).transpose(1, 2))
    for layer in ("layer1", "layer2", "layer3", "layer4"):
        for block in net.stages[layer]:
            conv, norm = block.conv3
            y = nn.functional.batch_norm(
                conv(block.conv2(block.conv1(x))), norm.running_mean,
                norm.running_var, norm.weight, norm.bias)
            gate = getattr(norm, "attention", None)
            y = gate(y) if gate is not None else y
            x = (y + block.downsample(x)).relu()
            gate = getattr(block, "attention", None)
            x = gate(x) if gate is not None else x
    return x.transpose(1, 2)


@pytest.mark.parametrize("order", ["pre_sum", "post_sum"])
def test_output_equals_the_blocks_by_hand(order):
    near, (net, x, added) = tiny(), with_modules(order)
    bare = near(x)
    assert [*added] == [
        f"stages.layer4.{i}" + (".conv3.1" if order == "pre_sum" else "")
        for i in (0, 1)]
    # near identity: four of five in a hundred of a branch are missing
    sta_networks.insert(near, x[:1], sta_networks.STA, order=order)
    assert 0 < (near(x) - bare).norm() / bare.norm() < 0.12
    assert (net(x) - bare).norm() / bare.norm() > 0.2
    assert_close(net(x), by_hand(net, x))


def test_a_sequential_runs_what_was_added_once():
    net, x = tiny(), clips()
    added = sta_networks.insert(
        net, x[:1], sta_networks.STA, ["stages.layer3"], order="post_sum")
    added["stages.layer3"].record = seen = []
    net(x)
    assert len(seen) == 1


def test_a_bare_checkpoint_misses_the_modules_alone():
    bare, net = tiny(0), tiny(1)
    added = sta_networks.insert(net, clips(1), sta_networks.STA)
    done = net.load_state_dict(bare.state_dict(), strict=False)
    assert not done.unexpected_keys
    assert sorted(done.missing_keys) == sorted(
        f"{host}.attention.{name}" for host, module in added.items()
        for name in module.state_dict())
    with torch.no_grad():
        for module in added.values():  # open wide: all gates one
            module.conv2.bias.fill_(30)
    x = clips()
    assert_close(net(x), bare(x))


def test_a_copy_has_modules_of_its_own():
    net, x, added = with_modules()
    twin, before = copy.deepcopy(net), net(x)
    with torch.no_grad():
        for module in added.values():
            module.conv2.bias.add_(1)
    assert_close(twin(x), before)
    assert (net(x) - before).norm() / before.norm() > 0.01
    # the twin's class is that of all modules with one behind them
    norms = [each.stages["layer4"][0].conv3[1] for each in (net, twin)]
    assert type(norms[0]) is type(norms[1])
    assert type(net.stages["layer1"][0].conv3[1]) is nn.BatchNorm3d


@pytest.mark.parametrize("order", ["pre_sum", "post_sum"])
def test_a_network_with_modules_can_be_saved_whole(order, tmp_path):
    net, x, added = with_modules(order)
    torch.save(net, tmp_path / "net.pt")
    again = torch.load(tmp_path / "net.pt", weights_only=False)
    assert torch.equal(again(x), net(x))
    assert type(again.get_submodule(next(iter(added)))) is type(
        net.get_submodule(next(iter(added))))
    again.train()(x).square().sum().backward()
    assert all(p.grad is not None for p in again.parameters())
    # by a process that has not inserted anything before
    torch.save((x, net(x)), tmp_path / "pair.pt")
    done = subprocess.run([sys.executable, "-c", """
import torch
net = torch.load("net.pt", weights_only=False)
x, y = torch.load("pair.pt")
assert torch.equal(net.eval()(x), y)
"""], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=120)
    assert done.returncode == 0


def test_insertion_computes_nothing_and_changes_nothing():
    net, x = tiny().train().double(), clips().double()
    before = copy.deepcopy(net.state_dict())
    seed = torch.get_rng_state()
    added = sta_networks.insert(
        net, x[:1], partial(sta_networks.STA, step=2, start="torch"))
    assert torch.equal(torch.get_rng_state(), seed)
    first, second = added.values()
    assert net.training and first.deconv.stride == (2,)
    assert not torch.equal(first.conv1.weight, second.conv1.weight)
    assert first.conv1.weight.dtype == torch.float64
    for name, value in before.items():
        assert torch.equal(net.state_dict()[name], value)
    assert isinstance(net.stages["layer4"][0].conv3[1], nn.BatchNorm3d)


@pytest.mark.parametrize("order", ["pre_sum", "post_sum"])
def test_export_and_compile_give_the_same_outputs(order):
    net, x, _ = with_modules(order)
    with torch.no_grad():
        expected = net(x)
        exported = torch.export.export(net, (x,)).module()
        assert_close(exported(x), expected)
        compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
        assert_close(compiled(x), expected)


def test_compiled_code_of_one_network_does_not_serve_another():
    """Bare, with modules, and back: the three share their forward's code."""
    bare, (net, x, _) = tiny(), with_modules()
    model = sta_networks.STAClassifier(net, net.channels, 3).eval()
    with torch.no_grad():
        for each in (bare, net, bare):
            run = torch.compile(each, backend="aot_eager")
            assert_close(run(x), each(x))
        assert (net(x) - bare(x)).norm() / bare(x).norm() > 0.2
        # the classifier reads the gates of what is compiled, or of its parts
        expected, run = model(x), torch.compile(
            model, backend="aot_eager", fullgraph=True)
        for _ in range(2):
            assert_close(run(x), expected)
        net.compile(backend="aot_eager")
        assert_close(model(x), expected)


def test_compiled_training_gives_the_same_gradients():
    net, x, _ = with_modules()
    twin = copy.deepcopy(net)
    net(x).square().mean().backward()
    torch.compile(twin, backend="aot_eager")(x).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert_close(
            twin.get_parameter(name).grad, parameter.grad,
            rtol=1e-4, atol=1e-6)


def test_dead_modules_are_counted():
    net, x = tiny(), clips(4)
    added = sta_networks.insert(net, x[:1], sta_networks.STA, order="post_sum")
    assert sta_networks.dead_share(net, x) == {
        "stages.layer4.0": 0.0, "stages.layer4.1": 0.0}
    first = added["stages.layer4.0"]
    with torch.no_grad():
        first.deconv.bias.fill_(-100)
    assert sta_networks.dead_share(net, x)["stages.layer4.0"] == 1.0
    means = []  # of each clip at its best step
    hook = first.deconv.register_forward_hook(
        lambda *call: means.append(call[-1].flatten(1).amax(1)))
    net(x)
    hook.remove()
    with torch.no_grad():  # so that half of the clips are below zero
        first.deconv.bias.add_(-means[0].median())
    share = sta_networks.dead_share(net, x)["stages.layer4.0"]
    assert share in (0.25, 0.5, 0.75)
    assert not first.relu._forward_hooks


def outputs(shape=(3, 2, 5), seed=0):
    torch.manual_seed(seed)
    valid = torch.tensor([[True, True], [True, False], [True, True]])
    features = torch.randn(shape).masked_fill(~valid[..., None], 0)
    return sta_networks.STAOutput(
        logits=torch.randn(3, 4, requires_grad=True), spans=None, valid=valid,
        clips=None, features=features.requires_grad_())


def test_mimic_loss_equals_a_loop_and_spares_the_flow_stream():
    rgb, flow, label = outputs(), outputs(seed=1), torch.tensor([0, 3, 1])
    terms = sta_networks.mimic_loss(rgb, flow, label)
    squares = [(rgb.features[i, j, k] - flow.features[i, j, k]) ** 2
               for i in range(3) for j in range(2) if rgb.valid[i, j]
               for k in range(5)]
    assert len(squares) == 25
    assert_close(terms["mimic"], sum(squares) / 25)
    assert_close(terms["entropy"], F.cross_entropy(rgb.logits, label))
    assert_close(terms["loss"], terms["entropy"] + 50 * terms["mimic"])
    terms["loss"].backward()
    assert flow.features.grad is None and flow.logits.grad is None
    assert rgb.features.grad[rgb.valid].ne(0).all()
    same = sta_networks.mimic_loss(flow, flow, label)
    assert same["mimic"] == 0


def test_streams_are_fused_by_their_mean():
    a, b, c = (torch.randn(3, 4) for _ in range(3))
    assert_close(sta_networks.fuse(a, b), (a + b) / 2)
    assert_close(sta_networks.fuse(a, b, c), (a + b + c) / 3)


def test_wrong_input_is_explained():
    net, clip = tiny(), clips(1)

    def insert(words, *at, net=net, **options):
        refused(words, sta_networks.insert, net, clip, sta_networks.STA, *at,
                **options)

    insert("order='sum'.*'post_sum'", order="sum")
    insert("at='middle'.*early.*late", "middle")
    insert("layer9.*named_modules", ["layer9"])
    insert("late.*named_modules", net=nn.Conv3d(3, 3, 1))
    sta_networks.insert(net, clip, sta_networks.STA)
    insert("layer4.0.conv3.1.*none yet")
    insert(r"1 gives \(1, .*a map \(B, c, l", ["1"],
           net=nn.Sequential(net, nn.Flatten()))
    refused("as many features", sta_networks.mimic_loss, outputs(),
            outputs((3, 2, 6)), None)
