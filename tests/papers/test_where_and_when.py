"""Where-and-When against its equations, slow loops and known degeneracies."""

from itertools import product

import pytest
import torch
from checks import random, refused
from torch.nn import functional as F
from torch.testing import assert_close

from lib.papers import where_and_when as ww

B, N, C, D, S = 3, 5, 6, 4, 7  # videos, frames, channels, hidden, side


def features():
    return random(B, N, C, S, S).relu()


def model(**options):
    torch.manual_seed(1)
    settings = {"hidden": D, "mask_channels": (8, 4)} | options
    return ww.WhereAndWhen(C, 3, **settings).eval()


def slow_forward(net, x):
    n = x.shape[1]
    mask = torch.stack(
        [net.mask.layers(x[:, i]) for i in range(n)], 1
    )  # Table 5
    attended = [x[:, i] * mask[:, i] for i in range(n)]  # Eq. (1)
    mean = sum(attended) / n
    hidden, cell = net.init_hidden(mean), net.init_cell(mean)  # Eq. (5)
    kernel = torch.cat(
        (net.lstm.from_input.weight, net.lstm.from_hidden.weight), 1)
    states, weights = [], []
    for _ in range(n):
        energies = []
        for frame in attended:  # Eq. (2)
            at = net.attention
            e = at.from_hidden(hidden.mean((2, 3)))
            e = e + at.from_frame(frame.mean((2, 3)))
            energies.append(e if net.literal else at.energy(torch.tanh(e)))
        exp = torch.exp(torch.cat(energies, 1))
        w = exp / exp.sum(1, keepdim=True)  # Eq. (3)
        y = sum(w[:, i, None, None, None] * attended[i] for i in range(n))
        y = y / n if net.literal else y  # Eq. (4)
        both = torch.cat((y, hidden), 1)
        gates = F.conv2d(both, kernel, net.lstm.from_hidden.bias, padding=1)
        i, f, o, g = gates.split(D, 1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        states.append(hidden)
        weights.append(w)
    logits = net.classify((sum(states) / n).mean((2, 3)))  # Eq. (6)
    return logits, mask.squeeze(2), torch.stack(weights, 1)


@pytest.mark.equation("where_and_when", 1, 2, 3, 4, 5, 6)
@pytest.mark.parametrize("literal", [False, True])
def test_equals_the_slow_loop(literal):
    net, x = model(literal=literal).double(), features().double()
    output = net(x)
    logits, mask, weights = slow_forward(net, x)
    # float64 and a few hundred additions: rounding stays below 1e-12
    assert_close(output.logits, logits, rtol=0, atol=1e-12)
    assert_close(output.where, mask, rtol=0, atol=1e-12)
    assert_close(output.weights, weights, rtol=0, atol=1e-12)
    assert_close(output.when, weights.mean(1))
    assert output.spans.tolist() == [[i, i + 1] for i in range(N)]


@pytest.mark.equation("where_and_when", 2, 3)
@pytest.mark.parametrize("literal", [False, True])
def test_the_printed_energy_forgets_the_hidden_state(literal):
    """It moves all frames alike, which the softmax does not see."""
    net = model(literal=literal)
    with torch.no_grad():  # make the effect large enough to see
        net.attention.from_hidden.weight.mul_(20)
        if not literal:
            net.attention.energy.weight.mul_(20)
    output = net(features())
    spread = (output.weights - output.weights[:, :1]).abs().max()
    output.logits.sum().backward()
    learns = net.attention.from_hidden.weight.grad.abs().max()
    assert (spread < 1e-6 and learns < 1e-5) == literal
    assert (spread > 1e-3 and learns > 1e-4) != literal
    assert net.attention.from_frame.weight.grad.abs().max() > 1e-6


def test_order_of_frames_does_not_matter():
    """Nothing in Eq. (1)-(6) knows the order: only the answers permute."""
    net, x = model(), features()
    order = torch.tensor([3, 0, 4, 2, 1])
    straight, shuffled = net(x), net(x[:, order])
    assert_close(straight.logits, shuffled.logits)
    assert_close(straight.when[:, order], shuffled.when)
    assert_close(straight.where[:, order], shuffled.where)


class Ones(torch.nn.Module):
    def forward(self, x):
        return x.new_ones(*x.shape[:2], 1, *x.shape[3:])


@pytest.mark.parametrize(("part", "answer"), [
    ("mask", "where"), ("attention", "when")])
def test_without_a_part_it_answers_as_with_an_even_one(part, answer):
    options = {"mask": "spatial", "attention": "temporal"}
    without, whole = model(**{options[part]: False}), model()
    without.load_state_dict({
        key: value for key, value in whole.state_dict().items()
        if not key.startswith(part)})
    whole.mask = Ones() if part == "mask" else whole.mask
    if part == "attention":
        torch.nn.init.zeros_(whole.attention.energy.weight)
    output = without(features())
    assert getattr(output, answer) is None
    assert_close(output.logits, whole(features()).logits)


@pytest.mark.parametrize("options", [
    {}, {"normalised": True}, {"in_order": True}, {"literal": True}])
def test_handed_its_own_masks_and_weights_it_predicts_the_same(options):
    net, x = model(**options), features()
    own = net(x)
    told = net(x, where=own.where, weights=own.weights)
    for name, value in own._asdict().items():
        assert_close(getattr(told, name), value)
    for name in ("where", "weights"):
        changed = getattr(own, name).flip(-1)
        other = net(x, **{name: changed})
        assert torch.equal(getattr(other, name), changed)
        assert (other.logits - own.logits).abs().max() > 1e-5
    # a model without attention uses what it is handed, too
    bare = model(spatial=False, temporal=False, **options)
    bare.load_state_dict({k: v for k, v in net.state_dict().items()
                          if not k.startswith(("mask.", "attention."))})
    told = bare(x, where=own.where, weights=own.weights)
    assert_close(told.logits, own.logits)


def test_a_normalised_mask_tells_places_only():
    net, x = model(normalised=True), features()
    where = net(x).where
    assert_close(where.sum((2, 3)), torch.ones(B, N))
    even = torch.full_like(where, 1 / S**2)
    assert_close(net(x, where=even).logits, bare_logits(net, x))
    darker = x.clone()
    darker[:, 0] = 0  # a sigmoid mask could shut this frame, it cannot
    assert_close(net(darker).where.sum((2, 3)), torch.ones(B, N))


def bare_logits(net, x):
    """Of the same model whose masks are one everywhere."""
    bare = model(spatial=False)
    bare.load_state_dict({k: v for k, v in net.state_dict().items()
                          if not k.startswith("mask.")})
    return bare(x).logits


def slow_in_order(net, x):
    """As thumos14_spa_temp_att.py: a state for each frame, then a softmax."""
    x = x * torch.stack([net.mask.layers(x[:, i]) for i in range(N)], 1)
    hidden = cell = torch.zeros(B, D, S, S, dtype=x.dtype)
    kernel = torch.cat(
        (net.lstm.from_input.weight, net.lstm.from_hidden.weight), 1)
    pooled = []
    for t in range(N):
        gates = F.conv2d(torch.cat((x[:, t], hidden), 1), kernel,
                         net.lstm.from_hidden.bias, padding=1)
        i, f, o, g = gates.split(D, 1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        pooled.append(hidden.mean((2, 3)))
    w = torch.cat([net.attention(state) for state in pooled], 1).softmax(1)
    return net.classify(sum(w[:, t, None] * pooled[t] for t in range(N))), w


def test_in_order_is_the_released_main_script():
    net, x = model(in_order=True).double(), features().double()
    output, (logits, w) = net(x), slow_in_order(net, x)
    # float64 and a few hundred additions: rounding stays below 1e-12
    assert_close(output.logits, logits, rtol=0, atol=1e-12)
    assert_close(output.when, w, rtol=0, atol=1e-12)
    assert output.weights.shape == (B, 1, N)
    turned = net(x.flip(1))
    assert (turned.logits - output.logits).abs().max() > 1e-6
    even = model(in_order=True, temporal=False).double()
    even.load_state_dict({k: v for k, v in net.state_dict().items()
                          if not k.startswith("attention.")})
    flat = torch.full((B, 1, N), 1 / N, dtype=torch.float64)
    assert_close(even(x).logits, net(x, weights=flat).logits)


def test_eval_is_deterministic_and_dropout_spans_the_video():
    net, x = model(dropout=0.5), torch.ones(B, N, C, S, S)
    assert torch.equal(net(x).logits, net(x).logits)
    seen = []
    net.train()
    net.mask.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net(x)
    kept = seen[0].mean((3, 4))  # (B, N, C): a channel is on or off
    assert torch.equal(kept, kept[:, :1].expand_as(kept))
    assert set(kept.unique().tolist()) == {0.0, 2.0}


def test_takes_a_backbone_and_rejects_a_wrong_shape():
    class Pool(torch.nn.Module):
        def forward(self, video):
            pooled = F.avg_pool2d(video.flatten(0, 1), 4)
            return pooled.unflatten(0, video.shape[:2])

    net = ww.WhereAndWhen(
        3, 2, hidden=4, mask_channels=(4, 4), backbone=Pool())
    assert net(torch.rand(2, N, 3, 16, 16)).where.shape == (2, N, 4, 4)
    refused(r"\(B, n, C, h, w\)", model(), torch.rand(2, C, S, S))


@pytest.mark.equation("where_and_when", 8)
def test_total_variation():
    assert ww.total_variation(torch.full((2, N, S, S), 0.3)).tolist() == [0, 0]
    mask = torch.rand(2, N, S, S)
    slow = torch.zeros(2)
    for b, m, j, k in product(range(2), range(N), range(S - 1), range(S)):
        slow[b] += (mask[b, m, j + 1, k] - mask[b, m, j, k]).abs()
        slow[b] += (mask[b, m, k, j + 1] - mask[b, m, k, j]).abs()
    assert_close(ww.total_variation(mask), slow)
    # frames do not touch: a flicker in time costs nothing
    flicker = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, S, S)
    assert ww.total_variation(flicker).item() == 0


@pytest.mark.equation("where_and_when", 9)
def test_contrast_is_lowest_for_a_mask_of_ones():
    shape = (1, N, S, S)
    ones = ww.contrast(torch.ones(shape)).item()
    assert ones == pytest.approx(-N * S * S / 2)
    assert ww.contrast(torch.zeros(shape)).item() == 0
    half_and_half = torch.zeros(shape)
    half_and_half[..., : S // 2] = 1
    assert ones < ww.contrast(half_and_half).item() < 0
    # the indicator is a constant: it passes no gradient
    mask = torch.tensor([[[[0.7, 0.2]]]], requires_grad=True)
    ww.contrast(mask).sum().backward()
    assert mask.grad.flatten().tolist() == [-0.5, 0.5]


@pytest.mark.equation("where_and_when", 10, 11)
def test_unimodality():
    t = torch.arange(9.0)
    bell = torch.exp(-((t - 3) ** 2) / 4)
    assert ww.unimodality(bell / bell.sum()).item() < 1e-9
    assert ww.unimodality(torch.full((9,), 1 / 9)).item() < 1e-9
    camel = torch.tensor([0.1, 0.3, 0.05, 0.05, 0.3, 0.2])
    by_hand = (0.3 * 0.05 - 0.05**2) * 2 + max(0, 0.05 * 0.2 - 0.3**2)
    assert ww.unimodality(camel).item() == pytest.approx(by_hand)
    # Proposition 1 needs "no zeros inside": two far modes cost nothing
    split = torch.tensor([0.5, 0.0, 0.0, 0.0, 0.5])
    assert ww.unimodality(split).item() == 0


@pytest.mark.equation("where_and_when", 7)
def test_loss_adds_up_and_drops_what_is_off():
    output, label = model()(features()), torch.tensor([0, 1, 2])
    terms = ww.loss(output, label, tv=0.1, contrast_weight=0.2, unimodal=0.3)
    assert_close(terms["loss"], terms["ce"] + 0.1 * terms["tv"]
                 + 0.2 * terms["contrast"] + 0.3 * terms["unimodal"])
    assert {*ww.loss(output, label, tv=0)} == {*terms} - {"tv"}
    bare = model(spatial=False, temporal=False)(features())
    assert {*ww.loss(bare, label)} == {"loss", "ce"}


@pytest.mark.equation("where_and_when", 8, 10)
def test_released_normalisation():
    """TV grows with the batch; unimodality is a mean of square roots, of
    the steps' mean weights."""
    output, label = model()(features()), torch.tensor([0, 1, 2])
    paper = ww.loss(output, label)
    released = ww.loss(output, label, released=True)
    assert_close(released["tv"], B * paper["tv"])
    assert_close(released["contrast"], paper["contrast"])
    camel = torch.tensor([[0.4, 0.1, 0.4, 0.1]], requires_grad=True)
    terms = ww.loss(output._replace(when=camel), label, released=True)
    by_hand = ((0.4 * 0.4 - 0.1**2) ** 0.5 + 0) / 2
    assert terms["unimodal"].item() == pytest.approx(by_hand)
    terms["unimodal"].backward()
    assert camel.grad.isfinite().all()


def test_changes_take_out_what_they_name():
    torch.manual_seed(0)
    where = torch.rand(B, N, S, S)
    weights = torch.rand(B, N, N).softmax(-1)
    found = ww.changes(weights, where)
    assert len(found) == 6
    for given in found.values():
        assert given["where"].shape == where.shape
        assert given["weights"].shape == weights.shape
        assert_close(given["weights"].sum(-1), torch.ones(B, N))
        assert_close(given["where"].mean((1, 2, 3)), where.mean((1, 2, 3)))
    frame, per_video = where.mean((2, 3)), where.mean((1, 2, 3))
    places = found["mask without places"]["where"]
    assert_close(places, frame[..., None, None].expand_as(where))
    moments = found["mask without moments"]["where"]
    assert_close(moments.mean((2, 3)), per_video[:, None].expand(B, N))
    ratio = moments / where  # within a frame all places keep their shares
    assert_close(ratio, ratio[..., :1, :1].expand_as(ratio))
    for name in ("mask without both", "all even"):
        assert found[name]["where"].flatten(1).std(1).max() < 1e-6
    for name in ("weights even", "all even"):
        assert found[name]["weights"].std(-1).max() < 1e-6
    alike = found["weights of all steps alike"]["weights"]
    assert_close(alike, weights.mean(1, keepdim=True).expand_as(weights))
    for name, changed in found.items():  # the rest stays as it was
        if name.startswith("mask"):
            assert torch.equal(changed["weights"], weights)
        elif name.startswith("weights"):
            assert torch.equal(changed["where"], where)
