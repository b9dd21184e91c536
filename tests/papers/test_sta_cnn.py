"""STA-CNN against its equations and slow loops; which snippets train it."""

import math

import pytest
import torch
from checks import random, refused
from einops import rearrange
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from lib.papers import sta_cnn
from lib.papers.sta_cnn import TS
from lib.scores import metrics

B, N, C, D, K = 3, 9, 5, 6, 4  # videos, snippets, classes, channels, side


class Tiny(nn.Module):
    def __init__(self, inputs=3):
        super().__init__()
        self.conv = nn.Conv2d(inputs, D, 5, 4, 2)
        self.norm = nn.BatchNorm2d(D)

    def forward(self, frames):
        maps = self.norm(self.conv(frames.flatten(0, 1))).relu()
        return maps.unflatten(0, frames.shape[:2])


class TinySAN(nn.Module):
    channels = 7

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, self.channels, 8, 8)

    def forward(self, pairs):
        return self.conv(pairs.flatten(1, 2)).relu()


def network(san=True, side=K, inputs=3, **options):
    torch.manual_seed(1)
    net = sta_cnn.STACNN(Tiny(inputs), D, C, side=side,
                         san=TinySAN() if san else None, **options)
    if side:
        nn.init.normal_(net.attention.weight)
    with torch.no_grad():
        net.classify.weight.mul_(4)  # the snippets must differ in sureness
    return net


def weighted(*given, **how):
    return sta_cnn.predictions(*given, **how)["dcw"]


def pairs(n=N, seed=0):
    return random(B, n, 2, 3, 16, 16, seed=seed)


LABEL = torch.tensor([0, 3, 1])
STRATEGIES = {  # the rows of Table I and Fig. 6
    "TS(1, 1)": TS(1, 1, 1), "TS(3, 1)": TS(1, 3, 1), "TS(6, 1)": TS(1, 6, 1),
    **{f"TS(9, {n})": TS(1, 9, n) for n in (1, 3, 6, 9)},
    **{f"TS(3x3, 3x{m})": TS(3, 3, m) for m in (1, 2, 3)}}


@pytest.mark.equation("sta_cnn", 1, 2)
def test_confidence_equals_the_equations():
    logits = 2 * random(B, N, C).double()
    h = sta_cnn.entropy(logits)
    alpha = sta_cnn.confidence(h)
    for b in range(B):
        for n in range(N):
            p = [math.exp(x) for x in logits[b, n].tolist()]
            p = [x / sum(p) for x in p]
            by_hand = -sum(x * math.log(x) for x in p)
            assert h[b, n].item() == pytest.approx(by_hand, rel=1e-12)
            assert alpha[b, n].item() == pytest.approx(1 / by_hand, rel=1e-12)


@pytest.mark.equation("sta_cnn", 1, 2)
def test_confidence_of_the_unsure_and_of_the_surest():
    even = sta_cnn.confidence(sta_cnn.entropy(torch.zeros(101)))
    assert even.item() == pytest.approx(1 / math.log(101))
    # p of one class of 101, the rest shared: the figures of the brief
    for p, alpha in ((0.99, 9.8), (0.999, 80), (0.9999, 675)):
        shares = torch.full((101,), (1 - p) / 100).double()
        shares[0] = p
        found = sta_cnn.confidence(sta_cnn.entropy(shares.log()))
        assert found.item() == pytest.approx(alpha, rel=0.01)
    certain = torch.tensor([[200.0, 0, 0], [0.0, -math.inf, -math.inf]])
    h = sta_cnn.entropy(certain)
    assert h.isfinite().all() and (h >= 0).all()
    assert sta_cnn.confidence(h).tolist() == pytest.approx([1000, 1000])


def test_sure_snippets_keep_their_order_in_half_precision():
    """As bfloat16 itself, all four would have an entropy of zero."""
    logits = torch.tensor([[20.0, 0, 0], [24, 0, 0], [16, 0, 0], [22, 0, 0]])
    h = sta_cnn.entropy(logits.bfloat16())
    assert h.dtype == torch.float32
    assert h.argsort().tolist() == [1, 3, 0, 2]


def by_hand(h, ts):
    mask = torch.zeros_like(h, dtype=torch.bool)
    for b, row in enumerate(h.tolist()):
        for g in range(ts.groups):
            group = range(g * ts.size, (g + 1) * ts.size)
            for n in sorted(group, key=lambda n: row[n])[:ts.top]:
                mask[b, n] = True
    return mask


@pytest.mark.parametrize("ts", STRATEGIES.values(), ids=STRATEGIES)
def test_strategies_select_the_surest_of_each_group(ts):
    h = random(50, ts.groups * ts.size).square()
    chosen = ts.select(h)
    assert torch.equal(chosen, by_hand(h, ts))
    each = rearrange(chosen, "b (g m) -> b g m", g=ts.groups)
    assert (each.sum(-1) == ts.top).all()


def test_ties_are_taken_in_their_order():
    """Never more than `top`, which a threshold on alpha would give."""
    h = torch.tensor([[1.0] * 9, [2.0, 1, 1, 1, 2, 2, 1, 2, 2]])
    first = TS(1, 9, 3).select(h)
    assert first.nonzero()[:, 1].tolist() == [0, 1, 2, 1, 2, 3]
    each = TS(3, 3, 1).select(h)
    assert each.nonzero()[:, 1].tolist() == [0, 3, 6, 1, 3, 6]


def test_one_class_has_no_entropy_and_no_nan():
    h = sta_cnn.entropy(random(2, 4, 1))
    assert h.eq(0).all()
    assert TS(1, 4, 2).select(h).tolist() == 2 * [[True, True, False, False]]
    shares = weighted(random(2, 4, 3, 1), top=2)
    assert_close(shares, torch.ones(2, 1))


@pytest.mark.equation("sta_cnn", 8, 9)
def test_even_attention_is_average_pooling():
    """And as printed it is that divided by K^2: it is normalised twice."""
    maps = random(2, D, K, K)
    where = sta_cnn.SpatialAttentionLayer(D, K)(maps)
    assert_close(where, torch.full((2, K, K), 1 / K**2))
    mean = maps.mean((2, 3))
    assert_close(sta_cnn.weighted_pooling(maps, where), mean)
    assert_close(
        sta_cnn.weighted_pooling(maps, where, literal=True), mean / K**2)


@pytest.mark.equation("sta_cnn", 6, 10)
def test_loss_equals_a_loop():
    out = network().eval()(pairs(), ts=TS(3, 3, 2))
    found = sta_cnn.loss(out, LABEL, weight=0.3)
    terms, wrong = {"ce": [], "aux": []}, []
    for b, label in enumerate(LABEL.tolist()):
        rows = out.selected[b].nonzero().flatten().tolist()
        wrong += [out.snippets[b, n].argmax().item() != label for n in rows]
        for key, scores in (("ce", out.snippets), ("aux", out.auxiliary)):
            mean = sum(scores[b, n] for n in rows) / len(rows)
            terms[key].append(-mean.softmax(0)[label].log().item())
    ce, aux = (sum(terms[key]) / B for key in ("ce", "aux"))
    assert found["ce"].item() == pytest.approx(ce, rel=1e-5)
    assert found["aux"].item() == pytest.approx(aux, rel=1e-5)
    assert found["loss"].item() == pytest.approx(ce + 0.3 * aux, rel=1e-5)
    assert found["wrong"].item() == pytest.approx(sum(wrong) / len(wrong))
    without = sta_cnn.loss(out, LABEL, weight=0)
    assert "aux" not in without and without["loss"] == without["ce"]


@pytest.mark.equation("sta_cnn", 11)
@pytest.mark.parametrize(("snippets", "top"), [(25, 15), (4, 4)])
def test_weighted_prediction_equals_a_loop(snippets, top):
    """In ten crops, crops averaged first; of few snippets all count."""
    logits = 2 * random(B, snippets, 10, C).double()
    shares = weighted(logits)
    for b in range(B):
        p = logits[b].softmax(-1).mean(1)
        alpha = 1 / -(p * p.log()).sum(-1)
        surest = sorted(range(snippets), key=lambda n: -alpha[n])[:top]
        by_hand = sum(alpha[n] * p[n] for n in surest)
        assert_close(shares[b], by_hand / by_hand.sum(), rtol=0, atol=1e-12)


@pytest.mark.equation("sta_cnn", 11)
def test_equal_confidence_is_the_mean_of_the_top():
    """Two classes change places, which no entropy notices, to the last bit."""
    snippets = torch.tensor(10 * [[2.0, 1]] + 15 * [[1.0, 2]])[None, :, None]
    first = sta_cnn.predictions(snippets[:, :15])["plain"]  # not of logits
    assert_close(first, snippets[:, :15].softmax(-1).mean((1, 2)))
    assert_close(weighted(snippets), first)
    assert first.argmax() == 0
    assert sta_cnn.predictions(snippets)["plain"].argmax() == 1
    certain = torch.full((1, 2, 1, C), -math.inf)
    certain[0, 0, 0, 1] = certain[0, 1, 0, 3] = 0
    assert weighted(certain).tolist() == [[0, 0.5, 0, 0.5, 0]]


def test_the_bound_keeps_one_snippet_from_deciding():
    """A snippet without a doubt against three that agree otherwise."""
    logits = torch.tensor([[60.0, 0, 0], *3 * [[0, 7.0, 0]]])[None, :, None]
    assert weighted(logits).argmax() == 0
    when = sta_cnn.trust(logits[:, :, 0].softmax(-1), floor=0.1)
    assert weighted(logits, when=when).argmax() == 1


def test_answers():
    out = network().eval()(pairs())
    assert out.selected.all()
    assert_close(out.logits, out.snippets.mean(1))
    assert_close(
        out.when, out.confidence / out.confidence.sum(1, keepdim=True))
    assert out.spans.tolist() == [[i, i + 1] for i in range(N)]
    bare = network(False, None).eval()(pairs())
    assert bare.where is None and bare.auxiliary is None
    assert bare.when.std() > 0


@pytest.mark.equation("sta_cnn", 5, 7, 8, 9)
def test_the_model_equals_a_loop_over_snippets():
    """The classifier sees the first frame of a pair, the SAN both."""
    net, x = network().double().eval(), pairs().double()
    out = net(x)
    for b in range(B):
        for n in range(N):
            maps = net.backbone(x[b:b + 1, n:n + 1, 0])[0, 0]
            features = F.interpolate(
                net.san(x[b, n][None]), size=(K, K), mode="bilinear")[0]
            a = (net.attention.weight * features).sum(0)
            where = a.exp() / a.exp().sum()
            f = (where * maps).sum((1, 2))
            s = net.scores.weight(features.mean((1, 2)))
            for given, right in (
                    (out.where[b, n], where), (out.auxiliary[b, n], s),
                    (out.snippets[b, n], net.classify(f))):
                assert_close(given, right, rtol=0, atol=1e-10)


def test_the_san_can_read_pairs_beside_frozen_features():
    net, x = network().eval(), pairs()
    out = net(x, ts=TS(1, 9, 2))
    maps = net.backbone(x[:, :, 0]).detach()
    net.backbone = nn.Identity()
    again = net(maps, x, ts=TS(1, 9, 2))
    for one, other in zip(out, again, strict=True):
        assert_close(one, other)


def test_the_flow_streams_san_is_the_classifier():
    """The same convolutions: the auxiliary loss alone trains them."""
    net = network(san=False, inputs=10)
    bare = network(san=False, side=None, inputs=10)
    # only Eq. (7) and the head are added
    assert metrics.parameters(net) - metrics.parameters(bare) == (
        D * K * K + D * C)
    out = net(random(B, N, 10, 16, 16))
    out.auxiliary.sum().backward()
    assert net.backbone.conv.weight.grad.abs().sum() > 0
    assert net.classify.weight.grad is None


def test_wrong_inputs_are_explained():
    for ts, n in ((TS(1, 9, 3), 8), (TS(3, 3, 1), 10), (TS(1, 3, 4), 3),
                  (TS(1, 3, 0), 3)):
        refused("sample .* each video", ts.select, torch.rand(2, n))
    refused("pairs .*which a `san` needs", network(), random(B, N, 3, 16, 16))
    refused("`side`", sta_cnn.STACNN, Tiny(), D, C, san=TinySAN())
    with pytest.raises(ValueError, match="has the `side`"):
        sta_cnn.SpatialAttentionLayer(7, K)(random(1, 7, 5, 5))


@pytest.mark.parametrize("ts", [TS(1, 9, 1), TS(1, 9, 3), TS(3, 3, 1)])
def test_two_passes_equal_one_in_eval_mode(ts):
    answers, gradients = [], []
    for two_pass in (True, False):
        net = network().eval()
        out = net(pairs(), ts=ts, two_pass=two_pass)
        sta_cnn.loss(out, LABEL)["loss"].backward()
        answers.append(out)
        gradients.append({n: p.grad for n, p in net.named_parameters()})
    assert torch.equal(answers[0].selected, answers[1].selected)
    assert (answers[0].selected.sum(1) == ts.groups * ts.top).all()
    # other batch sizes are other sums: float32 rounding
    for one, other in zip(*answers, strict=True):
        assert_close(one, other)
    assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", ["one pass, eval", "two passes, training"])
def test_snippets_that_are_not_selected_get_no_gradient(mode):
    net = network().train("training" in mode)
    x = pairs().requires_grad_()
    out = net(x, ts=TS(3, 3, 1), two_pass="two" in mode)
    sta_cnn.loss(out, LABEL)["loss"].backward()
    per_snippet = x.grad.flatten(2).abs().sum(2)
    assert (per_snippet[~out.selected] == 0).all()
    assert (per_snippet[out.selected] > 0).all()


def test_one_pass_in_training_mode_sways_the_batch_norms():
    """Why two passes are the default: see `forward`."""
    x = pairs().requires_grad_()
    out = network().train()(x, ts=TS(1, 9, 1), two_pass=False)
    sta_cnn.loss(out, LABEL)["loss"].backward()
    assert x.grad.flatten(2).abs().sum(2)[~out.selected].max() > 0


def test_the_first_look_leaves_no_trace():
    """Statistics of the selected snippets alone; every mode as before."""
    net = network(dropout=0.5).train()
    net.backbone.norm.eval()  # as partial batch norm does
    modes = [m.training for m in net.modules()]
    net(pairs(), ts=TS(1, 9, 1))
    assert [m.training for m in net.modules()] == modes
    net.backbone.norm.train()
    before = net.backbone.norm.num_batches_tracked.item()
    out = net(pairs(), ts=TS(1, 9, 1))
    assert net.backbone.norm.num_batches_tracked == before + 1
    alone = network().train()
    alone(pairs()[out.selected][:, None])
    assert_close(
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
            net(pairs(n), ts=ts, two_pass=two_pass)
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
        chosen += [net(pairs(), ts=TS(1, 9, 3), two_pass=two_pass).selected
                   for _ in range(4)]
    assert all(torch.equal(chosen[0], other) for other in chosen)


@pytest.mark.parametrize("two_pass", [True, False])
def test_the_selection_can_go_by_chance_by_the_label_or_by_the_truth(two_pass):
    net, x = network().eval(), pairs()
    first = net(x).snippets

    def selected(ts, **how):
        return net(x, ts=ts, two_pass=two_pass, **how).selected

    chosen = selected(TS(1, 9, 1), select="by label", label=LABEL)
    for b, label in enumerate(LABEL.tolist()):
        ce = -first[b].log_softmax(-1)[:, label]
        assert chosen[b].tolist() == [n == ce.argmin() for n in range(N)]
    draws = [selected(TS(3, 3, 1), select="random") for _ in range(30)]
    assert all((one.view(B, 3, 3).sum(2) == 1).all() for one in draws)
    assert torch.stack(draws).any(0).all(), "each snippet in its turn"
    relevant = torch.zeros(B, N, dtype=torch.bool)
    relevant[:, [2, 5]] = True
    draws = [selected(TS(1, 9, 1), select="true", relevant=relevant)
             for _ in range(30)]
    assert torch.equal(torch.stack(draws).any(0), relevant)


@pytest.mark.parametrize("two_pass", [True, False])
def test_given_maps_take_the_place_of_the_attention(two_pass):
    """The even one makes the network without attention."""
    net, bare = network().train(), network(False, None).train()
    bare.load_state_dict(net.state_dict(), strict=False)
    where, x = random(B, N, K, K).flatten(2).softmax(-1), pairs()
    where = where.unflatten(2, (K, K))
    net.eval()
    out = net(x, where=where, ts=TS(1, 9, 3), two_pass=two_pass)
    assert torch.equal(out.where, where) and out.auxiliary is None
    maps = net.backbone(x[:, :, 0])
    f = (maps * where[:, :, None]).sum((3, 4))
    assert_close(out.snippets, net.classify(f))
    again = network(False, None).eval()  # on features, whatever made them
    again.backbone, again.classify = nn.Identity(), net.classify
    assert_close(again(maps, where=where).snippets, out.snippets)
    even = torch.full_like(where, 1 / K**2)
    assert_close(net(x, where=even).logits, bare.eval()(x).logits)


def test_trust_is_what_the_weighted_test_weighs_with():
    torch.manual_seed(0)
    snippets = 3 * torch.randn(2, 9, 1, 5)
    p = snippets.softmax(-1)[:, :, 0]
    alpha = sta_cnn.trust(p, 4)
    assert torch.allclose(alpha.sum(1), torch.ones(2))
    assert ((alpha > 0).sum(1) == 4).all()
    assert (alpha.argmax(1) == sta_cnn.entropy(p.log()).argmin(1)).all()
    by_hand = sum(alpha[:, n, None] * p[:, n] for n in range(9))
    assert torch.allclose(weighted(snippets, 4), by_hand)
    told = torch.tensor([[1.0] + 8 * [0.0]]).expand(2, 9)
    assert torch.equal(weighted(snippets, 4, told), p[:, 0])
