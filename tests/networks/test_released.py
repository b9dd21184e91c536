"""Released checkpoints fit; MARS learns from flow and fuses streams.

`released3d.txt` lists the names and shapes of the checkpoints, written down
from the published definitions, not from our networks.
"""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.networks import released
from lib.networks.cnn3d import ClipCNN
from lib.papers import sta_networks

# torch fills in old files' missing counts of batches, on the CPU
FILLS_IN = pytest.mark.filterwarnings(
    "ignore:for .*num_batches_tracked:UserWarning")
NORM = ("weight", "bias", "running_mean", "running_var")


def released(network):
    """Name -> shape of a released checkpoint."""
    text = (Path(__file__).parent / "released3d.txt").read_text()
    if network == "resnext101_flow":  # MARS's: two channels, else the same
        return released("resnext101") | {"conv1.weight": (64, 2, 7, 7, 7)}
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
    """What a file holds: the released names, with numbers on the CPU."""
    torch.manual_seed(0)
    state = {f"module.{name}": torch.rand(shape, device=device)
             for name, shape in released(network).items()}
    return {"epoch": 3, "arch": "any", "state_dict": state}


@pytest.mark.parametrize("network", released.MAKERS)
def test_every_released_name_has_its_place(network):
    with torch.device("meta"):
        net = released.pretrained3d(network)
    shapes = released(network)
    ours = {name: tuple(value.shape) for name, value in
            net.state_dict().items()
            if not name.endswith("num_batches_tracked")}
    last = {name for name in shapes if name.startswith(f"{net.head}.")}
    assert len(last) == 2
    assert ours == {name: shape for name, shape in shapes.items()
                    if name not in last}


def test_the_list_is_whole():
    """As many layers as the networks' names promise, and the shortcuts."""
    for network, layers, shortcuts in (
            ("resnet18", 18, 3), ("resnet152", 152, 4),
            ("resnext101", 101, 4), ("p3d199", 199, 4)):
        weights = [name for name, shape in released(network).items()
                   if len(shape) > 1]
        assert len(weights) == layers + shortcuts
    parameters = sum(torch.Size(shape).numel() for name, shape in
                     released("resnext101").items() if "running" not in name)
    assert parameters == 47_521_216 + 400 * 2049


def test_weights_arrive_and_the_last_layer_finds_its_head():
    net = released.MAKERS["resnet18"]()
    state = checkpoint("resnet18", "cpu")
    head = nn.Linear(512, 700)
    done = released.load_released(net, state, head)
    assert not done.missing and not done.unused
    assert len(done.loaded) == len(released("resnet18")) - 2
    for name in done.loaded:
        assert torch.equal(net.state_dict()[name],
                           state["state_dict"][f"module.{name}"]), name
    assert torch.equal(head.bias, state["state_dict"]["module.fc.bias"])
    done = released.load_released(net, state["state_dict"])
    assert done.unused == ["fc.weight", "fc.bias"]


@FILLS_IN
@pytest.mark.parametrize("network", ["resnext101", "p3d199", "c3d"])
def test_a_bare_checkpoint_misses_inserted_modules_alone(network):
    side, channels = (160, 3) if network == "p3d199" else (112, 3)
    with torch.device("meta"):
        net = released.pretrained3d(network)
        added = sta_networks.insert(
            net, torch.rand(1, 16, channels, side, side), sta_networks.STA)
    done = released.load_released(net, checkpoint(network))
    assert sorted(done.missing) == sorted(
        f"{host}.attention.{name}" for host, module in added.items()
        for name in module.state_dict())
    assert len(done.loaded) == len(released(network)) - 2
    assert done.unused == [f"{net.head}.weight", f"{net.head}.bias"]


def test_a_file_is_read_without_running_what_it_holds(tmp_path):
    net = released.ResNet3D(released.Basic, (1,) * 4, (2,) * 4, 1,
                          mean=(0.0,) * 3, std=(1.0,) * 3)
    state = {name: torch.rand_like(value, dtype=torch.float)
             for name, value in net.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "good.pth")
    done = released.load_released(net, tmp_path / "good.pth")
    assert len(done.loaded) == len(net.state_dict())
    torch.testing.assert_close(net.conv1.weight, state["conv1.weight"])
    torch.save({"state_dict": Touch(tmp_path / "ran")}, tmp_path / "bad.pth")
    with pytest.raises(Exception, match="(?i)weights_only|unsupported"):
        released.load_released(net, tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()


class Touch:
    """Unpickled by an unsafe loader, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_c3d_s_numbered_layers_are_known():
    """The file that its published code loads counts two chains' layers."""
    numbers = {"conv1": "features.0", "conv2": "features.3",
               "conv3a": "features.6", "conv3b": "features.8",
               "conv4a": "features.11", "conv4b": "features.13",
               "conv5a": "features.16", "conv5b": "features.18",
               "fc6": "classifier.0", "fc7": "classifier.3",
               "fc8": "classifier.6"}
    state = {}
    for name, shape in released("c3d").items():
        layer, part = name.split(".")
        state[f"{numbers[layer]}.{part}"] = torch.zeros(shape, device="meta")
    with torch.device("meta"):
        net = released.pretrained3d("c3d")
    done = released.load_released(net, state)
    assert not done.missing and len(done.loaded) == 20
    assert done.unused == ["fc8.weight", "fc8.bias"]


def test_torchvision_s_weights_load_before_modules(monkeypatch):
    from torchvision import models

    torch.manual_seed(0)
    theirs = models.get_model("mc3_18", weights=None).eval()

    def get(self, **options):
        assert options["check_hash"] and options["weights_only"]
        return theirs.state_dict()

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", get)
    net = released.pretrained3d("mc3_18", "kinetics").eval()
    assert isinstance(net, ClipCNN) and net.channels == 512
    clip = torch.rand(1, 4, 3, 32, 32)
    with torch.no_grad():
        pooled = net(clip).mean((1, 3, 4))
        expected = theirs(((clip - net.mean) / net.std).transpose(1, 2))
        torch.testing.assert_close(theirs.fc(pooled), expected,
                                   rtol=1e-4, atol=1e-5)


# The networks themselves.


def test_resnext_s_maps_are_the_paper_s():
    """Section IV-C: layer4's input is 1024 x 8 x 7 x 7 of 64 frames."""
    with torch.device("meta"):
        net = released.pretrained3d("resnext101")
        seen = {}
        for name, module in net.named_children():
            module.register_forward_hook(
                lambda *call, name=name: seen.update(
                    {name: tuple(call[-1].shape[1:])}))
        for frames, sizes in ((64, ((8, 7, 7), (4, 4, 4))),
                              (16, ((2, 7, 7), (1, 4, 4)))):
            net(torch.rand(1, frames, 3, 112, 112))
            assert seen["layer3"] == (1024, *sizes[0])
            assert seen["layer4"] == (2048, *sizes[1])


@pytest.mark.parametrize("kind", "ABC")
def test_pseudo_blocks_mix_space_and_time_as_named(kind):
    torch.manual_seed(0)
    block, x = released.PseudoBlock(8, 2, 1, kind).eval(), torch.rand(
        1, 8, 4, 5, 5)
    y = block.bn1(block.conv1(x)).relu()

    def space(x):
        return block.bn2(block.conv2(x)).relu()

    def time(x):
        return block.bn3(block.conv3(x)).relu()

    y = {"A": lambda: time(space(y)), "B": lambda: space(y) + time(y),
         "C": lambda: space(y) + time(space(y))}[kind]()
    torch.testing.assert_close(
        block(x), (block.bn4(block.conv4(y)) + x).relu())


def test_p3d_s_last_stage_sees_steps_by_themselves():
    torch.manual_seed(0)
    net = released.P3D((1, 1, 1, 1), (2, 2, 2, 2), mean=(0.5,) * 3,
                     std=(0.25,) * 3).eval()
    assert [b.kind for layer in (net.layer1, net.layer2, net.layer3)
            for b in layer] == ["A", "B", "C"]
    clips, steps = torch.rand(2, 32, 3, 32, 32), []
    net.layer4.register_forward_hook(lambda *call: steps.append(call[1][0]))
    maps = net(clips)
    assert maps.shape == (2, 2, 8, 1, 1)
    first = net.layer4(steps[0][2:3])  # first step of the second video
    torch.testing.assert_close(maps[1, :1], first)
    torch.testing.assert_close(net(clips[1:]), maps[1:])


def test_c3d_reads_blue_first_and_what_its_code_subtracts():
    """Its mean is 90 for blue, 98, and 102 for red, of 255."""
    torch.manual_seed(0)
    with torch.device("meta"):
        net = released.pretrained3d("c3d")
    net.conv1 = released.ConvReLU(3, 64, 3, padding=1)
    seen = []
    net.conv1.register_forward_hook(lambda *call: seen.append(call[1][0]))
    for name in ("mean", "std"):
        value = torch.tensor(released.C3D_MEAN[name]).view(3, 1, 1)
        setattr(net, name, value)
    clip = torch.tensor([102, 98, 100]).view(3, 1, 1) / 255
    with pytest.raises(Exception, match="(?i)meta|device"):
        net(clip.expand(1, 16, 3, 112, 112))  # conv2 has no numbers
    torch.testing.assert_close(
        seen[0][0, :, 0, 0, 0], torch.tensor([10.0, 0, 0]),
        rtol=0, atol=1e-4)


@pytest.mark.parametrize("block", [released.Basic, released.Bottleneck])
def test_gradients_reach_every_parameter_and_frames_stay_in_order(block):
    torch.manual_seed(0)
    net = released.ResNet3D(block, (1, 1, 1, 1), (4, 4, 4, 4), 2, 2,
                          mean=(0.5,) * 3, std=(0.25,) * 3)
    clips = torch.rand(2, 16, 3, 64, 64)
    net(clips).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    net.eval()
    x = ((clips - 0.5) / 0.25).permute(0, 2, 1, 3, 4)
    torch.testing.assert_close(
        net(clips), net.maps(x).permute(0, 2, 1, 3, 4))


# MARS.


def answers(shape=(3, 2, 5), seed=0, valid=None):
    torch.manual_seed(seed)
    if valid is None:
        valid = torch.tensor([[True, True], [True, False], [True, True]])
    features = torch.randn(shape).masked_fill(~valid[..., None], 0)
    return sta_networks.STAOutput(
        logits=torch.randn(3, 4, requires_grad=True), spans=None, valid=valid,
        clips=None, features=features.requires_grad_())


def test_mimic_loss_equals_a_loop_and_spares_the_flow_stream():
    rgb, flow, label = answers(), answers(seed=1), torch.tensor([0, 3, 1])
    terms = sta_networks.mimic_loss(rgb, flow, label)
    squares = [(rgb.features[i, j, k] - flow.features[i, j, k]) ** 2
               for i in range(3) for j in range(2) if rgb.valid[i, j]
               for k in range(5)]
    assert len(squares) == 25
    torch.testing.assert_close(terms["mimic"], sum(squares) / 25)
    torch.testing.assert_close(
        terms["entropy"], F.cross_entropy(rgb.logits, label))
    torch.testing.assert_close(
        terms["loss"], terms["entropy"] + 50 * terms["mimic"])
    terms["loss"].backward()
    assert flow.features.grad is None and flow.logits.grad is None
    assert rgb.features.grad[rgb.valid].ne(0).all()
    same = sta_networks.mimic_loss(flow, flow, label)
    assert same["mimic"] == 0


def test_a_stream_learns_to_mimic_flow():
    """RGB and flow of the same clips through two tiny networks."""
    torch.manual_seed(0)

    def stream(inputs):
        net = released.ResNet3D(
            released.Basic, (1, 1, 1, 1), (4, 4, 4, 4), 2, inputs=inputs,
            mean=(0.0,) * inputs, std=(1.0,) * inputs)
        return sta_networks.STAClassifier(net, net.channels, 3)

    rgb, flow = stream(3), stream(2).eval()
    x, motion = torch.rand(4, 8, 3, 32, 32), torch.randn(4, 8, 2, 32, 32)
    label, before = torch.tensor([0, 1, 2, 0]), None
    optimiser = torch.optim.Adam(rgb.parameters(), 1e-2)
    for _ in range(20):
        optimiser.zero_grad()
        terms = sta_networks.mimic_loss(rgb(x), flow(motion), label)
        before = before or terms["mimic"].item()
        terms["loss"].backward()
        optimiser.step()
    assert terms["mimic"] < 0.3 * before


def test_streams_are_fused_by_their_mean():
    a, b, c = (torch.randn(3, 4) for _ in range(3))
    torch.testing.assert_close(sta_networks.fuse(a, b), (a + b) / 2)
    torch.testing.assert_close(sta_networks.fuse(a, b, c), (a + b + c) / 3)


@FILLS_IN
def test_wrong_input_is_explained(tmp_path):
    make = released.pretrained3d
    with pytest.raises(ValueError, match="resnet50.*resnext101.*r3d_18"):
        make("resnet50")
    with pytest.raises(ValueError, match="kinetics.*path of the released"):
        make("resnext101", "kinetics")
    with pytest.raises(ValueError, match="weights='x.pth'"):
        make("r3d_18", "x.pth")
    with torch.device("meta"):
        rgb, c3d, p3d = (make(name) for name in
                         ("resnext101", "c3d", "p3d199"))
        with pytest.raises(FileNotFoundError, match="nowhere.pth"):
            make("c3d", str(tmp_path / "nowhere.pth"))
    load = released.load_released
    with pytest.raises(ValueError, match=r"conv1.weight is \(64, 2.*flow"):
        load(rgb, checkpoint("resnext101_flow"))
    with pytest.raises(ValueError, match="lacks .* names"):
        load(rgb, checkpoint("resnet18"))
    with pytest.raises(ValueError, match="number of classes"):
        load(rgb, checkpoint("resnext101"), nn.Linear(2048, 51))
    with pytest.raises(ValueError, match="no last layer 'fc'"):
        bare = {name: value for name, value in
                checkpoint("resnext101")["state_dict"].items()
                if ".fc." not in name}
        load(rgb, bare, nn.Linear(2048, 400))
    clip = torch.rand(1, 16, 3, 112, 112, device="meta")
    with pytest.raises(ValueError, match="divide by 255"):
        rgb(clip.byte())
    with pytest.raises(ValueError, match=r"\(N, T, 3, H, W\).*2 are flow"):
        rgb(clip[:, :, :2])
    with pytest.raises(ValueError, match="16 x 112 x 112, not"):
        c3d(clip[:, :8])
    with pytest.raises(ValueError, match="16 frames or more, not 8"):
        p3d(clip[:, :8])
    one, other = answers(), answers((3, 2, 6))
    with pytest.raises(ValueError, match="as many features"):
        sta_networks.mimic_loss(one, other, torch.zeros(3, dtype=torch.long))
