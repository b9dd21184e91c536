"""One Dataset for all: puppets and real videos give the same samples.

A sample is a dict (the keys are in `lib/__init__.py`), a batch the same
dict with tensors stacked. `load` gives the three splits of a data set by
its name.
"""

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset

from lib import ROOT, annotations, puppets, video
from lib.annotations import Record, split_by_group
from lib.clips import ClipCache, thin

# What has another length in every video: a list in a batch, never stacked.
RAGGED = ("segments",)
# Share of the training list that becomes the validation split. Ten
# sequences train UT-Interaction: a tenth of them would be six clips.
READERS = {
    "ucf101": (annotations.ucf101, 0.1),
    "ut_interaction": (annotations.ut_interaction, 0.2),
}
PARTS = ("train", "val", "test")
PUPPETS = {
    "puppets": puppets.DIALS, "puppets_untrimmed": puppets.UNTRIMMED}
PLANNED = ("hmdb51", "ucf101_24", "thumos14", "moments")


class Splits(NamedTuple):
    """The datasets of the three splits, and the names of the classes."""

    train: Dataset
    val: Dataset
    test: Dataset
    classes: list[str]


def collate(samples: Sequence[dict] | dict) -> dict[str, Any]:
    """Make a batch of samples: tensors and numbers stacked, rest lists.

    `segments` stay a list, since videos have different numbers of them.
    A batch that `Columns` has already put together passes unchanged.
    """
    if isinstance(samples, Mapping):
        return samples
    for sample in samples[1:]:
        _alike(sample, samples[0])
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


def _alike(sample: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    one, other = (
        {k: () if k in RAGGED else tuple(getattr(v, "shape", ()))
         for k, v in mapping.items()}
        for mapping in (sample, first)
    )
    if one != other:
        raise ValueError(
            f"sample {sample.get('name')} has {one}, the first {other}: all "
            "need the same keys and shapes; sample a fixed number of frames "
            "and letterbox to one size"
        )


class Columns(Dataset):
    """A dataset in memory: a dict of equally long tensors or lists.

    An item is a sample. Several at once (`__getitems__`, which DataLoader
    calls) come as a ready batch, by one indexing per column; the
    DataLoader's `collate_fn=collate` lets it pass.
    """

    def __init__(
        self, columns: Mapping[str, torch.Tensor | list], *,
        classes: Sequence[str] = (),
    ):
        lengths = {key: len(column) for key, column in columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"columns need one common length, got {lengths}")
        self.columns = dict(columns)
        self.classes = list(classes)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = {}
        for key, column in self.columns.items():
            value = column[index]
            number = isinstance(value, torch.Tensor) and value.ndim == 0
            sample[key] = value.item() if number else value
        return sample

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        rows = torch.as_tensor(indices)
        batch = {}
        for key, column in self.columns.items():
            tensor = isinstance(column, torch.Tensor)
            batch[key] = column[rows] if tensor else [column[i] for i in rows]
        return batch


def in_memory(dataset: Dataset) -> Columns:
    """Read every sample of `dataset` once and keep them as `Columns`.

    Tensors are written into their column as they come, so the peak is the
    data itself and one sample.
    """
    first, columns = dataset[0], {}
    for key, value in collate([first]).items():
        columns[key] = [None] * len(dataset)
        if isinstance(value, torch.Tensor):
            columns[key] = value.new_empty((len(dataset), *value.shape[1:]))
    for row in range(len(dataset)):
        sample = first if row == 0 else dataset[row]
        _alike(sample, first)
        for key, value in sample.items():
            columns[key][row] = value
    return Columns(columns, classes=getattr(dataset, "classes", ()))


class Videos(Dataset):
    """Real videos: decoded when asked for, sampled, letterboxed.

    A sample has `video` uint8 (frames, 3, size, size), `label`, `name`,
    `group`, `fps`, and `segments`, `relevant` and `main_actor` where the
    record has them. `fps` is the rate of the *sampled* frames: frame i
    stands for the seconds [i / fps, (i + 1) / fps) of the file.

    sampling: "uniform" takes the centres of equal segments, "segments" a
        random frame of each, anew at every access (global torch RNG).
    cache: a folder for the decoded clips; only for "uniform".
    on_error: "raise" stops with a VideoError at the first broken file that
        is asked for (missing ones are found at once). "skip" reads every
        file once now, leaves the broken out and lists them as `skipped`,
        pairs of record and reason; with a cache that pass is not in vain.
    """

    def __init__(
        self, records: Sequence[Record], *, classes: Sequence[str],
        frames: int = 16, size: int = 64, sampling: str = "uniform",
        cache: str | Path | None = None, on_error: str = "raise",
    ):
        if sampling not in ("uniform", "segments"):
            raise ValueError(f"sampling {sampling!r}: 'uniform' or 'segments'")
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error {on_error!r}: 'raise' or 'skip'")
        if cache is not None and sampling == "segments":
            raise ValueError(
                "random segments differ at every access and cannot be "
                "cached: leave out `cache`, or sample 'uniform'"
            )
        self.records = list(records)
        self.classes = list(classes)
        self.frames, self.size, self.sampling = frames, size, sampling
        self.cache = None if cache is None else ClipCache(Path(cache))
        self.skipped: list[tuple[Record, str]] = []
        missing = [r.path for r in self.records if not r.path.is_file()]
        if on_error == "skip":
            self._drop_broken()
        elif missing:
            raise video.VideoError(
                f"{len(missing)} of {len(self.records)} videos are missing, "
                f"as {missing[0]}: complete the data set, name the classes "
                "you have, or ask for on_error='skip'"
            )

    def _drop_broken(self) -> None:
        intact = []
        for record in self.records:
            try:
                self._clip(record)
            except video.VideoError as error:
                self.skipped.append((record, str(error)))
            else:
                intact.append(record)
        self.records = intact

    def _clip(self, record: Record) -> dict[str, torch.Tensor]:
        if self.cache is None:
            return self._decode(record)
        settings = (self.frames, self.size, self.sampling)
        make = functools.partial(self._decode, record)
        return self.cache.get(record.path, settings, make)

    def _decode(self, record: Record) -> dict[str, torch.Tensor]:
        info = video.probe(record.path)
        info.require_whole()
        sample = getattr(video, f"sample_{self.sampling}")
        index = sample(info.frames, self.frames)
        clip = {"video": video.read(record.path, index)}
        return video.letterbox(clip, self.size) | {
            "index": index,
            "total": torch.tensor(info.frames),
            "fps": torch.tensor(info.fps, dtype=torch.float64),
        }

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.records[index]
        clip = self._clip(record)
        fps = clip["fps"].item()
        sample = {
            "video": clip["video"], "label": record.label,
            "name": record.name, "group": record.group,
            "fps": fps * self.frames / clip["total"].item(),
        }  # fmt: skip
        if record.spans is not None:
            spans = torch.tensor(record.spans).reshape(-1, 2)
            after = spans[:, :1] <= clip["index"]
            before = clip["index"] < spans[:, 1:]
            sample["segments"] = spans / fps
            sample["relevant"] = (after & before).any(0)
        if record.main_actor is not None:
            sample["main_actor"] = record.main_actor
        return sample


class Thinned(Dataset):
    """A dataset of whole videos, of which `frames` each are kept."""

    def __init__(self, data: Dataset, frames: int):
        self.data, self.frames, self.classes = data, frames, data.classes

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return thin(self.data[index], self.frames)


def load(
    dataset: str = "puppets", *, data_root: str | Path | None = None,
    classes: Sequence[str] | None = None, frames: int = 16, size: int = 64,
    n_train: int = 1000, n_val: int = 200, n_test: int = 500, seed: int = 0,
    split: str = "1", cache: str | Path | None = None,
    on_error: str = "raise",
) -> Splits:
    """Load the three splits of a data set by its name.

    dataset: "puppets", "puppets_untrimmed", "ucf101" or "ut_interaction".
    data_root: the folder of the real data; else the environment variable
        DATA_ROOT, else `data`; counted from the project root.
    classes: names to restrict the data set to; they give the labels' order.
    frames: of each video, evenly over its whole length.
    n_train, n_val, n_test: for puppets only. A real set is taken whole.
    seed: of the puppets, or of the real sets' validation split, which is
        cut by group from the training list.
    split: the official split of a real set (UCF101 "1" to "3"; "1" trains
        UT-Interaction on set 1, "2" on set 2).
    cache, on_error: see `Videos`.
    """
    if dataset in PUPPETS:
        dials = replace(PUPPETS[dataset], size=size)
        parts = [
            Thinned(puppets.Puppets(part, n, classes=classes, dials=dials,
                                    seed=seed), frames)
            for part, n in zip(PARTS, (n_train, n_val, n_test), strict=True)
        ]
        return Splits(*parts, list(parts[0].classes))
    names = [*PUPPETS, *READERS]
    if dataset in PLANNED:
        raise NotImplementedError(
            f"the reader of {dataset} is not here yet; use one of {names}")
    if dataset not in READERS:
        raise ValueError(f"unknown dataset {dataset!r}: choose from {names}")
    reader, share = READERS[dataset]
    root = data_root or os.environ.get("DATA_ROOT") or "data"
    lists = reader(ROOT / Path(root).expanduser(), split)
    if classes is not None:
        lists = lists.restrict(classes)
    train, val = split_by_group(lists.train, share, seed)
    if cache is not None:
        cache = ROOT / Path(cache).expanduser()
    parts = (
        Videos(records, classes=lists.classes, frames=frames, size=size,
               cache=cache, on_error=on_error)
        for records in (train, val, lists.test)
    )
    return Splits(*parts, lists.classes)
