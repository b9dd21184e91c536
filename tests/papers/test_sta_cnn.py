"""STA-CNN's parts against its equations and slow loops."""

import math

import pytest
import torch
from einops import rearrange
from tiny_sta_cnn import LABEL, B, C, D, K, N, network, pairs, random
from torch import nn

from lib.papers import sta_cnn
from lib.papers.sta_cnn import TS

STRATEGIES = {  # the rows of Table I and Fig. 6
    "TS(1, 1)": TS(1, 1, 1), "TS(3, 1)": TS(1, 3, 1), "TS(6, 1)": TS(1, 6, 1),
    **{f"TS(9, {n})": TS(1, 9, n) for n in (1, 3, 6, 9)},
    **{f"TS(3x3, 3x{m})": TS(3, 3, m) for m in (1, 2, 3)}}


# Confidence, Eq. (1), (2).


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


# Strategies.


def by_hand(h, ts):
    """The selection, one group at a time."""
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


@pytest.mark.parametrize(("ts", "n"), [
    (TS(1, 9, 3), 8), (TS(3, 3, 1), 10), (TS(1, 3, 4), 3), (TS(1, 3, 0), 3)])
def test_wrong_strategies_are_explained(ts, n):
    with pytest.raises(ValueError, match="sample .* each video"):
        ts.select(torch.rand(2, n))


def test_one_class_has_no_entropy_and_no_nan():
    h = sta_cnn.entropy(random(2, 4, 1))
    assert h.eq(0).all()
    assert TS(1, 4, 2).select(h).tolist() == 2 * [[True, True, False, False]]
    shares = sta_cnn.weighted(random(2, 4, 3, 1), top=2)
    torch.testing.assert_close(shares, torch.ones(2, 1))


# Spatial attention, Eq. (5), (7)-(9).


@pytest.mark.equation("sta_cnn", 7, 8)
def test_attention_map_equals_a_loop():
    layer = sta_cnn.SpatialAttentionLayer(7, K).double()
    nn.init.normal_(layer.weight)
    x = random(2, 7, K, K).double()
    where = layer(x)
    for n in range(2):
        a = [sum(layer.weight[m, i, j] * x[n, m, i, j] for m in range(7))
             for i in range(K) for j in range(K)]
        exp = torch.stack(a).exp()
        # float64 and some dozens of additions: rounding stays below 1e-12
        torch.testing.assert_close(
            where[n].flatten(), exp / exp.sum(), rtol=0, atol=1e-12)
    torch.testing.assert_close(where.sum((1, 2)), torch.ones(2).double())


@pytest.mark.equation("sta_cnn", 7)
def test_each_position_has_its_own_weights():
    layer = sta_cnn.SpatialAttentionLayer(7, K)
    assert layer.weight.numel() == 7 * K * K
    assert sta_cnn.SpatialAttentionLayer(1024, 7).weight.numel() == 50_176
    nn.init.normal_(layer.weight)
    x = random(1, 7, K, K)
    moved = layer(x.roll(1, -1))
    assert (moved - layer(x).roll(1, -1)).abs().max() > 0.01
    with pytest.raises(ValueError, match="side"):
        layer(random(1, 7, 5, 5))


@pytest.mark.equation("sta_cnn", 8, 9)
def test_even_attention_is_average_pooling():
    """And as printed it is that divided by K^2: it is normalised twice."""
    maps = random(2, D, K, K)
    where = sta_cnn.SpatialAttentionLayer(D, K)(maps)
    torch.testing.assert_close(where, torch.full((2, K, K), 1 / K**2))
    mean = maps.mean((2, 3))
    torch.testing.assert_close(sta_cnn.weighted_pooling(maps, where), mean)
    torch.testing.assert_close(
        sta_cnn.weighted_pooling(maps, where, literal=True), mean / K**2)


@pytest.mark.equation("sta_cnn", 9)
def test_pooling_equals_a_loop():
    maps = random(2, D, K, K).double()
    where = random(2, K, K, seed=1).double().flatten(1).softmax(1)
    where = where.view(2, K, K)
    pooled = sum(where[:, None, i, j] * maps[:, :, i, j]
                 for i in range(K) for j in range(K))
    torch.testing.assert_close(
        sta_cnn.weighted_pooling(maps, where), pooled, rtol=0, atol=1e-12)


@pytest.mark.equation("sta_cnn", 5)
def test_class_scores_are_sums_of_each_positions_share():
    """Both sides of Eq. (5); pooling first is the cheap one."""
    x = random(2, 7, K, K).double()
    for literal, factor in ((True, 1), (False, 1 / K**2)):
        torch.manual_seed(0)
        head = sta_cnn.ClassScores(7, C, literal).double()
        shares = torch.einsum("cm,nmhw->nchw", head.weight.weight, x)
        torch.testing.assert_close(
            head(x), factor * shares.sum((2, 3)), rtol=0, atol=1e-12)


# The loss, Eq. (6), (10).


@pytest.mark.equation("sta_cnn", 6, 10)
@pytest.mark.parametrize("aggregate", ["consensus", "loss"])
def test_loss_equals_a_loop(aggregate):
    out = network().eval()(pairs(), TS(3, 3, 2))
    found = sta_cnn.loss(out, LABEL, weight=0.3, aggregate=aggregate)
    terms, wrong = {"ce": [], "aux": []}, []
    for b, label in enumerate(LABEL.tolist()):
        rows = out.selected[b].nonzero().flatten().tolist()
        wrong += [out.snippets[b, n].argmax().item() != label for n in rows]
        for key, scores in (("ce", out.snippets), ("aux", out.auxiliary)):
            each = [scores[b, n] for n in rows]
            if aggregate == "consensus":
                each = [sum(each) / len(each)]
            terms[key].append(sum(
                -x.softmax(0)[label].log().item() for x in each) / len(each))
    ce, aux = (sum(terms[key]) / B for key in ("ce", "aux"))
    assert found["ce"].item() == pytest.approx(ce, rel=1e-5)
    assert found["aux"].item() == pytest.approx(aux, rel=1e-5)
    assert found["loss"].item() == pytest.approx(ce + 0.3 * aux, rel=1e-5)
    assert found["wrong"].item() == pytest.approx(sum(wrong) / len(wrong))


def test_without_weight_the_auxiliary_head_rests():
    net = network()
    terms = sta_cnn.loss(net(pairs()), LABEL, weight=0)
    assert "aux" not in terms
    terms["loss"].backward()
    assert net.scores.weight.weight.grad is None
    assert net.san.conv.weight.grad.abs().sum() > 0  # by Eq. (7)


def test_sure_mistakes_are_selected_and_counted():
    snippets = torch.zeros(1, 4, 3)
    snippets[0, 2, 1], snippets[0, 0, 0] = 9, 3  # sure and wrong; right
    h = sta_cnn.entropy(snippets)
    for top, rate in ((1, 1.0), (2, 0.5)):
        out = sta_cnn.STACNNOutput(
            snippets.mean(1), None, snippets, TS(1, 4, top).select(h), None,
            None)
        found = sta_cnn.loss(out, torch.tensor([0]))["wrong"]
        assert found.item() == rate


@pytest.mark.parametrize("ts", [TS(1, 3, 1), TS(3, 1, 1)])
def test_one_batch_of_one_class_or_more_is_learned(ts):
    for label in (LABEL, torch.full((B,), 2)):
        net, x = network().train(), pairs(3)
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(60):
            terms = sta_cnn.loss(net(x, ts), label)
            optimizer.zero_grad()
            terms["loss"].backward()
            optimizer.step()
        assert terms["ce"] < 0.05 and terms["wrong"] == 0


# The test, Eq. (11).


@pytest.mark.equation("sta_cnn", 11)
def test_weighted_prediction_equals_a_loop():
    """25 snippets in ten crops, crops averaged first."""
    logits = 2 * random(B, 25, 10, C).double()
    shares = sta_cnn.weighted(logits)
    for b in range(B):
        p = logits[b].softmax(-1).mean(1)
        alpha = 1 / -(p * p.log()).sum(-1)
        surest = sorted(range(25), key=lambda n: -alpha[n])[:15]
        by_hand = sum(alpha[n] * p[n] for n in surest)
        torch.testing.assert_close(
            shares[b], by_hand / by_hand.sum(), rtol=0, atol=1e-12)


@pytest.mark.equation("sta_cnn", 11)
def test_equal_confidence_is_the_mean_of_the_top():
    """Two classes change places, which no entropy notices, to the last bit."""
    snippets = torch.tensor(10 * [[2.0, 1]] + 15 * [[1.0, 2]])[None, :, None]
    first = sta_cnn.average(snippets[:, :15])
    torch.testing.assert_close(sta_cnn.weighted(snippets), first)
    assert first.argmax() == 0 and sta_cnn.average(snippets).argmax() == 1


def test_the_average_is_of_shares():
    logits = random(B, 4, 3, C)
    each = [logits[:, n, v].softmax(1) for n in range(4) for v in range(3)]
    torch.testing.assert_close(
        sta_cnn.average(logits), sum(each) / 12)


def test_few_snippets_and_certain_ones():
    logits = random(B, 4, 2, C)
    torch.testing.assert_close(
        sta_cnn.weighted(logits), sta_cnn.weighted(logits, top=4))
    certain = torch.full((1, 2, 1, C), -math.inf)
    certain[0, 0, 0, 1] = certain[0, 1, 0, 3] = 0
    torch.testing.assert_close(sta_cnn.weighted(certain), torch.tensor(
        [[0, 0.5, 0, 0.5, 0]]))


def test_the_bound_keeps_one_snippet_from_deciding():
    """A snippet without a doubt against three that agree otherwise."""
    logits = torch.tensor([[60.0, 0, 0], *3 * [[0, 7.0, 0]]])[None, :, None]
    assert sta_cnn.weighted(logits).argmax() == 0
    assert sta_cnn.weighted(logits, floor=0.1).argmax() == 1
