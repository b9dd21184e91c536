"""Boxes, segments and average precision against cases worked out by hand."""

import math
from functools import partial

import pytest
import torch

from lib.scores import localisation as loc

NAN = float("nan")
NO_BOX = [NAN] * 4


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# Overlap


def test_box_iou_by_hand():
    box = torch.tensor([0.0, 0.0, 4.0, 4.0])
    others = torch.tensor([
        [0.0, 0.0, 4.0, 4.0],  # itself
        [2.0, 0.0, 6.0, 4.0],  # 8 of 16 + 16 - 8 = 24
        [1.0, 1.0, 2.0, 2.0],  # inside: 1 of 16
        [4.0, 0.0, 8.0, 4.0],  # shares the exclusive edge
        [6.0, 6.0, 9.0, 9.0],  # diagonal: both sides are negative
        [4.0, 4.0, 0.0, 0.0],  # inside out
        NO_BOX])
    expected = torch.tensor([1, 1 / 3, 1 / 16, 0, 0, 0, 0]).double()
    assert torch.allclose(loc.box_iou(box, others), expected)
    assert torch.allclose(loc.box_iou(others, box), expected)
    point = torch.tensor([1.0, 1.0, 1.0, 1.0])
    assert loc.box_iou(point, point) == 0
    with pytest.raises(ValueError, match="others must be"):
        loc.box_iou(torch.zeros(4), torch.zeros(2))


def test_box_iou_agrees_with_torchvision():
    from torchvision.ops import box_iou

    a = loc.random_boxes(30, 48, 64, generator=generator())
    b = loc.random_boxes(20, 48, 64, generator=generator(1))
    ours = loc.box_iou(a[:, None], b[None])
    assert torch.allclose(ours, box_iou(a.double(), b.double()), atol=1e-9)


def test_temporal_iou_by_hand():
    segment = torch.tensor([2.0, 6.0])
    others = torch.tensor(
        [[2.0, 6.0], [4.0, 8.0], [3.0, 4.0], [6.0, 7.0], [0, 0]])
    expected = torch.tensor([1, 2 / 6, 1 / 4, 0, 0]).double()
    assert torch.allclose(loc.temporal_iou(segment, others), expected)


# Boxes in frames

TRUE = torch.tensor([[0.0, 0.0, 4.0, 4.0]] * 4 + [NO_BOX])
FOUND = torch.tensor([
    [0.0, 0.0, 4.0, 4.0],  # IoU 1
    [0.0, 0.0, 4.0, 2.0],  # IoU 1/2
    [0.0, 0.0, 1.0, 1.0],  # IoU 1/16
    NO_BOX,  # a miss
    [0.0, 0.0, 4.0, 4.0]])  # not annotated: not counted


def test_frame_accuracy_counts_annotated_frames():
    for alpha, share in ((0.05, 3 / 4), (0.5, 2 / 4), (0.51, 1 / 4)):
        assert loc.frame_localisation_accuracy(FOUND, TRUE, alpha) == share
    assert math.isnan(loc.frame_localisation_accuracy(FOUND, TRUE * NAN, 0.5))
    with pytest.raises(ValueError, match="alpha"):
        loc.frame_localisation_accuracy(FOUND, TRUE, 0)


@pytest.mark.parametrize(("scores", "hits", "positives", "plain", "best"), [
    # by falling score: hit, miss, hit, miss; precision at the hits 1 and
    # 2/3; three truths, one never found
    ([0.2, 0.9, 0.8, 0.5], [0, 1, 0, 1], 3, (1 + 2 / 3) / 3, (1 + 2 / 3) / 3),
    # a precision below a later one: miss, hit, hit -> 1/2, 2/3; the
    # interpolated one is 2/3 at both
    ([3, 2, 1], [0, 1, 1], 2, (1 / 2 + 2 / 3) / 2, 2 / 3),
    # all tied: two hits among four enter at once, at precision 1/2
    ([1] * 4, [1, 1, 0, 0], 2, 0.5, 0.5),
    ([1] * 4, [0, 0, 1, 1], 2, 0.5, 0.5),
    ([0, 1, 2, 3, 4], [1] * 5, 5, 1, 1),
    ([], [], 3, 0, 0), ([1, 1], [0, 0], 3, 0, 0),
    ([1, 1], [0, 0], 0, NAN, NAN)])
def test_average_precision_by_hand(scores, hits, positives, plain, best):
    ap = partial(loc.average_precision, torch.tensor(scores).float(),
                 torch.tensor(hits).bool(), positives)
    assert ap(interpolate=False) == pytest.approx(plain, nan_ok=True)
    assert ap(interpolate=True) == pytest.approx(best, nan_ok=True)


def test_average_precision_equals_a_plain_loop():
    scores = torch.rand(60, generator=generator())
    hits = torch.rand(60, generator=generator(1)) > 0.4
    found, total = 0, 0.0
    for rank, i in enumerate(scores.argsort(descending=True).tolist(), 1):
        if hits[i]:
            found += 1
            total += found / rank
    ap = loc.average_precision(scores, hits, 50, interpolate=False)
    assert ap == pytest.approx(total / 50)
    assert loc.average_precision(scores, hits, 50, interpolate=True) >= ap
    with pytest.raises(ValueError, match="scores"):
        loc.average_precision(scores * NAN, hits, 1, interpolate=False)


def test_frame_map_by_hand():
    # video 0 of class 0 has boxes with IoU 1 and 1/2, video 1 of class 1 a
    # box with IoU 1 and one frame that is not annotated; alpha = 0.6.
    boxes = torch.stack([FOUND[:2], FOUND[[0, 4]]])
    true = torch.stack([TRUE[:2], TRUE[[0, 4]]])
    label = torch.tensor([0, 1])
    probabilities = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    value, classes = loc.frame_map(boxes, probabilities, true, label, 0.6)
    # class 0: video 0 first: 1 hit of 2 boxes, precision 1/2, recall 1/2;
    # class 1: video 1 first: 1 hit of 2 boxes, recall 1; class 2: no truth
    assert classes == {0: pytest.approx(1 / 4), 1: pytest.approx(1 / 2)}
    assert value == pytest.approx(3 / 8)
    # with the classes confused the other video's two misses come first
    value, classes = loc.frame_map(
        boxes, probabilities[:, [1, 0, 2]], true, label, 0.6)
    assert classes == {0: pytest.approx(1 / 8), 1: pytest.approx(1 / 4)}


def test_frame_map_interpolates():
    # three videos of one frame, by falling score miss, hit, hit: the best
    # precision at either hit is 2/3, and one of the three truths is missed
    boxes, true = FOUND[[2, 0, 0], None], TRUE[:3, None]
    probabilities = torch.tensor([[0.9], [0.8], [0.7]])
    labels = torch.zeros(3, dtype=torch.long)
    result = loc.frame_map(boxes, probabilities, true, labels, 0.5)
    assert result.value == pytest.approx((2 / 3 + 2 / 3) / 3)


def test_frame_map_of_perfect_and_of_no_boxes():
    true = loc.random_boxes(12, 32, 32, generator=generator()).view(4, 3, 4)
    label = torch.tensor([0, 1, 2, 1])
    sure = torch.eye(3)[label]
    assert loc.frame_map(true, sure, true, label, 0.99).value == 1
    assert loc.frame_map(true * NAN, sure, true, label, 0.1).value == 0
    nothing = loc.frame_map(true, sure, true * NAN, label, 0.1)
    assert math.isnan(nothing.value) and nothing.classes == {}


# Segments in time


def detections(*rows):
    """Rows of (start, end, label, score)."""
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)
    return loc.Detections(table[:, :2], table[:, 2].long(), table[:, 3])


def truth(*rows):
    """Rows of (start, end, label)."""
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)
    return table[:, :2], table[:, 2].long()


TWO = [(0, 4, 0), (10, 14, 0)]
# name -> each video's detections, its truths, alpha and temporal mAP
BY_HAND = {
    # by falling score: tIoU 1 with the first; a duplicate of it, a miss; tIoU
    # 1/2 with the second: precision at the hits 1 and 2/3
    "a duplicate misses": (
        [[(10, 12, 0, 0.3), (0, 4, 0, 0.9), (0, 3.5, 0, 0.5)]], [TWO],
        0.5, (1 + 2 / 3) / 2),
    "above 1/2 only the first is found": (
        [[(10, 12, 0, 0.3), (0, 4, 0, 0.9), (0, 3.5, 0, 0.5)]], [TWO],
        0.6, 0.5),
    # precision 1 at the hit, one of two found
    "the better fit comes second": (
        [[(0, 3, 0, 0.9), (0, 4, 0, 0.8)]], [TWO], 0.5, 0.5),
    "a taken truth leaves the next best": (
        [[(0, 4, 0, 0.9), (0, 4, 0, 0.8)]], [[(0, 4, 0), (1, 5, 0)]], 0.5, 1),
    # the miss of video 0 stands before the hit of video 1
    "scores rank over all videos": (
        [[(5, 6, 0, 0.9)], [(0, 4, 0, 0.5)]], [[], [(0, 4, 0)]], 0.5, 0.5),
    # by falling score miss, hit, hit: precision at the hits 1/2 and 2/3
    "nothing is interpolated": (
        [[(20, 24, 0, 0.9), (0, 4, 0, 0.8), (10, 14, 0, 0.7)]], [TWO],
        0.5, (1 / 2 + 2 / 3) / 2),
    "labels differ within a video": (
        [[(0, 4, 0, 0.9), (6, 9, 1, 0.9)]], [[(0, 4, 0), (6, 9, 1)]], 0.9, 1),
    "no detection": ([[]], [[(0, 4, 0)]], 0.5, 0),
    "no truth": ([[(0, 4, 0, 1)]], [[]], 0.5, NAN),
    # the second prefers the first's only truth, and would settle for the
    # other one: two hits or one, if the order decided
    "equal scores": ([[(0, 3, 0, 0.5), (1, 5, 0, 0.5)]],
                     [[(0, 4, 0), (4, 8, 0)]], 0.1, 1),
    # the first fits both truths equally, the second only one of them
    "equal fits": ([[(2, 6, 0, 0.9), (0, 2, 0, 0.5)]],
                   [[(0, 4, 0), (4, 8, 0)]], 0.3, 0.5),
}


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize(("found", "true", "alpha", "value"),
                         BY_HAND.values(), ids=BY_HAND)
def test_temporal_map_by_hand(found, true, alpha, value, turn):
    """In whatever order detections and truths are told."""
    result = loc.temporal_map(
        [detections(*rows[::turn]) for rows in found],
        [truth(*rows[::turn]) for rows in true], alpha)
    assert result.value == pytest.approx(value, nan_ok=True)


def test_classes_count_alike_and_wrong_classes_miss():
    # class 1 has one truth and no detection: 0; class 0 is perfect; class
    # 2 is predicted but never true, so it is left out of the mean
    found = [detections((0, 4, 0, 0.9), (0, 4, 2, 0.9)), detections()]
    answers = [truth((0, 4, 0)), (torch.tensor([[0.0, 4.0]]), 1)]
    value, classes = loc.temporal_map(found, answers, 0.5)
    assert classes == {0: 1.0, 1: 0.0} and value == 0.5
    with pytest.raises(ValueError, match="one entry per video"):
        loc.temporal_map([], answers, 0.5)


def test_ambiguous_segments_forgive_misses_but_not_hits():
    found = detections((20, 24, 0, 0.9), (0, 4, 0, 0.5))
    answers = [truth((0, 4, 0))]
    assert loc.temporal_map([found], answers, 0.5).value == 0.5
    unsure = [torch.tensor([[23.0, 30.0], [0.0, 1.0]])]
    value = loc.temporal_map([found], answers, 0.5, ambiguous=unsure).value
    assert value == 1


def test_temporal_map_is_bounded_perfect_and_free_of_order():
    random = generator()
    found, answers = [], []
    for _ in range(6):
        segments = loc.random_segments(12, 20.0, generator=random)
        labels = torch.randint(3, (12,), generator=random)
        # few distinct scores, so that ties are frequent
        scores = torch.randint(4, (12,), generator=random) / 4
        found.append(loc.Detections(segments, labels, scores))
        answers.append(
            (loc.random_segments(4, 20.0, generator=random), labels[:4]))
    result = loc.temporal_map(found, answers, 0.3)
    assert 0 < result.value < 1
    order = torch.randperm(12, generator=random)
    mixed = [loc.Detections(*(x[order] for x in d)) for d in found]
    flipped = [(s.flip(0), k.flip(0)) for s, k in answers]
    videos = [3, 1, 5, 0, 2, 4]
    again = loc.temporal_map(
        [mixed[i] for i in videos], [flipped[i] for i in videos], 0.3)
    assert again.value == pytest.approx(result.value)
    perfect = [loc.Detections(s, k, torch.ones(len(s))) for s, k in answers]
    assert loc.temporal_map(perfect, answers, 1.0).value == 1


def test_the_released_measure_rewards_predicting_everything():
    true = torch.tensor([[2.0, 4.0], [7.0, 8.0]])
    everything = loc.predict_all(10.0)
    assert loc.released_recall(everything, true).tolist() == [1, 1]
    # 2 of 10 and 1 of 10 seconds
    iou = loc.temporal_iou(everything, true)
    assert torch.allclose(iou, torch.tensor([0.2, 0.1]).double())
    # overlapping predictions count once: covered are 1-6 and 8-10
    true = torch.tensor([[0.0, 10.0]])
    found = torch.tensor([[8.0, 12.0], [1.0, 5.0], [2.0, 3.0], [4.0, 6.0]])
    assert loc.released_recall(found, true).item() == pytest.approx(0.7)
    assert loc.released_recall(found[:0], true).item() == 0


# What is free


def test_full_frame_overlaps_by_the_area_of_the_box():
    frame = loc.full_frame(40, 60)
    boxes = loc.random_boxes(50, 40, 60, generator=generator())
    area = (boxes[:, 2:] - boxes[:, :2]).double().prod(1) / (40 * 60)
    assert torch.allclose(loc.box_iou(frame, boxes), area)
    assert loc.mean_share(boxes, 40, 60) == pytest.approx(area.mean().item())
    assert ((boxes >= 0) & (boxes <= torch.tensor([60, 40, 60, 40]))).all()
    assert loc.mean_share(TRUE, 8, 8) == 16 / 64  # a frame has no box


@pytest.mark.parametrize("area", [0.1, 0.5, 1.0])
def test_centre_box_has_its_area_and_place(area):
    box = loc.centre_box(40, 60, area=area)
    found = loc.box_iou(box, loc.full_frame(40, 60)).item()
    assert found == pytest.approx(area)
    assert (box[:2] + box[2:]).tolist() == pytest.approx([60, 40])


def test_trivial_boxes_score_for_all_frames_at_once():
    frame, true = loc.full_frame(8, 8), TRUE.expand(3, 5, 4)  # 16 of 64 pixels
    assert loc.frame_localisation_accuracy(frame, true, 0.25) == 1
    assert loc.frame_localisation_accuracy(frame, true, 0.26) == 0


def test_random_answers_repeat_with_their_seed():
    draw = [loc.random_segments(9, 5.0, generator=generator(seed))
            for seed in (0, 0, 1)]
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])
    assert (draw[0][:, 0] <= draw[0][:, 1]).all()
    assert draw[0].min() >= 0 and draw[0].max() <= 5


# Boxes out of maps and segments out of weights


def test_box_is_tight_and_exclusive():
    where = torch.zeros(1, 1, 6, 8)
    where[0, 0, 2:4, 3:7] = 0.9
    where[0, 0, 5, 1] = 0.2
    boxes = loc.boxes_from_maps(where, (6, 8))
    assert boxes.tolist() == [[[3, 2, 7, 4]]]


def test_paper_takes_all_regions_and_released_the_largest():
    where = torch.zeros(1, 1, 8, 8)
    where[0, 0, 0, 0] = 1
    where[0, 0, 4:7, 4:7] = 1
    where[0, 0, 7, 7] = 1  # touches by a corner: same region
    paper = loc.boxes_from_maps(where, (8, 8))
    released = loc.boxes_from_maps(where, (8, 8), recipe="released")
    assert paper.tolist() == [[[0, 0, 8, 8]]]
    assert released.tolist() == [[[4, 4, 8, 8]]]


def test_released_stretches_each_frame():
    where = torch.full((1, 2, 4, 4), 0.1)
    where[0, 0, 1, 1] = 0.2  # faint, but the frame's maximum
    paper = loc.boxes_from_maps(where, (4, 4))
    released = loc.boxes_from_maps(where, (4, 4), recipe="released")
    assert paper.isnan().all()
    assert released[0, 0].tolist() == [1, 1, 2, 2]
    assert released[0, 1].isnan().all()  # a flat frame has no largest part


def test_threshold_is_met_by_equality_after_resizing():
    where = torch.full((1, 1, 3, 3), 0.5)
    boxes = loc.boxes_from_maps(where, (11, 7))
    assert boxes.tolist() == [[[0, 0, 7, 11]]]


def test_segments_are_runs_in_seconds():
    when = torch.tensor([[0.0, 0.3, 0.2, 0.0, 0.0, 0.25, 0.25]])
    (found,) = loc.segments_from_weights(when, fps=2.0)
    assert found[:, :2].tolist() == [[0.5, 1.5], [2.5, 3.5]]
    assert found[:, 2].tolist() == pytest.approx([0.25, 0.25])


def test_uniform_weights_give_no_segment():
    when = torch.full((2, 10), 0.1)
    for recipe in loc.SEGMENTS:
        for found in loc.segments_from_weights(when, 1, recipe=recipe):
            assert found.shape == (0, 3)


def test_released_segments_use_a_multiple_of_uniform():
    when = torch.full((1, 50), 0.02)
    when[0, 10:20] = 0.0231
    when[0, 30:40] = 0.0229
    (found,) = loc.segments_from_weights(when, 10, recipe="released")
    assert found[:, :2].tolist() == [[1.0, 2.0]]


def test_unknown_recipe_is_named():
    with pytest.raises(ValueError, match="'mine'.*paper"):
        loc.segments_from_weights(torch.ones(1, 3), 1, recipe="mine")


def test_box_scores_count_frames_of_the_action_alone():
    where = torch.zeros(2, 2, 8, 8)
    where[:, 0, 2:4, 2:4] = 1  # right in the first frame, nothing after it
    true = torch.tensor([16.0, 16, 32, 32]).expand(2, 2, 4)
    outputs = {"where": where, "logits": torch.eye(2) * 5,
               "label": torch.arange(2)}
    relevant = torch.tensor([[True, False]] * 2)
    some = loc.box_scores(outputs, {"boxes": true, "relevant": relevant},
                          (64, 64), true)
    every = loc.box_scores(outputs, {"boxes": true}, (64, 64), true)
    assert (some["box@0.2"], every["box@0.2"]) == (1.0, 0.5)
    assert some["frame mAP@0.3"] == 1.0
    # the frame is 16 times as large as the box
    assert (some["full frame@0.05"], some["full frame@0.1"]) == (1.0, 0.0)


def test_segment_scores_of_the_truth_and_of_the_lazy():
    when = torch.zeros(2, 8)
    when[0, 2:4] = when[1, 4:8] = 1
    outputs = {"when": when, "logits": torch.eye(2) * 5,
               "label": torch.arange(2)}
    truth = {"segments": [torch.tensor([[1.0, 2]]), torch.tensor([[2.0, 4]])],
             "fps": torch.tensor([2.0, 2])}
    found = loc.segment_scores(outputs, truth)
    assert found["segment@0.5"] == found["released segment@0.5"] == 1.0
    # a quarter and a half of the videos
    assert found["predict all@0.2"] == 1.0
    assert found["predict all@0.4"] == 0.5
