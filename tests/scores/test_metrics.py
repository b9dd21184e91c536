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


LOGITS = torch.tensor(
    [[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]
)
LABEL = torch.tensor([0, 1, 2, 2])


def test_topk_counts_the_rank_of_the_true_class():
    # ranks of the true class: 1, 2, 3, 1
    assert metrics.topk_accuracy(LOGITS, LABEL) == 0.5
    assert metrics.topk_accuracy(LOGITS, LABEL, 2) == 0.75
    assert metrics.topk_accuracy(LOGITS, LABEL, 3) == 1
    assert metrics.topk_accuracy(LOGITS, LABEL, 5) == 1


def test_top1_equals_argmax_without_ties():
    logits = random(200, 7)
    label = random(200, 7, seed=1).argmax(1)
    expected = (logits.argmax(1) == label).double().mean().item()
    assert metrics.topk_accuracy(logits, label) == expected


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_constant_or_broken_logits_score_nothing(value):
    logits = torch.full((4, 3), value)
    assert metrics.topk_accuracy(logits, LABEL) == 0
    assert metrics.topk_accuracy(logits, LABEL, 2) == 0


def test_mean_class_accuracy_weighs_classes_alike():
    # class 0: 3 of 3, class 1: 0 of 1, class 2: 1 of 2
    logits = torch.cat([LOGITS, LOGITS[:1], LOGITS[:1]])
    label = torch.tensor([0, 1, 2, 2, 0, 0])
    assert metrics.topk_accuracy(logits, label) == pytest.approx(4 / 6)
    assert metrics.mean_class_accuracy(logits, label) == 0.5


def test_mean_class_accuracy_leaves_out_classes_without_videos():
    label = torch.tensor([0, 0, 0, 0])
    assert metrics.mean_class_accuracy(LOGITS, label) == 0.75


@pytest.mark.parametrize(
    ("logits", "label", "k", "words"),
    [
        (LOGITS, LABEL[:2], 1, "label"),
        (LOGITS[0], LABEL, 1, "logits"),
        (LOGITS[:0], LABEL[:0], 1, "empty"),
        (LOGITS, LABEL, 0, "k must"),
    ],
)
def test_accuracy_names_the_bad_argument(logits, label, k, words):
    with pytest.raises(ValueError, match=words):
        metrics.topk_accuracy(logits, label, k)


def test_expand_single_frames_changes_nothing():
    spans = torch.stack([torch.arange(5), torch.arange(5) + 1], 1)
    when = random(3, 5)
    assert torch.equal(metrics.expand(when, spans, 5), when)


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
def test_attention_planted_on_the_actor_scores_one(score):
    mask = planted()
    value, chance, n = score(mask.float(), mask)
    assert value == 1
    assert chance == pytest.approx(4 / 64)
    assert n == 5  # the sixth frame shows no actor


@pytest.mark.parametrize("score", SCORES)
def test_attention_planted_beside_the_actor_scores_zero(score):
    assert score((~planted()).float(), planted()).value == 0


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


def test_cell_shares_are_block_means_when_sizes_divide():
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


@pytest.mark.parametrize("score", SCORES)
def test_only_relevant_frames_when_asked(score):
    mask = planted()
    where = mask.float()
    where[:, 1] = (~mask[:, 1]).float()  # looks away in the second frame
    relevant = torch.tensor([[True, False, True], [True, False, True]])
    assert score(where, mask).value == pytest.approx(3 / 5)
    value, _, n = score(where, mask, relevant=relevant)
    assert (value, n) == (1, 3)


def test_no_actor_at_all_gives_nan_and_zero_frames():
    mask = torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    value, chance, n = metrics.mass_on_actor(torch.ones(1, 2, 2, 2), mask)
    assert math.isnan(value) and math.isnan(chance) and n == 0


def test_centre_prior_beats_chance_in_the_middle_and_loses_at_the_edge():
    middle, edge = torch.zeros(2, 1, 1, 12, 12, dtype=torch.bool)
    middle[..., 4:8, 4:8] = edge[..., :2, :2] = True
    prior = metrics.centre_prior(torch.empty(1, 1, 6, 6))
    assert torch.allclose(prior, prior.flip(-1, -2))
    value, chance, _ = metrics.mass_on_actor(prior, middle)
    assert value > 2 * chance
    value, chance, _ = metrics.mass_on_actor(prior, edge)
    assert value < chance / 2


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_broken_maps_are_refused(score, bad):
    where = planted().float()
    where[0, 0, 0, 0] = bad
    with pytest.raises(ValueError, match="where must be finite"):
        score(where, planted())


def test_maps_must_be_expanded_first():
    with pytest.raises(ValueError, match="expand"):
        metrics.mass_on_actor(random(2, 2, 4, 4), planted())
    with pytest.raises(ValueError, match="relevant"):
        metrics.mass_on_actor(
            random(2, 3, 4, 4), planted(), relevant=torch.ones(2, 2).bool()
        )


def test_mass_on_relevant_by_hand():
    # first video: 3/4 of the weight on half of the frames; second: none of
    # it on a quarter; the third has no relevant frame and is left out
    when = torch.tensor([[1.0, 2.0, 1.0, 0.0], [0, 0, 1, 1], [1, 1, 1, 1]])
    relevant = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    value, chance, n = metrics.mass_on_relevant(when, relevant)
    assert (value, chance, n) == (0.375, 0.375, 2)


def test_mass_on_relevant_of_planted_uniform_and_dead_weights():
    relevant = random(20, 16) > 0.7
    planted = relevant.float()
    assert metrics.mass_on_relevant(planted, relevant).value == 1
    spans = torch.tensor([[0, 8], [4, 12], [12, 16]])
    uniform = metrics.expand(torch.full((20, 3), 1 / 3), spans, 16)
    value, chance, _ = metrics.mass_on_relevant(uniform, relevant)
    assert value == pytest.approx(chance)
    dead = torch.zeros(20, 16)
    assert metrics.mass_on_relevant(dead, relevant).value == 0


def test_weights_must_be_per_frame_and_finite():
    with pytest.raises(ValueError, match="expand"):
        metrics.mass_on_relevant(random(2, 3), torch.ones(2, 6).bool())
    with pytest.raises(ValueError, match="when must be finite"):
        metrics.mass_on_relevant(-random(2, 3), torch.ones(2, 3).bool())


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
