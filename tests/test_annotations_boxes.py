"""Masks, joints, boxes; and pickles that would rather run something."""

import io
import os
import pickle
import subprocess
import zipfile

import numpy as np
import pytest
import torch
from scipy.io import savemat

from lib import ROOT, untrusted
from lib import annotations_boxes as boxes

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
    joints = boxes.read_mat(place, "pos_img")["pos_img"]
    assert joints.shape == (2, 15, 40)


def test_ucf101_24_official():
    real("annotations/ucf101_24", "ucf101_24")
    real("annotations/ucf101_splits", "ucfTrainTestlist")
    train, test, classes = boxes.ucf101_24(DATA_ROOT, lists_only=True)
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
    one, other = boxes._pickled(files[0]), boxes._from_matlab(files[1])
    assert one.keys() == other.keys() and len(one) == 3194
    for name in one:
        assert len(one[name]) == len(other[name])
        for (a, x), (b, y) in zip(one[name], other[name], strict=True):
            assert a == b and np.array_equal(x, y)


# ------------------------------------------------------------- made here


def test_boxes_are_offset_by_the_start_and_cast():
    small = np.array([[200, 10, 100, 20], [201, 10, 100, 20]], np.uint8)
    found = boxes.Tubes([(1, small)])(ALL)["boxes"]
    assert found.isnan().any(1).tolist() == [True, False, False, True]
    assert found[1:3].tolist() == [[200, 10, 300, 30], [201, 10, 301, 30]]
    # the longest tube wins where two people are
    other = np.tile(np.array([[0, 0, 5, 5]], np.uint8), (3, 1))
    both = boxes.Tubes([(0, other), (1, small)])(ALL)["boxes"]
    assert both[:, 2].nan_to_num().tolist() == [5, 5, 5, 0]
    assert repr(boxes.Tubes([(0, other)])) != repr(boxes.Tubes([(1, other)]))
    assert repr(boxes.Tubes([(0, other)])) == repr(
        boxes.Tubes([(0, other.astype(int))]))


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
    train, test, classes = boxes.penn_action(tmp_path, lists_only=True)
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
        boxes.penn_action(tmp_path)


@pytest.mark.parametrize("reader", [
    boxes.jhmdb, boxes.penn_action, boxes.ucf101_24])
def test_what_is_missing_is_named_with_the_mend(tmp_path, reader):
    with pytest.raises(FileNotFoundError, match=r"data_scripts/\w+\.py"):
        reader(tmp_path)
    with pytest.raises(ValueError, match="not '7'"):
        (tmp_path / "jhmdb" / "ReCompress_Videos").mkdir(parents=True)
        reader(tmp_path, "7")


# --------------------------------------------------------------- attacks


class Attack:
    """What a pickle runs when a trusting reader loads it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def bomb(shape):
    """An array that claims another shape than it has bytes."""
    data = pickle.dumps(np.zeros(3, np.uint8), 3)
    return data.replace(b"K\x03\x85", b"K" + bytes([shape]) + b"\x85")


def trace_attacks(trace):
    """Pickles that would leave a file `trace` behind."""
    text = f"open({str(trace)!r}, 'w')"
    import builtins

    yield Attack(os.system, f"touch {trace}")
    yield Attack(subprocess.run, ["touch", str(trace)])
    yield Attack(builtins.eval, text)
    yield Attack(builtins.exec, text)
    yield Attack(builtins.open, str(trace), "w")
    yield Attack(np.save, str(trace), 1)
    yield Attack(np.load, str(trace))
    yield {"v/x": {"annotations": [{"boxes": Attack(
        os.system, f"touch {trace}")}]}}
    # hidden in the argument of a function that is allowed
    array = np.empty(1, object)
    array[0] = Attack(os.system, f"touch {trace}")
    yield array
    yield Attack(np.dtype, Attack(os.system, f"touch {trace}"))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_no_pickle_runs_anything(tmp_path, protocol):
    trace, path = tmp_path / "trace", tmp_path / "pyannot.pkl"
    count = 0
    for attack in trace_attacks(trace):
        path.write_bytes(pickle.dumps(attack, protocol))
        with pytest.raises(ValueError, match="pyannot.pkl is not read"):
            boxes.read_pickle(path)
        assert not trace.exists() and not (tmp_path / "trace.npy").exists()
        count += 1
    assert count == 10
    # the attack works on whoever trusts it, so the test can fail
    pickle.loads(pickle.dumps(Attack(os.system, f"touch {trace}"), protocol))
    assert trace.exists()


def test_pickles_by_hand_are_refused(tmp_path):
    path = tmp_path / "x.pkl"
    for text in (
        b"cos\nsystem\n(S'true'\ntR.", b"(S'true'\nios\nsystem\n.",
        b"cnumpy\ndtype.__init__\n.", b"cnumpy.core.multiarray\nfromfile\n.",
        b"\x80\x02\x82\x01.", b"P1\n.", b"", b"\x80\x04\x95", bomb(9),
        pickle.dumps(np.array([{}])), pickle.dumps(np.zeros(2, "M8[s]")),
    ):
        path.write_bytes(text)
        with pytest.raises(ValueError, match="x.pkl is not read"):
            boxes.read_pickle(path)
    with path.open("wb") as file:
        file.truncate(untrusted.LARGEST + 1)  # no bytes on the disk
    with pytest.raises(ValueError, match="more than"):
        boxes.read_pickle(path)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_sound_pickles_are_read(tmp_path, protocol):
    path = tmp_path / "x.pkl"
    arrays = {
        "a": np.arange(6, dtype=">i2").reshape(2, 3),
        "b": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "c": np.zeros((0, 4), np.uint8)}
    held = {"n": np.uint16(7), "t": (1, "x", None, 2.5)} | arrays
    if protocol == 5:  # its arrays are made by another function
        path.write_bytes(pickle.dumps(held, protocol))
        with pytest.raises(ValueError, match="_frombuffer"):
            boxes.read_pickle(path)
        return
    buffer = io.BytesIO()
    pickle.Pickler(buffer, protocol).dump(held)
    path.write_bytes(buffer.getvalue())
    found = boxes.read_pickle(path)
    assert found["n"] == 7 and found["t"] == (1, "x", None, 2.5)
    for name, want in arrays.items():
        got = found[name].values
        assert np.array_equal(got, want) and got.dtype == want.dtype


def test_a_pickle_of_something_else_is_named(tmp_path):
    for held in ([1], {"a": 1}, {"a": {"annotations": [{"sf": 0}]}},
                 {"a": {"annotations": [{"sf": 0, "boxes": 3}]}}):
        path = tmp_path / "pyannot.pkl"
        path.write_bytes(pickle.dumps(held))
        with pytest.raises(ValueError, match="does not hold UCF101-24's"):
            boxes._pickled(path)
