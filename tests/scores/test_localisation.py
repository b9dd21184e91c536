"""Boxes and average precision against cases worked out by hand."""

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
    others = torch.tensor(
        [
            [0.0, 0.0, 4.0, 4.0],  # itself
            [2.0, 0.0, 6.0, 4.0],  # 8 of 16 + 16 - 8 = 24
            [1.0, 1.0, 2.0, 2.0],  # inside: 1 of 16
            [4.0, 0.0, 8.0, 4.0],  # shares the exclusive edge
            [6.0, 6.0, 9.0, 9.0],  # diagonal: both sides are negative
            [4.0, 4.0, 0.0, 0.0],  # inside out
            NO_BOX,
        ]
    )
    expected = torch.tensor([1, 1 / 3, 1 / 16, 0, 0, 0, 0]).double()
    assert torch.allclose(loc.box_iou(box, others), expected)
    assert torch.allclose(loc.box_iou(others, box), expected)


def test_box_iou_of_two_empty_boxes_is_zero():
    point = torch.tensor([1.0, 1.0, 1.0, 1.0])
    assert loc.box_iou(point, point) == 0


def test_box_iou_agrees_with_torchvision():
    from torchvision.ops import box_iou

    a = loc.random_boxes(30, 48, 64, generator=generator())
    b = loc.random_boxes(20, 48, 64, generator=generator(1))
    ours = loc.box_iou(a[:, None], b[None])
    assert torch.allclose(ours, box_iou(a.double(), b.double()), atol=1e-9)
    assert ((ours >= 0) & (ours <= 1)).all()


def test_overlap_names_the_wrong_shape():
    with pytest.raises(ValueError, match="others must be"):
        loc.box_iou(torch.zeros(4), torch.zeros(2))


# Boxes in frames

TRUE = torch.tensor([[0.0, 0.0, 4.0, 4.0]] * 4 + [NO_BOX])
FOUND = torch.tensor(
    [
        [0.0, 0.0, 4.0, 4.0],  # IoU 1
        [0.0, 0.0, 4.0, 2.0],  # IoU 1/2
        [0.0, 0.0, 1.0, 1.0],  # IoU 1/16
        NO_BOX,  # a miss
        [0.0, 0.0, 4.0, 4.0],  # not annotated: not counted
    ]
)


@pytest.mark.parametrize(
    ("alpha", "share"), [(0.05, 3 / 4), (0.5, 2 / 4), (0.51, 1 / 4)]
)
def test_frame_accuracy_counts_annotated_frames(alpha, share):
    assert loc.frame_localisation_accuracy(FOUND, TRUE, alpha) == share


def test_frame_accuracy_without_annotation_is_nan():
    assert math.isnan(loc.frame_localisation_accuracy(FOUND, TRUE * NAN, 0.5))


def test_threshold_zero_is_refused():
    with pytest.raises(ValueError, match="alpha"):
        loc.frame_localisation_accuracy(FOUND, TRUE, 0)


def test_average_precision_by_hand():
    # by falling score: hit, miss, hit, miss; precision at the hits 1 and
    # 2/3; three truths, one never found
    scores = torch.tensor([0.2, 0.9, 0.8, 0.5])
    hits = torch.tensor([False, True, False, True])
    plain = loc.average_precision(scores, hits, 3, interpolate=False)
    assert plain == pytest.approx((1 + 2 / 3) / 3)
    # a precision below a later one: miss, hit, hit -> 1/2, 2/3; the
    # interpolated one is 2/3 at both
    scores, hits = torch.tensor([3.0, 2, 1]), torch.tensor([0, 1, 1]).bool()
    plain = loc.average_precision(scores, hits, 2, interpolate=False)
    assert plain == pytest.approx((1 / 2 + 2 / 3) / 2)
    best = loc.average_precision(scores, hits, 2, interpolate=True)
    assert best == pytest.approx(2 / 3)


@pytest.mark.parametrize("interpolate", [False, True])
def test_average_precision_at_its_ends(interpolate):
    ap = partial(loc.average_precision, interpolate=interpolate)
    none = torch.empty(0)
    assert ap(torch.arange(5.0), torch.ones(5).bool(), 5) == 1
    assert ap(none, none.bool(), 3) == 0
    assert ap(torch.ones(2), torch.zeros(2).bool(), 3) == 0
    assert math.isnan(ap(torch.ones(2), torch.zeros(2).bool(), 0))
    with pytest.raises(ValueError, match="scores"):
        ap(torch.tensor([NAN]), torch.ones(1).bool(), 1)


@pytest.mark.parametrize("interpolate", [False, True])
def test_average_precision_ignores_the_order_of_ties(interpolate):
    # all tied: two hits among four enter at once, at precision 1/2
    for hits in ([1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0]):
        ap = loc.average_precision(
            torch.ones(4),
            torch.tensor(hits).bool(),
            2,
            interpolate=interpolate,
        )
        assert ap == 0.5


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
        boxes, probabilities[:, [1, 0, 2]], true, label, 0.6
    )
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


# What is free


def test_full_frame_overlaps_by_the_area_of_the_box():
    frame = loc.full_frame(40, 60)
    boxes = loc.random_boxes(50, 40, 60, generator=generator())
    area = (boxes[:, 2:] - boxes[:, :2]).double().prod(1) / (40 * 60)
    assert torch.allclose(loc.box_iou(frame, boxes), area)
    assert loc.mean_share(boxes, 40, 60) == pytest.approx(area.mean().item())
    assert ((boxes >= 0) & (boxes <= torch.tensor([60, 40, 60, 40]))).all()


@pytest.mark.parametrize("area", [0.1, 0.5, 1.0])
def test_centre_box_has_its_area_and_place(area):
    box = loc.centre_box(40, 60, area=area)
    assert loc.box_iou(box, loc.full_frame(40, 60)).item() == pytest.approx(
        area
    )
    assert (box[:2] + box[2:]).tolist() == pytest.approx([60, 40])


def test_mean_share_ignores_frames_without_a_box():
    assert loc.mean_share(TRUE, 8, 8) == 16 / 64


def test_trivial_boxes_score_for_all_frames_at_once():
    true = TRUE.expand(3, 5, 4)
    # 16 of 64 pixels
    frame = loc.full_frame(8, 8)
    assert loc.frame_localisation_accuracy(frame, true, 0.25) == 1
    assert loc.frame_localisation_accuracy(frame, true, 0.26) == 0
