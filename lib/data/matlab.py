"""MATLAB files, read without trusting what they hold.

SciPy's reader ends the process at a damaged file, or fills the memory. Here
of the format the part is read that annotations need, and nothing gets much
larger than the file. All that cannot be read is a ValueError with its name.
"""

import itertools
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

LARGEST = 64 * 2**20  # bytes of a file, and unpacked: ten times the largest
MOST = 10**6  # values: three times the most
# How numbers and text are stored, by the code of their type.
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4",
           9: "f8", 12: "i8", 13: "u8"}
TEXTS = {1: "ascii", 2: "ascii", 4: "utf-16-le", 16: "utf-8",
         17: "utf-16-le", 18: "utf-32-le"}
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
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file {path}: complete the "
                                "data set (run its script again)")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} has more than {LARGEST} bytes")
    try:
        held = _Mat(path.read_bytes(), names).held
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
        if data[124:128] != b"\x00\x01IM":  # of little-endian machines
            raise ValueError("another version: save it by save(..., '-v7')")
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
            kind, size = struct.unpack_from("<II", data, at)
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
        flags = struct.unpack_from("<I", flags)[0]
        shape = np.frombuffer(shape, "<u4").tolist()
        kind = flags & 0xFF
        if len(shape) > 32 or flags & COMPLEX:
            raise ValueError("it holds complex numbers or odd shapes")
        if kind in NUMERIC:
            (stored, part), = itertools.islice(parts, 1)
            numbers = np.frombuffer(part, "<" + NUMBERS[stored])
            return numbers.reshape(shape, order="F")
        if kind == CHAR:
            (stored, part), = itertools.islice(parts, 1)
            return bytes(part).decode(TEXTS[stored])
        if kind == STRUCT:
            return self.structs(parts, math.prod(shape))
        raise ValueError("it holds other than numbers, text and structs")

    def structs(self, parts: Iterator[tuple[int, memoryview]],
                count: int) -> list[dict[str, Any]]:
        """The structs of a matrix of them, each a dict by fields."""
        (_, width), (_, names) = itertools.islice(parts, 2)
        width = struct.unpack_from("<I", width)[0]
        names = bytes(names).decode("latin1")
        if not 1 <= len(names) <= MOST:
            raise ValueError("it holds structs of no or too many fields")
        fields = [names[i:i + width].partition("\0")[0]
                  for i in range(0, len(names), width)]
        return [{field: self.value(part) for field, (_, part) in zip(
                    fields, itertools.islice(parts, len(fields)), strict=True)}
                for _ in range(count)]
