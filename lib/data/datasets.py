"""The door to all data: built-in and real videos give the same samples.

`load` gives the three splits of a data set by its name. Its datasets can be
sampled from a part of each video (`between`), name what a sample depends on
without making it (`identity`), and say what they hold (`contents`).
"""

import ast
import copy
import functools
import hashlib
import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lib import ROOT
from lib.data import decode, flow, transforms
from lib.data.sampling import at_least, flow_runs, sample_part, thin
from lib.data.sets import SETS
from lib.data.sets.records import Record, data_folder, split_by_group
from lib.data.store import Store
from lib.worlds import worlds

LARGEST = 2**30  # bytes of a sample: 7,000 frames of 224 x 224
PARTS = ("train", "val", "test")
PUPPETS = worlds.WORLDS | {old: worlds.WORLDS[new]
                           for old, new in worlds.ALIASES.items()}


class _Splits(NamedTuple):
    train: Dataset
    val: Dataset
    test: Dataset
    classes: list[str]


class Splits(_Splits):
    """The datasets of the three splits, and the names of the classes."""

    @functools.cached_property
    def digest(self) -> str:
        """Tells the data from any other: 16 hex digits.

        Another copy of the same set has the same; one that lacks a video, or
        has a file of another size in its place, or is read in another way,
        has not.
        """
        told = [self.classes, getattr(self.train, "reader", ""),
                *(part.contents() for part in self[:3])]
        return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def check_sample(frames: int, size: int, fields: int) -> None:
    """Raise a ValueError that names what a sample cannot have, or afford."""
    at_least(1, frames=frames)
    at_least(2, size=size)
    at_least(0, fields=fields)
    needed = frames * (3 + 4 * fields) * size**2  # RGB, two float16 a field
    if needed > LARGEST:
        # above what the papers use
        excess = {"frames": frames // 64, "size": size**2 // 224**2,
                  "fields": fields // 10}
        raise ValueError(
            f"frames={frames}, size={size}, fields={fields}: a sample needs "
            f"{needed:,} bytes, more than the {LARGEST:,} allowed: lower "
            f"{max(excess, key=excess.get)}")


class _Parted(Dataset):
    """Videos of which `frames` each are seen, evenly over a part of each."""

    part = (0.0, 1.0)

    def between(self, start: float, end: float) -> "_Parted":
        """The same videos, sampled from the shares [start, end) of each."""
        other = copy.copy(self)
        other.part = (start, end)
        return other

    def _runs(self, total: int) -> tuple[Tensor, Tensor]:
        """The frames (T,) that are seen, and those (T, L+1) of their flow."""
        index = sample_part(total, self.frames, self.part)
        return index, flow_runs(index, total, self.fields)


class Videos(_Parted):
    """Real videos: decoded when asked for, sampled, letterboxed.

    A sample has `video` uint8 (frames, 3, size, size), `label`, `name`,
    `group`, `fps`, and `segments`, `relevant`, `main_actor`, `ambiguous`
    (pairs of seconds), `mask` and `boxes` where the record has them. `fps`
    is the rate of the *sampled* frames: frame i stands for the seconds
    [i / fps, (i + 1) / fps) of the file. Where a file's own rate varies,
    `fps` is a mean; `segments` and `relevant` go by when each frame is shown.

    frames: of each video, the centres of as many equal parts.
    fields: L > 0 adds `motion` float16 (frames, 2L, size, size), the DIS
        flow between the frames that follow each sampled one, taken after
        letterboxing.
    extras: ("joints",) adds `joints` (frames, J, 2), where they are known.
    cache: a folder for the decoded clips (`store.Store`).
    on_error: "raise" stops with a VideoError at the first broken file that
        is asked for (missing ones are found at once). "skip" reads every
        file once now, leaves the broken out and lists them as `skipped`,
        pairs of record and reason; with a cache that pass is not in vain.
    image_fps: the rate of videos that are folders of images, which do not
        tell theirs.

    Raises ValueError, before anything is read, for an option that is not as
    said here, or samples of more than LARGEST bytes.
    """

    reader = ""  # the digest of the code that read lists and true answers

    def __init__(
        self, records: Sequence[Record], *, classes: Sequence[str],
        frames: int = 16, size: int = 64, fields: int = 0,
        cache: str | Path | None = None, on_error: str = "raise",
        extras: Sequence[str] = (), image_fps: float = decode.IMAGE_RATE,
    ):
        check_sample(frames, size, fields)
        if wrong := set(extras) - {"joints"}:
            raise ValueError(f"extras {sorted(wrong)}: only 'joints'")
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error {on_error!r}: 'raise' or 'skip'")
        self.records = [r._replace(path=decode.located(r.path))
                        for r in records]
        self.classes = list(classes)
        self.frames, self.size, self.fields = frames, size, fields
        self.extras, self.image_fps = tuple(extras), image_fps
        self.store = None if cache is None else Store(cache)
        self.skipped: list[tuple[Record, str]] = []
        missing = [r.path for r in self.records if not os.path.exists(r.path)]
        if on_error == "skip":
            self.records = [r for r in self.records if self._intact(r)]
        elif missing:
            raise decode.VideoError(
                f"{len(missing)} of {len(self.records)} videos are missing, "
                f"as {missing[0]}: complete the data set, name the classes "
                "you have, or ask for on_error='skip'"
            )

    def _intact(self, record: Record) -> bool:
        try:
            self._clip(record)
        except decode.VideoError as error:
            self.skipped.append((record, str(error)))
            return False
        return True

    def contents(self) -> list[tuple]:
        """Name, label, number of files and bytes of each video."""
        return [(r.name, r.label, *decode.stamp(r.path)[:2])
                for r in self.records]

    def identity(self, i: int) -> str:
        """All that sample i depends on: its file and the settings."""
        record = self.records[i]
        return repr((record, decode.stamp(record.path), self._settings()))

    def _settings(self) -> tuple:
        return (self.frames, self.size, self.fields, self.part,
                self.image_fps, *self.extras)

    def _clip(self, record: Record) -> dict[str, Tensor]:
        make, path = functools.partial(self._decode, record), record.path
        if self.store is None or not os.path.exists(path):
            return make()  # which says what is wrong with the file
        return self.store.get(repr((
            str(path.resolve()), decode.stamp(path), self._settings(),
            record.truth)), make)

    def _decode(self, record: Record) -> dict[str, Tensor]:
        info, pictures = decode.sampled(
            record.path, lambda total: self._runs(total)[1].unique())
        info.require_whole()
        index, runs = self._runs(info.frames)
        wanted, place = runs.unique(return_inverse=True)
        clip = {"video": pictures}
        if record.truth is not None:
            clip |= record.truth(index, joints="joints" in self.extras)
        clip = transforms.letterbox(clip, self.size)
        frames = clip["video"]
        clip["video"] = frames[torch.searchsorted(wanted, index)]
        if self.fields:
            clip["motion"] = flow.stacked(frames[place])
        fps = self.image_fps if record.path.is_dir() else info.fps
        if info.times is not None:
            clip["times"] = torch.tensor(info.times, dtype=torch.float64)
        return clip | {
            "index": index, "total": torch.tensor(info.frames),
            "fps": torch.tensor(fps, dtype=torch.float64),
        }

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.records[index]
        clip = self._clip(record)
        share = self.part[1] - self.part[0]
        sample = {key: clip[key] for key in (
            "video", "motion", "mask", "boxes", "joints") if key in clip}
        sample |= {"label": record.label, "name": record.name,
                   "group": record.group, "fps": clip["fps"].item()
                   * self.frames / (share * clip["total"].item())}
        marks, at = record.spans, clip["index"].double() + 0.5
        if marks is None:
            marks, at = record.segments, _seconds(clip, at)
        if marks is not None:
            marks = torch.tensor(marks, dtype=torch.float64).reshape(-1, 2)
            start, end = marks.T[..., None]
            if record.spans is not None:
                marks = _seconds(clip, marks)
            sample["segments"] = marks.float()
            sample["relevant"] = ((start <= at) & (at < end)).any(0)
        for key in ("main_actor", "ambiguous"):
            if getattr(record, key) is not None:
                sample[key] = getattr(record, key)
        return sample


def _seconds(clip: dict[str, Tensor], at: Tensor) -> Tensor:
    """When frames are shown: 3 is the start of frame 3, 3.5 its middle."""
    if "times" not in clip:
        return at / clip["fps"]
    times = clip["times"].numpy()
    return torch.from_numpy(np.interp(at, np.arange(len(times)), times))


def _drawing() -> str:
    """The digest of the code that draws."""
    return _code("lib/worlds/*.py", "lib/data/boxes.py")


@functools.lru_cache
def _code(*patterns: str) -> str:
    """The digest of some files' code, without comments and docstrings."""
    digest = hashlib.sha256()
    for file in [file for pattern in patterns
                 for file in sorted(ROOT.glob(pattern))]:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(body := getattr(node, "body", None), list):
                node.body = [part for part in body if not (
                    isinstance(part, ast.Expr)
                    and isinstance(part.value, ast.Constant))]
        digest.update(ast.unparse(tree).encode())
    return digest.hexdigest()


class Thinned(_Parted):
    """Whole videos of the puppets, of which `frames` each are kept.

    fields: as in `Videos`; the flow is measured by DIS, as on real videos,
        and not the exact one that the puppets know.
    """

    def __init__(self, data: worlds.Puppets, frames: int, fields: int = 0):
        self.data, self.frames, self.fields = data, frames, fields
        self.classes = data.classes

    def contents(self) -> tuple:
        """How many videos of which settings, and the code that draws."""
        data = self.data
        return (data.split, data.seed, len(data), data.classes, data.dials,
                _drawing())

    def identity(self, i: int) -> str:
        """All that sample i depends on: settings, and the code that draws."""
        data = self.data
        return repr((data.split, data.seed, i, data.classes, data.dials,
                     sorted(data.extras), _drawing(), self.frames,
                     self.fields, self.part))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        whole = self.data[index]
        sample = thin(whole, self.frames, self.part)
        if self.fields:
            runs = self._runs(len(whole["video"]))[1]
            sample["motion"] = flow.stacked(whole["video"][runs])
        return sample


def turned(dataset: str, dials: Mapping[str, Any]) -> worlds.Dials:
    """The dials of a built-in world with other values, as {"rivals": [2, 2]}.

    Raises KeyError for another data set, TypeError for a name that is no
    dial, ValueError as `worlds.Dials` does.
    """
    return replace(PUPPETS[dataset], **{
        name: tuple(value) if isinstance(value, list) else value
        for name, value in dials.items()})


def load(
    dataset: str = "alone", *, data_root: str | Path | None = None,
    classes: Sequence[str] | None = None, frames: int = 16, size: int = 64,
    n_train: int = 1000, n_val: int = 200, n_test: int = 500, seed: int = 0,
    split: str = "1", cache: str | Path | None = None,
    on_error: str = "raise", fields: int = 0, extras: Sequence[str] = (),
) -> Splits:
    """Load the three splits of a data set by its name.

    dataset: a world of PUPPETS, as "alone" or "stage_long", or one of SETS.
    data_root: the folder of the real data, see `records.data_folder`.
    classes: names to restrict the data set to; they give the labels' order.
    frames: of each video, evenly over its whole length.
    n_train, n_val, n_test: for puppets only. A real set is taken whole.
    seed: of the puppets, or of the real sets' validation split, which is
        cut by group from the training list.
    split: the official split of a real set (UCF101, HMDB51, JHMDB "1" to
        "3"; "1" trains UT-Interaction on set 1, "2" on set 2; others "1").
    cache, on_error, fields: see `Videos`. extras: there, or in `Puppets`.

    Raises ValueError as `Videos` does, for puppets too.
    """
    check_sample(frames, size, fields)
    if dataset in PUPPETS:
        at_least(1, n_train=n_train, n_val=n_val, n_test=n_test)
        dials = replace(PUPPETS[dataset], size=size)
        parts = [
            Thinned(worlds.Puppets(part, n, classes=classes, dials=dials,
                                    seed=seed, extras=extras), frames, fields)
            for part, n in zip(PARTS, (n_train, n_val, n_test), strict=True)
        ]
        return Splits(*parts, list(parts[0].classes))
    if dataset not in SETS:
        raise ValueError(f"unknown dataset {dataset!r}: choose from "
                         f"{[*PUPPETS, *SETS]}")
    reader = importlib.import_module(f"lib.data.sets.{dataset}")
    found = reader.read(data_folder(data_root), split)
    if classes is not None:
        found = found.restrict(classes)
    train, val = split_by_group(found.train, reader.VAL_SHARE, seed)
    parts = (
        Videos(records, classes=found.classes, frames=frames, size=size,
               fields=fields, cache=cache, on_error=on_error, extras=extras,
               image_fps=reader.FPS)
        for records in (train, val, found.test)
    )
    splits = Splits(*parts, found.classes)
    for part in splits[:3]:
        part.reader = _code(f"lib/data/sets/{dataset}.py",
                            "lib/data/sets/records.py")
    return splits
