"""STA-CNN's attention network: its layout, its flow, and the flow's loss."""

import math

import pytest
import torch
from checks import random, refused
from torch import nn
from torch.nn import functional as F

from lib.papers import sta_cnn
from lib.papers.sta_cnn import AttentionNetwork, FlowPredictor, flow_loss
from lib.scores import metrics
from lib.worlds import worlds

SMALL = (8, 8, 16, 16, 16, 24)


def small(poolings=3):
    torch.manual_seed(0)
    return AttentionNetwork(SMALL, poolings)


def test_ten_convolutions_and_six_poolings_as_published():
    """FlowNetSimple's kernels and widths, and what they cost (IV-G)."""
    with torch.device("meta"):
        net = FlowPredictor(AttentionNetwork())
        convs = [m for m in net.san.modules() if isinstance(m, nn.Conv2d)]
        pools = [m for m in net.san.modules() if isinstance(m, nn.MaxPool2d)]
        assert [(c.out_channels, c.kernel_size[0]) for c in convs] == [
            (64, 7), (128, 5), (256, 5), (256, 3), (512, 3), (512, 3),
            (512, 3), (512, 3), (1024, 3), (1024, 3)]
        assert len(pools) == 6
        assert metrics.parameters(net.san) == 24_050_752
        assert [m.out_channels for m in net.expand.modules()
                if isinstance(m, nn.Conv2d)] == [512, 256, 128, 2]
        pairs = torch.rand(1, 2, 3, 224, 224)
        assert net.san(pairs).shape == (1, 1024, 4, 4)
        assert net(pairs).shape == (1, 2, 56, 56)


@pytest.mark.parametrize(("poolings", "size", "side"), [
    (2, (64, 64), (16, 16)), (3, (64, 64), (8, 8)), (6, (64, 64), (1, 1)),
    (3, (50, 70), (7, 9)), (6, (64, 96), (1, 2)), (6, (63, 65), (1, 2))])
def test_poolings_round_up(poolings, size, side):
    net, pairs = FlowPredictor(small(poolings)), torch.rand(2, 2, 3, *size)
    assert net.san(pairs).shape == (2, 24, *side)
    assert net(pairs).shape[2:] == tuple(math.ceil(n / 4) for n in size)


def test_frames_are_centred():
    """Grey is zero, and so is all that convolutions without bias make."""
    san = small()
    assert san(torch.full((1, 2, 3, 64, 64), 0.5)).eq(0).all()
    assert san(torch.zeros(1, 2, 3, 64, 64)).abs().max() > 0.1


def test_signals_come_through_ten_layers():
    """Without a norm: the deepest map is as lively as the first."""
    torch.manual_seed(0)
    san, x = AttentionNetwork((16, 16, 32, 32, 32, 48), 3), None
    x = 4 * torch.rand(2, 6, 64, 64) - 2
    levels = []
    for stage in san.stages:
        x = stage(x)
        levels.append(x.std())
    assert 0.3 < levels[-1] / levels[0] < 3


def test_wrong_inputs_are_explained():
    san = small()
    for wrong in (torch.rand(2, 3, 64, 64), torch.rand(2, 1, 3, 64, 64),
                  torch.zeros(2, 2, 3, 64, 64, dtype=torch.uint8)):
        refused("pairs of frames", san, wrong)
    refused("poolings=7.*from 2 to 6", AttentionNetwork, poolings=7)


@pytest.mark.equation("sta_cnn", 3)
def test_flow_reads_both_frames_and_all_that_the_san_holds():
    net, pairs = FlowPredictor(small()), torch.rand(1, 2, 3, 32, 32)
    pairs.requires_grad_()
    net(pairs).square().sum().backward()
    assert (pairs.grad.flatten(2).abs().sum(2) > 0).all()
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.equation("sta_cnn", 4)
@pytest.mark.parametrize("literal", [False, True])
def test_flow_loss_equals_a_loop(literal):
    predicted = 2 * random(3, 2, 4, 5).double()
    flow = 2 * random(3, 2, 8, 10, seed=1).double()
    total, count = 0.0, 0
    for n in range(3):
        for c in range(2):
            for i in range(4):
                for j in range(5):
                    cell = flow[n, c, 2 * i:2 * i + 2, 2 * j:2 * j + 2]
                    real = cell.sum().item() / 4
                    theta = math.exp(-2 * (real if literal else abs(real)))
                    apart = abs(predicted[n, c, i, j].item() - real)
                    total += max(apart - theta, 0) ** 2
                    count += 1
    found = flow_loss(predicted, flow, literal=literal).item()
    assert found == pytest.approx(total / (1 if literal else count))


@pytest.mark.equation("sta_cnn", 4)
def test_tolerance_in_pixels():
    """One pixel for what rests, 0.14 for a pixel; the same both ways."""
    def cost(answer, real, **options):
        return flow_loss(
            torch.full((1, 2, 1, 1), float(answer)),
            torch.full((1, 2, 4, 4), float(real)), **options).item()

    assert cost(0.999, 0) == 0 and cost(1.5, 0) == pytest.approx(0.25)
    for sign in (-1, 1):
        near = math.exp(-2)
        assert cost(sign * (1 - 0.99 * near), sign) == 0
        assert cost(0, sign) == pytest.approx((1 - near) ** 2)
        assert cost(sign * 3, sign * 2) == cost(3, 2)
        # where an answer of zero begins to cost: divided by 20, as a port
        # of FlowNet does, nothing would be left to learn
        assert cost(0, sign * 0.42) == 0 < cost(0, sign * 0.44)
        # as printed all that moves left or up is forgiven
        assert (cost(0, 2 * sign, literal=True) == 0) == (sign < 0)
    assert cost(0, -80, literal=True) == 0  # exp(160) is infinite


def shifting(n=6):
    """Pictures that move by 2 pixels: right, left, down or up."""
    picture = F.interpolate(random(n, 3, 8, 8).sigmoid(), (32, 32),
                            mode="bicubic").clamp(0, 1)
    shifts = [(2, 0), (-2, 0), (0, 2), (0, -2)]
    after = torch.stack([x.roll(shifts[i % 4][::-1], (1, 2))
                         for i, x in enumerate(picture)])
    flow = torch.tensor([shifts[i % 4] for i in range(n)]).float()
    return (torch.stack((picture, after), 1),
            flow[:, :, None, None].expand(-1, -1, 32, 32))


def test_flow_of_one_batch_can_be_learned():
    """To within the tolerance, and it is not the mean of the directions."""
    pairs, flow = shifting()
    net = FlowPredictor(small())
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(100):
        loss = flow_loss(net(pairs), flow)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * flow_loss(torch.zeros(6, 2, 8, 8), flow)
    mean = net(pairs).mean((2, 3))
    assert (mean - flow[:, :, 0, 0]).abs().max() < 0.7


def test_puppets_give_pairs_and_targets():
    """The exact flow of the built-in videos is a target as it is."""
    sample = worlds.Puppets("train", 1, extras=("flow",))[0]
    video = sample["video"].float() / 255
    pairs = torch.stack((video[:-1], video[1:]), 1)
    predicted = FlowPredictor(small())(pairs)
    loss = flow_loss(predicted, sample["flow"])
    loss.backward()
    assert predicted.shape == (15, 2, 16, 16) and loss > 0
    exact = F.interpolate(sample["flow"], (16, 16), mode="area")
    assert flow_loss(exact, sample["flow"]) == 0


def test_the_trained_san_serves_the_classifier():
    """The very modules: what the flow taught is what attention starts with."""
    predictor = FlowPredictor(small())
    cnn = nn.Sequential(nn.Flatten(0, 1), nn.Conv2d(3, 6, 8, 8),
                        nn.Unflatten(0, (1, -1)))
    net = sta_cnn.STACNN(cnn, 6, 3, side=8, san=predictor.san)
    out = net(torch.rand(2, 3, 2, 3, 64, 64))
    sta_cnn.loss(out, torch.tensor([0, 2]))["loss"].backward()
    assert all(p.grad is not None for p in predictor.san.parameters())
    assert all(p.grad is None for p in predictor.expand.parameters())


def test_a_step_reads_one_pair_and_its_real_flow():
    net, real = FlowPredictor(small()), torch.randn(2, 1, 2, 32, 32)
    video = torch.rand(2, 1, 2, 3, 32, 32)
    by_hand = flow_loss(net(video[:, 0]), real[:, 0])
    for key in ("flow", "motion"):
        found = sta_cnn.flow_step(net, {"video": video, key: real})["loss"]
        assert torch.equal(found, by_hand)
