"""Boxes out of maps and segments out of weights, on cases made by hand."""

import pytest
import torch

from lib.scores import localisation


def test_box_is_tight_and_exclusive():
    where = torch.zeros(1, 1, 6, 8)
    where[0, 0, 2:4, 3:7] = 0.9
    where[0, 0, 5, 1] = 0.2
    boxes = localisation.boxes_from_maps(where, (6, 8))
    assert boxes.tolist() == [[[3, 2, 7, 4]]]


def test_paper_takes_all_regions_and_released_the_largest():
    where = torch.zeros(1, 1, 8, 8)
    where[0, 0, 0, 0] = 1
    where[0, 0, 4:7, 4:7] = 1
    where[0, 0, 7, 7] = 1  # touches by a corner: same region
    paper = localisation.boxes_from_maps(where, (8, 8))
    released = localisation.boxes_from_maps(where, (8, 8), recipe="released")
    assert paper.tolist() == [[[0, 0, 8, 8]]]
    assert released.tolist() == [[[4, 4, 8, 8]]]


def test_released_stretches_each_frame():
    where = torch.full((1, 2, 4, 4), 0.1)
    where[0, 0, 1, 1] = 0.2  # faint, but the frame's maximum
    paper = localisation.boxes_from_maps(where, (4, 4))
    released = localisation.boxes_from_maps(where, (4, 4), recipe="released")
    assert paper.isnan().all()
    assert released[0, 0].tolist() == [1, 1, 2, 2]
    assert released[0, 1].isnan().all()  # a flat frame has no largest part


def test_threshold_is_met_by_equality_after_resizing():
    where = torch.full((1, 1, 3, 3), 0.5)
    boxes = localisation.boxes_from_maps(where, (11, 7))
    assert boxes.tolist() == [[[0, 0, 7, 11]]]


def test_segments_are_runs_in_seconds():
    when = torch.tensor([[0.0, 0.3, 0.2, 0.0, 0.0, 0.25, 0.25]])
    (found,) = localisation.segments_from_weights(when, fps=2.0)
    assert found[:, :2].tolist() == [[0.5, 1.5], [2.5, 3.5]]
    assert found[:, 2].tolist() == pytest.approx([0.25, 0.25])


def test_uniform_weights_give_no_segment():
    when = torch.full((2, 10), 0.1)
    for recipe in localisation.SEGMENTS:
        for found in localisation.segments_from_weights(when, 1, recipe=recipe):
            assert found.shape == (0, 3)


def test_released_segments_use_a_multiple_of_uniform():
    when = torch.full((1, 50), 0.02)
    when[0, 10:20] = 0.0231
    when[0, 30:40] = 0.0229
    (found,) = localisation.segments_from_weights(when, 10, recipe="released")
    assert found[:, :2].tolist() == [[1.0, 2.0]]


def test_unknown_recipe_is_named():
    with pytest.raises(ValueError, match="'mine'.*paper"):
        localisation.segments_from_weights(torch.ones(1, 3), 1, recipe="mine")
