"""Files of others are data: read like scipy's, or refused without harm."""

import pickle
import random
import struct
import time
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from lib.untrusted import read_mat, read_pickle

HELD = {"whole": np.arange(12, dtype=np.uint8).reshape(3, 4),
        "broken": np.random.default_rng(0).random((2, 3, 5)),
        "negative": np.array([[-3, 70000]], np.int32), "words": "run, jump",
        "none": np.empty((0, 4)),
        "entries": np.array([[("v_1", 2.5), ("v_2", 3.0)]],
                            [("name", "O"), ("sf", "O")])}


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_files_are_read_as_scipy_reads_them(tmp_path, compressed):
    path = tmp_path / "x.mat"
    savemat(path, HELD, do_compression=compressed)
    found, theirs = read_mat(path, *HELD), loadmat(path)
    for name in ("whole", "broken", "negative", "none"):
        assert np.array_equal(found[name], theirs[name])
        assert found[name].shape == theirs[name].shape
    assert found["words"] == "run, jump"
    assert [(e["name"], e["sf"].item()) for e in found["entries"]] == [
        ("v_1", 2.5), ("v_2", 3.0)]


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_matlab_files_end_no_process(tmp_path, compressed):
    """Scipy's reader ends in a segmentation fault at some of these."""
    path, draw = tmp_path / "x.mat", random.Random(0)
    savemat(path, HELD, do_compression=compressed)
    sound, refused = path.read_bytes(), 0
    for _ in range(300):
        data = bytearray(sound)
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(124, len(data))] = draw.randrange(256)
        path.write_bytes(bytes(data)[:draw.choice([None, len(data) // 2])])
        try:
            read_mat(path, *HELD)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("value", [
    np.array([[1 + 2j]]), np.array([[{}]], object)])
def test_other_content_of_matlab_files_is_refused(tmp_path, value):
    savemat(tmp_path / "x.mat", {"a": value})
    with pytest.raises(ValueError, match="x.mat"):
        read_mat(tmp_path / "x.mat", "a")


def test_a_compressed_matlab_file_does_not_fill_the_memory(tmp_path):
    path = tmp_path / "x.mat"
    savemat(path, {"a": 1.0})
    header = path.read_bytes()[:128]
    zeros = zlib.compressobj(9)
    packed = b"".join(zeros.compress(bytes(2**20)) for _ in range(2**11))
    packed += zeros.flush()  # 2 GB in 2 MB
    path.write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)
    start = time.monotonic()
    with pytest.raises(ValueError, match="holds more than"):
        read_mat(path, "a")
    assert time.monotonic() - start < 60


def test_a_lacking_variable_is_named(tmp_path):
    savemat(tmp_path / "x.mat", {"a": 1.0})
    with pytest.raises(ValueError, match="x.mat.*no.*'b'"):
        read_mat(tmp_path / "x.mat", "a", "b")
    with pytest.raises(FileNotFoundError, match="run its script"):
        read_mat(tmp_path / "none.mat", "a")


@pytest.mark.parametrize("text", [
    # a place in the memo that asks for gigabytes is but a number here
    b"\x80\x03}r\xff\xff\xff\x7fcos\nsystem\n.",
    # BUILD on what a name stands for would change our own functions
    b"\x80\x03cnumpy.core.multiarray\nscalar\n}X\x01\x00\x00\x00aK\x01sb.",
    b"\x80\x03cnumpy\ndtype\nX\x02\x00\x00\x00O8\x85R.",
    b"\x80\x03" + b"(" * 10**5, b"\x80\x03]" + b"a" * 100,
    b"\x80\x03}" + b"\x85" * 50_000 + b"K\x01s.", b"", b"\x80\x03."])
def test_pickles_that_harm_are_refused(tmp_path, text):
    path = tmp_path / "x.pkl"
    path.write_bytes(text)
    with pytest.raises(ValueError, match="x.pkl is not read"):
        read_pickle(path)


def test_a_far_place_of_the_memo_costs_nothing(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x03K\x07r\xff\xff\xff\x7f.")
    assert read_pickle(path) == 7


def test_arrays_keep_their_values(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"a": np.arange(6.0).reshape(2, 3)}, 3))
    assert np.array_equal(read_pickle(path)["a"].values,
                          np.arange(6.0).reshape(2, 3))
