"""Accuracy, attention scores and costs against cases worked out by hand."""

import math

import pytest
import torch
from torch import nn

from lib.scores import metrics


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def planted(size=8):
    """Two videos of three frames; the actor fills one 2x2 block of pixels.

    The second video shows no actor in its last frame.
    """
    mask = torch.zeros(2, 3, size, size, dtype=torch.bool)
    mask[0, :, 0:2, 0:2] = True
    mask[1, :2, 4:6, 2:4] = True
    return mask


LOGITS = torch.tensor([[3.0, 2.0, 1.0]] * 3 + [[1.0, 2.0, 3.0]])
LABEL = torch.tensor([0, 1, 2, 2])


def test_topk_counts_the_rank_of_the_true_class():
    # ranks of the true class: 1, 2, 3, 1
    for k, share in ((1, 0.5), (2, 0.75), (3, 1), (5, 1)):
        assert metrics.topk_accuracy(LOGITS, LABEL, k) == share
    for value in (0.0, math.nan, math.inf):  # constant or broken: no hit
        logits = torch.full((4, 3), value)
        assert metrics.topk_accuracy(logits, LABEL, 2) == 0


@pytest.mark.parametrize(("logits", "label", "k", "words"), [
    (LOGITS, LABEL[:2], 1, "label"), (LOGITS[0], LABEL, 1, "logits"),
    (LOGITS[:0], LABEL[:0], 1, "empty"), (LOGITS, LABEL, 0, "k must")])
def test_accuracy_names_the_bad_argument(logits, label, k, words):
    with pytest.raises(ValueError, match=words):
        metrics.topk_accuracy(logits, label, k)


def test_video_and_clip_accuracy_differ():
    """By hand: two clips of three are wrong, and yet the video is right."""
    each = torch.zeros(2, 3, 2)
    each[0] = torch.tensor([[9.0, 0], [0, 1], [0, 1]])
    each[1, 0] = torch.tensor([1.0, 0])  # its other clips are padding
    valid = torch.tensor([[True] * 3, [True, False, False]])
    assert metrics.video_and_clip_accuracy(
        each, valid, torch.tensor([0, 0])) == {"video": 1.0, "clip": 0.5}
    assert metrics.video_and_clip_accuracy(
        each, valid, torch.tensor([1, 0])) == {"video": 0.5, "clip": 0.75}


def test_expand_uneven_overlapping_and_missing_steps():
    # step 0 covers frames 0-2, step 1 frames 2-3, step 2 frame 5:
    # frame 2 is the mean of two steps, nobody saw frame 4
    spans = torch.tensor([[0, 3], [2, 4], [5, 6]])
    when = torch.tensor([[1.0, 3.0, 8.0]])
    expected = torch.tensor([[1.0, 1.0, 2.0, 3.0, 0.0, 8.0]])
    assert torch.equal(metrics.expand(when, spans, 6), expected)


def test_expand_takes_maps_as_it_takes_weights():
    spans = torch.tensor([[0, 3], [2, 4], [4, 8]])
    where = random(2, 3, 4, 5)
    out = metrics.expand(where, spans, 8)
    assert out.shape == (2, 8, 4, 5)
    cell = metrics.expand(where[:, :, 1, 2], spans, 8)
    assert torch.allclose(out[:, :, 1, 2], cell)


@pytest.mark.parametrize(
    "spans", [[[0, 2]], [[0, 2], [2, 5]], [[-1, 2], [2, 4]], [[0, 0], [2, 4]]]
)
def test_expand_refuses_wrong_spans(spans):
    with pytest.raises(ValueError, match="spans"):
        metrics.expand(random(1, 2), torch.tensor(spans), 4)


SCORES = [metrics.mass_on_actor, metrics.pointing_game]


@pytest.mark.parametrize("score", SCORES)
def test_attention_on_the_actor_scores_one_and_beside_it_zero(score):
    mask = planted()
    # the sixth frame shows no actor
    assert score(mask.float(), mask) == (1, pytest.approx(4 / 64), 5)
    assert score((~mask).float(), mask).value == 0


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (7, 7), (16, 16)])
def test_chance_is_the_score_of_uniform_attention(score, size):
    mask = random(3, 4, 10, 14) > 0.6
    value, chance, _ = score(torch.full((3, 4, *size), 0.1), mask)
    assert value == pytest.approx(chance)
    share = mask.flatten(2).double().mean(2)[mask.flatten(2).any(2)].mean()
    assert chance == pytest.approx(share.item())


def test_mass_by_hand():
    # 4x4 pixels, 2x2 cells: the mask covers half of the upper left cell
    # and all of the lower right one; their attention is 3/6 and 1/6
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[..., 0, :2] = mask[..., 2:, 2:] = True
    where = torch.tensor([[[[3.0, 2.0], [0.0, 1.0]]]])
    value, chance, _ = metrics.mass_on_actor(where, mask)
    assert value == pytest.approx(3 / 6 * 0.5 + 1 / 6)
    assert chance == pytest.approx(6 / 16)
    # the maximum lies in the half-covered cell
    assert metrics.pointing_game(where, mask).value == 0.5


def test_pointing_game_shares_a_tie():
    # two maxima, one on the actor
    mask = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    mask[..., 0, 0] = True
    where = torch.tensor([[[[4.0, 4.0], [1.0, 0.0]]]])
    assert metrics.pointing_game(where, mask).value == 0.5


def test_cell_shares_cut_pixels_by_area():
    # three pixels on two cells: the middle pixel is half in each
    mask = torch.tensor([[[0, 1, 0]]], dtype=torch.bool)
    shares = metrics.cell_shares(mask, (1, 2))
    assert torch.allclose(shares, torch.full((1, 1, 2), 1 / 3).double())
    mask = random(5, 12, 20) > 0.5
    blocks = nn.functional.avg_pool2d(mask.double(), (3, 4))
    assert torch.allclose(metrics.cell_shares(mask, (4, 5)), blocks)


@pytest.mark.parametrize("score", SCORES)
def test_a_dead_map_counts_as_zero(score):
    mask = planted()
    where = mask.float()
    where[0] = 0  # three of the five scored frames
    assert score(where, mask).value == pytest.approx(2 / 5)
    assert score(torch.zeros_like(where), mask).value == 0


@pytest.mark.parametrize("score", SCORES)
def test_scale_and_order_of_the_maps_do_not_matter(score):
    mask, where = random(4, 3, 9, 9) > 0.5, random(4, 3, 5, 5, seed=1)
    value = score(where, mask).value
    assert 0 <= value <= 1
    assert score(where * 1e-6, mask).value == pytest.approx(value)
    order = [2, 0, 3, 1]
    assert score(where[order], mask[order]).value == pytest.approx(value)


def test_centre_prior_beats_chance_in_the_middle_and_loses_at_the_edge():
    middle, edge = torch.zeros(2, 1, 1, 12, 12, dtype=torch.bool)
    middle[..., 4:8, 4:8] = edge[..., :2, :2] = True
    prior = metrics.centre_prior(torch.empty(1, 1, 6, 6))
    assert torch.allclose(prior, prior.flip(-1, -2))
    value, chance, _ = metrics.mass_on_actor(prior, middle)
    assert value > 2 * chance
    value, chance, _ = metrics.mass_on_actor(prior, edge)
    assert value < chance / 2


def test_mass_on_relevant_by_hand():
    # first video: 3/4 of the weight on half of the frames; second: none of
    # it on a quarter; the third has no relevant frame and is left out
    when = torch.tensor([[1.0, 2.0, 1.0, 0.0], [0, 0, 1, 1], [1, 1, 1, 1]])
    relevant = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    score = metrics.mass_on_relevant
    assert score(when, relevant) == (0.375, 0.375, 2)
    assert score(relevant.float(), relevant).value == 1
    assert score(torch.full((3, 4), 0.2), relevant) == pytest.approx(
        (0.375, 0.375, 2))
    assert score(torch.zeros(3, 4), relevant).value == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
def test_broken_attention_is_refused(bad):
    where, when = planted().float(), random(2, 3)
    where[0, 0, 0, 0] = when[0, 0] = bad
    for score in SCORES:
        with pytest.raises(ValueError, match="where must be finite"):
            score(where, planted())
    with pytest.raises(ValueError, match="when must be finite"):
        metrics.mass_on_relevant(when, torch.ones(2, 3).bool())


def test_attention_must_be_expanded_first():
    with pytest.raises(ValueError, match="expand"):
        metrics.mass_on_actor(random(2, 2, 4, 4), planted())
    with pytest.raises(ValueError, match="expand"):
        metrics.mass_on_relevant(random(2, 3), torch.ones(2, 6).bool())
    with pytest.raises(ValueError, match="relevant"):
        metrics.mass_on_actor(
            random(2, 3, 4, 4), planted(), relevant=torch.ones(2, 2).bool())


# All at once.


def told(seed=0, steps=3, frames=6):
    """Outputs of four videos, and the truth; some frames have no actor."""
    spans = torch.tensor([[0, 2], [2, 3], [3, 6]])[:steps]
    outputs = {"where": random(4, steps, 3, 4, seed=seed),
               "when": random(4, steps, seed=seed + 1), "spans": spans}
    mask = random(4, frames, 7, 9, seed=seed + 2) > 0.6
    mask[:, 4] = False
    truth = {"mask": mask, "relevant": random(4, frames, seed=seed + 3) > 0.4,
             "main_actor": ["left", "right", "left", None]}
    return outputs, truth


def by_loops(outputs, truth, frames):
    """`where`, `point`, `when` and `side`, frame by frame."""
    where, when, mask = outputs["where"], outputs["when"], truth["mask"]
    step = [next(i for i, (a, b) in enumerate(outputs["spans"].tolist())
                 if a <= t < b) for t in range(frames)]
    masses, points, shares, sides = [], [], [], []
    for v in range(len(where)):
        weights = [when[v, step[t]].item() for t in range(frames)]
        relevant = truth["relevant"][v].tolist()
        if any(relevant):
            shares.append(sum(weights[t] for t in range(frames)
                              if relevant[t]) / sum(weights))
        for t in range(frames):
            if not relevant[t] or not mask[v, t].any():
                continue
            # of 3 x 4 cells and 7 x 9 pixels both: cut into 21 x 36 pieces
            cells = where[v, step[t]].repeat_interleave(7, 0)
            cells = cells.repeat_interleave(9, 1).double()
            actor = mask[v, t].repeat_interleave(3, 0)
            actor = actor.repeat_interleave(4, 1).double()
            masses.append((cells * actor).sum() / cells.sum())
            points.append(actor[cells == cells.max()].mean())
        if (side := truth["main_actor"][v]) is not None:
            seen = sum(where[v, step[t]] for t in range(frames))
            right = seen[:, 2:].sum() > seen[:, :2].sum()
            sides.append(right.item() == (side == "right"))
    return {"where": sum(masses) / len(masses),
            "point": sum(points) / len(points),
            "when": sum(shares) / len(shares), "side": sum(sides) / 3}


@pytest.mark.parametrize("seed", range(3))
def test_attention_scores_equal_a_loop(seed):
    outputs, truth = told(10 * seed)
    found = metrics.attention_scores(outputs, truth, 6)
    for name, value in by_loops(outputs, truth, 6).items():
        assert found[name] == pytest.approx(float(value), rel=1e-6), name
    assert all(type(value) is float for value in found.values())
    assert set(found) == {
        "where", "where chance", "where centre", "where true", "point",
        "point chance", "point centre", "point true", "when", "when chance",
        "when true", "side", "side chance"}
    assert found["side chance"] == pytest.approx(2 / 3)


def test_attention_scores_of_the_truth_and_of_even_attention():
    """On maps and steps as fine as the truth, the truth scores one."""
    mask = planted()
    relevant = torch.tensor([[True, False, True], [False, True, True]])
    spans = torch.tensor([[0, 1], [1, 2], [2, 3]])
    truth = {"mask": mask, "relevant": relevant,
             "main_actor": ["left", "left"]}
    found = metrics.attention_scores(
        {"where": mask.float(), "when": relevant.float(), "spans": spans},
        truth, 3)
    for name in ("where", "where true", "point", "point true", "when",
                 "when true", "side", "side chance"):
        assert found[name] == pytest.approx(1), name
    assert found["where chance"] == pytest.approx(4 / 64)
    even = metrics.attention_scores(
        {"where": torch.ones(2, 3, 8, 8), "when": torch.ones(2, 3),
         "spans": spans}, truth, 3)
    for name in ("where", "point", "when"):
        assert even[name] == pytest.approx(even[f"{name} chance"]), name
        assert even[f"{name} true"] == pytest.approx(1)
    assert even["side"] == 0  # a tie is lost


def test_coarse_steps_bound_what_the_truth_scores():
    """One step of two frames, one of them relevant: half at best."""
    outputs = {"when": torch.ones(1, 2), "spans": torch.tensor(
        [[0, 2], [2, 4]])}
    truth = {"relevant": torch.tensor([[True, False, False, False]])}
    found = metrics.attention_scores(outputs, truth, 4)
    assert found == {"when": 0.25, "when chance": 0.25, "when true": 0.5}


def test_what_is_not_there_is_not_scored_and_what_counts_nowhere_is_nan():
    outputs, truth = told()
    spans = {"spans": outputs["spans"]}
    assert metrics.attention_scores(spans, truth, 6) == {}
    assert metrics.attention_scores(outputs, {"fps": None}, 6) == {}
    without = outputs | {"where": None, "when": None}
    assert metrics.attention_scores(without, truth, 6) == {}
    nothing = {"mask": truth["mask"], "main_actor": [None] * 4,
               "relevant": torch.zeros(4, 6, dtype=torch.bool)}
    found = metrics.attention_scores(outputs, nothing, 6)
    assert len(found) == 13 and all(map(math.isnan, found.values()))


def test_parameters_are_counted_once_and_by_need():
    first, second = nn.Linear(3, 5), nn.Linear(5, 2, bias=False)
    model = nn.Sequential(first, second, first)
    assert metrics.parameters(model) == 3 * 5 + 5 + 5 * 2
    first.weight.requires_grad_(False)
    assert metrics.parameters(model, trainable=True) == 5 + 5 * 2


def test_flops_are_two_per_multiply_add():
    # 8x8 outputs of 4 channels, each from 3 channels of 3x3 pixels
    model = nn.Conv2d(3, 4, 3, padding=1)
    x = random(2, 3, 8, 8)
    assert metrics.flops(model, x) == 2 * 2 * 8 * 8 * 4 * 3 * 9
    assert metrics.flops(nn.Linear(6, 7), random(5, 6)) == 2 * 5 * 6 * 7


def test_flops_leave_the_model_as_it_was():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    model[1].eval()  # a frozen norm inside a model in training
    before = model[0].running_mean.clone()
    metrics.flops(model, random(2, 3, 8, 8))
    assert torch.equal(model[0].running_mean, before)
    assert model.training and model[0].training and not model[1].training


# Late fusion.


def test_fuse_is_the_mean_of_probabilities():
    logits = [4 * random(5, 3, seed=seed) for seed in range(3)]
    slow = torch.zeros(5, 3)
    for n in range(5):
        for one, weight in zip(logits, (1, 2, 5), strict=True):
            shares = [math.exp(x) for x in one[n].tolist()]
            for k in range(3):
                slow[n, k] += weight * shares[k] / sum(shares) / 8
    assert torch.allclose(metrics.fuse(logits, (1, 2, 5)), slow, atol=1e-6)
    assert torch.allclose(metrics.fuse(logits), metrics.fuse(logits, [7] * 3))
    # a probability goes in as its logarithm
    shares = torch.eye(3)[[0, 1, 2, 0, 1]]
    assert torch.allclose(metrics.fuse([logits[0], shares.log()]),
                          (logits[0].softmax(1) + shares) / 2)


@pytest.mark.parametrize("shapes, weights, message", [
    ([(5, 3), (5, 4)], None, "one shape"), ([(5,)], None, "one shape"),
    ([], None, "one shape"), ([(5, 3), (1, 3)], None, "one shape"),
    ([(5, 3)] * 2, [1], "one for each"), ([(5, 3)] * 2, [1, -1], "negative"),
    ([(5, 3)] * 2, [0, 0], "not all zero"),
    ([(5, 3)] * 2, [1, math.nan], "one for each")])
def test_fuse_refuses_what_does_not_match(shapes, weights, message):
    with pytest.raises(ValueError, match=message):
        metrics.fuse([torch.zeros(shape) for shape in shapes], weights)


def test_order_counts_mirror_images_alone():
    logits = torch.tensor([[2.0, 1, 9], [1, 2, 9], [1, 2, 9], [1, 1, 9],
                           [0, 0, 1]])
    label = torch.tensor([0, 1, 0, 1, 2])
    # right, right, wrong, a tie, and a class that has no mirror image
    assert metrics.order(logits, label, [(0, 1)]) == 0.5
    assert math.isnan(metrics.order(logits, label, []))


def test_reach_of_a_cell_that_is_a_place_and_of_one_that_sees_all():
    local = nn.AvgPool2d(4)
    frames = torch.rand(2, 3, 32, 32)
    assert [*metrics.reach(local, frames).values()] == [1.0, 1.0, 1.0]

    def everywhere(x):
        return local(x) * 0 + x.mean((2, 3), keepdim=True)

    found = metrics.reach(everywhere, frames)
    assert [*found] == [f"{n} × {n} of 8 × 8 cells" for n in (1, 3, 5)]
    assert [*found.values()] == pytest.approx([n * n / 64 for n in (1, 3, 5)])
