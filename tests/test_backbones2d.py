"""Frame backbones: stages, shapes, weights, and the frame average."""

import pytest
import torch

from lib import backbones2d as bb


def test_stages_are_prefixes_of_one_another():
    net = bb.frame_cnn("small").eval()
    video = torch.rand(2, 3, 3, 32, 32)
    x = net(video, "conv2")
    assert x.shape == (2, 3, 32, 8, 8)
    tail = x.flatten(0, 1)
    for name in ("conv3", "conv4"):
        tail = net.stages[name](tail)
    torch.testing.assert_close(net(video), tail.unflatten(0, (2, 3)))
    assert net(video).shape == (2, 3, net.channels, 4, 4)


def test_frames_do_not_see_each_other():
    net = bb.frame_cnn("small").eval()
    video = torch.rand(1, 4, 3, 32, 32)
    alone = net(video[:, 2:3])
    torch.testing.assert_close(net(video)[:, 2:3], alone)


def test_resnet18_has_the_published_shape():
    net = bb.frame_cnn("resnet18").eval()
    with torch.no_grad():
        assert net(torch.rand(1, 1, 3, 224, 224)).shape == (1, 1, 512, 7, 7)
    layers = [f"layer{i}" for i in range(1, 5)]
    assert list(net.stages) == ["conv1", *layers]


@pytest.mark.parametrize("name", bb.SMALL)
def test_puppet_weights_are_there_and_load(name):
    loaded = bb.frame_cnn(name, "puppets").state_dict()
    fresh = bb.frame_cnn(name).state_dict()
    first = "stages.conv1.0.weight"
    assert not torch.equal(fresh[first], loaded[first])


def test_weights_survive_a_round_trip(tmp_path):
    net = bb.frame_cnn("small_narrow")
    bb.save_weights(net, tmp_path / "w.safetensors")
    again = bb.frame_cnn("small_narrow", str(tmp_path / "w.safetensors"))
    for key, value in net.state_dict().items():
        # float16 keeps 11 bits: relative error below 2**-11
        torch.testing.assert_close(
            again.state_dict()[key], value, rtol=2**-11, atol=1e-6
        )
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("vgg99", None, "vgg99.*small"),
        ("resnet18", "puppets", "no puppet-trained"),
        ("small", "imagenet", "no ImageNet"),
    ],
)
def test_wrong_names_are_explained(name, weights, message):
    with pytest.raises(ValueError, match=message):
        bb.frame_cnn(name, weights)


def test_wrong_input_is_explained():
    net = bb.frame_cnn("small_narrow")
    with pytest.raises(ValueError, match="divide by 255"):
        net(torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match="conv9.*conv1"):
        net(torch.rand(1, 2, 3, 32, 32), "conv9")
    with pytest.raises(FileNotFoundError, match="pretrain_backbone"):
        bb.frame_cnn("small", "nowhere.safetensors")


def test_frame_average_is_the_mean_of_frames():
    model = bb.FrameAverage(6, 3)
    x = torch.randn(2, 4, 6, 5, 5)
    by_hand = sum(model.classify(x[:, t].mean((2, 3))) for t in range(4)) / 4
    torch.testing.assert_close(model(x).logits, by_hand)
    shuffled = model(x[:, torch.randperm(4)]).logits
    torch.testing.assert_close(model(x).logits, shuffled)
