"""Frozen features: what a network that is not trained says, taken once.

    cnn = frame_cnn("small", "puppets")
    train = extract({"video": cnn}, splits.train, folder="cache/features")
    train[0]["video_cube"], train[0]["video_vector"]

A dataset of features is as good as one of videos: `fit` and `predict` take
either.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from lib import ROOT
from lib.clips import DAMAGED
from lib.samples import Columns, alike
from lib.training import find_device, frozen, in_batches, to_device
from lib.views import View, through


def extract(networks: Mapping[str, nn.Module], data: Dataset, *,
            view: View | None = None, folder: str | Path | None = None,
            batch: int = 32, device: str = "auto",
            workers: int = 0) -> Dataset:
    """Run frozen networks over every sample of `data` once.

    networks: by the entry that each reads, as {"video": rgb} or with
        "motion": flow. They have `features(x) -> (cube, vector)`, as
        `backbones2d.FrameCNN`; they run in eval mode and stay on `device`.
    view: look at the samples through it first (`views.through`).
    folder: None keeps the result in memory, as Columns. Else each video has
        a file in this folder, counted from the project root, and the result
        reads it when asked for the sample (`datasets.in_memory` reads all).

    A sample has `<key>_cube` (T, C, h, w) and `<key>_vector` (T, D) in
    float16 for each network, and all that it had but pictures and flow
    (`video`, `motion` and what the networks read).

    Files are whole or not there, so a run that is killed goes on where it
    stopped, and several may share a folder. Names are made of what the
    sample depends on (`identity` of the data, view, weights); what is there
    is read and checked, and made again if damaged. Resumed batches are
    others, and kernels may round otherwise: the last bit may differ.

    Raises KeyError if samples lack an input, TypeError if data for a folder
    has no `identity`, FloatingPointError if features overflow float16.
    """
    seen = data if view is None else through(data, view)
    bank = nn.ModuleDict(networks).to(find_device(device))
    if folder is None:
        made = _computed(bank, seen, batch, device, workers)
        columns = _gathered(made, len(seen))
        return Columns(columns, classes=getattr(data, "classes", ()))
    if not hasattr(data, "identity"):
        raise TypeError(
            f"a {type(data).__name__} does not name what its samples depend "
            "on: give a dataset of datasets.load, or leave out `folder`")
    folder = ROOT / Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: _digest(network) for key, network in bank.items()}
    stored = _Stored(
        [folder / f"{_name(seen.identity(i), weights)}.npz"
         for i in range(len(seen))], getattr(data, "classes", ()))
    absent = [i for i, file in enumerate(stored.files) if not _whole(file)]
    if absent:
        made = _computed(bank, Subset(seen, absent), batch, device, workers)
        samples = (sample for rows in made for sample in Columns(rows))
        for i, sample in zip(absent, samples, strict=True):
            _write(stored.files[i], sample)
    return stored


def _computed(bank: nn.ModuleDict, data: Dataset, batch: int, device: str,
              workers: int) -> Iterator[dict[str, Any]]:
    """Batches of what the samples of the result hold."""
    for samples in in_batches(data, batch, workers):
        if missing := [key for key in bank if key not in samples]:
            raise KeyError(f"no {missing} in samples of {[*samples]}: "
                           "`motion` needs datasets.load(..., fields=L)")
        made = {key: value for key, value in samples.items()
                if key not in {"video", "motion", *bank}}
        inputs = {key: samples[key] for key in bank}
        inputs = to_device(inputs, find_device(device))
        with frozen(bank):
            for key, network in bank.items():
                parts = zip(("cube", "vector"),
                            network.features(inputs[key]), strict=True)
                for part, value in parts:
                    made[f"{key}_{part}"] = value.half().cpu()
                    if not made[f"{key}_{part}"].isfinite().all():
                        raise FloatingPointError(
                            f"the {part} of the {key!r} network is not "
                            "finite in float16: scale its weights down")
        yield made


def _gathered(batches: Iterable[dict], total: int) -> dict[str, Any]:
    """Columns of all batches, so that the peak is the data and one batch."""
    first, columns, done = None, {}, 0
    for samples in batches:
        rows = Columns(samples)
        first = first or rows[0]
        alike(rows[0], first)
        for key, value in samples.items():
            if key not in columns:
                tensor = isinstance(value, Tensor)
                columns[key] = (torch.empty(total, *value.shape[1:],
                                            dtype=value.dtype)
                                if tensor else [None] * total)
            columns[key][done:done + len(rows)] = value
        done += len(rows)
    return columns


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
