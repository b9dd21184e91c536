"""Masks, joints, boxes: official files, and wrong ones."""

import math
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from scipy.io import savemat

from lib import ROOT
from lib.data import untrusted
from lib.data.sets import jhmdb as boxes
from lib.data.sets import penn_action, ucf101_24
from lib.scores import localisation as loc

DATA_ROOT = ROOT / (os.environ.get("DATA_ROOT") or "data")
ALL = torch.arange(4)


def real(*names):
    for name in names:
        if (DATA_ROOT / name).exists():
            return DATA_ROOT / name
    pytest.skip(f"none of {names} below DATA_ROOT")


# ------------------------------------------------------------- official


@pytest.mark.parametrize("split, counts", [
    ("1", (660, 268)), ("2", (658, 270)), ("3", (663, 265))])
def test_jhmdb_official(tmp_path, split, counts):
    folder = tmp_path / "jhmdb"
    with zipfile.ZipFile(real("annotations/jhmdb/splits.zip")) as file:
        file.extractall(folder)
    train, test, classes = boxes.jhmdb(tmp_path, split, lists_only=True)
    assert (len(train), len(test)) == counts and len(classes) == 21
    assert len({r.path for r in train + test}) == 928
    assert not {r.group for r in train} & {r.group for r in test}


def test_jhmdb_real_joints():
    path = real("samples/joint_positions.mat")
    place = boxes.Puppet(path, path).joints
    joints = untrusted.read_mat(place, "pos_img")["pos_img"]
    assert joints.shape == (2, 15, 40)


def test_ucf101_24_official():
    real("annotations/ucf101_24", "ucf101_24")
    real("annotations/ucf101_splits", "ucfTrainTestlist")
    train, test, classes = ucf101_24.read(DATA_ROOT, lists_only=True)
    assert (len(train), len(test), len(classes)) == (2293, 910, 24)
    assert sum(not r.spans for r in train) == 9
    assert not {r.group for r in train} & {r.group for r in test}
    one = next(r for r in test if r.name == "v_Basketball_g01_c01")
    assert one.spans == ((8, 52),)
    found = one.truth(torch.tensor([7, 8, 51, 52]))["boxes"]
    assert found.isnan().any(1).tolist() == [True, False, False, True]
    # 189 + 102 fits in eight bits, 188 + 78 does not
    assert found[1].tolist() == [189, 102, 236, 180]
    high = torch.cat([r.truth(torch.arange(50))["boxes"] for r in test[:99]])
    high = high[~high.isnan().any(1)]
    assert (high[:, 2:] > high[:, :2]).all() and high[:, 2].max() > 255


def test_pickle_and_matlab_say_the_same():
    folder = real("annotations/ucf101_24", "ucf101_24")
    files = [folder / name for name in ("pyannot.pkl", "finalAnnots.mat")]
    if not all(file.is_file() for file in files):
        pytest.skip("needs both files of UCF101-24's boxes")
    one, other = ucf101_24._pickled(files[0]), ucf101_24._from_matlab(files[1])
    assert one.keys() == other.keys() and len(one) == 3194
    for name in one:
        assert len(one[name]) == len(other[name])
        for (a, x), (b, y) in zip(one[name], other[name], strict=True):
            assert a == b and np.array_equal(x, y)


# ------------------------------------------------------------- made here


def test_boxes_are_offset_by_the_start_and_cast():
    small = np.array([[200, 10, 100, 20], [201, 10, 100, 20]], np.uint8)
    found = ucf101_24.Tubes([(1, small)])(ALL)["boxes"]
    assert found.isnan().any(1).tolist() == [True, False, False, True]
    assert found[1:3].tolist() == [[200, 10, 300, 30], [201, 10, 301, 30]]
    # the longest tube wins where two people are
    other = np.tile(np.array([[0, 0, 5, 5]], np.uint8), (3, 1))
    both = ucf101_24.Tubes([(0, other), (1, small)])(ALL)["boxes"]
    assert both[:, 2].nan_to_num().tolist() == [5, 5, 5, 0]
    assert repr(ucf101_24.Tubes([(0, other)])) != repr(ucf101_24.Tubes([(1, other)]))
    assert repr(ucf101_24.Tubes([(0, other)])) == repr(
        ucf101_24.Tubes([(0, other.astype(int))]))


def test_jhmdb_answers(tmp_path):
    mask = np.zeros((6, 8, 3), np.uint8)
    mask[1:3, 2:5, :2] = 1  # the third frame is empty
    savemat(tmp_path / "m.mat", {"part_mask": mask})
    savemat(tmp_path / "j.mat", {"pos_img": np.full((2, 15, 3), 4.0)})
    told = boxes.Puppet(tmp_path / "m.mat", tmp_path / "j.mat")
    known = told(ALL, joints=True)
    assert known["mask"].sum((1, 2)).tolist() == [6, 6, 0, 0]
    assert known["boxes"][0].tolist() == [2, 1, 5, 3]
    assert known["boxes"].isnan().any(1).tolist() == [0, 0, 1, 1]
    assert (known["joints"][:3] == 3).all()
    assert known["joints"][3].isnan().all()
    assert "joints" not in told(ALL)
    for text in (b"", b"hello", mask.tobytes()):
        (tmp_path / "m.mat").write_bytes(text)
        with pytest.raises(ValueError, match="m.mat: no MATLAB file"):
            told(ALL)
    (tmp_path / "m.mat").unlink()
    with pytest.raises(FileNotFoundError, match="m.mat.*script"):
        told(ALL)


def test_penn_action(tmp_path):
    folder = tmp_path / "penn_action" / "labels"
    folder.mkdir(parents=True)
    for i, (action, train) in enumerate((("squat", 1), ("bowl", -1),
                                         ("bowl", 1)), start=1):
        seen = np.ones((2, 13))
        seen[1, 0] = 0
        savemat(folder / f"{i:04d}.mat", {
            "action": action, "train": train, "visibility": seen,
            "bbox": [[1.0, 2, 30, 40]], "x": 5 * np.ones((2, 13)),
            "y": 6 * np.ones((2, 13))})
    train, test, classes = penn_action.read(tmp_path, lists_only=True)
    assert classes == ["bowl", "squat"]
    assert [(r.name, r.label) for r in train] == [("0001", 1), ("0003", 0)]
    known = test[0].truth(ALL, joints=True)
    # MATLAB counts from one; there is a box for one frame only
    assert known["boxes"][0].tolist() == [0, 1, 30, 40]
    assert known["boxes"][1:].isnan().all()
    assert known["joints"][0, 0].tolist() == [4, 5]
    assert known["joints"][1, 0].isnan().all()
    assert known["joints"][1, 1].tolist() == [4, 5]
    assert known["joints"][2:].isnan().all()
    with pytest.raises(FileNotFoundError, match="packed.*penn_action.py"):
        penn_action.read(tmp_path)


@pytest.mark.parametrize("reader", [
    boxes.jhmdb, penn_action.read, ucf101_24.read])
def test_what_is_missing_is_named_with_the_mend(tmp_path, reader):
    with pytest.raises(FileNotFoundError, match=r"data_scripts/\w+\.py"):
        reader(tmp_path)
    with pytest.raises(ValueError, match="not '7'"):
        (tmp_path / "jhmdb" / "ReCompress_Videos").mkdir(parents=True)
        reader(tmp_path, "7")


def test_a_pickle_of_something_else_is_named(tmp_path):
    for held in ([1], {"a": 1}, {"a": {"annotations": [{"sf": 0}]}},
                 {"a": {"annotations": [{"sf": 0, "boxes": 3}]}},
                 {"a": {"numf": 4, "annotations": 3}}):
        path = tmp_path / "pyannot.pkl"
        path.write_bytes(pickle.dumps(held))
        with pytest.raises(ValueError, match="does not hold UCF101-24's"):
            ucf101_24._pickled(path)


TUBE = {"sf": 1, "ef": 3, "boxes": np.full((2, 4), 5, np.uint8)}


def tubes(**changes):
    return {"Archery/v_Archery_g08_c01": {
        "numf": 4, "annotations": [TUBE | changes]}}


def ucf101_24_root(root):
    folder = root / "ucfTrainTestlist"
    folder.mkdir()
    (folder / "classInd.txt").write_text("1 Archery\n")
    (folder / "trainlist01.txt").write_text("Archery/v_Archery_g09_c01.avi 1")
    (folder / "testlist01.txt").write_text("Archery/v_Archery_g08_c01.avi")
    (root / "ucf101_24").mkdir()
    return root / "ucf101_24"


@pytest.mark.parametrize("changes", [
    {"sf": -5}, {"sf": 3, "ef": 1}, {"sf": 1.5}, {"sf": "1"}, {"ef": 4},
    {"sf": 3, "ef": 5}, {"sf": 1, "ef": 1, "boxes": np.zeros((0, 4))},
    {"boxes": np.full((4, 5), 5)}, {"boxes": np.full((2, 2, 4), 5)},
    {"boxes": np.full((2, 4), np.inf)}, {"boxes": np.full((2, 4), np.nan)},
    {"boxes": np.array([[-1, 2, 3, 4]] * 2)},
    {"boxes": np.array([[1, 2, 0, 4]] * 2)}], ids=str)
def test_ucf101_24_names_the_tube_that_cannot_be(tmp_path, changes):
    folder = ucf101_24_root(tmp_path)
    path = folder / "pyannot.pkl"
    path.write_bytes(pickle.dumps(tubes(**changes), 3))
    with pytest.raises(ValueError, match="pyannot.pkl: Archery/v_Archery"):
        ucf101_24.read(tmp_path, lists_only=True)
    path.unlink()
    held = TUBE | changes
    if not isinstance(held["sf"], str):
        savemat(folder / "finalAnnots.mat", {"annot": structs({
            "name": "Archery/v_Archery_g08_c01", "num_imgs": 4.0,
            "tubes": structs(held | {"sf": held["sf"] + 1})})})
        with pytest.raises(ValueError, match="Annots.mat: Archery/v_Archery"):
            ucf101_24.read(tmp_path, lists_only=True)


def structs(*rows):
    """Dicts as SciPy writes an array of structs."""
    made = np.empty((1, len(rows)), [(field, object) for field in rows[0]])
    for i, row in enumerate(rows):
        made[0, i] = tuple(row.values())
    return made


def test_ucf101_24_small(tmp_path):
    folder = ucf101_24_root(tmp_path)
    path = folder / "pyannot.pkl"
    path.write_bytes(pickle.dumps(tubes(), 3))
    train, test, classes = ucf101_24.read(tmp_path, lists_only=True)
    assert (train[0].spans, test[0].spans) == ((), ((1, 3),))
    for held in ({}, {"Archery/v_Archery_g07_c01": tubes().popitem()[1]}):
        path.write_bytes(pickle.dumps(held, 3))
        with pytest.raises(ValueError, match="pyannot.pkl holds boxes of"):
            ucf101_24.read(tmp_path, lists_only=True)
    # boxes of a video for training alone leave no test
    path.write_bytes(pickle.dumps({
        "Archery/v_Archery_g09_c01": tubes().popitem()[1]}, 3))
    with pytest.raises(ValueError, match="pyannot.pkl lists no test videos"):
        ucf101_24.read(tmp_path, lists_only=True)
    path.unlink()
    one = {"name": "Archery/v_Archery_g08_c01", "num_imgs": 4.0,
           "tubes": structs(TUBE | {"sf": 2})}
    savemat(folder / "finalAnnots.mat", {"annot": structs(one)})
    again = ucf101_24.read(tmp_path, lists_only=True)
    assert again.test[0].spans == test[0].spans
    assert repr(again.test[0].truth) == repr(test[0].truth)
    savemat(folder / "finalAnnots.mat", {"annot": structs(one, one)})
    with pytest.raises(ValueError, match="Annots.mat: Archery.*already"):
        ucf101_24.read(tmp_path, lists_only=True)


LABEL = {"action": "squat", "train": 1, "bbox": [[1.0, 2, 30, 40]] * 3,
         "visibility": np.ones((3, 13)), "x": 5 * np.ones((3, 13)),
         "y": 6 * np.ones((3, 13))}


@pytest.mark.parametrize("name, value", [
    ("bbox", np.ones((4, 5))), ("bbox", np.ones((2, 3, 4))), ("bbox", "box"),
    ("bbox", np.array([["a", 1]], object)), ("bbox", np.ones((3, 4)) * 1j),
    ("bbox", {"a": 1}), ("x", np.ones((2, 13))), ("y", np.ones(3)),
    ("visibility", np.ones((13, 3))), ("action", 3.0), ("action", ""),
    ("train", "yes"), ("train", [1, 1])])
def test_penn_action_names_the_wrong_file(tmp_path, name, value):
    folder = tmp_path / "penn_action" / "labels"
    folder.mkdir(parents=True)
    savemat(folder / "0001.mat", LABEL)
    savemat(folder / "0002.mat", LABEL | {"train": -1})
    assert len(penn_action.read(tmp_path, lists_only=True).test) == 1
    savemat(folder / "0002.mat", LABEL | {"train": -1} | {name: value})
    with pytest.raises(ValueError, match="0002.mat"):
        penn_action.read(tmp_path, lists_only=True)


@pytest.mark.parametrize("row", [
    [np.nan, np.nan, 30, 40], [1, 2, 30, np.nan], [1, 2, np.inf, 40],
    [1, 2, 1, 40], [30, 40, 1, 2], [0, 0, 0, 0]], ids=str)
def test_what_is_no_box_is_unknown_and_no_score_is_nan(tmp_path, row):
    path = tmp_path / "0001.mat"
    savemat(path, LABEL | {"bbox": [[1.0, 2, 30, 40], row, row]})
    true = penn_action.Labelled(path)(ALL)["boxes"]
    assert true[1:].isnan().all() and not true[0].isnan().any()
    found = torch.tensor([[0.0, 1, 30, 40]]).expand(4, 4)
    assert loc.frame_localisation_accuracy(found, true, 0.5) == 1
    assert math.isfinite(loc.mean_share(true, 50, 50))
    value = loc.frame_map(found[None], torch.ones(1, 1), true[None],
                          torch.zeros(1, dtype=torch.long), 0.5).value
    assert value == pytest.approx(1 / 4)


@pytest.mark.parametrize("name, value", [
    ("part_mask", np.ones((6, 8))), ("part_mask", np.ones((6, 8, 3, 2))),
    ("part_mask", "mask"), ("part_mask", np.ones((6, 8, 3)) * 1j),
    ("part_mask", np.array([[{}]], object)), ("pos_img", np.ones((3, 15, 3))),
    ("pos_img", np.ones((2, 15))), ("pos_img", "joints"), ("other", 1)])
def test_jhmdb_names_the_wrong_file(tmp_path, name, value):
    mask, joints = tmp_path / "m.mat", tmp_path / "j.mat"
    savemat(mask, {"part_mask": np.ones((6, 8, 3))})
    savemat(joints, {"pos_img": np.ones((2, 15, 3))})
    told = boxes.Puppet(mask, joints)
    told(ALL, joints=True)
    wrong = joints if name == "pos_img" else mask
    savemat(wrong, {name: value})
    with pytest.raises(ValueError, match=wrong.name):
        told(ALL, joints=True)


def test_a_joint_that_is_half_unknown_is_unknown(tmp_path):
    place = np.full((2, 15, 3), 4.0)
    place[0, 2, 1], place[1, 3, 2] = np.nan, np.inf
    savemat(tmp_path / "m.mat", {"part_mask": np.ones((6, 8, 3))})
    savemat(tmp_path / "j.mat", {"pos_img": place})
    joints = boxes.Puppet(tmp_path / "m.mat", tmp_path / "j.mat")(
        torch.arange(3), joints=True)["joints"]
    gone = joints.isnan()
    assert gone[1, 2].all() and gone[2, 3].all() and gone.sum() == 4
