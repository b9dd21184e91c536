"""RSTAN against its equations, a slow loop, and what windows and pads do."""

import pytest
import torch
from checks import refused
from torch.nn import functional as F
from torch.testing import assert_close

from lib.papers import rstan

B, T, C, D, H, K, S = 3, 5, 6, 4, 7, 3, 4  # S x S positions, K classes


def features(streams=2):
    generator = torch.Generator().manual_seed(0)
    shapes = [(B, T, C, S, S), (B, T, D)] * streams
    return [torch.randn(*shape, generator=generator).relu()
            for shape in shapes]


def model(streams=2, classes=K, **options):
    torch.manual_seed(1)
    options = {"hidden": H, "units": 5} | options
    net = rstan.RSTAN((C,) * streams, (D,) * streams, classes, **options)
    with torch.no_grad():  # large enough that the state moves the attention
        for name, weight in net.named_parameters():
            if "spatial" in name or "temporal" in name:
                weight.mul_(4)
    return net.eval()


def slow_forward(net, xs):
    n_streams = len(net.streams)
    cubes = [x[0].flatten(2).mT for x in xs[::2]]  # CV (T, k, C), Eq. (1)
    vectors = [x[0] for x in xs[1::2]]
    steps = len(vectors[0])
    h, c = ([torch.zeros(H).double()] * n_streams for _ in range(2))
    logits, alphas, betas = [], [], []
    for t in range(steps):
        seen = [*range(t + 1 if net.causal else steps)]
        asks = h if net.query else [torch.zeros(H).double()] * n_streams
        if net.window is not None:
            seen = seen[t:t + net.window]
        maps = []
        for s, stream in enumerate(net.streams):
            at, rows = stream.spatial, []
            for n in seen:
                scores = torch.stack([
                    at.score(torch.tanh(at.from_hidden(asks[s])
                                        + at.from_input(cubes[s][n, k])))[0]
                    for k in range(S * S)])  # Eq. (2)
                exp = torch.exp(scores) ** at.gamma
                rows.append(exp / exp.sum())  # Eq. (3)
            maps.append(torch.stack(rows))
        alpha = fused(net, maps)  # Eq. (14)
        local = [
            torch.stack([sum(alpha[s][i, k] * cubes[s][n, k]
                             for k in range(S * S))
                         for i, n in enumerate(seen)])
            for s in range(n_streams)]  # Eq. (4)
        weights = []
        for s, stream in enumerate(net.streams):
            at = stream.temporal
            scores = torch.stack([
                at.score(torch.tanh(at.from_hidden(asks[s])
                                    + at.from_input(frame)))[0]
                for frame in local[s]])  # Eq. (5)
            exp = torch.exp(scores) ** at.gamma
            weights.append(exp / exp.sum())  # Eq. (6)
        beta = fused(net, weights)  # Eq. (15)
        for s, stream in enumerate(net.streams):
            phi = sum(b * frame for b, frame
                      in zip(beta[s], local[s], strict=True))  # Eq. (7)
            w, b = stream.cell.from_input.weight, stream.cell.from_input.bias
            gates = (w @ vectors[s][t] + stream.cell.from_phi(phi)
                     + stream.cell.from_hidden(h[s]) + b)
            i, f, o, g = gates.split(H)  # Eq. (8)-(11)
            c[s] = f.sigmoid() * c[s] + i.sigmoid() * g.tanh()  # Eq. (12)
            h[s] = o.sigmoid() * c[s].tanh()  # Eq. (13)
        logits.append(net.classify[0](torch.cat(h)))  # Eq. (16)
        alphas.append(sum(alpha) / n_streams)
        betas.append(sum(beta) / n_streams)
    return torch.stack(logits), alphas, betas


def fused(net, scores):
    if len(scores) == 1 or net.fusion == "none":
        return scores
    scores = torch.stack(scores)
    both = scores.max(0).values if net.fusion == "max" else scores.mean(0)
    if net.renormalise:
        both = both / both.sum(-1, keepdim=True)
    return [both, both]


CASES = [
    (1, {}), (2, {}), (2, {"gamma": (5.0, 10.0)}), (2, {"fusion": "mean"}),
    (2, {"renormalise": True}), (2, {"window": 1}), (2, {"window": 2}),
    (2, {"fusion": "none"}), (2, {"query": False}), (2, {"causal": True}),
]


@pytest.mark.equation(
    "rstan", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
@pytest.mark.parametrize(("streams", "options"), CASES)
def test_equals_the_slow_loop(streams, options):
    net = model(streams, **options).double()
    xs = [x[:1].double() for x in features(streams)]
    output = net(*xs)
    logits, alphas, betas = slow_forward(net, xs)
    # float64 and a few hundred additions: rounding stays below 1e-12
    close = {"rtol": 0, "atol": 1e-12}
    assert_close(output.steps[0], logits, **close)
    assert_close(output.logits[0], logits[-1], **close)
    if net.window is None:
        assert_close(output.where, output.alpha[:, -1], **close)
        assert_close(output.when, output.beta[:, -1], **close)
    assert output.spans.tolist() == [[i, i + 1] for i in range(T)]
    for t, (alpha, beta) in enumerate(zip(alphas, betas, strict=True)):
        near = slice(0, t + 1 if net.causal else T)
        if net.window is not None:
            near = slice(t, t + net.window)
        assert_close(output.alpha[0, t, near].flatten(1), alpha, **close)
        assert_close(output.beta[0, t, near], beta, **close)
        assert_close(output.beta[0, t].sum(), beta.sum(), **close)
        assert_close(output.alpha[0, t].sum(), alpha.sum(), **close)
        if net.window == 1:  # in which each step has one frame
            assert_close(output.where[0, t], output.alpha[0, t, t])


@pytest.mark.equation("rstan", 8, 9, 10, 11, 12, 13)
def test_baseline_is_torch_s_lstm():
    net = model(1, attention=False)
    cube, vector = features(1)
    output, cell = net(cube, vector), net.streams[0].cell
    assert output.where is None and output.beta is None
    lstm = torch.nn.LSTM(D, H, batch_first=True)
    # torch orders the gates i, f, g, o

    def turned(x):
        i, f, o, g = x.chunk(4)
        return torch.cat((i, f, g, o))

    with torch.no_grad():
        lstm.weight_ih_l0.copy_(turned(cell.from_input.weight))
        lstm.weight_hh_l0.copy_(turned(cell.from_hidden.weight))
        lstm.bias_ih_l0.copy_(turned(cell.from_input.bias))
        lstm.bias_hh_l0.zero_()
    states, _ = lstm(vector)
    assert_close(output.steps, net.classify[0](states))


@pytest.mark.parametrize("options", [
    {}, {"fusion": "mean"}, {"fusion": "none"}, {"window": 2}])
def test_given_maps_take_the_place_of_the_scores(options):
    """Its own maps change nothing, others reach the logits as they are."""
    net, xs = model(**options), features()
    free = net(*xs)
    if options.get("fusion") != "none":  # where the streams' maps differ
        told = net(*xs, where=free.alpha, when=free.beta)
        assert_close(told.logits, free.logits)
    place, moment = (torch.rand(B, 1, T, *more) for more in ((S, S), ()))
    told = net(*xs, where=place, when=moment)
    if net.window is None:
        assert_close(told.alpha, place.expand(-1, T, -1, -1, -1))
        assert_close(told.beta, moment.expand(-1, T, -1))
    assert not torch.allclose(told.logits, free.logits, atol=1e-3)
    half = net(*xs, where=place)  # then only *when* is asked
    assert_close(half.where, told.where)
    assert not torch.allclose(half.beta, told.beta, atol=1e-3)


def test_without_a_query_every_step_looks_alike():
    output = model(query=False)(*features())
    assert torch.equal(output.alpha, output.alpha[:, :1].expand_as(
        output.alpha))
    assert not torch.allclose(model()(*features()).alpha, output.alpha)


def test_a_causal_step_sees_nothing_behind_it():
    xs = features()
    late = [torch.cat((x[:, :3], 1 + x[:, 3:]), 1) for x in xs]
    for causal in (True, False):
        net = model(causal=causal)
        one, other = net(*xs).steps, net(*late).steps
        assert torch.equal(one[:, :3], other[:, :3]) == causal
        assert not torch.allclose(one[:, 3:], other[:, 3:])


def test_phi_leaves_the_other_weights_alone():
    """The baseline has the same parts, less those that look."""
    own, plain = (dict(model(attention=on).named_parameters())
                  for on in (True, False))
    assert {name for name in own.keys() - plain.keys()} == {
        f"streams.{s}.{name}" for s in (0, 1) for name in (
            "cell.from_phi.weight", *(f"{part}.{rest}" for part in (
                "spatial", "temporal") for rest in (
                    "from_input.weight", "from_input.bias",
                    "from_hidden.weight", "score.weight")))}
    assert all(own[name].shape == x.shape for name, x in plain.items())


@pytest.mark.equation("rstan", 14, 15)
def test_what_max_fusion_does_to_the_sum():
    """Between one and two; one for equal streams or after renormalising."""
    output = model()(*features())
    for fused, own, dims in (
            (output.alpha, output.stream_alpha, (-2, -1)),
            (output.beta, output.stream_beta, (-1,))):
        mass = fused.sum(dims)
        assert mass.min() > 1 and mass.max() <= 2 + 1e-5
        assert mass.max() > 1.05
        assert_close(fused, own.max(1).values)
    for options in ({"renormalise": True}, {"fusion": "mean"}):
        output = model(**options)(*features())
        assert_close(output.alpha.sum((-2, -1)), torch.ones(B, T, T))
        assert_close(output.beta.sum(-1), torch.ones(B, T))


@pytest.mark.parametrize("window", [None, 1, 2])
def test_padded_frames_are_never_attended_to_nor_predicted_from(window):
    """What stands in the padding changes nothing, not even a gradient."""
    net, lengths = model(window=window), torch.tensor([T, 2, 3])
    xs = [x.requires_grad_() for x in features()]
    output = net(*xs, lengths=lengths)
    pad = ~output.valid
    assert pad.sum(1).tolist() == [0, 3, 2]
    assert output.when[pad].eq(0).all() and output.where[pad].eq(0).all()
    assert output.alpha.movedim(1, 2)[pad].eq(0).all()
    assert output.beta.movedim(1, 2)[pad].eq(0).all()
    rstan.loss(output, torch.tensor([0, 1, 2]))["loss"].backward()
    for x in xs:
        assert x.grad[pad].eq(0).all() and x.grad[~pad].ne(0).any()
    for row, length in enumerate(lengths):  # as if it had come alone
        alone = net(*(x[row:row + 1, :length] for x in xs))
        assert_close(output.logits[row], alone.logits[0])
        assert_close(output.where[row, :length], alone.where[0])


def test_sharp_attention_in_bf16_stays_finite():
    net = model(gamma=(10.0, 10.0))
    with torch.no_grad():
        for stream in net.streams:
            stream.spatial.score.weight.mul_(30)
    with torch.autocast("cpu", torch.bfloat16):
        output = net(*features())
        terms = rstan.loss(output, torch.tensor([0, 1, 2]))
    terms["loss"].backward()
    assert output.stream_alpha.dtype == torch.float32
    assert_close(output.stream_alpha.sum((-2, -1)), torch.ones(B, 2, T, T))
    for value in (output.steps, *(p.grad for p in net.parameters())):
        assert value.isfinite().all()


def test_heads_share_all_but_the_last_layer():
    net = model(classes=(2, 5))
    first, second = (net(*features(), head=head) for head in (0, 1))
    assert first.logits.shape == (B, 2) and second.logits.shape == (B, 5)
    assert torch.equal(first.alpha, second.alpha)
    rstan.loss(second, torch.tensor([0, 1, 4]))["loss"].backward()
    assert net.classify[0].weight.grad is None
    assert net.streams[0].spatial.score.weight.grad.abs().sum() > 0


@pytest.mark.equation("rstan", 17, 19)
def test_the_loss_adds_up():
    output, label = model()(*features()), torch.tensor([0, 1, 2])
    by_hand = sum(F.cross_entropy(output.steps[:, t], label) for t in range(T))
    terms = rstan.loss(output, label)
    assert_close(terms["main"], by_hand)
    assert set(terms) == {"loss", "main", "ce"}
    assert_close(terms["loss"], terms["main"])
    target = rstan.silhouette(torch.rand(B, T, 8, 8) > 0.5, (S, S))
    terms = rstan.loss(output, label, target=target, weight=0.3, form="ce")
    assert_close(terms["loss"], terms["main"] + 0.3 * terms["actor"])


@pytest.mark.equation("rstan", 18)
def test_actor_attention_equals_the_loop_and_skips_empty_frames():
    mask = torch.rand(2, 3, 8, 8) > 0.4
    mask[1, 2] = False
    target = rstan.silhouette(mask, (S, S))
    own = torch.rand(2, 3, S, S).flatten(2).softmax(-1).view(2, 3, S, S)
    squares = [[(own[b, t, i, j] - target[b, t, i, j]) ** 2
                for t in range(3 - b) for i in range(S) for j in range(S)]
               for b in range(2)]
    slow = torch.tensor(squares[0]).sum(), torch.tensor(squares[1]).sum()
    assert_close(rstan.actor_attention(own, target), torch.stack(slow))
    assert rstan.actor_attention(target, target).tolist() == [0, 0]
    ce = rstan.actor_attention(1.7 * own, target, "ce")
    by_hand = -(target * own.log()).sum((1, 2, 3))
    assert_close(ce, by_hand)
    refused("l2.*ce", rstan.actor_attention, own, target, "l1")


def test_silhouettes():
    mask = torch.zeros(1, 4, 8, 8, dtype=torch.bool)
    mask[0, 0, 2:6, 0:2] = True  # cells (1, 0) and (2, 0) in full
    mask[0, 1, 2:4, 0:4] = True  # (1, 0) and (1, 1)
    mask[0, 1, 4, 0] = True  # a quarter of (2, 0)
    mask[0, 2, 7, 7] = True  # a quarter of (3, 3), and nothing else
    target = rstan.silhouette(mask, (S, S))
    assert target.sum((-2, -1)).tolist() == [[1, 1, 1, 0]]
    assert target[0, 0, 1:3, 0].tolist() == [0.5, 0.5]
    assert target[0, 1, 1, :2].tolist() == [0.5, 0.5]
    assert target[0, 2, 3, 3] == 1
    flipped = rstan.silhouette(mask.flip(-1), (S, S))
    assert flipped.equal(target.flip(-1))


def test_wrong_shapes_and_options_are_explained():
    refused(r"2 stream.*\(B, T, C, h, w\)", model(), *features(1))
    cube, vector = features(1)
    for wrong in ((cube[0], vector), (cube, vector[:, 1:])):
        refused("1 stream", model(1), *wrong)
    refused("1 stream|2 stream", model(), cube, vector, cube[..., 1:], vector)
    refused("fusion='sum'", model, fusion="sum")
    refused("window=0", model, window=0)


@pytest.mark.parametrize("window", [None, 2])
def test_altered_changes_the_one_thing(window):
    net, xs = model(window=window), features()
    own = net(*xs)
    assert torch.equal(rstan.altered(net, xs).logits, own.logits)
    turned = rstan.altered(net, xs, "x reversed")
    assert_close(turned.logits, net(
        xs[0], xs[1].flip(1), xs[2], xs[3].flip(1)).logits)
    for name, ndim in (("x", 3), ("Φ", 5)):
        swapped = rstan.altered(net, xs, f"{name} of another")
        mixed = [x.roll(1, 0) if x.ndim == ndim else x for x in xs]
        assert_close(swapped.logits, net(*mixed).logits)
    even = rstan.altered(net, xs, "places even").alpha
    assert_close(even.sum((3, 4)), own.alpha.sum((3, 4)))
    assert_close(even, even.mean((3, 4), keepdim=True).expand_as(even))
    even = rstan.altered(net, xs, "moments even").beta
    assert_close(even.sum(2), own.beta.sum(2))
    for t in range(T):
        near = slice(t, t + window) if window else slice(None)
        assert_close(even[:, t, near], even[:, t, near].mean(
            1, keepdim=True).expand_as(even[:, t, near]))
    assert torch.equal(xs[1], features()[1])  # nothing was changed in place
    refused("x reversed", rstan.altered, net, xs, "where")


def control(**options):
    torch.manual_seed(1)
    return rstan.Control((C, C), (D, D), K, hidden=H, units=5, **options)


def test_a_control_is_told_even_or_true_maps():
    xs = features()
    output = control(told=["where", "when"])(*xs)
    assert_close(output.alpha, torch.full((B, T, T, S, S), 1 / S**2))
    assert_close(output.beta, torch.full((B, T, T), 1 / T))
    mask = torch.rand(B, T, 8, 8) > 0.5
    lit = torch.arange(T).expand(B, T) < 2
    output = control(told=["where", "when"])(*xs, mask, lit)
    assert_close(output.where, rstan.silhouette(mask, (S, S)))
    assert_close(output.when, lit / 2)
    # what it is not told, it asks for
    output = control(told=["when"])(*xs, mask, lit)
    assert_close(output.when, lit / 2)
    assert output.where.std() > 1e-3


@pytest.mark.parametrize(("time", "width"), [("channel", 1), ("product", 7)])
def test_a_control_that_knows_the_time(time, width):
    """Frames in another order are then another video."""
    net, xs = control(time=time, told=["where", "when"]), features()
    assert net.streams[0].spatial.from_input.in_features == C + width
    turned = [x.flip(1) if x.ndim == 5 else x for x in xs]
    same, other = net(*xs).logits, net(*turned).logits
    assert torch.allclose(same, other, atol=1e-6) == (time == "channel")
    assert torch.equal(xs[0], features()[0])
