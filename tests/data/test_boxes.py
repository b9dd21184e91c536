"""Boxes hold all of a mask and no more."""

import torch

from lib.data.boxes import tight_boxes


def test_boxes_are_the_tightest_of_every_mask():
    masks = torch.rand(3, 5, 9, 14, generator=torch.manual_seed(0)) > 0.97
    masks[0, 0], masks[1, 2] = False, True
    boxes = tight_boxes(masks)
    assert boxes.shape == (3, 5, 4) and boxes.dtype == torch.float32
    for mask, box in zip(masks.flatten(0, 1), boxes.flatten(0, 1),
                         strict=True):
        y, x = mask.nonzero().unbind(1)
        if len(y):
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        else:
            assert box.isnan().all()
    assert boxes[0, 0].isnan().all()
    assert boxes[1, 2].tolist() == [0, 0, 14, 9]
    assert torch.equal(tight_boxes(masks[1, 2]), boxes[1, 2])
