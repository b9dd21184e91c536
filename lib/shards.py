"""Many tensors in few files: what is measured once for each video.

    with Writer("cache/flow", {"bound": 20.0}, packed=True) as out:
        out.add("Archery/v_Archery_g01_c01.avi", {"flow": fields})
    Shards("cache/flow")["Archery/v_Archery_g01_c01.avi"]["flow"]

A folder holds 00000.bin, 00001.bin, ... and index.jsonl, a line per video.
Data is on the disk before its line is: what a killed writer has left without
a line is cut off by the next one, which goes on after the last whole video.
"""

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from lib import ROOT

LARGEST = 2**30  # bytes of a .bin file, after which a new one begins


def _index(folder: Path) -> tuple[dict[str, dict], int]:
    """The entries of the whole lines that have their data, by name.

    And the length of these lines in the file.
    """
    path, entries, end = folder / "index.jsonl", {}, 0
    if not path.is_file():
        return entries, end
    sizes: dict[str, int] = {}
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            entry = json.loads(line)
        except ValueError:
            break  # cut off
        file = entry["file"]
        if file not in sizes:
            data = folder / file
            sizes[file] = data.stat().st_size if data.is_file() else 0
        if not line.endswith(b"\n") or (
                entry["start"] + entry["length"] > sizes[file]):
            break
        entries[entry["name"]] = entry
        end += len(line)
    return entries, end


class Writer:
    """Adds entries to a folder; the only writer at a time (POSIX).

    settings: what all entries have in common, as JSON; a folder that was
        begun with others is a ValueError. packed: deflate the tensors.
    `names` are the entries that are there.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any], *,
                 packed: bool = False):
        import fcntl

        self.folder, self.packed = ROOT / folder, packed
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise RuntimeError(f"another process writes to {self.folder}: "
                               "wait for it, or end it") from error
        try:
            self._claim(json.dumps(dict(settings), sort_keys=True))
            self._mend()
        except BaseException:
            self._lock.close()
            raise

    def _claim(self, text: str) -> None:
        note = self.folder / "settings.json"
        if note.is_file() and note.read_text() != text:
            raise ValueError(
                f"{self.folder} was begun with {note.read_text()}, now it "
                f"were {text}: choose another folder")
        beside = note.with_suffix(".part")
        beside.write_text(text)
        os.replace(beside, note)

    def _mend(self) -> None:
        entries, end = _index(self.folder)
        self.names = set(entries)
        path = self.folder / "index.jsonl"
        path.touch()
        os.truncate(path, end)
        last = list(entries.values())[-1] if entries else {
            "file": "00000.bin", "start": 0, "length": 0}
        data = self.folder / last["file"]
        data.touch()
        os.truncate(data, last["start"] + last["length"])
        self._open(data)
        self._lines = path.open("ab")

    def _open(self, path: Path) -> None:
        self._path, self._data = path, path.open("ab")

    def add(self, name: str, sample: Mapping[str, Any]) -> None:
        """Keep a sample: tensors, and what JSON can hold."""
        if name in self.names:
            raise ValueError(f"{name} is in {self.folder} already")
        if self._data.tell() >= LARGEST:
            self._data.close()
            self._open(self.folder / f"{int(self._path.stem) + 1:05d}.bin")
        start, keys, rest, crc = self._data.tell(), {}, {}, 0
        for key, value in sample.items():
            if not isinstance(value, torch.Tensor):
                rest[key] = value
                continue
            array = value.detach().cpu().contiguous().numpy()
            data = array.tobytes()
            data = zlib.compress(data, 6) if self.packed else data
            keys[key] = [array.dtype.str, array.shape, len(data)]
            crc = zlib.crc32(data, crc)
            self._data.write(data)
        self._data.flush()
        os.fsync(self._data.fileno())
        line = json.dumps({
            "name": name, "file": self._path.name, "start": start,
            "length": self._data.tell() - start, "crc": crc,
            "packed": self.packed, "keys": keys, "rest": rest})
        self._lines.write(line.encode() + b"\n")
        self._lines.flush()
        os.fsync(self._lines.fileno())
        self.names.add(name)

    def close(self) -> None:
        """Let the next writer in."""
        self._data.close()
        self._lines.close()
        self._lock.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Shards(Mapping):
    """Reads what a `Writer` has written, each entry when asked for.

    `settings` are those of the folder. An entry that was altered is an
    OSError that names it.
    """

    def __init__(self, folder: str | Path):
        self.folder = ROOT / folder
        note = self.folder / "settings.json"
        if not note.is_file():
            raise FileNotFoundError(f"no settings.json in {self.folder}: "
                                    "extract flow or features first")
        self.settings = json.loads(note.read_text())
        self.entries = _index(self.folder)[0]

    def __getitem__(self, name: str) -> dict[str, Any]:
        entry = self.entries[name]
        with (self.folder / entry["file"]).open("rb") as file:
            file.seek(entry["start"])
            data = file.read(entry["length"])
        if zlib.crc32(data) != entry["crc"]:
            raise OSError(f"{name} in {self.folder / entry['file']} was "
                          "altered: remove the folder and extract again")
        sample, place = dict(entry["rest"]), 0
        for key, (dtype, shape, length) in entry["keys"].items():
            part = data[place:place + length]
            part = zlib.decompress(part) if entry["packed"] else part
            # a copy: PyTorch does not take what cannot be written to
            array = np.frombuffer(part, dtype).reshape(shape).copy()
            sample[key] = torch.from_numpy(array)
            place += length
        return sample

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


class Sharded(Dataset):
    """The samples `names` of a folder; what `fit` and `predict` take."""

    def __init__(self, folder: str | Path, names: Sequence[str],
                 classes: Sequence[str] = ()):
        self.shards, self.names = Shards(folder), list(names)
        self.classes = list(classes)
        if lacking := [n for n in self.names if n not in self.shards]:
            raise KeyError(f"{self.shards.folder} lacks {len(lacking)} of "
                           f"{len(self.names)} samples, as {lacking[0]}")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.shards[self.names[index]]
