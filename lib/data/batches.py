"""Samples in batches and in memory.

A sample is a dict (the keys are in `lib/__init__.py`), a batch the same
dict with tensors stacked.
"""

import hashlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

# What has another length in every video: a list in a batch, never stacked.
RAGGED = ("segments",)
LOADERS = 8  # processes that read batches for a GPU


def collate(samples: Sequence[dict] | dict) -> dict[str, Any]:
    """Make a batch of samples: tensors and numbers stacked, rest lists.

    `segments` stay a list, since videos have different numbers of them.
    A batch that `Columns` has already put together passes unchanged.
    """
    if isinstance(samples, Mapping):
        return samples
    for sample in samples[1:]:
        alike(sample, samples[0])
    batch = {}
    for key, value in samples[0].items():
        batch[key] = [sample[key] for sample in samples]
        if key in RAGGED:
            continue
        if isinstance(value, torch.Tensor):
            batch[key] = torch.stack(batch[key])
        elif isinstance(value, (bool, int, float)):
            batch[key] = torch.tensor(batch[key])
    return batch


def alike(sample: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    """Raise a ValueError unless both samples have the same keys and shapes."""
    one, other = (
        {k: () if k in RAGGED else tuple(getattr(v, "shape", ()))
         for k, v in mapping.items()} for mapping in (sample, first))
    if one != other:
        raise ValueError(
            f"sample {sample.get('name')} has {one}, the first {other}: all "
            "need the same keys and shapes; sample a fixed number of frames "
            "and letterbox to one size")


class Columns(Dataset):
    """A dataset in memory: a dict of equally long tensors or lists.

    An item is a sample. Several at once (`__getitems__`, which DataLoader
    calls) come as a ready batch, by one indexing per column; the
    DataLoader's `collate_fn=collate` lets it pass.
    """

    def __init__(self, columns: Mapping[str, torch.Tensor | list], *,
                 classes: Sequence[str] = ()):
        lengths = {key: len(column) for key, column in columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"columns need one common length, got {lengths}")
        self.columns = dict(columns)
        self.classes = list(classes)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = {key: column[index] for key, column in self.columns.items()}
        return {key: value.item() if isinstance(value, torch.Tensor)
                and value.ndim == 0 else value
                for key, value in sample.items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        here, gpu = torch.as_tensor(indices), None

        def rows(column: torch.Tensor) -> torch.Tensor:
            nonlocal gpu
            if not column.is_cuda:
                return here
            if gpu is None:  # sent once, and without waiting for the GPU
                gpu = here.pin_memory().to(column.device, non_blocking=True)
            return gpu

        return {key: column[rows(column)] if isinstance(column, torch.Tensor)
                else [column[i] for i in here]
                for key, column in self.columns.items()}


def gathered(batches: Iterable[Mapping[str, Any]], total: int, *,
             classes: Sequence[str] = ()) -> Columns:
    """All batches, of `total` samples together, as `Columns`.

    Tensors are written into their column as they come, so the peak is the
    data itself and one batch.
    """
    first, columns, done = None, {}, 0
    for batch in batches:
        rows = Columns(batch)
        first = first or rows[0]
        alike(rows[0], first)
        for key, value in batch.items():
            if key not in columns:
                columns[key] = [None] * total
                if isinstance(value, torch.Tensor):
                    columns[key] = value.new_empty(total, *value.shape[1:])
            columns[key][done:done + len(rows)] = value
        done += len(rows)
    return Columns(columns, classes=classes)


def in_memory(dataset: Dataset) -> Columns:
    """Read every sample of `dataset` once and keep them as `Columns`."""
    each = (collate([dataset[i]]) for i in range(len(dataset)))
    return gathered(each, len(dataset),
                    classes=getattr(dataset, "classes", ()))


def paired(data: Dataset, other: Dataset, seed: int = 0) -> Columns:
    """Each sample with a random one of another set, drawn once.

    The entries of the other sample are named `other_<key>`, for training on
    two sets at once; `segments`, names and the like are left out. `classes`
    are those of the other set.
    """
    places = torch.randint(len(other), (len(data),),
                           generator=torch.Generator().manual_seed(seed))
    made = in_memory(_Paired(data, other, places.tolist()))
    made.classes = list(getattr(other, "classes", ()))
    return made


class _Paired(Dataset):
    """See `paired`: made sample by sample, so that memory holds it once."""

    def __init__(self, data: Dataset, other: Dataset, places: list[int]):
        self.data, self.other, self.places = data, other, places

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        more = self.other[self.places[index]]
        return self.data[index] | {
            f"other_{key}": value for key, value in more.items()
            if key == "label" or (
                isinstance(value, torch.Tensor) and key not in RAGGED)}


def columns(data: Dataset, keys: Sequence[str]) -> dict[str, Any]:
    """What all samples hold under these keys, as one batch; no other keys."""
    return collate([{key: sample[key] for key in keys if key in sample}
                    for sample in (data[i] for i in range(len(data)))])


class Batches:
    """Item i is a whole batch: the i-th in order, or that of step i.

    With a seed each epoch is a permutation from (seed, epoch), less the rest
    that fills no batch; without, the last batch is as short as it comes.
    What the data draws from torch comes from (seed, i), so that batches are
    the same for any step to start from. Of `count` processes, each has its
    own part of a step's batch.
    """

    def __init__(self, data: Dataset, batch: int, seed: int | None = None,
                 rank: int = 0, count: int = 1):
        if len(data) == 0 or batch < 1:
            raise ValueError(f"{len(data)} samples in batches of {batch}: "
                             "there must be at least one of each")
        self.data, self.batch, self.seed = data, batch, seed
        self.rank, self.count = rank, count

    def __len__(self) -> int:
        return math.ceil(len(self.data) / self.batch)

    def __getitem__(self, at: int) -> dict:
        epoch, place, order = 0, at, range(len(self.data))
        if self.seed is not None:
            epoch, place = divmod(at, max(1, len(order) // self.batch))
            order = _permutation(self.seed, epoch, len(order))
        whole = order[place * self.batch:(place + 1) * self.batch]
        indices = list(whole[self.rank::self.count])
        many = getattr(self.data, "__getitems__", None)
        with torch.random.fork_rng(devices=[]):
            own = (at, self.rank) if self.rank else (at,)
            seed = mixed_seed(self.seed, "step", *own)
            torch.default_generator.manual_seed(seed)
            return collate(many(indices) if many
                           else [self.data[index] for index in indices])

    def ahead(self, steps: range, device: torch.device) -> DataLoader:
        """The batches of some steps.

        For a GPU, other processes read ahead what is not in memory, and it is
        pinned; but not from a data set that says `needs_gpu`, which they
        cannot use. They share this machine's cores with the other ranks.
        """
        far = (device.type == "cuda" and not isinstance(self.data, Columns)
               and not getattr(self.data, "needs_gpu", False))
        ranks = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        return DataLoader(
            self, batch_size=None, sampler=steps, collate_fn=_as_it_is,
            num_workers=min(LOADERS, max(1, os.cpu_count() // ranks - 1))
            if far else 0, pin_memory=far, generator=torch.Generator())


def _as_it_is(batch: dict) -> dict:
    return batch


@lru_cache(maxsize=1)
def _permutation(seed: int, epoch: int, size: int) -> list[int]:
    generator = torch.Generator().manual_seed(mixed_seed(seed, "epoch", epoch))
    return torch.randperm(size, generator=generator).tolist()


def mixed_seed(*parts: int | str | None) -> int:
    """A seed from several numbers or texts, without a sum's collisions."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:7], "big")


def in_batches(data: Dataset, batch: int, *,
               device: torch.device | None = None, rank: int = 0,
               count: int = 1) -> Iterable[dict]:
    """Batches of all samples in order, the last as short as it comes.

    device: where they go, as in `Batches.ahead`; the CPU by default. Of
    `count` processes, `rank` has every count-th batch.
    """
    batches = Batches(data, batch)
    return batches.ahead(range(rank, len(batches), count),
                         device or torch.device("cpu"))
