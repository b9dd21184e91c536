"""Frame backbones: stages, shapes, weights, and the frame average."""

import importlib

import pytest
import torch
from checks import offline, random, refused
from torch import nn
from torch.testing import assert_close

from lib import ROOT
from lib.networks import cnn2d as bb
from lib.networks import pretrained


def test_stages_are_prefixes_of_one_another():
    net = bb.frame_cnn("small").eval()
    video = torch.rand(2, 3, 3, 32, 32)
    x = net(video, "conv2")
    assert x.shape == (2, 3, 48, 8, 8)
    tail = x.flatten(0, 1)
    for name in ("conv3", "conv4"):
        tail = net.stages[name](tail)
    assert_close(net(video), tail.unflatten(0, (2, 3)))
    assert net(video).shape == (2, 3, net.channels, 4, 4)


def test_resnet18_has_the_published_shape():
    net = bb.frame_cnn("resnet18").eval()
    with torch.no_grad():
        assert net(torch.rand(1, 1, 3, 224, 224)).shape == (1, 1, 512, 7, 7)
    layers = [f"layer{i}" for i in range(1, 5)]
    assert list(net.stages) == ["conv1", *layers]


def test_features_are_a_stage_and_the_head_of_the_last():
    """In one pass; by default they are the last map and its mean."""
    stages, calls = dict(bb.small_cnn(4).stages), []
    head = nn.Sequential(nn.Flatten(), nn.Linear(16 * 16, 5), nn.ReLU())
    net = bb.FrameCNN(stages, 16, cube=("conv2", 8), head=(head, 5)).eval()
    video = torch.rand(2, 3, 3, 32, 32)
    wanted, last = net(video, "conv2"), net(video).flatten(0, 1)
    for name, module in stages.items():
        module.register_forward_hook(lambda *_, n=name: calls.append(n))
    cube, vector = net.features(video)
    assert calls == ["conv1", "conv2", "conv3", "conv4"]
    assert torch.equal(cube, wanted)
    assert_close(vector, head(last).unflatten(0, (2, 3)))
    assert cube.shape[2] == net.cube_channels == 8
    assert vector.shape == (2, 3, net.vector_channels) == (2, 3, 5)
    net = bb.frame_cnn("small_narrow").eval()
    cube, vector = net.features(video)
    assert torch.equal(cube, net(video))
    assert_close(vector, cube.mean((-1, -2)))
    assert net.cube_channels == net.vector_channels == net.channels
    # neither the head nor mean and deviation are in files of weights
    assert {key.split(".")[0] for key in net.state_dict()} == {"stages"}


def torchvisions(name: str) -> tuple[nn.Module, nn.Module]:
    """torchvision's network up to our vector, and its layer of our cube."""
    from torchvision import models

    with torch.device("meta"):  # the numbers will be ours
        if name == "vgg16":
            net = models.vgg16()
            net.classifier = net.classifier[:2]
            return net.eval(), net.features
        net = models.googlenet(
            transform_input=True, aux_logits=False, init_weights=False)
        net.fc = nn.Identity()
        return net.eval(), net.inception5a


@pytest.mark.parametrize(
    ("name", "cube_channels", "vector_channels"),
    [("vgg16", 512, 4096), ("googlenet", 832, 1024)])
def test_features_equal_torchvisions_own(name, cube_channels, vector_channels):
    net = bb.frame_cnn(name).eval()
    for module in net.modules():  # so that signals do not fade on the way
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    whole, layer = torchvisions(name)
    ours = zip(whole.state_dict(), net.state_dict().values(), strict=True)
    whole.load_state_dict(dict(ours), assign=True)
    maps = []
    layer.register_forward_hook(lambda *call: maps.append(call[-1]))
    frame = torch.rand(1, 1, 3, 224, 224)
    mean, std = (torch.tensor(pretrained.IMAGENET[key]).view(3, 1, 1)
                 for key in ("mean", "std"))
    with torch.no_grad():
        expected = whole(((frame - mean) / std)[0])
        cube, vector = net.features(frame)
    assert cube.shape == (1, 1, cube_channels, 7, 7)
    assert vector.shape == (1, 1, vector_channels)
    assert (net.cube_channels, net.vector_channels) == (
        cube_channels, vector_channels)
    for given, right in ((cube[0], maps[0]), (vector[0], expected)):
        assert right.std() > 0.01
        assert_close(given, right, rtol=1e-3, atol=1e-4)


@pytest.fixture
def downloaded(monkeypatch):
    from torchvision import models

    states = {}

    def state_of(name):
        with_heads = {"aux_logits": True, "init_weights": False}
        settings = with_heads if name == "googlenet" else {}
        states[name] = models.get_model(name, **settings).state_dict()
        return states[name]

    offline(monkeypatch, state_of)
    return states


def test_imagenet_weights_come_without_auxiliary_heads(downloaded):
    net = bb.frame_cnn("googlenet", "imagenet")
    source = downloaded["googlenet"]
    assert any(key.startswith("aux") for key in source)
    assert_close(net.stages["inception5b"].state_dict(), {
        key.removeprefix("inception5b."): value
        for key, value in source.items() if key.startswith("inception5b.")})


def test_a_flow_network_starts_from_imagenet(downloaded):
    net = bb.frame_cnn("resnet18", "imagenet", channels=10)
    kernel = net.stages["conv1"][0].weight
    grey = downloaded["resnet18"]["conv1.weight"].mean(1)
    for i in range(10):
        assert_close(kernel[:, i], grey)
    net.eval().features(torch.randn(1, 2, 10, 32, 32))


def test_flow_kernels_answer_as_rgb_to_grey():
    """The same v in 2L channels counts 2L / 3 times grey in RGB.

    All of the 2L kernels are the mean of the three, so that together they
    are 2L / 3 of the three's sum. The bias, if any, is added once in both.
    """
    conv = nn.Conv2d(3, 5, 3, padding=1)
    net = bb.FrameCNN({"conv1": conv}, 5)
    v, bias = random(2, 1, 8, 8), conv.bias.view(5, 1, 1)
    rgb = conv(v.expand(-1, 3, -1, -1)) - bias
    assert bb.for_flow(net, 4) is net
    flow = conv(v.expand(-1, 4, -1, -1)) - bias
    assert_close(flow, 4 / 3 * rgb)


def test_flow_is_scaled_and_keeps_its_zero():
    net = bb.frame_cnn("small_narrow", channels=6).eval()
    x = torch.randn(2, 6, 32, 32)
    scaled = net(bb.FLOW_STD * x[None], "conv1")
    assert_close(scaled[0], net.stages["conv1"](x))


@pytest.mark.parametrize(("name", "channels"), [
    *((name, 3) for name in bb.SMALL), ("small", pretrained.FLOW_CHANNELS)])
def test_puppet_weights_are_there_and_load(name, channels):
    """And flow's are trained, not what `for_flow` makes of RGB's."""
    net = bb.frame_cnn(name, "puppets", channels).eval()
    other = bb.frame_cnn(name)
    if channels != 3:
        other = bb.for_flow(bb.frame_cnn(name, "puppets"), channels)
    first = "stages.conv1.0.weight"
    assert not torch.equal(net.state_dict()[first], other.state_dict()[first])
    model = bb.FrameAverage(net.channels, 3, net)
    assert model(torch.randn(2, 3, channels, 64, 64)).logits.shape == (2, 3)


@pytest.mark.parametrize("channels", [3, 6])
def test_weights_survive_a_round_trip(tmp_path, channels):
    file, net = tmp_path / "w.safetensors", bb.frame_cnn(
        "small_narrow", channels=channels)
    pretrained.save_weights(net, file)
    again = bb.frame_cnn("small_narrow", str(file), channels)
    # float16 keeps 11 bits: relative error below 2**-11
    assert_close(again.state_dict(), net.state_dict(), rtol=2**-11, atol=1e-6)
    assert [*tmp_path.iterdir()] == [file]


def test_a_file_of_other_weights_is_named(tmp_path):
    """Of RGB for flow, of another network, or no weights at all."""
    file = tmp_path / "w.safetensors"
    pretrained.save_weights(bb.frame_cnn("small"), file)
    for name, channels in (("small", 10), ("small_wide", 3),
                           ("bninception", 3)):
        refused(f"{file} does not fit: .*FrameC", bb.frame_cnn, name,
                str(file), channels)
    file.write_bytes(file.read_bytes()[:1000])
    refused(f"{file} does not fit", bb.frame_cnn, "small", str(file))


def test_mirrored_flow_moves_the_other_way(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "data_scripts")
    pretrain = importlib.import_module("pretrain_backbone")
    clip = torch.randn(2, 4, 4, 8, 8)
    batch, seen = {"motion": clip.clone(), "label": torch.zeros(2).long()}, []

    class Model(bb.FrameAverage):
        def forward(self, x):
            seen.append(x)
            return super().forward(x)

    monkeypatch.setattr(torch, "randint", lambda *_: torch.arange(4))
    for number in (0.1, 0.9):
        monkeypatch.setattr(torch, "rand", lambda _, n=number: n)
        pretrain.step(Model(4, 3), batch, "motion")
    sign = torch.tensor([-1.0, 1, -1, 1]).view(4, 1, 1)
    assert torch.equal(seen[0], sign * clip.flip(-1))
    assert torch.equal(seen[1], clip)


@pytest.mark.parametrize(("words", "name", "weights", "channels"), [
    ("vgg99.*small.*vgg16.*googlenet", "vgg99", None, 3),
    ("no puppet-trained", "resnet18", "puppets", 3),
    ("no puppet-trained", "resnet18", "puppets", 4),
    ("no ImageNet", "small", "imagenet", 3),
    ("bninception: no ImageNet", "bninception", "imagenet", 3),
    ("4 channels.*not 10", "small", "puppets", 10),
    ("5 channels.*2L are flow", "small", None, 5),
    ("0 channels", "small", None, 0)])
def test_wrong_names_are_explained(words, name, weights, channels):
    refused(words, bb.frame_cnn, name, weights, channels)


def test_wrong_input_is_explained():
    net, frames = bb.frame_cnn("small_narrow"), torch.rand(1, 2, 3, 32, 32)
    refused("divide by 255", net, frames.byte())
    refused("conv9.*conv1", net, frames, "conv9")
    refused("4 channels.*reads 3", net.features, torch.rand(1, 2, 4, 32, 32))
    refused("pretrain_backbone", bb.frame_cnn, "small", "nowhere.safetensors",
            error=FileNotFoundError)
    refused("wide_flow.*--flow 2", bb.frame_cnn, "small_wide", "puppets",
            pretrained.FLOW_CHANNELS, error=FileNotFoundError)


def test_frame_average_is_the_mean_of_frames():
    model = bb.FrameAverage(6, 3)
    x = torch.randn(2, 4, 6, 5, 5)
    by_hand = sum(model.classify(x[:, t].mean((2, 3))) for t in range(4)) / 4
    assert_close(model(x).logits, by_hand)
    shuffled = model(x[:, torch.randperm(4)]).logits
    assert_close(model(x).logits, shuffled)


def test_frame_average_standardises_what_it_classifies():
    model = bb.FrameAverage(6, 3, standardise=True)
    x = torch.randn(20, 4, 6, 5, 5) * 10.0 ** torch.arange(-3, 3).view(6, 1, 1)
    means = x.mean((1, 3, 4))
    means = (means - means.mean(0)) / (means.var(0, correction=0)
                                       + model.norm.eps).sqrt()
    assert_close(model(x).logits, model.classify(means))


def test_a_stream_starts_from_what_a_notebook_names(tmp_path):
    puppets = bb.frame_cnn("small", "puppets")
    file = tmp_path / "own.safetensors"
    pretrained.save_weights(puppets, file)
    x = torch.rand(1, 2, 3, 32, 32)
    for weights in ("puppets", str(file)):
        assert torch.equal(bb.stream_cnn("small", weights).eval()(x),
                           puppets.eval()(x))
    flow = bb.stream_cnn("small", str(file), 4)  # RGB weights are its start
    assert flow.eval()(torch.rand(1, 2, 4, 32, 32)).shape[2] == 96
    assert not torch.equal(bb.stream_cnn("small", "none").eval()(x),
                           puppets.eval()(x))


def test_fingerprints_tell_weights_apart(tmp_path):
    """Files by what they hold, wherever they lie."""
    prints = [pretrained.fingerprint(*weights) for weights in (
        ("small", "puppets"), ("small", "puppets", 4), ("small", None),
        ("small", None, 4), ("small_wide", "puppets"))]
    assert pretrained.fingerprint("resnet18", "imagenet") == "imagenet"
    files = [tmp_path / f"{name}.safetensors" for name in ("own", "copy")]
    assert pretrained.fingerprint("small", str(files[0])) == "no file"
    for seed in range(2):
        torch.manual_seed(seed)
        pretrained.save_weights(bb.frame_cnn("small"), files[0])
        prints.append(pretrained.fingerprint("small", str(files[0])))
    assert len({*prints}) == 7
    files[1].write_bytes(files[0].read_bytes())
    assert pretrained.fingerprint("small", str(files[1])) == prints[-1]
