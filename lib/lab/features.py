"""Frozen features: what a network gives that is not trained, taken once.

    cnn = frame_cnn("small", "puppets")
    train = extract({"video": cnn}, splits.train, folder="cache/features")
    train[0]["video_cube"], train[0]["video_vector"]

A dataset of features is as good as one of videos: `fit` and `predict` take
either.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, Subset

from lib.data.batches import Columns, gathered, in_batches, in_memory
from lib.data.store import Store
from lib.data.transforms import View, through
from lib.lab import processes
from lib.lab.training import evaluating, find_device, to_device


def extract(networks: Mapping[str, nn.Module], data: Dataset, *,
            view: View | None = None, folder: str | Path | None = None,
            memory: float = 0, batch: int = 32,
            device: str = "auto") -> Dataset:
    """Run frozen networks over every sample of `data` once.

    networks: by the entry that each reads, as {"video": rgb} or with
        "motion": flow. They have `features(x) -> (cube, vector)`, as
        `cnn2d.FrameCNN`; they run in eval mode and stay on `device`.
    view: look at the samples through it first (`transforms.through`).
    folder: None keeps the result in memory, as Columns. Else each video has
        a file in this folder, counted from the project root, and the result
        reads it when asked for the sample.
    memory: what takes fewer bytes is read from the folder once, now.

    A sample has `<key>_cube` (T, C, h, w) and `<key>_vector` (T, D) in
    float16 for each network, and all that it had but pictures and flow
    (`video`, `motion` and what the networks read).

    Files are whole or not there (`data.store`), so a run that is killed goes
    on where it stopped, and several may share a folder. Several processes of
    one run each make a part of what is missing. Files are found by
    what the sample depends on: `identity` of the data, view, weights.
    Resumed batches are others, and kernels may round otherwise: the last bit
    may differ.

    Raises KeyError if samples lack an input, TypeError if data for a folder
    has no `identity`, FloatingPointError if features overflow float16.
    """
    seen = data if view is None else through(data, view)
    classes = getattr(data, "classes", ())
    device = find_device(device)
    bank = nn.ModuleDict(networks).to(device)
    if folder is None:
        made = _computed(bank, seen, batch, device)
        return gathered(made, len(seen), classes=classes)
    if not hasattr(data, "identity"):
        raise TypeError(
            f"a {type(data).__name__} does not name what its samples depend "
            "on: give a dataset of datasets.load, or leave out `folder`")
    weights = sorted((key, _digest(net)) for key, net in bank.items())
    stored = Stored(Store(folder), [repr((seen.identity(i), weights))
                                    for i in range(len(seen))], classes)
    rank, count = processes.ranks()
    absent = processes.first([] if rank else [
        i for i, key in enumerate(stored.keys)
        if stored.store.find(key) is None])
    if own := absent[rank::count]:
        made = _computed(bank, Subset(seen, own), batch, device)
        samples = (sample for rows in made for sample in Columns(rows))
        for i, sample in zip(own, samples, strict=True):
            stored.store.put(stored.keys[i], sample)
    processes.wait()
    size = len(stored) and len(stored) * sum(
        x.nbytes for x in stored[0].values() if torch.is_tensor(x))
    return in_memory(stored) if 0 < size < memory else stored


class Stored(Dataset):
    """Samples of a store by their keys, read when they are asked for."""

    def __init__(self, store: Store, keys: list[str],
                 classes: Sequence[str]):
        self.store, self.keys, self.classes = store, keys, list(classes)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.store.find(self.keys[index])
        if sample is None:
            raise OSError(
                f"{self.store.file(self.keys[index])} was removed or damaged "
                "after it was checked: call features.extract again")
        return sample


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


def _computed(bank: nn.ModuleDict, data: Dataset, batch: int,
              device: torch.device) -> Iterator[dict[str, Any]]:
    """Batches of what the samples of the result hold."""
    for samples in in_batches(data, batch, device=device):
        if missing := [key for key in bank if key not in samples]:
            raise KeyError(f"no {missing} in samples of {[*samples]}: "
                           "`motion` needs datasets.load(..., fields=L)")
        made = {key: value for key, value in samples.items()
                if key not in {"video", "motion", *bank}}
        inputs = {key: samples[key] for key in bank}
        inputs = to_device(inputs, device)
        with evaluating(bank):
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
