"""Penn Action: labels, boxes and joints, and the file that is wrong."""

import math

import numpy as np
import pytest
import torch
from scipy.io import savemat

from lib.data.sets import penn_action
from lib.scores import localisation as loc

ALL = torch.arange(4)


LABEL = {"action": "squat", "train": 1, "bbox": [[1.0, 2, 30, 40]] * 3,
         "visibility": np.ones((3, 13)), "x": 5 * np.ones((3, 13)),
         "y": 6 * np.ones((3, 13))}


def label_files(root, *changes):
    folder = root / "penn_action" / "labels"
    folder.mkdir(parents=True, exist_ok=True)
    for i, change in enumerate(changes, start=1):
        savemat(folder / f"{i:04d}.mat", LABEL | change)


def test_lists_and_answers(tmp_path):
    seen = np.ones((3, 13))
    seen[1, 0] = 0
    told = {"visibility": seen, "bbox": [[1.0, 2, 30, 40]]}
    label_files(tmp_path, told, told | {"action": "bowl", "train": -1},
                told | {"action": "bowl"})
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
    assert known["joints"][3:].isnan().all()
    with pytest.raises(FileNotFoundError, match="videos.*penn_action.py"):
        penn_action.read(tmp_path)

@pytest.mark.parametrize("name, value", [
    ("bbox", np.ones((4, 5))), ("bbox", np.ones((2, 3, 4))), ("bbox", "box"),
    ("bbox", np.array([["a", 1]], object)), ("bbox", np.ones((3, 4)) * 1j),
    ("bbox", {"a": 1}), ("x", np.ones((2, 13))), ("y", np.ones(3)),
    ("visibility", np.ones((13, 3))), ("action", 3.0), ("action", ""),
    ("train", "yes"), ("train", [1, 1])])
def test_names_the_wrong_file(tmp_path, name, value):
    label_files(tmp_path, {}, {"train": -1})
    assert len(penn_action.read(tmp_path, lists_only=True).test) == 1
    label_files(tmp_path, {}, {"train": -1} | {name: value})
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
