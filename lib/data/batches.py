"""Samples in batches and in memory.

A sample is a dict (the keys are in `lib/__init__.py`), a batch the same
dict with tensors stacked.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

# What has another length in every video: a list in a batch, never stacked.
RAGGED = ("segments",)


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
        rows = torch.as_tensor(indices)
        return {key: column[rows] if isinstance(column, torch.Tensor)
                else [column[i] for i in rows]
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


def columns(data: Dataset, keys: Sequence[str]) -> dict[str, Any]:
    """What all samples hold under these keys, as one batch; no other keys."""
    return collate([{key: sample[key] for key in keys if key in sample}
                    for sample in (data[i] for i in range(len(data)))])


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
