"""MATLAB files and pickles, read without trusting what they hold.

The usual readers run code that a pickle names, end the process at a damaged
.mat file, or fill the memory. Here a file is data: of each format the part
is read that annotations need, nothing in it is called, and nothing gets much
larger than the file. All that cannot be read is a ValueError with its name.
"""

import itertools
import math
import pickletools
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

LARGEST = 64 * 2**20  # bytes of a file, and unpacked: ten times the largest
MOST = 10**6  # values, or operations of a pickle: three times the most


def content(path: Path) -> bytes:
    """The bytes of a file that is there and not too large."""
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file {path}: complete the "
                                "data set (run its script again)")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} has more than {LARGEST} bytes")
    return path.read_bytes()


# ------------------------------------------------------------------ MATLAB

# How numbers and text are stored, by the code of their type.
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4",
           9: "f8", 12: "i8", 13: "u8"}
TEXTS = {1: "ascii", 2: "ascii", 4: "utf-16", 16: "utf-8", 17: "utf-16",
         18: "utf-32"}
MATRIX, PACKED = 14, 15
STRUCT, CHAR, NUMERIC = 2, 4, range(6, 16)  # classes of a variable
COMPLEX = 0x800  # a flag of it


def read_mat(path: Path, *names: str) -> dict[str, Any]:
    """Variables of a MATLAB file of version 5.

    Numbers are arrays of the type that they are stored as, which may be
    smaller than the variable's; text is a str; a struct array is a list of
    dicts, in MATLAB's order. Raises ValueError for a broken file, a lacking
    variable, and any other content.
    """
    data = content(path)
    try:
        held = _Mat(data, names).held
        if lacking := [name for name in names if name not in held]:
            raise ValueError(f"it has no {lacking}")
        return held
    except Exception as error:  # damaged files raise many kinds
        raise ValueError(f"{path}: no MATLAB file (version 5) with {names}: "
                         f"{error}") from error


class _Mat:
    """The variables `names` that a file's bytes hold."""

    def __init__(self, data: bytes, names: tuple[str, ...]):
        self.held: dict[str, Any] = {}
        self.left, room = MOST, LARGEST
        mark = data[124:128]
        if mark not in (b"\x00\x01IM", b"\x01\x00MI"):
            raise ValueError("another version: save it by save(..., '-v7')"
                             if mark[2:] in (b"IM", b"MI") else "no header")
        self.order = "<" if mark.endswith(b"IM") else ">"
        for kind, part in self.elements(memoryview(data)[128:]):
            if kind == PACKED:
                pack = zlib.decompressobj()
                part = pack.decompress(part, room + 1)  # 0: no limit
                room -= len(part)
                if room < 0 or not pack.eof:
                    raise ValueError("it is cut off, or holds more than "
                                     f"{LARGEST} bytes")
                (kind, part), = self.elements(memoryview(part))
            if kind == MATRIX:
                self.variable(part, names)

    def elements(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """The type and bytes of each element in `data`."""
        at = 0
        while at < len(data):
            kind, size = struct.unpack_from(self.order + "II", data, at)
            start, end = at + 8, at + 8 + size
            at = end + (0 if kind == PACKED else -size % 8)
            if kind >> 16:  # up to four bytes, in the place of their number
                start -= 4
                at, end, kind = start + 4, start + (kind >> 16), kind & 0xFFFF
            if end > len(data):
                raise ValueError("it is cut off")
            yield kind, data[start:end]

    def variable(self, data: memoryview, names: tuple[str, ...]) -> None:
        """Keep the variable in `data` if it is one of `names`."""
        if not data:
            return
        _, _, (_, name) = itertools.islice(self.elements(data), 3)
        if (name := bytes(name).decode("latin1")) in names:
            self.held[name] = self.value(data)

    def value(self, data: memoryview) -> Any:
        """What the matrix in `data` holds."""
        self.left -= 1
        if self.left < 0:
            raise ValueError(f"it holds more than {MOST} values")
        if not data:
            return np.empty((0, 0))
        parts = self.elements(data)
        (_, flags), (_, shape), _ = itertools.islice(parts, 3)
        flags = struct.unpack_from(self.order + "I", flags)[0]
        shape = np.frombuffer(shape, self.order + "u4").tolist()
        kind = flags & 0xFF
        if len(shape) > 32 or flags & COMPLEX:
            raise ValueError("it holds complex numbers or odd shapes")
        if kind in NUMERIC:
            (stored, part), = itertools.islice(parts, 1)
            numbers = np.frombuffer(part, self.order + NUMBERS[stored])
            return numbers.reshape(shape, order="F")
        if kind == CHAR:
            return self.text(parts)
        if kind == STRUCT:
            return self.structs(parts, math.prod(shape))
        raise ValueError("it holds other than numbers, text and structs")

    def text(self, parts: Iterator[tuple[int, memoryview]]) -> str:
        """The text of a matrix of characters."""
        (stored, part), = itertools.islice(parts, 1)
        name = TEXTS[stored]
        if name in ("utf-16", "utf-32"):
            name += "-le" if self.order == "<" else "-be"
        return bytes(part).decode(name)

    def structs(self, parts: Iterator[tuple[int, memoryview]],
                count: int) -> list[dict[str, Any]]:
        """The structs of a matrix of them, each a dict by fields."""
        (_, width), (_, names) = itertools.islice(parts, 2)
        width = struct.unpack_from(self.order + "I", width)[0]
        names = bytes(names).decode("latin1")
        if not 1 <= len(names) <= MOST:
            raise ValueError("it holds structs of no or too many fields")
        fields = [names[i:i + width].partition("\0")[0]
                  for i in range(0, len(names), width)]
        return [{field: self.value(part) for field, (_, part) in zip(
                    fields, itertools.islice(parts, len(fields)), strict=True)}
                for _ in range(count)]


# ----------------------------------------------------------------- pickles

# Operations of a pickle whose argument is the value; and the constants.
PLAIN = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINBYTES",
         "SHORT_BINBYTES", "BINUNICODE", "SHORT_BINUNICODE"}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
NUMPY = {f"{module} {name}" for name in (
    "_reconstruct", "scalar", "dtype", "ndarray") for module in (
    "numpy", "numpy.core.multiarray", "numpy._core.multiarray")}


def read_pickle(path: Path) -> Any:
    """What a pickle of numbers, text, lists, dicts and NumPy arrays holds.

    Of protocol 3 or 4. Nothing in it is run: it may name four functions of
    NumPy, and they are words here. An array is an object with `values`; the
    keys of dicts are text. Raises ValueError for any other content.
    """
    data = content(path)
    try:
        return _Pickle(data).stack[-1]
    except Exception as error:  # damaged pickles raise many kinds
        raise ValueError(f"{path} is not read ({error}): it must be a "
                         "pickle of numbers, text and arrays") from error


class _Word(str):
    """The name of a function of NumPy."""


class _Made:
    """An array (`values`) or a type (`dtype`): its state comes later."""

    dtype: np.dtype | None = None
    values: np.ndarray | None = None


class _Pickle:
    """The stack that a pickle's operations leave."""

    def __init__(self, data: bytes):
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.left = MOST
        for op, given, _ in pickletools.genops(data):
            self.left -= 1
            if self.left < 0:
                raise ValueError(f"more than {MOST} operations")
            self.step(op.name, given)

    def step(self, name: str, given: Any) -> None:
        """Do one operation; a ValueError for one that arrays do not need."""
        stack = self.stack
        if name in PLAIN:
            stack.append(given)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in TUPLES:
            stack.append(tuple(self.above(len(stack) - TUPLES[name])))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[given] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[given])
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(self.above(self.marks.pop())))
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name in ("APPEND", "APPENDS"):
            items = self.above(self.marks.pop() if name == "APPENDS"
                               else len(stack) - 1)
            list.extend(stack[-1], items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self.above(self.marks.pop() if name == "SETITEMS"
                               else len(stack) - 2)
            if any(type(key) is not str for key in items[::2]):
                # a tuple in a tuple in a tuple ... ends Python when hashed
                raise ValueError("keys other than text")
            dict.update(stack[-1], zip(items[::2], items[1::2], strict=True))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            word = given or " ".join(self.above(len(stack) - 2))
            if word not in NUMPY:
                raise ValueError(f"it names {word}")
            stack.append(_Word(word.split()[1]))
        elif name == "REDUCE":
            stack.append(_made(*self.above(len(stack) - 2)))
        elif name == "BUILD":
            _build(*self.above(len(stack) - 1), stack[-1])
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"it holds {name}")

    def above(self, start: int) -> list[Any]:
        """Take what lies on the stack from `start` on."""
        items = self.stack[start:]
        del self.stack[start:]
        return items


def _made(word: _Word, given: tuple) -> Any:
    """What NumPy's function would make of its arguments `given`."""
    made = _Made()
    if type(word) is not _Word or word == "ndarray":
        raise ValueError("it calls what is no function of NumPy")
    if word == "scalar":
        kind, data = given
        return np.frombuffer(data, kind.dtype).item()
    if word == "dtype":
        if not re.fullmatch(r"[biufU]\d{1,3}", given[0]):
            raise ValueError(f"an array of {given[0]}")
        made.dtype = np.dtype(given[0])
    return made


def _build(state: tuple, made: _Made) -> None:
    """Give an array or a type its state."""
    if type(made) is not _Made:
        raise ValueError("it changes what is no array")
    if made.dtype is not None:
        made.dtype = made.dtype.newbyteorder(state[1])
    else:
        _, shape, kind, fortran, data = state
        made.values = np.frombuffer(data, kind.dtype).reshape(
            shape, order="F" if fortran else "C")
