"""MATLAB files that would rather harm: they are data alone."""

import random
import struct
import time
import tracemalloc
import zlib
from collections import Counter

import numpy as np
import pytest
from checks import refused
from puppet_formats import structs
from scipy.io import loadmat, savemat
from video_files import real

from lib.data import matlab


@pytest.fixture
def small(monkeypatch):
    """Limits a hundredth as high, for tests that go beyond them."""
    monkeypatch.setattr(matlab, "LARGEST", 2**20)
    monkeypatch.setattr(matlab, "MOST", 10_000)


def cheap(function, *arguments):
    tracemalloc.start()
    begin = time.perf_counter()
    try:
        return function(*arguments)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20e6, peak
        assert time.perf_counter() - begin < 10


HELD = {
    "a": np.arange(24, dtype=np.uint8).reshape(2, 3, 4), "b": np.eye(3) / 3,
    "c": "täxt", "d": np.array([[-3]], np.int16), "e": np.zeros((0, 4)),
    "f": np.ones((2, 2), bool), "g": np.float32([[1.5, 2.5]]),
    "s": structs([{"name": "x/y", "in": structs([{"n": 1.0}, {"n": 2.0}])},
                  {"name": "z", "in": structs([{"n": 3.0}])}])}


@pytest.mark.parametrize("packed", [False, True])
def test_matlab_files_are_read_as_scipy_reads_them(tmp_path, packed):
    path = tmp_path / "x.mat"
    savemat(path, HELD | {"cell": np.array([1, "x"], object)},
            do_compression=packed)
    found = matlab.read_mat(path, *HELD)
    assert found.pop("c") == "täxt"
    some = found.pop("s")
    assert [one["name"] for one in some] == ["x/y", "z"]
    assert [[inner["n"].item() for inner in one["in"]] for one in some] == [
        [1, 2], [3]]
    theirs = loadmat(path, variable_names=[*HELD])
    for name, value in found.items():
        assert np.array_equal(value, theirs[name]), name
        assert value.shape == theirs[name].shape
    refused("x.mat.*other than numbers", matlab.read_mat, path, "cell")
    refused(r"x.mat.*it has no \['z'\]", matlab.read_mat, path, "a", "z")


def test_a_real_file_is_read_as_scipy_reads_it():
    name = "samples/joint_positions.mat"
    path = real(name) / name
    names = "pos_img", "pos_world"
    found, theirs = matlab.read_mat(path, *names), loadmat(path)
    assert all(np.array_equal(found[name], theirs[name]) for name in names)


def element(kind, data):
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(kind, shape, *parts):
    return element(14, b"".join((
        element(6, struct.pack("<II", kind, 0)),
        element(5, struct.pack(f"<{len(shape)}I", *shape)),
        element(1, b"x"), *parts)))


HEADER = b"MATLAB".ljust(124) + b"\x00\x01IM"


def harmful():
    """MATLAB files that claim more than they hold, or unpack to much."""
    flat = zlib.compress(matrix(9, (2**31 - 1,), element(2, bytes(2**25))))
    yield element(15, flat)  # 33 kB, and 34 MB unpacked
    yield struct.pack("<II", 15, len(flat) - 99) + flat[:-99]
    # both together are too much, each is not; and at the limit to the byte
    half = zlib.compress(element(2, bytes(600_000)))
    yield 2 * (struct.pack("<II", 15, len(half)) + half)
    full = zlib.compress(element(2, bytes(2**20 - 8)))
    yield (struct.pack("<II", 15, len(full)) + full +
           struct.pack("<II", 15, len(flat)) + flat)
    fields = element(5, struct.pack("<I", 8)), element(1, b"f".ljust(8))
    yield matrix(2, (2**31, 2**31), *fields)  # structs without end
    yield matrix(2, (2**31, 2**31), element(5, struct.pack("<I", 8)),
                 element(1, b""))
    yield matrix(2, (11_000,), *fields, element(14, b"") * 11_000)
    yield matrix(9, (3,), struct.pack("<II", 2, 8) + b"abc")
    whole = zlib.compress(matrix(9, (3,), element(2, b"abc")))
    whole = whole[:-4]  # without its checksum
    yield struct.pack("<II", 15, len(whole)) + whole
    deep = element(14, b"")
    for _ in range(2000):
        deep = matrix(2, (1,), *fields, deep)
    yield deep
    for kind in (1, 3, 5, 16, 17):  # cells, objects, sparse, functions
        yield matrix(kind, (1, 1), element(2, b"x"))
    yield matrix(6 | 0x800, (1, 1), element(9, bytes(8)), element(9, bytes(8)))
    yield matrix(6, (3, 3), element(9, bytes(8)))
    yield matrix(6, (1, 1), element(99, bytes(8)))


def test_matlab_files_made_to_harm_cost_little(tmp_path, small):
    path = tmp_path / "x.mat"
    for i, data in enumerate(harmful()):
        path.write_bytes(HEADER + data)
        with pytest.raises(ValueError, match="x.mat: no MATLAB file"):
            cheap(matlab.read_mat, path, "x")
            pytest.fail(f"number {i} is read")
    for data, reason in (
            (matrix(9, (1,) * 9000, element(2, b"x")), "odd shapes"),
            (matrix(2, (1,), element(5, struct.pack("<I", 1)),
                    element(1, b"f" * 11_000)), "too many fields")):
        path.write_bytes(HEADER + data)
        refused(reason, cheap, matlab.read_mat, path, "x")
    for header in (b"MATLAB 7.3".ljust(124) + b"\x00\x02IM", HEADER[:99]):
        path.write_bytes(header + bytes(200))
        refused("x.mat: no MATLAB file", matlab.read_mat, path, "x")


def test_random_bytes_end_in_an_error_at_most(tmp_path):
    """Where SciPy's reader ended the process in two series of five."""
    path, rng = tmp_path / "x.mat", random.Random(0)
    seeds = []
    for packed in (False, True):
        savemat(path, HELD, do_compression=packed)
        seeds.append(path.read_bytes())
    ends = Counter()
    for i in range(1000):
        data = bytearray(seeds[i % 2])
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            matlab.read_mat(path, *HELD)
        except ValueError as error:
            assert "x.mat" in str(error)
            ends[i % 2] += 1
    assert len(ends) == 2 and all(20 < n < 501 for n in ends.values()), ends
