"""Networks by what they are for, and the stages in front and behind."""

import pytest
import torch

from lib.networks import cnn3d, roles


@pytest.mark.parametrize("role, backbone, name", [
    ("base", "resnet3d_small", "resnet3d_small"),
    ("C3D", "resnet3d_small", "c3d_small"), ("base", "r3d_18", "r3d_18"),
    ("flow", "resnext101", "resnext101_flow"), ("C3D", "resnext101", "c3d"),
    ("flow", "resnet3d_small", "resnet3d_small_flow"),
    ("P3D-199", "resnext101", "p3d199")])
def test_each_role_has_a_network_of_its_scale(role, backbone, name):
    assert roles.network(role, backbone) == name


def test_a_role_without_a_small_form_is_named():
    with pytest.raises(ValueError, match="P3D-199 has no small form"):
        roles.network("P3D-199", "resnet3d_small")


@pytest.mark.parametrize("role", ["base", "flow", "C3D"])
def test_a_stream_says_what_it_sees_and_what_trains(role):
    net, length, parts = roles.stream(role, "resnet3d_small", window=32)
    assert length == 32 and parts
    assert {*parts} <= {name for name, _ in net.named_modules()}
    maps = net.eval()(torch.rand(1, 8, 2 if role == "flow" else 3, 64, 64))
    assert maps.shape[2] == net.channels


@pytest.mark.parametrize("name", ["resnet3d_small", "c3d_small"])
def test_the_stages_in_front_and_behind_are_the_whole(name):
    torch.manual_seed(0)
    net = cnn3d.clip_cnn(name).eval()
    stage = [*net.stages][-2]
    clips = torch.rand(1, 8, 3, 64, 64)
    with torch.no_grad():
        maps, means = roles.Stem(net, stage).features(clips)
        assert torch.allclose(means, maps.mean((3, 4)))
        assert torch.allclose(roles.Tail(net, stage).eval()(maps), net(clips),
                              atol=1e-5)


def test_clips_are_seen_by_themselves_and_joined():
    net = cnn3d.clip_cnn("resnet3d_small").eval()
    stem = roles.Stem(net, "identity4b", 8)
    known = roles.Known(net, "identity4b", 8).eval()
    video = torch.rand(2, 24, 3, 32, 32)
    with torch.no_grad():
        maps, last = known.features(video)
        assert torch.equal(stem(video), maps)
        for i in range(3):
            clip = video[:, 8 * i:8 * i + 8]
            assert torch.allclose(maps[:, 2 * i:2 * i + 2],
                                  net(clip, "identity4b"), atol=1e-6)
            assert torch.allclose(last[:, i:i + 1], net(clip), atol=1e-5)


def test_released_weights_are_told_by_what_their_file_holds(tmp_path):
    file = tmp_path / "net.pth"
    found = [roles.fingerprint("base", "resnext101", "none",
                               {"base": str(file)})]
    for content in (b"one", b"three"):
        file.write_bytes(content)
        found.append(roles.fingerprint("base", "resnext101", "none",
                                       {"base": str(file)}))
    assert found[0] == "no file" and len({*found}) == 3
    assert roles.fingerprint("base", "resnext101", "none", {}) == "none"
