"""MATLAB files and pickles that would rather harm: they are data alone."""

import io
import os
import pickle
import random
import struct
import subprocess
import time
import tracemalloc
import zlib
from collections import Counter

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from lib import ROOT
from lib.data import untrusted

DATA_ROOT = ROOT / (os.environ.get("DATA_ROOT") or "data")

@pytest.fixture
def small(monkeypatch):
    """Limits a hundredth as high, for tests that go beyond them."""
    monkeypatch.setattr(untrusted, "LARGEST", 2**20)
    monkeypatch.setattr(untrusted, "MOST", 10_000)


def cheap(function, *arguments):
    """The value of a call that takes neither much memory nor long."""
    tracemalloc.start()
    begin = time.perf_counter()
    try:
        return function(*arguments)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20e6, peak
        assert time.perf_counter() - begin < 10


# ---------------------------------------------------------------- pickles


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
            untrusted.read_pickle(path)
        assert not trace.exists() and not (tmp_path / "trace.npy").exists()
        count += 1
    assert count == 10
    # the attack works on whoever trusts it, so the test can fail
    pickle.loads(pickle.dumps(Attack(os.system, f"touch {trace}"), protocol))
    assert trace.exists()


GLOBAL = b"cnumpy\n"


def test_pickles_by_hand_are_refused(tmp_path):
    path = tmp_path / "x.pkl"
    for text in (
        b"cos\nsystem\n(S'true'\ntR.", b"(S'true'\nios\nsystem\n.",
        b"cnumpy\ndtype.__init__\n.", b"cnumpy.core.multiarray\nfromfile\n.",
        b"\x80\x02\x82\x01.", b"P1\n.", b"", b"\x80\x04\x95", bomb(9),
        b".", b"N", b"t.", b"N}b.", b"]]b.", b"K\x01K\x02R.",
        # text is no function, even if it is the name of one
        b"X\x05\x00\x00\x00dtype)R.", GLOBAL + b"ndarray\n)R.",
        GLOBAL + b"dtype\n(X\x02\x00\x00\x00O8tR.",
        GLOBAL + b"dtype\n(X\x09\x00\x00\x00(99999,)OtR.",
        pickle.dumps(np.array([{}])), pickle.dumps(np.zeros(2, "M8[s]")),
        pickle.dumps({1, 2}), pickle.dumps({(1,): 2}), pickle.dumps(1 << 9999),
    ):
        path.write_bytes(text)
        with pytest.raises(ValueError, match="x.pkl is not read"):
            untrusted.read_pickle(path)
    with path.open("wb") as file:
        file.truncate(untrusted.LARGEST + 1)  # no bytes on the disk
    with pytest.raises(ValueError, match="more than"):
        untrusted.read_pickle(path)


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
            untrusted.read_pickle(path)
        return
    buffer = io.BytesIO()
    pickle.Pickler(buffer, protocol).dump(held)
    path.write_bytes(buffer.getvalue())
    found = untrusted.read_pickle(path)
    assert found["n"] == 7 and found["t"] == (1, "x", None, 2.5)
    for name, want in arrays.items():
        got = found[name].values
        assert np.array_equal(got, want) and got.dtype == want.dtype


@pytest.mark.parametrize("data", [
    b"Nr\xff\xff\xff\x13.",  # the memo's place 335,544,319: 2.5 GB
    b"\x80\x03B\xff\xff\xff\x7fabc.",  # 2 GB of bytes, three are there
    b"\x80\x04\x8e" + b"\xff" * 7 + b"\x00abc.",
    b"\x80\x04\x95" + b"\xff" * 7 + b"\x00abc.",  # a frame
    b"\x80\x03(" + b"]" * 11_000 + b"t.",
    b"I" + b"9" * 5000 + b"\n."])
def test_pickles_made_to_harm_cost_little(tmp_path, small, data):
    path = tmp_path / "x.pkl"
    path.write_bytes(data)
    if data[:2] == b"Nr":  # the place is a number, and no memory
        assert cheap(untrusted.read_pickle, path) is None
    else:
        with pytest.raises(ValueError, match="x.pkl is not read"):
            cheap(untrusted.read_pickle, path)


def test_no_key_is_a_tuple_in_a_tuple(tmp_path):
    """Python ends where it takes the hash of half a million of them."""
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x03}N" + b"\x85" * 500_000 + b"Ns.")
    with pytest.raises(ValueError, match="x.pkl.*keys other than text"):
        untrusted.read_pickle(path)


def test_no_pickle_changes_our_functions(tmp_path):
    """BUILD sets what a class or function holds, for all of the process."""
    path, before = tmp_path / "x.pkl", dict(vars(untrusted._made))
    for name in (b"scalar", b"dtype", b"_reconstruct", b"ndarray"):
        for state in (b"}X\x01\x00\x00\x00aK\x01s",
                      b"N}X\x0c\x00\x00\x00__defaults__Ns\x86"):
            path.write_bytes(b"\x80\x03" + GLOBAL + name + b"\n" + state +
                             b"b.")
            with pytest.raises(ValueError, match="changes what is no array"):
                untrusted.read_pickle(path)
    assert vars(untrusted._made) == before
    assert not hasattr(untrusted._Word, "a")


# ----------------------------------------------------------------- MATLAB


def structs(*rows):
    """Dicts as SciPy writes an array of structs."""
    made = np.empty((1, len(rows)), [(field, object) for field in rows[0]])
    for i, row in enumerate(rows):
        made[0, i] = tuple(row.values())
    return made


HELD = {
    "a": np.arange(24, dtype=np.uint8).reshape(2, 3, 4), "b": np.eye(3) / 3,
    "c": "täxt", "d": np.array([[-3]], np.int16), "e": np.zeros((0, 4)),
    "f": np.ones((2, 2), bool), "g": np.float32([[1.5, 2.5]]),
    "s": structs({"name": "x/y", "in": structs({"n": 1.0}, {"n": 2.0})},
                 {"name": "z", "in": structs({"n": 3.0})})}


@pytest.mark.parametrize("packed", [False, True])
def test_matlab_files_are_read_as_scipy_reads_them(tmp_path, packed):
    path = tmp_path / "x.mat"
    savemat(path, HELD | {"cell": np.array([1, "x"], object)},
            do_compression=packed)
    found = untrusted.read_mat(path, *HELD)
    assert found.pop("c") == "täxt"
    some = found.pop("s")
    assert [one["name"] for one in some] == ["x/y", "z"]
    assert [[inner["n"].item() for inner in one["in"]] for one in some] == [
        [1, 2], [3]]
    theirs = loadmat(path, variable_names=[*HELD])
    for name, value in found.items():
        assert np.array_equal(value, theirs[name]), name
        assert value.shape == theirs[name].shape
    with pytest.raises(ValueError, match="x.mat.*other than numbers"):
        untrusted.read_mat(path, "cell")
    with pytest.raises(ValueError, match=r"x.mat.*it has no \['z'\]"):
        untrusted.read_mat(path, "a", "z")


def test_a_real_file_is_read_as_scipy_reads_it():
    path = DATA_ROOT / "samples/joint_positions.mat"
    if not path.is_file():
        pytest.skip("no samples/joint_positions.mat below DATA_ROOT")
    names = "pos_img", "pos_world"
    found, theirs = untrusted.read_mat(path, *names), loadmat(path)
    assert all(np.array_equal(found[name], theirs[name]) for name in names)


def element(kind, data, order="<"):
    return struct.pack(order + "II", kind, len(data)) + data + bytes(
        -len(data) % 8)


def matrix(kind, shape, *parts, name=b"x", order="<"):
    return element(14, b"".join((
        element(6, struct.pack(order + "II", kind, 0), order),
        element(5, struct.pack(f"{order}{len(shape)}I", *shape), order),
        element(1, name, order), *parts)), order)


HEADER = b"MATLAB".ljust(124) + b"\x00\x01IM"


def test_the_other_order_of_bytes(tmp_path):
    path, numbers = tmp_path / "x.mat", np.arange(6, dtype=">f8")
    path.write_bytes(HEADER[:124] + b"\x01\x00MI" + matrix(
        6, (2, 3), element(9, numbers.tobytes(), ">"), order=">"))
    found = untrusted.read_mat(path, "x")["x"]
    assert np.array_equal(found, numbers.reshape(2, 3, order="F"))


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
            cheap(untrusted.read_mat, path, "x")
            pytest.fail(f"number {i} is read")
    for data, reason in (
            (matrix(9, (1,) * 9000, element(2, b"x")), "odd shapes"),
            (matrix(2, (1,), element(5, struct.pack("<I", 1)),
                    element(1, b"f" * 11_000)), "too many fields")):
        path.write_bytes(HEADER + data)
        with pytest.raises(ValueError, match=reason):
            cheap(untrusted.read_mat, path, "x")
    for header in (b"MATLAB 7.3".ljust(124) + b"\x00\x02IM", HEADER[:99]):
        path.write_bytes(header + bytes(200))
        with pytest.raises(ValueError, match="x.mat: no MATLAB file"):
            untrusted.read_mat(path, "x")


def test_random_bytes_end_in_an_error_at_most(tmp_path):
    """Where SciPy's reader ended the process in two series of five."""
    path, rng = tmp_path / "x.mat", random.Random(0)
    seeds = []
    for packed in (False, True):
        savemat(path, HELD, do_compression=packed)
        seeds.append((path.read_bytes(), untrusted.read_mat, tuple(HELD)))
    held = {"a": {"n": np.uint16(7), "l": [1, None, 2.5, np.eye(2)]}}
    seeds += [(pickle.dumps(held, protocol), untrusted.read_pickle, ())
              for protocol in (3, 4)]
    ends = Counter()
    for i in range(2000):
        data, read, names = seeds[i % 4]
        data = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            read(path, *names)
        except ValueError as error:
            assert "x.mat" in str(error)
            ends[i % 4] += 1
    assert len(ends) == 4 and all(20 < n < 501 for n in ends.values()), ends
