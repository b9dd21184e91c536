"""Views: crops, mirrors and parts of videos, and scores of several looks."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from lib.data import batches, datasets, transforms
from lib.data.transforms import WHOLE, View, look, spatio_temporal_22, through
from lib.scores.metrics import fuse


def moving(step=2, down=1, size=64, fields=2):
    """A square of 12 pixels that moves right and a little down."""
    video = torch.full((4, 3, size, size), 20, dtype=torch.uint8)
    mask = torch.zeros(4, size, size, dtype=torch.bool)
    boxes = torch.empty(4, 4)
    motion = torch.zeros(4, 2 * fields, size, size, dtype=torch.float16)
    for t in range(4):
        x, y = 20 + step * t, 26 + down * t
        mask[t, y:y + 12, x:x + 12] = True
        boxes[t] = torch.tensor([x, y, x + 12, y + 12])
        for field in range(fields):
            motion[t, 2 * field][mask[t]] = step
            motion[t, 2 * field + 1][mask[t]] = down
    video.movedim(1, -1)[mask] = 220
    return {"video": video, "mask": mask, "boxes": boxes, "motion": motion,
            "label": 3, "name": "v", "main_actor": "left"}


def equal(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == other[key].dtype, key
            assert torch.allclose(
                value.double(), other[key].double(), atol=0, equal_nan=True
            ), key
        else:
            assert value == other[key]


def test_22_views_are_distinct_and_closed_under_mirroring():
    views = spatio_temporal_22()
    assert len(views) == len(set(views)) == 22
    assert {replace(v, mirror=not v.mirror) for v in views} == set(views)
    assert WHOLE in views
    spatial, rest = views[:10], views[10:]
    assert {(v.part, v.side) for v in spatial} == {((0, 1), 224 / 256)}
    assert {(v.top, v.left) for v in spatial} == {
        (0, 0), (0, 1 / 8), (1 / 8, 0), (1 / 8, 1 / 8), (1 / 16, 1 / 16)}
    assert sorted({v.part for v in rest}) == [
        (0, 2 / 3), (0, 1), (1 / 3, 1)]
    assert {(v.side, v.top, v.left) for v in rest} == {
        (1, 0, 0), (0.75, 0.125, 0.125)}


@pytest.mark.parametrize("wrong", [
    {"part": (0.5, 0.5)}, {"part": (-0.1, 1)}, {"part": (0, 1.1)},
    {"top": 0.2, "side": 0.9}, {"left": -0.1, "side": 0.5}, {"side": 0},
    {"left": 0.1}, {"side": math.nan}])
def test_a_view_stays_inside_the_video(wrong):
    with pytest.raises(ValueError, match="View.*must lie in the frame"):
        View(**wrong)


def test_the_identity_changes_nothing():
    equal(look(moving(), WHOLE), moving())


def test_mirrored_twice_is_the_identity():
    once = look(moving(), View(mirror=True))
    assert once["main_actor"] == "right"
    assert not torch.equal(once["video"], moving()["video"])
    equal(look(once, View(mirror=True)), moving())


def test_looking_leaves_the_sample_alone():
    sample = moving()
    look(sample, View((0, 1), 0.125, 0.125, 0.75, True))
    equal(sample, moving())


def test_everything_follows_a_mirror():
    seen = look(moving(), View(mirror=True))
    for key in ("video", "mask"):
        assert torch.equal(seen[key], moving()[key].flip(-1))
    assert seen["boxes"][0].tolist() == [64 - 32, 26, 64 - 20, 38]
    inside = seen["motion"].movedim(1, -1)[seen["mask"]]
    assert inside.unique(dim=0).tolist() == [[-2, 1, -2, 1]]
    assert torch.equal(seen["motion"][:, 0] != 0, seen["mask"])


@pytest.mark.parametrize("mirror", [False, True])
def test_flow_and_boxes_agree_with_the_enlarged_pictures(mirror):
    seen = look(moving(), View((0, 1), 0.125, 0.125, 0.75, mirror))
    sign = -1 if mirror else 1
    x, y = seen["motion"].float().unflatten(1, (2, 2)).unbind(2)
    core = F.max_pool2d(-seen["mask"].float(), 5, 1, 2)[:, None] < 0
    core = core.expand(-1, 2, -1, -1)
    assert torch.allclose(x[core], torch.tensor(sign * 2 * 4 / 3), atol=2e-3)
    assert torch.allclose(y[core], torch.tensor(4 / 3), atol=2e-3)
    # what moves are the boxes and the masks, as far as the flow says
    steps = seen["boxes"][1:, :2] - seen["boxes"][:-1, :2]
    assert torch.allclose(
        steps, torch.tensor([sign * 8 / 3, 4 / 3]).expand(3, 2), atol=1e-3)
    for box, mask, frame in zip(
            seen["boxes"], seen["mask"], seen["video"], strict=True):
        assert box[2] - box[0] == pytest.approx(16)
        rows, columns = mask.nonzero().unbind(1)
        edges = torch.tensor([columns.min(), rows.min(),
                              columns.max() + 1, rows.max() + 1])
        assert (edges - box).abs().max() <= 1
        assert ((frame[0] > 120) ^ mask).sum() <= 64


def test_flow_grows_by_what_was_cut_when_shares_are_no_whole_pixels():
    sample = {"video": torch.zeros(1, 3, 5, 11, dtype=torch.uint8),
              "motion": torch.ones(1, 2, 5, 11)}
    seen = look(sample, View((0, 1), 0.3, 0.3, 0.7))
    assert seen["video"].shape == (1, 3, 5, 11)
    assert seen["motion"][0, 0].unique().tolist() == pytest.approx([11 / 8])
    assert seen["motion"][0, 1].unique().tolist() == pytest.approx([5 / 4])


@pytest.mark.parametrize("view", spatio_temporal_22()[:10])
def test_the_crops_are_where_they_should_be(view):
    side = 32  # 224 of 256 are 28 of 32 pixels
    grid = torch.arange(side * side, dtype=torch.float).view(1, 1, side, side)
    video = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    seen = look({"video": video, "motion": grid.expand(1, 2, -1, -1)}, view)
    top, left = round(view.top * side), round(view.left * side)
    cut = grid[..., top:top + 28, left:left + 28] * 32 / 28
    slow = F.interpolate(cut, (side, side), mode="bilinear")
    if view.mirror:
        slow = -slow.flip(-1)
    assert torch.allclose(seen["motion"][:, :1], slow, rtol=1e-5, atol=1e-3)


def test_a_marked_corner_is_seen_from_its_corner_only():
    video = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    video[..., :2, -2:] = 255
    bright = {(v.top, v.left, v.mirror): look({"video": video}, v)["video"]
              for v in spatio_temporal_22()[:10]}
    for (top, left, mirror), seen in bright.items():
        if (top, left) != (0, 1 / 8):
            assert seen.max() < 128
            continue
        assert seen[0, 0, 0, 0 if mirror else -1] == 255
        assert seen[0, 0, 0, -1 if mirror else 0] == 0


def test_a_box_outside_the_crop_is_none():
    sample = moving() | {"boxes": torch.tensor([[0.0, 0, 4, 4]] * 4)}
    sample["boxes"][1] = math.nan
    seen = look(sample, View((0, 1), 0.125, 0.125, 0.75))
    assert seen["boxes"].isnan().all()


@pytest.mark.parametrize("key", sorted({*transforms.FIXED} - {"motion"}))
def test_what_cannot_be_cropped_is_refused(key):
    with pytest.raises(ValueError, match=key):
        look(moving() | {key: torch.zeros(1)}, WHOLE)


def test_through_samples_the_part_and_looks():
    test = datasets.load(
        "puppets", frames=4, size=32, n_test=2, fields=1).test
    view = View((0, 2 / 3), 0.125, 0.125, 0.75, True)
    seen = through(test, view)
    assert len(seen) == 2 and seen.classes == test.classes
    early = test.between(0, 2 / 3)
    equal(seen[1], look(early[1], view))
    assert not torch.equal(early[1]["video"], test[1]["video"])
    equal(through(test, WHOLE)[0], test[0])
    # a view's part is of the whole video
    equal(through(test.between(0, 0.5), WHOLE)[0], test[0])
    names = {through(test, v).identity(i)
             for v in spatio_temporal_22() for i in range(2)}
    assert len(names) == 44


def test_through_needs_data_that_can_sample_a_part():
    with pytest.raises(TypeError, match="Columns.*datasets.load"):
        through(batches.Columns({"label": [1]}), WHOLE)


def test_fuse_is_the_mean_of_probabilities():
    torch.manual_seed(0)
    logits = [torch.randn(5, 3) * 4 for _ in range(3)]
    slow = torch.zeros(5, 3)
    for n in range(5):
        for one, weight in zip(logits, (1, 2, 5), strict=True):
            shares = [math.exp(x) for x in one[n].tolist()]
            for k in range(3):
                slow[n, k] += weight * shares[k] / sum(shares) / 8
    assert torch.allclose(fuse(logits, (1, 2, 5)), slow, atol=1e-6)
    assert torch.allclose(fuse(logits), fuse(logits, [7] * 3))
    assert torch.allclose(fuse(logits[:1]), logits[0].softmax(1))
    assert torch.allclose(fuse(logits).sum(1), torch.ones(5))
    # a probability goes in as its logarithm
    shares = torch.eye(3)[[0, 1, 2, 0, 1]]
    assert torch.allclose(fuse([logits[0], shares.log()]),
                          (logits[0].softmax(1) + shares) / 2)


@pytest.mark.parametrize("shapes, weights, message", [
    ([(5, 3), (5, 4)], None, "one shape"), ([(5,)], None, "one shape"),
    ([], None, "one shape"), ([(5, 3), (1, 3)], None, "one shape"),
    ([(5, 3)] * 2, [1], "one for each"), ([(5, 3)] * 2, [1, -1], "negative"),
    ([(5, 3)] * 2, [0, 0], "not all zero"),
    ([(5, 3)] * 2, [1, math.nan], "one for each")])
def test_fuse_refuses_what_does_not_match(shapes, weights, message):
    with pytest.raises(ValueError, match=message):
        fuse([torch.zeros(shape) for shape in shapes], weights)


GOOD = "name,wave,run\nv2,0.25,0.75\nother,1,0\nv1,0.5,0.5004\n"


def scores(tmp_path, text):
    path = tmp_path / "idt.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_scores(path, ["v1", "v2"], ["run", "wave"])


@pytest.mark.parametrize("text", [
    GOOD, "\ufeff" + GOOD, GOOD.replace("\n", "\r\n"),
    GOOD.replace(",", " , "), GOOD.replace("v1", '"v1"') + "\n\n",
    "run,name,wave\n.75,v2,.25\n.5004,v1,.5\n"])
def test_scores_are_found_by_name(tmp_path, text):
    found = scores(tmp_path, text)
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.tensor([[0.5004, 0.5], [0.75, 0.25]]))


@pytest.mark.parametrize("old, new, message", [
    (GOOD, "", "is empty"), (GOOD, "\n", "is empty"),
    ("v1", "v3", "lacks 1 of 2 videos, as v1: add"),
    ("other", "v2", "line 3: v2 is there already, on line 2: keep"),
    ("run", "jump", r"line 1: the header lacks \['run'\]"),
    ("wave,run", "wave,run,jump", r"has the unknown \['jump'\]"),
    ("wave,run", "wave,run,run", r"repeats \['run'\]"),
    ("name", "video", r"lacks \['name'\]"),
    ("0.75", "nan", "line 2: 'nan' for run is no finite number"),
    ("0.75", "", "line 2: '' for run is no finite number"),
    ("0.75", "inf", "line 2: 'inf'"), ("0.75", "3/4", "line 2: '3/4'"),
    ("0.75", "0.75,", "line 2 has 4 cells, the header 3"),
    (",0.75", "", "line 2 has 2 cells, the header 3"),
    ("0.75", "0.7", "line 2.*sum 0.95.*softmax first"),
    ("0.25,0.75", "1.25,-0.25", "line 2.*lowest -0.25.*softmax first"),
    ("1,0", "7,-3", "line 3.*softmax first")])
def test_wrong_scores_are_named(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(ValueError, match=r"idt\.csv.*" + message):
        scores(tmp_path, GOOD.replace(old, new, 1))


def test_scores_in_another_encoding_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"idt\.csv is no CSV file in UTF-8"):
        scores(tmp_path, GOOD.replace("v1", "\u00e9").encode("latin-1"))
    with pytest.raises(FileNotFoundError, match="nowhere.csv"):
        read_scores(tmp_path / "nowhere.csv", [], [])
