"""Frozen features: what a network that is not trained says, taken once.

    cnn = frame_cnn("small", "puppets")
    train = extract({"video": cnn}, splits.train, folder="cache/features")
    train[0]["video_cube"], train[0]["video_vector"]

A dataset of features is as good as one of videos: `fit` and `predict` take
either.
"""


from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from lib import ROOT
from lib.data.batches import Columns, alike, in_memory
from lib.data.store import _digest, _name, _Stored, _whole, _write
from lib.data.transforms import View, through
from lib.lab.training import find_device, frozen, in_batches, to_device


def extract(networks: Mapping[str, nn.Module], data: Dataset, *,
            view: View | None = None, folder: str | Path | None = None,
            memory: float = 0, batch: int = 32, device: str = "auto",
            workers: int = 0) -> Dataset:
    """Run frozen networks over every sample of `data` once.

    networks: by the entry that each reads, as {"video": rgb} or with
        "motion": flow. They have `features(x) -> (cube, vector)`, as
        `backbones2d.FrameCNN`; they run in eval mode and stay on `device`.
    view: look at the samples through it first (`views.through`).
    folder: None keeps the result in memory, as Columns. Else each video has
        a file in this folder, counted from the project root, and the result
        reads it when asked for the sample.
    memory: what takes fewer bytes is read from the folder once, now.

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
    size = len(stored) and len(stored) * sum(
        x.nbytes for x in stored[0].values() if isinstance(x, Tensor))
    return in_memory(stored) if 0 < size < memory else stored


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
