"""What is seen of a frame: all that lies on it moves with it."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from checks import refused
from torch.nn import functional as F
from torch.testing import assert_close
from torchvision.transforms import v2
from video_files import same

from lib.data import batches, datasets, transforms
from lib.data.boxes import tight_boxes
from lib.data.transforms import (
    SCALES,
    Crop,
    Crops,
    View,
    cut,
    random_crop,
    spatio_temporal_22,
    ten_crops,
    through,
)

STEP, DOWN = 2, 1  # pixels per frame


def moving(height=64, width=64, fields=2):
    video = torch.full((4, 3, height, width), 20, dtype=torch.uint8)
    mask = torch.zeros(4, height, width, dtype=torch.bool)
    motion = torch.zeros(4, 2 * fields, height, width, dtype=torch.float16)
    for t in range(4):
        x, y = 20 + STEP * t, 26 + DOWN * t
        mask[t, y:y + 12, x:x + 12] = True
    motion[:, 0::2] = STEP * mask[:, None]
    motion[:, 1::2] = DOWN * mask[:, None]
    video.movedim(1, -1)[mask] = 220
    return {"video": video, "mask": mask, "boxes": tight_boxes(mask),
            "motion": motion, "label": 3, "name": "v", "main_actor": "left"}


def whole(mirror):
    return Crop(0, 0, 64, 64, mirror)


def look(sample, view):
    frame = tuple(sample["video"].shape[-2:])
    return cut(sample, view.crop(*frame), frame)


MOVES = {
    "resize": lambda s: transforms.resize(s, 40, 120),
    "letterbox": lambda s: transforms.letterbox(s, 120),
    "crop": lambda s: cut(s, Crop(8, 12, 50, 44), (100, 44)),
    "mirrored crop": lambda s: cut(s, Crop(8, 12, 50, 44, True), 100),
}


@pytest.mark.parametrize("name", MOVES)
def test_frames_masks_boxes_and_joints_move_together(name):
    sample = moving(60, 80)
    sample["mask"][1], sample["boxes"][1] = False, math.nan
    sample["rivals"] = sample["boxes"].clone()
    if "mirror" not in name:
        sample["joints"] = sample["boxes"].unflatten(1, (2, 2)) - 0.5
    kept = {key: str(value) for key, value in sample.items()}
    moved = MOVES[name](sample)
    assert {key: str(value) for key, value in sample.items()} == kept
    for key, value in moved.items():
        assert type(value) is type(sample[key])
        if isinstance(value, torch.Tensor):
            assert value.dtype == sample[key].dtype, key
    assert moved["boxes"][1].isnan().all() and not moved["mask"][1].any()
    tight = tight_boxes(moved["mask"])
    assert (moved["boxes"] - tight)[[0, 2, 3]].abs().max() <= 1
    assert torch.equal(moved["boxes"].nan_to_num(),
                       moved["rivals"].nan_to_num())
    if "joints" in moved:
        corners = moved["boxes"].unflatten(1, (2, 2)) - 0.5
        assert_close(moved["joints"], corners, equal_nan=True)
    white = moved["video"][[0, 2, 3], 0] > 150  # the margins are 128
    assert ((white ^ moved["mask"][[0, 2, 3]]).sum((1, 2)) <= 90).all()
    assert (moved["name"], moved["label"]) == ("v", 3)
    assert (moved["mask"].shape[-2:] == moved["video"].shape[-2:]
            == moved["motion"].shape[-2:])


@pytest.mark.parametrize("mirror", [False, True])
def test_flow_and_boxes_agree_with_the_enlarged_pictures(mirror):
    """Twice as wide and one and a half times as high."""
    seen = cut(moving(), Crop(10, 15, 40, 40, mirror), (60, 80))
    x_step, y_step = (-2 if mirror else 2) * STEP, 1.5 * DOWN
    assert seen["motion"].dtype == torch.float16
    x, y = seen["motion"].float().unflatten(1, (2, 2)).unbind(2)
    core = F.max_pool2d(-seen["mask"].float(), 5, 1, 2)[:, None] < 0
    core = core.expand(-1, 2, -1, -1)
    assert core.sum() > 1000
    assert torch.allclose(x[core], torch.tensor(float(x_step)), atol=2e-3)
    assert torch.allclose(y[core], torch.tensor(y_step), atol=2e-3)
    # what moves are the boxes and the masks, as far as the flow says
    steps = seen["boxes"][1:, :2] - seen["boxes"][:-1, :2]
    assert torch.allclose(steps, torch.tensor([x_step, y_step]).expand(3, 2))
    for box, frame, mask in zip(
            seen["boxes"], seen["video"], seen["mask"], strict=True):
        assert (box[2:] - box[:2]).tolist() == [24, 18]
        assert ((frame[0] > 120) ^ mask).sum() <= 64


def test_a_whole_crop_changes_nothing_and_two_mirrors_neither():
    same(look(moving(), View()), moving())
    same(cut(cut(moving(), whole(True), 64), whole(True), 64), moving())


def test_everything_follows_a_mirror():
    seen = cut(moving(), whole(True), 64)
    for key in ("video", "mask"):
        assert torch.equal(seen[key], moving()[key].flip(-1))
    assert seen["boxes"][0].tolist() == [64 - 32, 26, 64 - 20, 38]
    inside = seen["motion"].movedim(1, -1)[seen["mask"]]
    assert inside.unique(dim=0).tolist() == [[-2, 1, -2, 1]]
    assert torch.equal(seen["motion"][:, 0] != 0, seen["mask"])
    assert seen["main_actor"] == "right"
    with pytest.raises(ValueError, match="joints cannot be mirrored"):
        cut(moving() | {"joints": torch.rand(4, 13, 2)}, whole(True), 64)


def test_every_flow_and_pairs_of_frames():
    one = moving()
    pairs = one["video"][:, None].expand(-1, 2, -1, -1, -1)
    seen = cut({"video": pairs, "warped": one["motion"],
                "flow": one["motion"]}, Crop(0, 5, 56, 56, True), 56)
    alone = cut(one, Crop(0, 5, 56, 56, True), 56)
    for key in ("warped", "flow"):
        assert torch.equal(seen[key], alone["motion"])
    assert torch.equal(seen["video"][:, 1], alone["video"])


def test_a_box_outside_the_crop_is_none_and_another_is_cut():
    sample = moving() | {"boxes": torch.tensor(
        [[0.0, 0, 4, 4], [0, 0, 40, 28], [math.nan] * 4, [60, 60, 64, 64]])}
    boxes = cut(sample, Crop(8, 8, 48, 48), 96)["boxes"]
    assert boxes[[0, 2, 3]].isnan().all()
    assert boxes[1].tolist() == [0, 0, 64, 40]


@pytest.mark.parametrize(("height", "width"), [(40, 60), (61, 33), (7, 500)])
def test_letterbox_keeps_the_aspect_ratio(height, width):
    sample = {"video": torch.full((2, 3, height, width), 250).byte(),
              "mask": torch.ones(2, height, width) > 0}
    seen = transforms.letterbox(sample, 64)
    assert seen["video"].shape == (2, 3, 64, 64)
    picture = seen["video"][0, 0] > 200
    assert torch.equal(picture, seen["mask"][0])
    x1, y1, x2, y2 = tight_boxes(picture).int().tolist()
    assert picture[y1:y2, x1:x2].all()
    assert (seen["video"][0, 0][~picture] == 128).all()
    scale = 64 / max(height, width)
    assert abs((x2 - x1) - width * scale) <= 0.5
    assert abs((y2 - y1) - height * scale) <= 0.5
    assert abs(x1 - (64 - x2)) <= 1 and abs(y1 - (64 - y2)) <= 1


def test_a_mask_of_another_size_is_named():
    wrong = moving() | {"mask": torch.ones(4, 30, 40) > 0}
    refused(r"\(30, 40\) does not belong", transforms.letterbox, wrong, 64)


@pytest.mark.parametrize("size", [-8, 1, 2.5, "8", None, True])
def test_sizes_are_named(size):
    for call, *sizes in ((transforms.letterbox, size),
                         (transforms.resize, 20, size),
                         (transforms.resize, size, 20)):
        refused(r"(size|width|height)=.*whole", call, moving(), *sizes)


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
    for one, other in zip(ours, torchvisions(x), strict=True):
        assert torch.equal(one, other)
    # the paper's sizes
    assert ten_crops(256, 340, 224)[4] == (16, 58, 224, 224, False)
    refused("no crop of 72 x 72", ten_crops, 64, 85, 72)


def test_random_crops_are_corners_and_centre_in_all_scales():
    torch.manual_seed(0)  # which `fit` sets at each step
    crops = [random_crop(256, 340) for _ in range(3000)]
    torch.manual_seed(0)
    assert [random_crop(256, 340) for _ in range(20)] == crops[:20]
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


def test_a_data_set_through_crops():
    data = datasets.load(n_train=4, n_val=1, n_test=1, frames=3,
                         fields=1).train
    for i, video in enumerate(torchvisions(data[2]["video"])):
        one = Crops(data, 56, i)[2]
        assert torch.equal(one["video"], video)
        assert one["motion"].shape == (3, 2, 56, 56)
        assert one["mask"].shape == (3, 56, 56)
    assert Crops(data, 56).classes == data.classes and len(data) == 4
    torch.manual_seed(0)
    some = Crops(data, 56, scales=(1.0, 0.75))
    assert len({some[0]["video"].sum().item() for _ in range(6)}) > 2
    refused("which=10", Crops, [], 56, 10)


def test_22_views_are_distinct_and_closed_under_mirroring():
    views = spatio_temporal_22()
    assert len(views) == len(set(views)) == 22
    assert {replace(v, mirror=not v.mirror) for v in views} == set(views)
    assert View() in views
    spatial, rest = views[:10], views[10:]
    assert {(v.part, v.side) for v in spatial} == {((0, 1), 224 / 256)}
    assert {(v.top, v.left) for v in spatial} == {
        (0, 0), (0, 1 / 8), (1 / 8, 0), (1 / 8, 1 / 8), (1 / 16, 1 / 16)}
    assert sorted({v.part for v in rest}) == [(0, 2 / 3), (0, 1), (1 / 3, 1)]
    assert {(v.side, v.top, v.left) for v in rest} == {
        (1, 0, 0), (0.75, 0.125, 0.125)}


@pytest.mark.parametrize("wrong", [
    {"part": (0.5, 0.5)}, {"part": (-0.1, 1)}, {"part": (0, 1.1)},
    {"top": 0.2, "side": 0.9}, {"left": -0.1, "side": 0.5}, {"side": 0},
    {"left": 0.1}, {"side": math.nan}])
def test_a_view_stays_inside_the_video(wrong):
    refused("View.*must lie in the frame", View, **wrong)


def test_flow_grows_by_what_was_cut_when_shares_are_no_whole_pixels():
    sample = {"video": torch.zeros(1, 3, 5, 11, dtype=torch.uint8),
              "motion": torch.ones(1, 2, 5, 11)}
    seen = look(sample, View((0, 1), 0.3, 0.3, 0.7))
    assert seen["video"].shape == (1, 3, 5, 11)
    assert_close(seen["motion"].mean((0, 2, 3)), torch.tensor([11 / 8, 5 / 4]))


@pytest.mark.parametrize("view", spatio_temporal_22()[:10])
def test_the_crops_are_where_they_should_be(view):
    side = 32  # 224 of 256 are 28 of 32 pixels
    grid = torch.arange(side * side, dtype=torch.float).view(1, 1, side, side)
    seen = look({"video": torch.zeros(1, 3, side, side),
                 "motion": grid.expand(1, 2, -1, -1)}, view)
    top, left = round(view.top * side), round(view.left * side)
    part = grid[..., top:top + 28, left:left + 28] * 32 / 28
    slow = F.interpolate(part, (side, side), mode="bilinear")
    if view.mirror:
        slow = -slow.flip(-1)
    assert torch.allclose(seen["motion"][:, :1], slow, rtol=1e-5, atol=1e-3)


def test_through_samples_the_part_and_cuts():
    test = datasets.load("puppets", frames=4, size=32, n_test=2, fields=1).test
    view = View((0, 2 / 3), 0.125, 0.125, 0.75, True)
    seen = through(test, view)
    assert len(seen) == 2 and seen.classes == test.classes
    early = test.between(0, 2 / 3)
    same(seen[1], look(early[1], view))
    assert not torch.equal(early[1]["video"], test[1]["video"])
    same(through(test, View())[0], test[0])
    # a view's part is of the whole video
    same(through(test.between(0, 0.5), View())[0], test[0])
    names = {through(test, v).identity(i)
             for v in spatio_temporal_22() for i in range(2)}
    assert len(names) == 44
    with pytest.raises(TypeError, match="Columns.*datasets.load"):
        through(batches.Columns({"label": [1]}), View())
