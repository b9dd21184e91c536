"""3D backbones: the published layouts, and weights that fit."""

import pytest
import torch
from checks import as_if_trained, offline, refused
from torch import nn
from torch.testing import assert_close

from lib.networks import cnn3d as bb
from lib.networks import pretrained
from lib.papers import jsta


def shapes(name, clips):
    net, seen = bb.clip_cnn(name).eval(), {}
    for stage, module in net.stages.items():
        module.register_forward_hook(
            lambda *call, stage=stage: seen.update(
                {stage: tuple(call[-1].shape[1:])}))
    with torch.no_grad():
        last = net(clips)
    assert {key: size[0] for key, size in seen.items()} == net.widths
    assert last.shape[2] == net.channels
    return seen


def test_resnet3d_is_the_paper_s():
    """Section 4.1 and the released layout: 28 x 28 x 128, T = 4 at conv3."""
    seen = shapes("resnet3d", torch.rand(1, 8, 3, 112, 112))
    assert seen == {
        "conv1": (64, 8, 56, 56),
        "conv2a": (64, 8, 56, 56), "identity2b": (64, 8, 56, 56),
        "conv3a": (128, 4, 28, 28), "identity3b": (128, 4, 28, 28),
        "conv4a": (256, 2, 14, 14), "identity4b": (256, 2, 14, 14),
        "conv5a": (512, 1, 7, 7), "identity5b": (512, 1, 7, 7)}


@pytest.mark.parametrize("frames", [8, 16])
def test_c3d_is_the_published_one_and_takes_8_frames_too(frames):
    seen = shapes("c3d", torch.rand(1, frames, 3, 112, 112))
    assert seen["conv5"] == (512, 1, 4, 4)
    assert seen["fc6"] == seen["fc7"] == (4096, 1, 1, 1)
    net = bb.clip_cnn("c3d")
    convs = [m for m in net.modules() if isinstance(m, nn.Conv3d)]
    assert [c.out_channels for c in convs] == [
        64, 128, 256, 256, 512, 512, 512, 512, 4096, 4096]
    assert convs[8].weight[0].numel() == 8192  # as in Caffe's fc6


@pytest.mark.parametrize("name", ["resnet3d_small", "c3d_small"])
@pytest.mark.parametrize(("frames", "side"), [(8, 64), (16, 64), (9, 48)])
def test_small_networks_take_any_clip(name, frames, side):
    net = bb.clip_cnn(name).eval()
    clips = torch.rand(2, frames, 3, side, side)
    with torch.no_grad():
        maps = net(clips)
        assert torch.equal(maps, net(clips))
        alone = net(clips[1:])
    assert maps.isfinite().all() and maps.std() > 0
    # other batch sizes may take other kernels
    assert_close(maps[1:], alone, rtol=1e-3, atol=1e-5)
    assert sum(p.numel() for p in net.parameters()) < 0.55e6


def test_frames_keep_their_order_on_the_way_in():
    """Time and channels are not mixed up: shift in time, shift of the map."""
    net = bb.clip_cnn("resnet3d_small").eval()
    clips = torch.rand(1, 12, 3, 32, 32)
    with torch.no_grad():
        whole, late = net(clips, "conv1"), net(clips[:, 2:], "conv1")
        x = ((clips - 0.5) / 0.25).transpose(1, 2)
        by_hand = net.stages["conv1"](x).transpose(1, 2)
    assert_close(whole[:, 3:], late[:, 1:])
    assert_close(whole, by_hand)


@pytest.mark.parametrize("follow", [False, True])
def test_a_stage_can_be_replaced_or_followed(follow):
    net, noted = bb.clip_cnn("resnet3d_small").eval(), nn.Conv3d(16, 16, 1)
    nn.init.zeros_(noted.weight), nn.init.zeros_(noted.bias)
    order, clips = list(net.stages), torch.rand(2, 8, 3, 64, 64)
    net.stages["identity3b"] = nn.Sequential(
        net.stages["identity3b"], noted) if follow else noted
    with torch.no_grad():
        maps = net(clips, "identity3b")
        assert maps.shape == (2, 4, 16, 16, 16) and maps.abs().max() == 0
        assert net(clips).shape == (2, 1, 64, 4, 4)
    assert list(net.stages) == order


@pytest.fixture(scope="module")
def r3d_18():
    from torchvision.models.video import r3d_18

    torch.manual_seed(0)
    return as_if_trained(r3d_18())


@pytest.mark.parametrize(("name", "stage"), [
    ("resnet3d_small", "conv3a"), ("c3d_small", "conv2")])
def test_stages_below_and_above_make_the_whole(name, stage):
    """On clips, and on a video of which the lower maps were computed once."""
    net = as_if_trained(bb.clip_cnn(name)).eval()
    video = torch.rand(2, 19, 3, 32, 32)
    with torch.no_grad():
        maps, vectors = bb.Below(net, stage).features(video)
        clips = video[:, :16].unflatten(1, (2, 8))
        whole = torch.stack([net(one) for one in clips])
        model = bb.OnVideos(lambda x, real: torch.stack(
            [net.above(stage)(one) for one in x]), length=4)
        assert_close(model(maps), whole)
        assert maps.shape[:3] == (2, 8, net.widths[stage])
        assert_close(vectors, maps.mean((3, 4)))
        last, _ = bb.Below(net).features(video)
        assert_close(last, whole.flatten(1, 2).mean((3, 4), keepdim=True))


def test_spans_count_frames_on_maps_too():
    """Four steps of a map are eight frames."""
    net = bb.clip_cnn("resnet3d_small")
    net.stages["identity3b"] = jsta.SpatialAttention(16)
    video = torch.rand(1, 16, 3, 32, 32)
    maps, _ = bb.Below(net, "conv3a").features(video)
    whole, upper = (bb.OnVideos(jsta.ClipClassifier(part, 64, 3), length)
                    for part, length in ((net, 8), (net.above("conv3a"), 4)))
    assert torch.equal(whole.eval()(video).spans, upper.eval()(maps).spans)
    assert whole(video).spans[-1].tolist() == [14, 16]


def test_the_stages_above_may_read_more_channels():
    upper = bb.clip_cnn("resnet3d_small").above("conv3a", more=1)
    upper.stages["identity3b"] = jsta.TrueGates()
    assert upper(torch.rand(2, 4, 17, 8, 8)).shape[:3] == (2, 1, 64)
    refused("clips must be", upper, torch.rand(2, 4, 16, 8, 8))


def test_weights_of_r3d_18_give_its_own_map(r3d_18):
    net = bb.clip_cnn("resnet3d").eval()
    bb.load_r3d_18(net, r3d_18.state_dict())
    clip, maps = torch.rand(1, 8, 3, 112, 112), []
    hook = r3d_18.layer4.register_forward_hook(
        lambda *call: maps.append(call[-1]))
    with torch.no_grad():
        r3d_18(((clip - net.mean) / net.std).transpose(1, 2))
        ours = net(clip).transpose(1, 2)
    hook.remove()
    assert maps[0].std() > 0.1
    assert_close(ours, maps[0], rtol=1e-3, atol=1e-4)


def test_weights_of_another_network_do_not_load(r3d_18):
    with pytest.raises(RuntimeError, match="stages.conv1.0.weight"):
        bb.load_r3d_18(bb.clip_cnn("resnet3d_small"), r3d_18.state_dict())
    with pytest.raises(RuntimeError, match="Unexpected.*stages.other"):
        bb.load_r3d_18(bb.clip_cnn("resnet3d"), r3d_18.state_dict() | {
            "other.weight": torch.zeros(3)})


def test_kinetics_weights_come_from_torchvision(monkeypatch, r3d_18):
    from torchvision import models

    offline(monkeypatch, lambda name: r3d_18.state_dict())
    net = bb.clip_cnn("resnet3d", "kinetics")
    assert torch.equal(net.stages["conv1"][0].weight, r3d_18.stem[0].weight)
    meta = models.video.R3D_18_Weights.DEFAULT.transforms()
    assert net.mean.flatten().tolist() == pytest.approx(meta.mean)
    assert net.std.flatten().tolist() == pytest.approx(meta.std)


@pytest.mark.parametrize("name", [
    "resnet3d_small", "c3d_small", "resnet3d_small_flow"])
def test_puppet_weights_are_there_and_load(name):
    """Trained ones: unlike new ones, and told apart by their fingerprint."""
    new, net = bb.clip_cnn(name), bb.clip_cnn(name, "puppets")
    first = next(iter(net.stages["conv1"].parameters()))
    assert not torch.equal(first, next(iter(new.parameters())))
    assert_close(net.state_dict(), bb.clip_cnn(name, "puppets").state_dict())
    others = {pretrained.fingerprint(other, "puppets")
              for other in bb.MAKERS if "small" in other}
    assert len(others | {pretrained.fingerprint(name, None)}) == 4


@pytest.mark.parametrize("name", ["resnet3d_small", "c3d_small"])
def test_gradients_reach_every_parameter(name):
    torch.manual_seed(0)
    net = bb.clip_cnn(name)
    net(torch.rand(3, 8, 3, 64, 64)).square().sum().backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad.abs().sum() > 0, key


def test_wrong_input_is_explained(monkeypatch, tmp_path):
    net = bb.clip_cnn("resnet3d_small")
    with pytest.raises(ValueError, match="divide by 255"):
        net(torch.zeros(1, 8, 3, 32, 32, dtype=torch.uint8))
    refused(r"\(N, T, 3, H, W\).*3, 8, 32", net, torch.rand(1, 3, 8, 32, 32))
    refused("conv9.*identity3b", net, torch.rand(1, 8, 3, 32, 32), "conv9")
    refused("resnet4d.*resnet3d.*c3d", bb.clip_cnn, "resnet4d")
    for name, weights, trained in (
            ("resnet3d", "imagenet", "kinetics"),
            ("resnet3d", "puppets", "kinetics"),
            ("c3d_small", "kinetics", "puppets"), ("c3d", "kinetics", None)):
        refused(f"{name} takes .*{trained}", bb.clip_cnn, name, weights)
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path)
    refused("pretrain_clip_backbone.py", bb.clip_cnn, "c3d_small", "puppets",
            error=FileNotFoundError)
