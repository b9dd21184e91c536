"""The one store on disk: what is costly to make, kept by what it depends on.

Decoded clips (`datasets.Videos`) and the features of frozen networks
(`lab.features`) lie in it, each sample in a file of its own.
"""

import contextlib
import hashlib
import json
import os
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from lib import ROOT

SEAL = 32  # bytes of a SHA-256


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path beside `file` to write to, which then takes its place.

    So the file is whole or as it was, whenever the process ends, and of
    several writers the last one wins. A block that fails leaves nothing.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f"{file.name}.{uuid.uuid4().hex}.part")
    try:
        yield beside
        os.replace(beside, file)
    finally:
        beside.unlink(missing_ok=True)


class Store:
    """Samples in a folder by their keys; safe to share between processes.

    folder: counts from the project's root.

    A sample is a dict of tensors and of values that JSON knows. A key is a
    text of all that the sample depends on, and names its file. The file
    begins with the SHA-256 of key and content: one that was cut, altered or
    put in another's place counts as not there.
    """

    def __init__(self, folder: str | Path):
        self.folder, self.writes = ROOT / Path(folder).expanduser(), True

    def file(self, key: str) -> Path:
        """Where the sample of this key is, or would be."""
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        return self.folder / f"{name}.sample"

    def get(self, key: str, make: Callable[[], dict]) -> dict[str, Any]:
        """The sample from disk, or else what `make` gives, which is kept.

        Where nothing can be written, as on a full disk, a warning says so
        once, and samples are made whenever they are asked for.
        """
        sample = self.find(key)
        if sample is None:
            sample = make()
            try:
                if self.writes:
                    self.put(key, sample)
            except OSError as error:
                self.writes = False
                warnings.warn(
                    f"{self.folder} takes no more samples ({error}): they "
                    "are made at each access, which is slow; make room "
                    "there, start again", stacklevel=2)
        return sample

    def find(self, key: str) -> dict[str, Any] | None:
        """The sample as it was put here, or None."""
        try:
            found = self.file(key).read_bytes()
        except OSError:
            return None
        seal, content = found[:SEAL], found[SEAL:]
        if seal != _seal(key, content):
            return None
        values, _, tensors = content.partition(b"\n")
        return load(tensors) | json.loads(values)

    def put(self, key: str, sample: dict[str, Any]) -> None:
        """Write a sample; OSError if that fails, and nothing is left."""
        tensors = {name: value.contiguous() for name, value in sample.items()
                   if isinstance(value, Tensor)}
        values = json.dumps({name: value for name, value in sample.items()
                             if name not in tensors})
        content = values.encode() + b"\n" + save(tensors)
        with replacing(self.file(key)) as beside:
            beside.write_bytes(_seal(key, content) + content)


def _seal(key: str, content: bytes) -> bytes:
    digest = hashlib.sha256(key.encode())
    digest.update(content)
    return digest.digest()
