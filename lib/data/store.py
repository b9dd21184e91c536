"""Decoded clips and features, kept on disk."""


import hashlib
import io
import json
import os
import struct
import uuid
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

# What numpy raises for a file that is missing, cut or altered.
DAMAGED = (
    OSError, EOFError, ValueError, KeyError, NotImplementedError,
    RuntimeError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


def stamp(path: Path) -> tuple[int, int, int]:
    """Number, bytes and times of the files of a path: they tell a change.

    path: a video file, or a folder that holds a video's frames.
    """
    files = os.scandir(path) if path.is_dir() else [path]
    found = [file.stat() for file in files]
    return (len(found), sum(status.st_size for status in found),
            sum(status.st_mtime_ns for status in found))


class ClipCache:
    """Decoded clips on disk, as uint8; safe to share between processes.

    A clip is found again by its file (path, size, time) and the settings
    that made it. Files are written beside and renamed, and checked by their
    checksum when read: a damaged one is made again. Where nothing can be
    written, as on a full disk, a warning says so once and clips are made
    whenever they are asked for.
    """

    def __init__(self, folder: Path):
        self.folder, self.writes = folder, True
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._stop(error)

    def _stop(self, error: OSError) -> None:
        self.writes = False
        warnings.warn(
            f"{self.folder} takes no more clips ({error}): they are decoded "
            "at each access, which is slow; make room there, start again",
            stacklevel=3)

    def get(
        self,
        path: Path,
        settings: tuple,
        make: Callable[[], dict[str, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        """What `make` gives for this file, from disk if it is there."""
        try:
            key = repr((str(path.resolve()), stamp(path), settings))
        except (OSError, ValueError):
            return make()  # which says what is wrong with the file
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        file = self.folder / f"{name}.npz"
        try:
            with file.open("rb") as raw, np.load(raw) as kept:
                # by the names: zip's checksums miss an entry that has gone
                return {str(k): torch.from_numpy(kept[k])
                        for k in kept["names"]}
        except DAMAGED:
            pass
        made = make()
        if self.writes:
            try:
                self._write(file, made)
            except OSError as error:
                self._stop(error)
        return made

    def _write(self, file: Path, made: dict[str, torch.Tensor]) -> None:
        data = io.BytesIO()  # on a full disk NumPy leaves a zip half open
        np.savez(data, names=np.array([*made]),
                 **{k: v.numpy() for k, v in made.items()})
        beside = file.with_suffix(f".{os.getpid()}.part")
        try:
            beside.write_bytes(data.getbuffer())
            os.replace(beside, file)
        finally:
            beside.unlink(missing_ok=True)


class _Stored(Dataset):
    """Samples in files, read when they are asked for."""

    def __init__(self, files: list[Path], classes: Iterable[str]):
        self.files, self.classes = files, list(classes)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            return _read(self.files[index])
        except DAMAGED as error:
            raise OSError(
                f"{self.files[index]} was removed or damaged after it was "
                f"checked ({error}): call features.extract again") from error


def _digest(network: nn.Module) -> str:
    """Tells a network's layout and all its numbers from any other's."""
    digest = hashlib.sha256(repr(network).encode())
    # buffers like the mean of the inputs are in no state_dict
    for name, value in [*network.named_parameters(),
                        *network.named_buffers()]:
        digest.update(repr((name, value.dtype, value.shape)).encode())
        flat = value.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def _name(identity: str, weights: dict[str, str]) -> str:
    text = repr((identity, sorted(weights.items())))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _write(file: Path, sample: dict[str, Any]) -> None:
    """An npz file of the tensors; `json` holds the rest, and their names."""
    arrays = {key: value.numpy() for key, value in sample.items()
              if isinstance(value, Tensor)}
    rest = {key: value for key, value in sample.items() if key not in arrays}
    text = json.dumps([file.name, [*arrays], rest])
    beside = file.with_suffix(f".{uuid.uuid4().hex}.part")
    with beside.open("wb") as out:
        np.savez(out, json=np.array(text), **arrays)
    os.replace(beside, file)


def _read(file: Path) -> dict[str, Any]:
    """What was written there, or one of the errors in DAMAGED."""
    with file.open("rb") as raw, np.load(raw) as kept:
        name, keys, rest = json.loads(str(kept["json"]))
        if name != file.name:
            raise ValueError(f"it holds what belongs in {name}")
        # by the names: zip's checksums do not tell that an entry has gone
        return {key: torch.from_numpy(kept[key]) for key in keys} | rest


def _whole(file: Path) -> bool:
    try:
        _read(file)
    except DAMAGED:
        return False
    return True
