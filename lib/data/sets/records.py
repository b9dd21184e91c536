"""What the readers of all data sets share: records, lists, and their check.

Each set has a file beside this one, with a function

    read(root, split, *, lists_only=False) -> Lists

that opens no video; with `lists_only` the videos may lack. A missing folder
or file gives an error that says what was looked for, where, and how to get
it; a wrong line one that names the file and the line. A set's file also has,
as constants, what its authors publish of it: each archive (a `Source`),
`COUNTS` of each split (training videos, test videos, classes); `VAL_SHARE`,
the share of the training list that becomes the validation split; and `FPS`,
the rate of copies that hold images, which do not tell theirs.
"""

import csv
import io
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lib import ROOT

HOW = ("Run data_scripts/{}.py --root FOLDER, which gets it or says how, "
       "and name FOLDER by data_root or DATA_ROOT.")
NUMBER = re.compile(r"[0-9]{1,9}")


def data_folder(data_root: str | Path | None = None) -> Path:
    """The folder of the real data: as told, else DATA_ROOT, else `data`.

    It counts from the project's root.
    """
    root = data_root or os.environ.get("DATA_ROOT") or "data"
    return ROOT / Path(root).expanduser()


class Source(NamedTuple):
    """A published file: its name, the folder of its address, bytes, hash.

    host is empty where no address is public; size and hash ("md5:...") are
    None where nobody published them.
    """

    name: str
    host: str = ""
    size: int | None = None
    hash: str | None = None

    @property
    def url(self) -> str:
        """Its address, or an empty text."""
        return self.host and self.host + self.name


class Record(NamedTuple):
    """One video of a list.

    group: videos of one group share actors or scene, and so never lie in
        different splits. spans: the frames [start, end) that the actions
        fill, or segments: the same in seconds; None where nobody marked
        them. main_actor: the side of the acting person, "left", "right" or
        "both". ambiguous: seconds [start, end) of which the annotators were
        not sure. truth: called with indices of frames (T,), gives
        tensors of any of `mask` (T, H, W), `boxes` (T, 4) and `joints`
        (T, J, 2), in pixels of the file; its repr tells it from any other.
    """

    path: Path
    label: int
    name: str
    group: str
    spans: tuple[tuple[int, int], ...] | None = None
    main_actor: str | None = None
    segments: tuple[tuple[float, float], ...] | None = None
    ambiguous: tuple[tuple[float, float], ...] | None = None
    truth: Callable[..., dict[str, Any]] | None = None


class Lists(NamedTuple):
    """A data set's official training and test list, and its classes."""

    train: list[Record]
    test: list[Record]
    classes: list[str]

    def restrict(self, classes: Sequence[str]) -> "Lists":
        """Only the videos of `classes`; labels count in their order."""
        unknown = [name for name in classes if name not in self.classes]
        if unknown or not classes:
            raise ValueError(
                f"no classes {unknown or classes}: choose from {self.classes}"
            )
        labels = {self.classes.index(n): i for i, n in enumerate(classes)}
        train, test = (
            [r._replace(label=labels[r.label]) for r in part
             if r.label in labels]
            for part in (self.train, self.test))
        return Lists(train, test, list(classes))


def require(path: Path, script: str) -> Path:
    """`path`, or a FileNotFoundError: what lacks, which script helps."""
    if not path.exists():
        raise FileNotFoundError(f"not found: {path}. {HOW.format(script)}")
    return path


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a list that are not empty, each with `file:number`.

    The text is UTF-8, whether or not it begins with a mark. Raises a
    ValueError, which names the line, for what is no such text.
    """
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        raise ValueError(f"{path}:{line}: no UTF-8 text, save it as such "
                         f"({error.reason})") from error
    for number, line in enumerate(io.StringIO(text, None), start=1):
        if line := line.strip():
            yield f"{path}:{number}", line


def rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The cells of each line of a .csv file, with `file:number`."""
    for where, line in lines(path):
        try:
            yield where, next(csv.reader([line], strict=True))
        except csv.Error as error:
            raise ValueError(f"{where}: {error}") from error


def once(seen: dict[Any, str], key: Any, where: str) -> None:
    """Note that `key` stands at `where`; a ValueError if it did before."""
    if key in seen:
        raise ValueError(f"{where}: {key!r} stands at {seen[key]} already")
    seen[key] = where


def in_order(
    path: Path, entries: Iterable[tuple[str, str, str]], first: int
) -> list[str]:
    """The names of classes whose numbers are `first` and those that follow.

    entries: place, number and name of each class in the list `path`.
    """
    seen: dict[str | int, str] = {}
    numbers: dict[str, int] = {}
    for where, number, name in entries:
        if not NUMBER.fullmatch(number) or not name:
            raise ValueError(f"{where}: {number[:50]!r} and {name[:50]!r} are "
                             "not the number and the name of a class")
        numbers[name] = int(number)
        once(seen, name, where)
        once(seen, numbers[name], where)
    if sorted(numbers.values()) != [*range(first, first + len(numbers))]:
        raise ValueError(f"{path}: the classes are not numbered {first}, "
                         f"{first + 1}, {first + 2}, ...")
    return sorted(numbers, key=numbers.get)


# A record, and the line that it comes from.
Listed = tuple[str, Record]


def checked(
    root: Path, source: Path, train: Sequence[Listed],
    test: Sequence[Listed], classes: Sequence[str],
) -> Lists:
    """The lists, if they are such as every data set's must be.

    root: the folder that no video may lie outside of. source: the file or
        folder that the lists come from. train, test: the records, each with
        the place that an error shall name.

    Raises a ValueError unless both lists have videos, each name stands once
    in the two, no group lies in both, classes are names of folders, labels
    are numbers of classes, and spans and segments end after they start.
    HMDB51 and JHMDB call a source with its class a group, UCF101 its gXX,
    UT-Interaction a sequence of a set; where none is given each video is
    its own. So the rule of groups has no exception.
    """
    for name in classes:
        if name in ("", ".", "..") or re.search(r"[/\\]", name) or (
                not name.isprintable()):
            raise ValueError(f"{source}: {name!r} is no name of a class")
    names, sides = {}, {}
    for side, listed in (("training", train), ("test", test)):
        if not listed:
            raise ValueError(f"{source} lists no {side} videos")
        for where, record in listed:
            once(names, record.name, where)
            _check(where, record, root, len(classes))
            other, place = sides.setdefault(record.group, (side, where))
            if other != side:
                raise ValueError(
                    f"{where}: the group {record.group!r} of the {side} "
                    f"list is in the {other} list too, at {place}")
    return Lists([record for _, record in train],
                 [record for _, record in test], list(classes))


def _check(where: str, record: Record, root: Path, classes: int) -> None:
    """Raise a ValueError if the record by itself cannot be."""
    if (not record.path.is_relative_to(root) or ".." in record.path.parts[
            len(root.parts):] or not record.name.isprintable()):
        raise ValueError(f"{where}: {record.name!r} leads out of the folder "
                         "of the data, or is no name of a file")
    if not 0 <= record.label < classes:
        raise ValueError(f"{where}: the label {record.label} is not one of "
                         f"{classes} classes")
    for times in (record.spans, record.segments, record.ambiguous):
        for start, end in times or ():
            if not 0 <= start < end < float("inf"):
                raise ValueError(f"{where}: nothing can last from {start} "
                                 f"to {end}")


def beside(root: Path, own: str, other: str) -> Path:
    """root/own; or root/annotations/other where only that is there."""
    other = root / "annotations" / other
    return other if other.exists() and not (root / own).exists() else (
        root / own)


def known_split(name: str, split: str | int, known: Collection[str]) -> str:
    """`split` as a text; a ValueError unless it is one of `known`."""
    if str(split) not in known:
        raise ValueError(f"{name} has the splits {[*known]}, not {split!r}")
    return str(split)


def split_by_group(
    records: Sequence[Record], share: float, seed: int = 0
) -> tuple[list[Record], list[Record]]:
    """Cut a validation split of about `share` from a training list.

    Whole groups move, so no group is on both sides. Every class is on both
    sides where its groups allow it; a class that lives in a single group
    stays in training. The same groups and seed give the same split,
    whatever the order of the records, which is kept.

    Returns the training and the validation records.
    """
    sizes = Counter(record.group for record in records)
    labels: dict[str, set[int]] = {}
    for record in records:
        labels.setdefault(record.group, set()).add(record.label)
    left = Counter(label for group in labels.values() for label in group)
    order = sorted(sizes)
    random.Random(seed).shuffle(order)

    target, size = share * len(records), 0
    held: set[str] = set()
    seen: set[int] = set()
    # First what shows every class, then what brings the share nearest.
    for covering in (True, False):
        for group in order:
            if group in held or any(left[k] == 1 for k in labels[group]):
                continue
            nearer = abs(size + sizes[group] - target) < abs(size - target)
            if labels[group] - seen if covering else nearer:
                held.add(group)
                size += sizes[group]
                seen |= labels[group]
                left.subtract(labels[group])
    if not held:
        raise ValueError(
            f"no validation split can be cut from {len(records)} videos in "
            f"{len(order)} group(s): each class needs two groups"
        )
    train = [r for r in records if r.group not in held]
    return train, [r for r in records if r.group in held]


def shaped(where: Path | str, held: dict[str, Any], name: str,
           shape: str) -> np.ndarray:
    """The array held[name]; a ValueError if it has not the `shape`.

    shape: a word for each axis, a number where it has a fixed length.
    """
    found = getattr(held[name], "shape", None)
    axes = shape.split()
    if found is None or len(found) != len(axes) or any(
            axis.isdigit() and int(axis) != length
            for axis, length in zip(axes, found, strict=True)):
        raise ValueError(f"{where}: {name} is {found or 'no array'}, not "
                         f"numbers of the shape ({', '.join(axes)})")
    return held[name]


def at_frames(values: np.ndarray, index: Tensor, unknown: Any) -> Tensor:
    """Rows `index` of `values` (T, ...); `unknown` after the last one."""
    index = index.numpy()
    picked = np.full((len(index), *values.shape[1:]), unknown, values.dtype)
    known = index < len(values)
    picked[known] = values[index[known]]
    return torch.from_numpy(picked)


def whole_points(places: np.ndarray) -> np.ndarray:
    """Joints (..., 2); those of which a number is unknown are NaN."""
    places[~np.isfinite(places).all(-1)] = np.nan
    return places
