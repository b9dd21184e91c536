"""Temporal localisation against cases worked out by hand."""

import math

import pytest
import torch

from lib.scores import localisation as loc


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_temporal_iou_by_hand():
    segment = torch.tensor([2.0, 6.0])
    others = torch.tensor(
        [[2.0, 6.0], [4.0, 8.0], [3.0, 4.0], [6.0, 7.0], [0, 0]]
    )
    expected = torch.tensor([1, 2 / 6, 1 / 4, 0, 0]).double()
    assert torch.allclose(loc.temporal_iou(segment, others), expected)


def detections(*rows):
    """Rows of (start, end, label, score)."""
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)
    return loc.Detections(table[:, :2], table[:, 2].long(), table[:, 3])


def truth(*segments, label=0):
    return torch.tensor(segments, dtype=torch.float64).reshape(-1, 2), label


def test_temporal_map_by_hand():
    # one video, one class, truths [0, 4) and [10, 14). By falling score:
    # tIoU 1 with the first; a duplicate of it (miss); tIoU 1/2 with the
    # second (hit at alpha 0.5): precision at the hits 1 and 2/3
    found = detections((10, 12, 0, 0.3), (0, 4, 0, 0.9), (0, 3.5, 0, 0.5))
    answers = [truth([0, 4], [10, 14])]
    value, classes = loc.temporal_map([found], answers, 0.5)
    assert value == pytest.approx((1 + 2 / 3) / 2)
    assert classes == {0: pytest.approx(value)}
    # above 1/2 only the first is found
    assert loc.temporal_map([found], answers, 0.6).value == 0.5
    # suppressing the duplicate leaves nothing but hits
    assert loc.temporal_map([found], answers, 0.5, nms=0.4).value == 1


def test_each_truth_is_found_once_and_by_the_best_score():
    # the better fit comes second and is a duplicate; the second truth is
    # not its, so the miss stands: precision 1 at the hit, one of two found
    found = detections((0, 3, 0, 0.9), (0, 4, 0, 0.8))
    answers = [truth([0, 4], [10, 14])]
    assert loc.temporal_map([found], answers, 0.5).value == 0.5


def test_a_taken_truth_leaves_the_next_best_one():
    # both overlap both truths; the second detection takes what is left
    found = detections((0, 4, 0, 0.9), (0, 4, 0, 0.8))
    answers = [truth([0, 4], [1, 5])]
    assert loc.temporal_map([found], answers, 0.5).value == 1


def test_scores_rank_detections_over_all_videos():
    # the miss of video 0 stands before the hit of video 1
    found = [detections((5, 6, 0, 0.9)), detections((0, 4, 0, 0.5))]
    answers = [truth(), truth([0, 4])]
    assert loc.temporal_map(found, answers, 0.5).value == 0.5


def test_temporal_map_does_not_interpolate():
    # by falling score miss, hit, hit: precision at the hits 1/2 and 2/3
    found = detections((20, 24, 0, 0.9), (0, 4, 0, 0.8), (10, 14, 0, 0.7))
    answers = [truth([0, 4], [10, 14])]
    value = loc.temporal_map([found], answers, 0.5).value
    assert value == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_classes_count_alike_and_wrong_classes_miss():
    # class 1 has one truth and no detection: 0; class 0 is perfect; class
    # 2 is predicted but never true, so it is left out of the mean
    found = [detections((0, 4, 0, 0.9), (0, 4, 2, 0.9)), detections()]
    answers = [truth([0, 4]), truth([0, 4], label=1)]
    value, classes = loc.temporal_map(found, answers, 0.5)
    assert classes == {0: 1.0, 1: 0.0} and value == 0.5


def test_labels_may_differ_within_a_video():
    found = detections((0, 4, 0, 0.9), (6, 9, 1, 0.9))
    answers = [truth([0, 4], [6, 9], label=torch.tensor([0, 1]))]
    assert loc.temporal_map([found], answers, 0.9).value == 1


def test_ambiguous_segments_forgive_misses_but_not_hits():
    found = detections((20, 24, 0, 0.9), (0, 4, 0, 0.5))
    answers = [truth([0, 4])]
    assert loc.temporal_map([found], answers, 0.5).value == 0.5
    unsure = [torch.tensor([[23.0, 30.0], [0.0, 1.0]])]
    value = loc.temporal_map([found], answers, 0.5, ambiguous=unsure).value
    assert value == 1


def test_temporal_map_of_nothing():
    answers = [truth([0, 4])]
    assert loc.temporal_map([detections()], answers, 0.5).value == 0
    nothing = loc.temporal_map([detections((0, 4, 0, 1))], [truth()], 0.5)
    assert math.isnan(nothing.value)
    with pytest.raises(ValueError, match="one entry per video"):
        loc.temporal_map([], answers, 0.5)


def test_the_order_of_equal_scores_does_not_matter():
    # the second prefers the first's only truth, and would settle for the
    # other one: two hits or one, if the order decided
    rows = (0, 3, 0, 0.5), (1, 5, 0, 0.5)
    answers = [truth([0, 4], [4, 8])]
    values = [
        loc.temporal_map([detections(*order)], answers, 0.1).value
        for order in (rows, rows[::-1])
    ]
    assert values == [1, 1]


def test_the_order_of_truths_does_not_matter():
    # the first fits both truths equally, the second only one of them
    found = [detections((2, 6, 0, 0.9), (0, 2, 0, 0.5))]
    values = [
        loc.temporal_map(found, [truth(*order)], 0.3).value
        for order in ([[0, 4], [4, 8]], [[4, 8], [0, 4]])
    ]
    assert values[0] == values[1]


@pytest.mark.parametrize("nms", [None, 0.3])
def test_temporal_map_is_bounded_perfect_and_free_of_order(nms):
    random = generator()
    found, answers = [], []
    for _ in range(6):
        segments = loc.random_segments(12, 20.0, generator=random)
        labels = torch.randint(3, (12,), generator=random)
        # few distinct scores, so that ties are frequent
        scores = torch.randint(4, (12,), generator=random) / 4
        found.append(loc.Detections(segments, labels, scores))
        answers.append(
            (loc.random_segments(4, 20.0, generator=random), labels[:4])
        )
    result = loc.temporal_map(found, answers, 0.3, nms=nms)
    assert 0 < result.value < 1
    order = torch.randperm(12, generator=random)
    mixed = [loc.Detections(*(x[order] for x in d)) for d in found]
    flipped = [(s.flip(0), k.flip(0)) for s, k in answers]
    videos = [3, 1, 5, 0, 2, 4]
    again = loc.temporal_map(
        [mixed[i] for i in videos], [flipped[i] for i in videos], 0.3, nms=nms
    )
    assert again.value == pytest.approx(result.value)
    perfect = [loc.Detections(s, k, torch.ones(len(s))) for s, k in answers]
    assert loc.temporal_map(perfect, answers, 1.0).value == 1


def test_nms_keeps_the_best_of_a_heap():
    # tIoU of the first two 3/4, of the second and third 1/6
    segments = torch.tensor([[0.0, 4.0], [0.0, 3.0], [2.0, 6.0]])
    scores = torch.tensor([0.5, 0.9, 0.1])
    assert loc.temporal_nms(segments, scores, 0.5).tolist() == [1, 2]
    assert loc.temporal_nms(segments, scores, 0.75).tolist() == [1, 0, 2]
    assert loc.temporal_nms(segments, scores, 0.0).tolist() == [1]
    assert loc.temporal_nms(segments[:0], scores[:0], 0.5).tolist() == []


def test_the_released_measure_rewards_predicting_everything():
    true = torch.tensor([[2.0, 4.0], [7.0, 8.0]])
    everything = loc.predict_all(10.0)
    assert loc.released_recall(everything, true).tolist() == [1, 1]
    # 2 of 10 and 1 of 10 seconds
    iou = loc.temporal_iou(everything, true)
    assert torch.allclose(iou, torch.tensor([0.2, 0.1]).double())


def test_released_recall_counts_overlapping_predictions_once():
    true = torch.tensor([[0.0, 10.0]])
    found = torch.tensor([[8.0, 12.0], [1.0, 5.0], [2.0, 3.0], [4.0, 6.0]])
    # covered: 1-6 and 8-10
    assert loc.released_recall(found, true).item() == pytest.approx(0.7)
    assert loc.released_recall(found[:0], true).item() == 0


def test_random_answers_repeat_with_their_seed():
    draw = [
        loc.random_segments(9, 5.0, generator=generator(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])
    assert (draw[0][:, 0] <= draw[0][:, 1]).all()
    assert draw[0].min() >= 0 and draw[0].max() <= 5
