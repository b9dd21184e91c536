"""TSN's crops: where they lie, and what goes with them."""

from collections import Counter

import pytest
import torch
from torchvision.transforms import v2

from lib.data import datasets
from lib.data.transforms import (
    SCALES,
    Crop,
    Crops,
    cut,
    random_crop,
    ten_crops,
)


def sample(size=(64, 85), fields=2):
    """A square of 20 pixels that moves right and down."""
    height, width = size
    video = torch.zeros(3, 3, height, width, dtype=torch.uint8)
    mask = torch.zeros(3, height, width, dtype=torch.bool)
    motion = torch.zeros(3, 2 * fields, height, width, dtype=torch.float16)
    for t in range(3):
        mask[t, 22 + t:42 + t, 30 + 2 * t:50 + 2 * t] = True
    video.movedim(1, -1)[mask] = 200
    motion[:, 0::2] = 2 * mask[:, None]
    motion[:, 1::2] = mask[:, None]
    boxes = torch.tensor(
        [[30.0 + 2 * t, 22 + t, 50 + 2 * t, 42 + t] for t in range(3)])
    return {"video": video, "mask": mask, "boxes": boxes, "motion": motion,
            "label": 1}


def torchvisions(video):
    """Its ten crops of 56 pixels, in our order.

    It mirrors the frame before it cuts, so that left and right are swapped.
    """
    ten = v2.functional.ten_crop(video, [56])
    return [ten[i] for i in (0, 1, 2, 3, 4, 6, 5, 8, 7, 9)]


def test_ten_crops_are_torchvisions():
    x = torch.rand(2, 3, 64, 86)
    ours = [cut({"video": x}, crop, 56)["video"]
            for crop in ten_crops(64, 86, 56)]
    theirs = torchvisions(x)
    assert len(ours) == len(theirs) == 10
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)
    assert len({crop for crop in ten_crops(64, 85, 56)}) == 10
    # the paper's sizes
    assert ten_crops(256, 340, 224)[4] == (16, 58, 224, 224, False)
    with pytest.raises(ValueError, match="no crop of 72 x 72"):
        ten_crops(64, 85, 72)


def test_random_crops_are_corners_and_centre_in_all_scales():
    torch.manual_seed(0)
    crops = [random_crop(256, 340) for _ in range(3000)]
    sides = [round(256 * s) for s in SCALES]
    pairs = Counter((sides.index(c.height), sides.index(c.width))
                    for c in crops)
    assert set(pairs) == {(i, j) for i in range(4) for j in range(4)
                          if abs(i - j) <= 1}
    # ten pairs, each expected 300 times: five deviations are 82
    assert max(abs(n - 300) for n in pairs.values()) < 82
    for crop in crops:
        down, right = 256 - crop.height, 340 - crop.width
        assert (crop.top, crop.left) in {
            (0, 0), (0, right), (down, 0), (down, right),
            (round(down / 2), round(right / 2))}
    assert abs(sum(c.mirror for c in crops) - 1500) < 137
    places = Counter((c.top > 0, c.left > 0) for c in crops
                     if (c.height, c.width) == (sides[1], sides[1]))
    assert places[True, True] > 1.5 * places[True, False]


def test_random_crops_follow_torchs_seed():
    """`fit` seeds each step, so that a resumed run sees the same crops."""
    def draw():
        torch.manual_seed(7)
        return [random_crop(64, 64, (1.0, 0.8)) for _ in range(20)]

    assert draw() == draw()
    assert {c.height for c in draw()} == {64, 51}


@pytest.mark.parametrize("mirror", [False, True])
def test_flow_masks_and_boxes_go_with_the_pictures(mirror):
    """Twice as wide and one and a half times as high."""
    seen = cut(sample(), Crop(10, 20, 40, 30, mirror), 60)
    sign = -1 if mirror else 1
    assert seen["video"].shape == (3, 3, 60, 60)
    assert seen["motion"].dtype == torch.float16
    inside = seen["mask"].clone()
    inside[:, 1:-1, 1:-1] = (  # edges are a mean of both sides
        seen["mask"][:, :-2, 1:-1] & seen["mask"][:, 2:, 1:-1]
        & seen["mask"][:, 1:-1, :-2] & seen["mask"][:, 1:-1, 2:])
    inside[:, (0, -1)] = inside[:, :, (0, -1)] = False
    x, y = seen["motion"][:, 0].float(), seen["motion"][:, 1].float()
    assert inside.sum() > 500
    # bilinear weights in float16
    torch.testing.assert_close(
        x[inside], torch.full_like(x[inside], sign * 4), rtol=0, atol=0.7)
    assert x[inside].median() == sign * 4 and y[inside].median() == 1.5
    first, last = seen["boxes"][0], seen["boxes"][2]
    assert (last - first)[1].item() == pytest.approx(2 * 1.5)
    near, far = (0, 2) if mirror else (2, 0)
    # the side that the crop's edge does not cut moves as the flow says
    assert (last - first)[far].item() == pytest.approx(2 * sign * 4)
    assert seen["label"] == 1 and near != far


def test_a_whole_crop_changes_nothing_and_two_mirrors_neither():
    whole = sample((64, 64))
    seen = cut(whole, Crop(0, 0, 64, 64), 64)
    twice = cut(cut(whole, Crop(0, 0, 64, 64, True), 64),
                Crop(0, 0, 64, 64, True), 64)
    for key in ("video", "mask", "boxes", "motion"):
        assert torch.equal(seen[key], whole[key]), key
        assert torch.equal(twice[key], whole[key]), key
    once = cut(whole, Crop(0, 0, 64, 64, True), 64)
    assert torch.equal(once["motion"][:, 0], -whole["motion"][:, 0].flip(-1))
    assert torch.equal(once["motion"][:, 1], whole["motion"][:, 1].flip(-1))


def test_warped_flow_and_pairs_of_frames():
    one = sample()
    pairs = one["video"][:, None].expand(-1, 2, -1, -1, -1)
    seen = cut({"video": pairs, "warped": one["motion"],
                "motion": one["motion"]}, Crop(0, 5, 56, 56, True), 56)
    alone = cut(one, Crop(0, 5, 56, 56, True), 56)
    assert torch.equal(seen["warped"], alone["motion"])
    assert torch.equal(seen["video"][:, 1], alone["video"])


def test_what_cannot_be_cropped_is_refused():
    with pytest.raises(ValueError, match="joints"):
        cut(sample() | {"joints": torch.rand(3, 13, 2)},
            Crop(0, 0, 56, 56), 56)
    with pytest.raises(ValueError, match="which=10"):
        Crops([], 56, 10)


def test_a_data_set_through_crops():
    data = datasets.load(n_train=4, n_val=1, n_test=1, frames=3,
                         fields=1).train
    ten = [Crops(data, 56, i)[2] for i in range(10)]
    by_hand = torchvisions(data[2]["video"])
    for one, video in zip(ten, by_hand, strict=True):
        assert torch.equal(one["video"], video)
        assert one["motion"].shape == (3, 2, 56, 56)
        assert one["mask"].shape == (3, 56, 56)
    assert Crops(data, 56).classes == data.classes and len(data) == 4
    torch.manual_seed(0)
    some = Crops(data, 56, scales=(1.0, 0.75))
    seen = [some[0]["video"] for _ in range(6)]
    assert len({x.sum().item() for x in seen}) > 2
