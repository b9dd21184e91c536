"""3D backbones: the published layouts, weights that fit, clips, freezing."""

import copy

import pytest
import torch
from torch import nn

from lib.data import sampling
from lib.networks import cnn3d as bb
from lib.networks.cnn3d import load_r3d_18


def shapes(name, clips):
    """Stage -> shape of its map, by one pass."""
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
        "conv5a": (512, 1, 7, 7), "identity5b": (512, 1, 7, 7),
    }


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
    torch.testing.assert_close(maps[1:], alone, rtol=1e-3, atol=1e-5)
    assert sum(p.numel() for p in net.parameters()) < 0.55e6


def test_frames_keep_their_order_on_the_way_in():
    """Time and channels are not mixed up: shift in time, shift of the map."""
    net = bb.clip_cnn("resnet3d_small").eval()
    clips = torch.rand(1, 12, 3, 32, 32)
    with torch.no_grad():
        whole, late = net(clips, "conv1"), net(clips[:, 2:], "conv1")
        x = ((clips - 0.5) / 0.25).transpose(1, 2)
        by_hand = net.stages["conv1"](x).transpose(1, 2)
    torch.testing.assert_close(whole[:, 3:], late[:, 1:])
    torch.testing.assert_close(whole, by_hand)


def test_a_stage_can_be_replaced_or_followed():
    class Noted(nn.Module):
        def forward(self, x):
            self.shape = tuple(x.shape)
            return 0 * x

    for follow in (False, True):
        net, noted = bb.clip_cnn("resnet3d_small").eval(), Noted()
        order = list(net.stages)
        net.stages["identity3b"] = nn.Sequential(
            net.stages["identity3b"], noted) if follow else noted
        clips = torch.rand(2, 8, 3, 64, 64)
        with torch.no_grad():
            assert net(clips, "identity3b").abs().max() == 0
            net(clips)
        assert list(net.stages) == order
        assert noted.shape == (2, 16, 4, 16, 16)


@pytest.fixture(scope="module")
def r3d_18():
    from torchvision.models.video import r3d_18

    torch.manual_seed(0)
    net = r3d_18()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):  # as if it had been trained
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    return net.eval()


def test_weights_of_r3d_18_give_its_own_map(r3d_18):
    net = bb.clip_cnn("resnet3d").eval()
    done = load_r3d_18(net, r3d_18.state_dict())
    assert done.unused == ["fc.weight", "fc.bias"]
    assert all(n.startswith("stages.conv2a.downsample") for n in done.missing)
    assert len(done.loaded) + len(done.missing) == len(net.state_dict())
    clip, maps = torch.rand(1, 8, 3, 112, 112), []
    hook = r3d_18.layer4.register_forward_hook(
        lambda *call: maps.append(call[-1]))
    with torch.no_grad():
        r3d_18(((clip - net.mean) / net.std).transpose(1, 2))
        ours = net(clip).transpose(1, 2)
    hook.remove()
    assert maps[0].std() > 0.1
    torch.testing.assert_close(ours, maps[0], rtol=1e-3, atol=1e-4)


def test_weights_load_around_what_does_not_agree(r3d_18):
    state = r3d_18.state_dict()
    net = bb.clip_cnn("resnet3d")
    net.stages["identity3b"] = nn.Conv3d(128, 128, 1)
    done = load_r3d_18(net, state)
    assert "stages.identity3b.weight" in done.missing
    assert "layer2.1.conv1.0.weight" in done.unused
    assert "stages.identity4b.conv2.1.running_var" in done.loaded
    small = bb.clip_cnn("resnet3d_small")
    before = copy.deepcopy(small.state_dict())
    done = load_r3d_18(small, state)
    # a batch norm's count of batches fits any width, nothing else does
    assert {n.rpartition(".")[2] for n in done.loaded} == {
        "num_batches_tracked"}
    torch.testing.assert_close(small.state_dict(), before)


def test_kinetics_weights_come_from_torchvision(monkeypatch, r3d_18):
    from torchvision import models

    def get(self, **options):
        assert options["check_hash"] and options["weights_only"]
        return r3d_18.state_dict()

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", get)
    net = bb.clip_cnn("resnet3d", "kinetics")
    assert torch.equal(net.stages["conv1"][0].weight, r3d_18.stem[0].weight)
    meta = models.video.R3D_18_Weights.DEFAULT.transforms()
    assert net.mean.flatten().tolist() == pytest.approx(meta.mean)
    assert net.std.flatten().tolist() == pytest.approx(meta.std)


@pytest.mark.parametrize("name", ["resnet3d_small", "c3d_small"])
def test_puppet_weights_are_there_and_load(name):
    """Trained ones: unlike new ones, and told apart by their fingerprint."""
    new, net = bb.clip_cnn(name), bb.clip_cnn(name, "puppets")
    first = next(iter(net.stages["conv1"].parameters()))
    assert not torch.equal(first, next(iter(new.parameters())))
    torch.testing.assert_close(
        net.state_dict(), bb.clip_cnn(name, "puppets").state_dict())
    assert len({bb.fingerprint("resnet3d_small", "puppets"),
                bb.fingerprint("c3d_small", "puppets"),
                bb.fingerprint(name, None)}) == 3


@pytest.mark.parametrize("name", ["resnet3d_small", "c3d_small"])
def test_gradients_reach_every_parameter(name):
    torch.manual_seed(0)
    net = bb.clip_cnn(name)
    net(torch.rand(3, 8, 3, 64, 64)).square().sum().backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad.abs().sum() > 0, key


def video(batch, frames, side=4):
    """Frame i of every video is all i."""
    x = torch.arange(float(frames)).view(1, -1, 1, 1, 1)
    return x.expand(batch, -1, 3, side, side)


def numbers(clips):
    return clips[..., 0, 0, 0].int().tolist()


@pytest.mark.parametrize(("frames", "count"), [(8, 1), (15, 1), (16, 2),
                                               (29, 3)])
def test_clips_are_whole_and_in_order(frames, count):
    clips, real = sampling.clips_of(video(2, frames))
    assert clips.shape == (2, count, 8, 3, 4, 4) and real.all()
    expected = [list(range(8 * i, 8 * i + 8)) for i in range(count)]
    assert numbers(clips) == [expected] * 2


def test_a_short_video_repeats_its_last_frame():
    clips, real = sampling.clips_of(video(1, 5))
    assert numbers(clips) == [[[0, 1, 2, 3, 4, 4, 4, 4]]]
    assert real.tolist() == [[True]]
    clips, _ = sampling.clips_of(video(1, 5), length=2)
    assert numbers(clips) == [[[0, 1], [2, 3]]]


def test_padded_videos_are_cut_as_if_they_came_alone():
    lengths = torch.tensor([24, 3, 16, 15])
    clips, real = sampling.clips_of(video(4, 24), lengths=lengths)
    assert real.sum(1).tolist() == [3, 1, 2, 1]
    for row, length in enumerate(lengths):
        alone, _ = sampling.clips_of(video(1, int(length)))
        assert numbers(clips[row][real[row]]) == numbers(alone[0])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.Dropout(0.5))
        self.second = nn.Conv3d(4, 2, 1)

    def forward(self, x):
        return self.second(self.first(x))


def test_what_is_frozen_does_not_change_and_train_does_not_wake_it():
    net, x = Net(), torch.randn(2, 3, 4, 4, 4)
    assert bb.freeze(net.first) is net.first
    before = copy.deepcopy(net.state_dict())
    optimiser = torch.optim.SGD(net.parameters(), 0.1, weight_decay=0.1)
    for _ in range(2):
        assert net.train() is net and net.training
        assert net.first.train() is net.first and net.first[1].train()
        net(x).square().sum().backward()
        optimiser.step()
    assert not any(part.training for part in net.first.modules())
    assert torch.equal(net.first(x), net.first(x))  # no dropout
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]) == key.startswith("first"), key


def test_a_copy_of_a_frozen_module_is_frozen_by_itself():
    net = bb.freeze(Net())
    twin = copy.deepcopy(net)
    assert twin.train() is twin and not twin.first[1].training
    assert twin.first.train() is twin.first


def test_missing_weights_name_the_script(monkeypatch, tmp_path):
    monkeypatch.setattr(bb.backbones2d, "WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="pretrain_clip_backbone.py"):
        bb.clip_cnn("c3d_small", "puppets")


def test_wrong_input_is_explained():
    net = bb.clip_cnn("resnet3d_small")
    with pytest.raises(ValueError, match="divide by 255"):
        net(torch.zeros(1, 8, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\(N, T, 3, H, W\).*3, 8, 32"):
        net(torch.rand(1, 3, 8, 32, 32))
    with pytest.raises(ValueError, match="conv9.*identity3b"):
        net(torch.rand(1, 8, 3, 32, 32), "conv9")
    with pytest.raises(ValueError, match="resnet4d.*resnet3d.*c3d"):
        bb.clip_cnn("resnet4d")
    with pytest.raises(ValueError, match="puppets.*kinetics"):
        bb.clip_cnn("resnet3d", "imagenet")
    with pytest.raises(ValueError, match="resnet3d has no puppet"):
        bb.clip_cnn("resnet3d", "puppets")
    with pytest.raises(ValueError, match="c3d has no Kinetics"):
        bb.clip_cnn("c3d", "kinetics")
    with pytest.raises(ValueError, match=r"\(B, n, 3, H, W\)"):
        sampling.clips_of(torch.rand(8, 3, 4, 4))
    with pytest.raises(ValueError, match=r"\(B, n, 3, H, W\)"):
        sampling.clips_of(video(1, 0))
    for length in (0, 9):
        with pytest.raises(ValueError, match=f"{length}.*hold 8 frames"):
            sampling.clips_of(video(2, 8), lengths=torch.tensor([8, length]))
