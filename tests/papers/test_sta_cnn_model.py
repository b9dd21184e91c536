"""STA-CNN as a whole: its answers, and which snippets train it."""

import copy

import pytest
import torch
from tiny_sta_cnn import (
    LABEL,
    B,
    C,
    D,
    K,
    N,
    Tiny,
    TinySAN,
    network,
    pairs,
    random,
)
from torch.nn import functional as F

from lib.data import sampling
from lib.networks.cnn2d import frame_cnn
from lib.papers import sta_cnn
from lib.papers.sta_cnn import TS

# The whole model.


def test_answers():
    out = network().eval()(pairs())
    assert out.logits.shape == (B, C) and out.snippets.shape == (B, N, C)
    assert out.where.shape == (B, N, K, K)
    assert out.auxiliary.shape == (B, N, C)
    assert out.selected.all()
    torch.testing.assert_close(out.logits, out.snippets.mean(1))
    torch.testing.assert_close(out.where.sum((2, 3)), torch.ones(B, N))
    torch.testing.assert_close(out.when.sum(1), torch.ones(B))
    torch.testing.assert_close(
        out.when, out.confidence / out.confidence.sum(1, keepdim=True))
    assert out.spans.tolist() == [[i, i + 1] for i in range(N)]
    bare = network(False, None).eval()(pairs())
    assert bare.where is None and bare.auxiliary is None
    assert bare.when.std() > 0


@pytest.mark.equation("sta_cnn", 5, 7, 8, 9)
@pytest.mark.parametrize("literal", [False, True])
def test_the_model_equals_a_loop_over_snippets(literal):
    """The classifier sees the first frame of a pair, the SAN both."""
    net, x = network(literal=literal).double().eval(), pairs().double()
    out = net(x)
    for b in range(B):
        for n in range(N):
            maps = net.backbone(x[b:b + 1, n:n + 1, 0])[0, 0]
            features = F.interpolate(
                net.san(x[b, n][None]), size=(K, K), mode="bilinear")[0]
            a = (net.attention.weight * features).sum(0)
            where = a.exp() / a.exp().sum()
            f = (where * maps).sum((1, 2)) / (K * K if literal else 1)
            s = net.scores.weight(features.sum((1, 2)))
            s = s if literal else s / K**2
            for given, right in (
                    (out.where[b, n], where), (out.auxiliary[b, n], s),
                    (out.snippets[b, n], net.classify(f))):
                torch.testing.assert_close(given, right, rtol=0, atol=1e-10)


def test_the_flow_streams_san_is_the_classifier():
    """The same convolutions: the auxiliary loss alone trains them."""
    net = network(san=False, inputs=10)
    own = sum(p.numel() for p in net.parameters())
    bare = network(san=False, side=None, inputs=10)
    # only Eq. (7) and the head are added
    assert own == sum(p.numel() for p in bare.parameters()) + (
        D * K * K + D * C)
    assert not {id(p) for p in net.backbone.parameters()} - {
        id(p) for p in net.parameters()}
    out = net(random(B, N, 10, 16, 16))
    out.auxiliary.sum().backward()
    assert net.backbone.conv.weight.grad.abs().sum() > 0
    assert net.classify.weight.grad is None


def test_wrong_inputs_are_explained():
    with pytest.raises(ValueError, match="pairs .*which a `san` needs"):
        network()(random(B, N, 3, 16, 16))
    with pytest.raises(ValueError, match="`side`"):
        sta_cnn.STACNN(Tiny(), D, C, san=TinySAN())
    with pytest.raises(ValueError, match="aggregate='sum'"):
        sta_cnn.loss(network()(pairs()), LABEL, aggregate="sum")


# Who trains.


@pytest.mark.parametrize("ts", [TS(1, 9, 1), TS(1, 9, 3), TS(3, 3, 1)])
@pytest.mark.parametrize("aggregate", ["consensus", "loss"])
def test_two_passes_equal_one_in_eval_mode(ts, aggregate):
    answers, gradients = [], []
    for two_pass in (True, False):
        net = network().eval()
        out = net(pairs(), ts, two_pass=two_pass)
        sta_cnn.loss(out, LABEL, aggregate=aggregate)["loss"].backward()
        answers.append(out)
        gradients.append({n: p.grad for n, p in net.named_parameters()})
    assert torch.equal(answers[0].selected, answers[1].selected)
    assert (answers[0].selected.sum(1) == ts.groups * ts.top).all()
    # other batch sizes are other sums: float32 rounding
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(
        gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", ["one pass, eval", "two passes, training"])
def test_snippets_that_are_not_selected_get_no_gradient(mode):
    net = network().train("training" in mode)
    x = pairs().requires_grad_()
    out = net(x, TS(3, 3, 1), two_pass="two" in mode)
    sta_cnn.loss(out, LABEL)["loss"].backward()
    per_snippet = x.grad.flatten(2).abs().sum(2)
    assert (per_snippet[~out.selected] == 0).all()
    assert (per_snippet[out.selected] > 0).all()


def test_one_pass_in_training_mode_sways_the_batch_norms():
    """Why two passes are the default: see `forward`."""
    x = pairs().requires_grad_()
    out = network().train()(x, TS(1, 9, 1), two_pass=False)
    sta_cnn.loss(out, LABEL)["loss"].backward()
    assert x.grad.flatten(2).abs().sum(2)[~out.selected].max() > 0


def test_the_first_look_leaves_no_trace():
    """Statistics of the selected snippets alone; every mode as before."""
    net = network(dropout=0.5).train()
    net.backbone.norm.eval()  # as partial batch norm does
    modes = [m.training for m in net.modules()]
    net(pairs(), TS(1, 9, 1))
    assert [m.training for m in net.modules()] == modes
    net.backbone.norm.train()
    before = net.backbone.norm.num_batches_tracked.item()
    out = net(pairs(), TS(1, 9, 1))
    assert net.backbone.norm.num_batches_tracked == before + 1
    alone = network().train()
    alone(pairs()[out.selected][:, None])
    torch.testing.assert_close(
        net.backbone.norm.running_mean, alone.backbone.norm.running_mean)


def test_two_passes_keep_for_the_gradient_what_is_selected():
    """Bytes that the backward pass waits for; weights are kept anyway."""
    def kept(n, ts, two_pass=True):
        net, sizes = network().train(), []
        weights = {p.data_ptr() for p in net.parameters()}

        def pack(tensor):
            if tensor.untyped_storage().data_ptr() not in weights:
                sizes.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            net(pairs(n), ts, two_pass=two_pass)
        return sum(sizes)

    alone, nine = kept(1, TS(1, 1, 1)), kept(9, TS(1, 9, 9))
    # a few numbers a snippet for all nine: f, and where it goes
    assert kept(9, TS(1, 9, 1)) < 1.1 * alone < 0.2 * nine
    assert kept(9, TS(3, 3, 1)) < 1.1 * kept(3, TS(1, 3, 3))
    assert kept(9, TS(1, 9, 1), two_pass=False) > 0.95 * nine


def test_dropout_does_not_choose():
    net, chosen = network(dropout=0.9), []
    net.train().backbone.eval()
    for two_pass in (True, False):
        chosen += [net(pairs(), TS(1, 9, 3), two_pass=two_pass).selected
                   for _ in range(4)]
    assert all(torch.equal(chosen[0], other) for other in chosen)


def test_the_plain_strategy_is_plain_training():
    """TS(1, 1): the baseline's loss and gradients."""
    one, other = network(False, None), network(False, None)
    x = pairs(1)
    sta_cnn.loss(one(x, TS(1, 1, 1)), LABEL)["loss"].backward()
    f = other.backbone(x[:, :, 0].transpose(0, 1))[0].mean((2, 3))
    F.cross_entropy(other.classify(f), LABEL).backward()
    torch.testing.assert_close(
        [p.grad for p in one.parameters()],
        [p.grad for p in other.parameters()])


def test_warm_up_counts_training_steps_and_is_kept():
    net, ts = network(warm_up=2).train(), TS(1, 9, 1)
    assert net(pairs(), ts).selected.all()
    net.eval()
    assert net(pairs(), ts).selected.sum() == B, "the test is no step"
    again = network(warm_up=2).train()
    again.load_state_dict(net.state_dict())
    assert again(pairs(), ts).selected.all()
    for _ in range(2):
        assert again(pairs(), ts).selected.sum() == B


@pytest.mark.parametrize("ts", [None, TS(1, 9, 2)])
@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_every_parameter_gets_a_gradient(ts, stream):
    rgb = stream == "rgb"
    net = network(san=rgb, inputs=3 if rgb else 10).train()
    x = pairs() if rgb else random(B, N, 10, 16, 16)
    sta_cnn.loss(net(x, ts), LABEL)["loss"].backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_bfloat16_trains_every_parameter():
    """Autocast's cache must not hand on weights without their history."""
    net, exact = network().train(), network().train()
    with torch.autocast("cpu", torch.bfloat16):
        out = net(pairs(), TS(3, 3, 1))
    assert all(x.isfinite().all() for x in out)
    sta_cnn.loss(out, LABEL)["loss"].backward()
    reference = exact(pairs(), TS(3, 3, 1))
    same = (out.selected == reference.selected).float().mean()
    assert same > 0.9
    for name, parameter in net.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_evaluation_is_deterministic():
    net = network(dropout=0.5).eval()
    for one, other in zip(net(pairs()), net(pairs()), strict=True):
        assert torch.equal(one, other)


# Short videos, and real networks.


@pytest.mark.parametrize("frames", [1, 2, 5, 9])
def test_a_video_with_fewer_frames_than_segments(frames):
    """Frames repeat, pairs end with the video; nothing is NaN."""
    video = random(frames, 3, 16, 16)
    index = sampling.sample_segments(frames, N)
    snippets = video[sampling.flow_runs(index, frames, 1)][None]
    assert snippets.shape == (1, N, 2, 3, 16, 16)
    net = network().train()
    terms = sta_cnn.loss(net(snippets, TS(3, 3, 1)), LABEL[:1])
    terms["loss"].backward()
    assert terms["loss"].isfinite()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(("channels", "shape"), [
    (3, (2, 3, 3, 64, 64)), (4, (2, 3, 4, 64, 64))])
def test_the_small_backbone_as_either_stream(channels, shape):
    cnn = frame_cnn("small_narrow", channels=channels)
    net = sta_cnn.STACNN(cnn, cnn.channels, C, side=8)
    out = net(torch.rand(shape), TS(1, 3, 1))
    sta_cnn.loss(out, LABEL[:2])["loss"].backward()
    assert out.where.shape == (2, 3, 8, 8)
    copied = copy.deepcopy(net).eval()
    assert copied(torch.rand(shape)).logits.shape == (2, C)
