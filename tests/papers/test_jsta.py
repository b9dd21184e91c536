"""JSTA against its equations, slow loops, and what gates and pads do."""

import copy
import math

import pytest
import torch
from checks import random, refused
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from lib.data.sampling import clips_of
from lib.papers import jsta

B, T, D, K = 3, 5, 6, 4  # videos, clips, features, classes
OVER = {"spatial": (3, 4), "channel": (1,), "spatiotemporal": (2, 3, 4)}


def block(over="spatial", channels=4, **options):
    torch.manual_seed(1)
    return jsta.SpatialAttention(channels, over, **options)


def feature_map(seed=0, channels=4):
    return random(2, channels, 4, 6, 5, seed=seed)


def attention(**options):
    torch.manual_seed(1)
    net = jsta.TemporalAttention(D, 7, **options)
    with torch.no_grad():  # large enough that the clips get unlike weights
        net.score.weight.mul_(8)
    return net


def classifier(attend=True, **options):
    net = attention() if attend is True else attend or None
    torch.manual_seed(2)
    settings = {"hidden": 8, "clips": T} | options
    return jsta.TemporalClassifier(D, K, attention=net, **settings).eval()


VALID = torch.arange(T) < torch.tensor([T, 2, 1])[:, None]


def slow_softmax(scores, axes, literal):
    exp = scores.exp()
    share = exp / exp.sum(axes, keepdim=True)
    return share if literal else share * math.prod(
        scores.shape[axis] for axis in axes)


@pytest.mark.equation("jsta", 12, 13, 14, 15, 16, 17)
@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize("over", OVER)
def test_block_equals_the_equations(over, literal):
    """One step and one kernel position at a time, with both ReLUs."""
    net, x = block(over, literal=literal).double(), feature_map().double()
    padded = F.pad(x, (1, 1, 1, 1, 1, 1))
    zero = torch.zeros_like(x)
    s = zero + net.in_space.bias.view(-1, 1, 1, 1)
    t = zero + net.in_time.bias.view(-1, 1, 1, 1)
    for i in range(3):
        in_time = padded[:, :, i:i + 4, 1:-1, 1:-1]
        t = t + torch.einsum(
            "oi,nithw->nothw", net.in_time.weight[:, :, i, 0, 0], in_time)
        for j in range(3):
            near = padded[:, :, 1:-1, i:i + 6, j:j + 5]
            s = s + torch.einsum(
                "oi,nithw->nothw", net.in_space.weight[:, :, 0, i, j], near)
    g = slow_softmax(s + t, OVER[over], literal)  # Eq. (13)
    o = F.relu(g * x)  # Eq. (14)
    first, second = net.overall
    a = F.conv3d(F.conv3d(x, first.weight, first.bias), second.weight,
                 second.bias, padding=1)
    a = slow_softmax(a, OVER[over], literal)  # Eq. (15)
    o = F.relu(o * a)  # Eq. (16)
    # float64 and a few hundred additions: rounding stays below 1e-12
    assert_close(net(x), o + x, rtol=0, atol=1e-12)


def test_gates_start_even():
    """As the released weights, N(0, 0.01): at first nearly 1 everywhere."""
    net, x = block(channels=16), feature_map(channels=16).relu()
    net(x)
    assert net.seen.shape == (2, 4, 6, 5)
    assert (net.seen - 1).abs().max() < 0.2
    assert 0 < (net.seen - 1).abs().max()


@pytest.mark.equation("jsta", 13, 15, 17)
@pytest.mark.parametrize(("over", "below"), [
    ("channel", 1e-3), ("spatial", 1e-4), ("spatiotemporal", 1e-5)])
def test_printed_gates_leave_nothing_and_rescaled_ones_do(over, below):
    """At the paper's 128 x 4 x 28 x 28: ||F - X|| / ||X||."""
    x = random(1, 128, 4, 28, 28).relu()
    with torch.no_grad():
        printed, ours = (
            (net(x) - x).norm() / x.norm()
            for net in (block(over, 128, literal=True), block(over, 128)))
    assert printed < below and 0.5 < ours < 5


@pytest.mark.equation("jsta", 17)
def test_without_a_shortcut_the_block_can_suppress():
    """F = G A X: below X where a gate is below one. With it, F >= X."""
    x = feature_map().relu()
    whole, bare = block(), block(shortcut=False)
    assert_close(bare(x), whole.gates(x) * x)
    assert (bare(x) < x).any() and (whole(x) >= x).all()
    assert "shortcut=False" in repr(bare)


def test_true_gates_take_the_place_of_the_learned_ones():
    learned, x = block(), feature_map().relu()
    gates = random(2, 1, 4, 6, 5, seed=1).abs()
    learned.gates = lambda x: gates.expand_as(x)
    told = torch.cat((x, gates), 1)
    assert_close(jsta.TrueGates()(told), learned(x))
    learned.shortcut = False
    assert_close(jsta.TrueGates(shortcut=False)(told), learned(x))


@pytest.mark.parametrize("shortcut", [True, False])
def test_other_gates_of_a_trained_block(shortcut):
    net, x = nn.Sequential(block(shortcut=shortcut)), feature_map().relu()
    own, rest = net(x), x if shortcut else 0 * x
    with jsta.other_gates(net, lambda x, gates: gates.roll(1, 0)):
        assert_close(net(x), rest + net[0].gates(x).roll(1, 0) * x)
    with pytest.raises(KeyError), jsta.other_gates(net, {}.__getitem__):
        raise KeyError
    with jsta.other_gates(net, jsta.even_gates):
        even = net(x)
    ratio = (even - rest) / x.clamp(min=1e-9)
    for one in ratio.masked_fill(x == 0, torch.nan).flatten(3).flatten(0, 2):
        kept = one[~one.isnan()]
        assert_close(kept, kept[:1].expand_as(kept))
    assert_close(even.sum((3, 4)), own.sum((3, 4)))
    assert not torch.allclose(even, own)
    assert torch.equal(net(x), own)  # nothing is left behind


class Tiny(nn.Module):
    def __init__(self, over="spatial"):
        super().__init__()
        self.first = nn.Conv3d(3, D, 3, (2, 2, 2), 1)
        self.norm = nn.BatchNorm3d(D)
        self.block = block(over, D) if over else nn.Identity()

    def forward(self, clips):
        x = self.first(clips.transpose(1, 2))
        return self.block(self.norm(x).relu()).transpose(1, 2)


def clip_net(over="spatial"):
    torch.manual_seed(3)
    return jsta.ClipClassifier(Tiny(over), D, K).eval()


def clips(t=T, seed=0):
    return random(B, t, 8, 3, 10, 10, seed=seed)


def test_first_step_equals_a_loop_over_clips():
    net, x = clip_net().double(), clips().double()
    output, bare = net(x, VALID), clip_net(None).double()(x)
    assert output.when is None and bare.where is None
    for given, length in ((output, 2), (bare, 8)):
        assert given.spans.tolist() == [
            [i, i + length] for i in range(0, 8 * T, length)]
    for row in range(B):
        logits = []
        for i in range(T):
            if not VALID[row, i]:
                assert output.features[row, i].eq(0).all()
                assert output.where[row, 4 * i:4 * i + 4].eq(0).all()
                continue
            vector = net.backbone(x[row, i:i + 1]).mean((1, 3, 4))
            assert_close(output.features[row, i], vector[0])
            logits.append(net.classify(vector)[0])
            mid = net.backbone
            seen = mid.norm(mid.first(x[row, i:i + 1].transpose(1, 2))).relu()
            at = mid.block
            gates = (at.softmax(at.in_space(seen) + at.in_time(seen))
                     * at.softmax(at.overall(seen)))
            assert_close(output.where[row, 4 * i:4 * i + 4], gates[0].mean(0))
        assert_close(output.logits[row], sum(logits) / len(logits))


def test_padded_clips_leave_no_trace_in_batch_norm():
    """In training mode too, where a batch's statistics could mix them in."""
    net, twin = clip_net().train(), clip_net().train()
    x = clips()
    odd = x.masked_fill(~VALID[..., None, None, None, None], 1e6)
    assert_close(net(x, VALID).logits, twin(odd, VALID).logits)
    assert_close(net.state_dict(), twin.state_dict())


def test_the_gates_are_those_of_this_very_call():
    """Also after a failed call, in a copy, and where the net is compiled."""
    net = clip_net().eval()
    one, other = clips(), clips().flip(0)
    first = net(one).where
    with pytest.raises(RuntimeError):
        net(torch.rand(1, 1, 8, 2, 10, 10))
    assert not torch.allclose(net(other).where, first)
    assert_close(copy.deepcopy(net)(one).where, first)
    compiled = torch.compile(net, backend="eager")
    for _ in range(2):
        assert_close(compiled(one).where, first)


def slow_lstm(lstm, xs, suffix, h, c):
    w, u, b, d = (getattr(lstm, f"{name}_l0{suffix}") for name in (
        "weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    states = []
    for x in xs:
        i, f, g, o = (w @ x + b + u @ h + d).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        states.append(h)
    return states


def slow_weights(net, xs):
    hidden = net.lstm.hidden_size
    first = [torch.zeros(2 * hidden, dtype=xs.dtype)] * 2
    if net.first is not None:  # Eq. (22)
        first = [mlp(sum(xs) / len(xs)) for mlp in net.first]
    h, c = (state.chunk(2) for state in first)
    ahead = slow_lstm(net.lstm, xs, "", h[0], c[0])
    back = slow_lstm(net.lstm, xs.flip(0), "_reverse", h[1], c[1])[::-1]
    scores = []
    for one, other in zip(ahead, back, strict=True):
        joined = {
            "concat": torch.cat((one, other)), "mul": one * other,
            "sum": one + other, "avg": (one + other) / 2,
        }[net.merge]  # Eq. (18)
        beta = (net.score.weight[0] @ joined + net.score.bias[0]).sigmoid()
        scores.append(beta if net.scale is None else beta * net.scale)
    exp = torch.stack(scores).exp()
    return exp / exp.sum()  # Eq. (19), (20)


@pytest.mark.equation("jsta", 18, 19, 20, 22)
@pytest.mark.parametrize(("merge", "init", "scale"), [
    ("concat", "mean_mlp", True), ("mul", "mean_mlp", True),
    ("sum", "zero", True), ("avg", "mean_mlp", False),
    ("concat", "zero", False)])
def test_weights_equal_a_loop_over_clips(merge, init, scale):
    net = attention(merge=merge, init=init, scale=scale).double()
    x = random(B, T, D).double().masked_fill(~VALID[..., None], 0)
    weights = net(x, VALID)
    for row in range(B):
        slow = slow_weights(net, x[row][VALID[row]])
        assert_close(weights[row][VALID[row]], slow, rtol=0, atol=1e-12)
    assert weights[~VALID].eq(0).all()
    assert_close(weights.sum(1), torch.ones(B).double())


@pytest.mark.equation("jsta", 20)
def test_without_a_scale_no_weight_is_e_times_another():
    x, all_real = 100 * random(B, T, D), VALID | True
    plain, scaled = (attention(scale=scale) for scale in (False, True))
    with torch.no_grad():  # as sure as a sigmoid can be
        for net in (plain, scaled):
            net.score.weight.mul_(100)
    ratio = [(w.amax(1) / w.amin(1)).max() for w in (
        plain(x, all_real), scaled(x, all_real))]
    assert 2 < ratio[0] <= math.e + 1e-4
    assert ratio[1] > math.e ** 2


@pytest.mark.equation("jsta", 20)
def test_at_first_the_scaled_softmax_follows_w_h_b_with_slope_one():
    net, x = jsta.TemporalAttention(D, 7), random(B, T, D)
    with torch.no_grad():
        net.score.weight.mul_(0.01)
        net.score.bias.zero_()
    seen = []
    net.score.register_forward_hook(lambda *call: seen.append(call[-1]))
    weights = net(x, VALID | True)
    plain = seen[0].squeeze(-1).softmax(-1)
    assert_close(weights, plain, rtol=0, atol=1e-6)
    assert (weights - 1 / T).abs().max() > 1e-4


HEADS = [("fc", "avg"), ("fc", "max"), ("fc", "concat"), ("moe", "avg"),
         ("moe", "max"), ("moe", "concat"), ("lstm", "avg")]


@pytest.mark.parametrize("attend", ["mean one", "as printed", None])
@pytest.mark.parametrize(("head", "pool"), HEADS)
def test_every_cell_of_table_2_equals_a_loop(head, pool, attend):
    net = classifier(bool(attend), head=head, pool=pool,
                     literal=attend == "as printed").double()
    x = random(B, T, D).double()
    output = net(x, VALID)
    assert output.spans.tolist() == [[8 * i, 8 * i + 8] for i in range(T)]
    for row in range(B):
        x_t = real = x[row][VALID[row]]
        if attend:
            weights = slow_weights(net.attention, real)
            assert_close(output.when[row][VALID[row]], weights)
            scale = len(real) if attend == "mean one" else 1
            x_t = scale * weights[:, None] * real
        else:
            assert output.when is None
        if head == "lstm":
            y = net.lstm(x_t)[1][0][-1]
        elif pool == "concat":
            y = F.pad(x_t.flatten(), (0, D * (T - len(x_t))))
        else:
            y = x_t.max(0).values if pool == "max" else x_t.mean(0)
        if head == "moe":
            gate = net.classify.trust(y).softmax(-1)
            each = net.classify.experts(y).chunk(2)
            mixed = sum(p * e.softmax(-1)
                        for p, e in zip(gate, each, strict=True))
            logits = mixed.log()
        else:
            logits = net.classify(y)
        assert_close(output.logits[row], logits)


@pytest.mark.parametrize(("head", "pool"), HEADS)
def test_given_weights_take_the_place_of_the_attention(head, pool):
    net, bare = (classifier(attend, head=head, pool=pool)
                 for attend in (True, False))
    x = random(B, T, D)
    own, even = net(x), torch.full((B, T), 1 / T)
    again = net(x, None, own.weights)
    assert_close(again.logits, own.logits)
    assert torch.equal(net(x, None, even).weights, even)
    bare.load_state_dict(net.state_dict(), strict=False)
    assert_close(net(x, None, even).logits, bare(x).logits)
    first = torch.eye(T)[:1].expand(B, T)
    assert not torch.allclose(net(x, None, first).logits, own.logits)


@pytest.mark.parametrize(("head", "pool"), HEADS)
def test_padding_changes_nothing_not_even_a_gradient(head, pool):
    net = classifier(head=head, pool=pool)
    x = random(B, T, D).requires_grad_()
    output = net(x, VALID)
    jsta.loss(output, torch.tensor([0, 1, 2]))["loss"].backward()
    assert x.grad[~VALID].eq(0).all() and x.grad[VALID].ne(0).any()
    assert output.when[~VALID].eq(0).all()
    odd = x.detach().masked_fill(~VALID[..., None], torch.nan)
    assert torch.equal(net(odd, VALID).logits, output.logits)


def test_both_steps_together():
    """Where of the first, when of the second, one row of T' for both."""
    net = jsta.JSTA(clip_net(), classifier()).eval()
    x = clips()
    output = net(x, VALID)
    first = net.spatial(x, VALID)
    second = net.temporal(first.features, VALID)
    assert torch.equal(output.logits, second.logits)
    assert torch.equal(output.where, first.where)
    assert output.when.shape == output.where.shape[:2] == (B, 4 * T)
    assert output.spans.shape == (4 * T, 2)
    assert_close(output.when.unflatten(1, (T, 4)).sum(2), output.weights)
    assert_close(output.when.sum(1), torch.ones(B))
    bare = jsta.JSTA(clip_net(None), classifier(False))(x)
    assert bare.where is None and bare.when is None


def test_padded_videos_answer_as_if_they_came_alone():
    net = jsta.JSTA(clip_net(), classifier()).eval()
    video, lengths = random(B, 26, 3, 10, 10), torch.tensor([26, 17, 5])
    together = net(*clips_of(video, lengths=lengths))
    for row, length in enumerate(lengths):
        alone = net(*clips_of(video[row:row + 1, :length]))
        steps = alone.when.shape[1]
        assert_close(together.logits[row], alone.logits[0])
        assert_close(together.when[row, :steps], alone.when[0])
        assert_close(together.where[row, :steps], alone.where[0])


@pytest.mark.equation("jsta", 21)
def test_the_second_term_of_the_loss_is_weight_decay():
    """A step of SGD with decay 2 lambda is one down the printed loss."""
    decayed, printed = classifier(), classifier()
    x, label, lam = random(B, T, D), torch.tensor([0, 1, 2]), 0.03
    a = torch.optim.SGD(decayed.parameters(), 0.1, weight_decay=2 * lam)
    b = torch.optim.SGD(printed.parameters(), 0.1)
    jsta.loss(decayed(x), label)["loss"].backward()
    probability = printed(x).logits.softmax(-1)[torch.arange(B), label]
    squares = sum(p.square().sum() for p in printed.parameters())
    (-probability.log().mean() + lam * squares).backward()
    a.step(), b.step()
    assert_close(decayed.state_dict(), printed.state_dict())


def test_settings_that_change_answers_show_in_the_name():
    """Caches of features tell networks apart by it."""
    assert "over='channel', literal=True" in repr(
        block("channel", literal=True))


def test_wrong_input_and_options_are_explained():
    refused("over='time'.*spatiotemporal", block, "time")
    refused("merge='max'.*concat", attention, merge="max")
    refused("init='one'.*mean_mlp", attention, init="one")
    refused("head='svm'.*'moe'", classifier, head="svm")
    refused("pool='sum'.*'concat'", classifier, pool="sum")
    refused("5 clips, but clips=4", classifier(pool="concat", clips=4),
            random(B, T, D))
    refused(r"clips \(B, t, L, 3, H, W\)", clip_net(), clips()[0])
    for valid in (VALID.flip(1), VALID[:, 1:], VALID & False):
        with pytest.raises(ValueError, match=r"features \(B, t, D\).*first"):
            classifier()(random(B, T, D), valid)
