"""Published 3D networks: their layouts, and released checkpoints fit.

`released3d.txt` lists the names and shapes of the checkpoints, written down
from the published definitions, not from our networks.
"""

import re
from pathlib import Path

import pytest
import torch
from checks import offline, refused
from torch.nn import functional as F
from torch.testing import assert_close

from lib.networks import released3d
from lib.papers import sta_networks

# torch fills in old files' missing counts of batches, on the CPU
FILLS_IN = pytest.mark.filterwarnings(
    "ignore:for .*num_batches_tracked:UserWarning")
NORM = ("weight", "bias", "running_mean", "running_var")


def shapes_of(network):
    text = (Path(__file__).parent / "released3d.txt").read_text()
    if network == "resnext101_flow":  # MARS's: two channels, else the same
        return shapes_of("resnext101") | {"conv1.weight": (64, 2, 7, 7, 7)}
    section = re.search(rf"\[{network}\]\n(.*?)(\n\n|\Z)", text, re.S)[1]
    shapes = {}
    for line in section.splitlines():
        name, *shape = line.split()
        norm = shape[0] == "bn"
        shape = tuple(map(int, shape[norm:]))
        first, last = 0, 0
        if span := re.search(r"\{(\d+)-(\d+)\}", name):
            first, last = map(int, span.groups())
        for i in range(first, last + 1):
            one = re.sub(r"\{.*\}", str(i), name)
            for part in ([f"{one}.{p}" for p in NORM] if norm else [one]):
                assert part not in shapes, part
                shapes[part] = shape
    return shapes


def checkpoint(network, device="meta"):
    """What a file holds: the released names; on the CPU with numbers."""
    torch.manual_seed(0)
    state = {}
    for name, shape in shapes_of(network).items():
        value = torch.randn(shape, device=device)
        if len(shape) > 1:  # so that signals neither fade nor explode
            value *= (2 / value[0].numel()) ** 0.5
        elif name.endswith("running_var"):
            value = 1 + 0.1 * value.abs()
        else:
            value = 0.1 * value + (not name.endswith(("bias", "mean")))
        state[f"module.{name}"] = value
    return {"epoch": 3, "arch": "any", "state_dict": state}


@pytest.mark.parametrize("network", released3d.MAKERS)
@FILLS_IN
def test_every_released_name_has_its_place(network):
    """And modules that were inserted before keep their weights."""
    side = 160 if network == "p3d199" else 112
    with torch.device("meta"):
        net, file = released3d.pretrained3d(network), checkpoint(network)
        clip = torch.rand(1, 16, len(net.mean), side, side)
        assert not released3d.load_released(net, file).missing_keys
        ours = [name for name in net.state_dict()
                if not name.endswith("num_batches_tracked")]
        assert len(ours) == len(shapes_of(network)) - 2
        added = sta_networks.insert(net, clip, sta_networks.STA)
    done = released3d.load_released(net, file)
    last = "fc8" if network == "c3d" else "fc"
    assert done.unexpected_keys == [f"{last}.weight", f"{last}.bias"]
    assert sorted(done.missing_keys) == sorted(
        f"{host}.attention.{name}" for host, module in added.items()
        for name in module.state_dict())


class Named:
    def __init__(self, state):
        self.state = {name.removeprefix("module."): value
                      for name, value in state.items()}

    def conv(self, name, x, stride=1, groups=1):
        weight = self.state[f"{name}.weight"]
        if weight.ndim == 4:  # on each step by itself
            weight = weight[:, :, None]
        sides = [side // 2 for side in weight.shape[2:]]
        return F.conv3d(x, weight, self.state.get(f"{name}.bias"), stride,
                        sides, groups=groups)

    def norm(self, name, x):
        weight, bias, mean, var = (self.state[f"{name}.{part}"]
                                   for part in NORM)
        return F.batch_norm(x, mean, var, weight, bias)

    def blocks(self, layer):
        found = {name.split(".")[1] for name in self.state
                 if name.startswith(f"layer{layer}.")}
        return [f"layer{layer}.{i}" for i in range(len(found))]

    def shortcut(self, block, x, stride):
        if f"{block}.downsample.0.weight" not in self.state:
            return x
        return self.norm(f"{block}.downsample.1", self.conv(
            f"{block}.downsample.0", x, stride))

    def resnet(self, x, groups=1):
        x = self.norm("bn1", self.conv("conv1", x, (1, 2, 2))).relu()
        x = F.max_pool3d(x, 3, 2, 1)
        for layer in (1, 2, 3, 4):
            for i, block in enumerate(self.blocks(layer)):
                y, stride = x, 2 if layer > 1 and i == 0 else 1
                last = 3 if f"{block}.conv3.weight" in self.state else 2
                for n in range(1, last + 1):
                    wide = n == last - 1  # the 3x3x3 one, of a Basic the first
                    y = self.norm(f"{block}.bn{n}", self.conv(
                        f"{block}.conv{n}", y, stride if wide else 1,
                        groups if wide else 1))
                    y = y.relu() if n < last else y
                x = (y + self.shortcut(block, x, stride)).relu()
        return x

    def p3d(self, x):
        x = self.norm("bn1", self.conv("conv1_custom", x, (1, 2, 2))).relu()
        x, count = F.max_pool3d(x, (2, 3, 3), 2, (0, 1, 1)), 0
        for layer in (1, 2, 3, 4):
            for i, block in enumerate(self.blocks(layer)):
                def step(n, y, stride=1, block=block):
                    return self.norm(f"{block}.bn{n}", self.conv(
                        f"{block}.conv{n}", y, stride))

                stride = (1, 2, 2) if layer > 1 and i == 0 else 1
                y = step(1, x, stride).relu()
                if layer == 4:
                    y = step("_normal", y).relu()
                else:
                    first, y = y, step(2, y).relu()
                    kind = "ABC"[count % 3]
                    time = step(3, first if kind == "B" else y).relu()
                    y, count = time if kind == "A" else y + time, count + 1
                x = (step(4, y) + self.shortcut(block, x, stride)).relu()
            x = x if layer == 4 else F.max_pool3d(x, (2, 1, 1))
        return x

    def c3d(self, x):
        x = x.flip(1)  # it reads blue first
        for i, names in enumerate(("1", "2", "3a 3b", "4a 4b", "5a 5b")):
            for name in names.split():
                x = self.conv(f"conv{name}", x).relu()
            x = F.max_pool3d(x, (2 if i else 1, 2, 2),
                             padding=(0, i // 4, i // 4))
        x = x.flatten(1)
        for name in ("fc6", "fc7"):
            x = F.linear(x, self.state[f"{name}.weight"],
                         self.state[f"{name}.bias"]).relu()
        return x[:, :, None, None, None]


@pytest.mark.parametrize(("network", "side"), [
    ("resnet18", 48), ("resnext101", 48), ("p3d199", 48), ("c3d", 112)])
def test_a_released_file_makes_the_network_that_it_names(network, side):
    state = checkpoint(network, "cpu")
    net = released3d.MAKERS[network]().eval()
    done = released3d.load_released(net, state)
    assert not done.missing_keys and len(done.unexpected_keys) == 2
    clips, named = torch.rand(1, 16, 3, side, side), Named(state["state_dict"])
    with torch.no_grad():
        x = ((clips - net.mean) / net.std).transpose(1, 2)
        expected = {"p3d199": named.p3d, "c3d": named.c3d}.get(
            network, lambda x: named.resnet(
                x, 32 if network == "resnext101" else 1))(x)
        found = net(clips).transpose(1, 2)
    assert expected.std() > 0
    # a hundred layers of float32, in another order of sums
    assert_close(
        found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def test_a_file_is_read_without_running_what_it_holds(tmp_path):
    net = released3d.MAKERS["resnet18"]()
    good = checkpoint("resnet18", "cpu")
    torch.save(good, tmp_path / "good.pth")
    released3d.load_released(net, tmp_path / "good.pth")
    assert torch.equal(net.stages["stem"][0].weight,
                       good["state_dict"]["module.conv1.weight"])
    torch.save({"state_dict": Touch(tmp_path / "ran")}, tmp_path / "bad.pth")
    with pytest.raises(Exception, match="(?i)weights_only|unsupported"):
        released3d.load_released(net, tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()


class Touch:
    """Unpickled by an unsafe loader, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@FILLS_IN
def test_c3d_s_numbered_layers_are_known():
    """The file that its published code loads counts two chains' layers."""
    numbers = dict(zip(
        "conv1 conv2 conv3a conv3b conv4a conv4b conv5a conv5b".split(),
        (f"features.{i}" for i in (0, 3, 6, 8, 11, 13, 16, 18)), strict=True))
    numbers |= {f"fc{6 + i}": f"classifier.{3 * i}" for i in range(3)}
    state = {}
    for name, shape in shapes_of("c3d").items():
        layer, part = name.split(".")
        state[f"{numbers[layer]}.{part}"] = torch.zeros(shape, device="meta")
    with torch.device("meta"):
        net = released3d.pretrained3d("c3d")
    done = released3d.load_released(net, state)
    assert not done.missing_keys
    assert done.unexpected_keys == ["fc8.weight", "fc8.bias"]


def test_torchvision_s_weights_load_before_modules(monkeypatch):
    from torchvision import models

    torch.manual_seed(0)
    theirs = models.get_model("mc3_18", weights=None).eval()
    offline(monkeypatch, lambda name: theirs.state_dict())
    net = released3d.pretrained3d("mc3_18", "kinetics").eval()
    assert net.channels == 512
    clip = torch.rand(1, 4, 3, 32, 32)
    with torch.no_grad():
        pooled = net(clip).mean((1, 3, 4))
        expected = theirs(((clip - net.mean) / net.std).transpose(1, 2))
        assert_close(theirs.fc(pooled), expected, rtol=1e-4, atol=1e-5)


def small(network="resnet"):
    torch.manual_seed(0)
    statistics = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    if network == "p3d":
        return released3d.p3d((1, 1, 1, 1), (2, 2, 2, 2), **statistics)
    return released3d.resnet(released3d.Bottleneck, (1, 1, 1, 1), (4, 4, 4, 4),
                           2, 2, **statistics)


def test_p3d_s_last_stage_sees_steps_by_themselves():
    net = small("p3d").eval()
    assert [block.kind for name in ("layer1", "layer2", "layer3", "layer4")
            for block in net.stages[name]] == ["A", "B", "C", "S"]
    clips, steps = torch.rand(2, 32, 3, 32, 32), []
    net.stages["layer4"].register_forward_hook(
        lambda *call: steps.append(call[1][0]))
    maps = net(clips)
    assert maps.shape == (2, 2, 8, 1, 1)
    first = net.stages["layer4"](steps[0][1:, :, :1])  # of the second video
    assert_close(maps[1:, :1], first.transpose(1, 2))


@pytest.mark.parametrize("network", ["resnet", "p3d"])
def test_gradients_reach_every_parameter(network):
    net = small(network)
    net(torch.rand(2, 32, 3, 64, 64)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@FILLS_IN
def test_wrong_input_is_explained(tmp_path):
    make = released3d.pretrained3d
    refused("resnet50.*resnext101.*r3d_18", make, "resnet50")
    refused("kinetics.*path of the released", make, "resnext101", "kinetics")
    refused("weights='x.pth'", make, "r3d_18", "x.pth")
    with torch.device("meta"):
        rgb, c3d, p3d = (make(name) for name in
                         ("resnext101", "c3d", "p3d199"))
        with pytest.raises(FileNotFoundError, match="nowhere.pth"):
            make("c3d", str(tmp_path / "nowhere.pth"))
    load = released3d.load_released
    with pytest.raises(ValueError, match=r"conv1.weight is \(64, 2.*flow"):
        load(rgb, checkpoint("resnext101_flow"))
    refused("another network", load, rgb, checkpoint("resnet18"))
    with pytest.raises(ValueError, match="lacks .* names"):
        load(rgb, {name: value for name, value in
                   checkpoint("resnext101")["state_dict"].items()
                   if "layer3.7" not in name})
    clip = torch.rand(1, 16, 3, 112, 112, device="meta")
    refused("divide by 255", rgb, clip.byte())
    refused(r"\(N, T, 3, H, W\).*2 are flow", rgb, clip[:, :, :2])
    for net in (c3d, p3d):
        refused("16 frames or more, not 8", net, clip[:, :8])
