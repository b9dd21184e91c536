"""The official lists of real data sets, read into records.

No video is opened here. A reader returns `Lists`; a missing folder or file
gives an error that says what was looked for, where, and how to get it. Here
are the records, UCF101 and UT-Interaction; annotations_lists.py reads the
other lists, annotations_boxes.py the sets with masks, joints and boxes.
"""

import csv
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lib import ROOT

UT_CLASSES = ("hand-shake", "hug", "kick", "point", "punch", "push")
# The clips begin about so many frames before the action and end as many
# after it (the sheet's `extra_frames_vs_label` is the sum).
UT_MARGIN = 14
UT_ACTORS = {"0": "left", "1": "right", "-1": "both"}
HOW = ("Run data_scripts/{}.py --root FOLDER, which gets it or says how, "
       "and name FOLDER by data_root or DATA_ROOT.")
HOW_UCF101, HOW_UT = HOW.format("ucf101"), HOW.format("ut_interaction")


def data_folder(data_root: str | Path | None = None) -> Path:
    """The folder of the real data: as told, else DATA_ROOT, else `data`.

    It counts from the project's root.
    """
    root = data_root or os.environ.get("DATA_ROOT") or "data"
    return ROOT / Path(root).expanduser()


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
            for part in (self.train, self.test)
        )  # fmt: skip
        return Lists(train, test, list(classes))


def require(path: Path, what: str, how: str) -> Path:
    """`path`, or a FileNotFoundError that says what lacks and the mend."""
    if not path.exists():
        raise FileNotFoundError(f"{what} not found: {path}. {how}")
    return path


def beside(root: Path, own: str, other: str) -> Path:
    """root/own; or root/annotations/other where only that is there."""
    other = root / "annotations" / other
    return other if other.exists() and not (root / own).exists() else (
        root / own)


def one_split(name: str, split: str) -> None:
    """Raise a ValueError unless `split` is "1", the only one of a set."""
    if str(split) != "1":
        raise ValueError(f"{name} has the split '1' only, not {split!r}")


def ucf101(
    root: str | Path, split: str = "1", *, lists_only: bool = False
) -> Lists:
    """Read UCF101's split "1", "2" or "3".

    `root` holds `UCF-101/<class>/v_..._gXX_cYY.avi` and the lists in
    `ucfTrainTestlist/` (or in `annotations/ucf101_splits/`); the videos may
    lack with `lists_only`. The class is the folder's name: the file's
    prefix differs in HandstandPushups/v_HandStandPushups_... . The group is
    gXX over all classes, as the official splits cut it.
    """
    root, split = Path(root), str(split)
    if split not in ("1", "2", "3"):
        raise ValueError(f"UCF101 has the splits '1', '2', '3', not {split!r}")
    folder = beside(root, "ucfTrainTestlist", "ucf101_splits")
    require(folder, "UCF101's lists", HOW_UCF101)
    if not lists_only:
        require(root / "UCF-101", "UCF101's videos", HOW_UCF101)
    labels = {}
    for _, line in _lines(folder / "classInd.txt"):
        number, name = line.split(maxsplit=1)
        labels[name] = int(number) - 1
    classes = sorted(labels, key=labels.get)
    train, test = (
        _ucf101_list(root / "UCF-101", folder / f"{part}0{split}.txt", labels)
        for part in ("trainlist", "testlist")
    )
    return Lists(train, test, classes)


def _lines(path: Path) -> list[tuple[int, str]]:
    """The numbered lines of a list file, without the empty ones."""
    require(path, "a list of UCF101", HOW_UCF101)
    numbered = enumerate(path.read_text().splitlines(), start=1)
    return [(number, line) for number, line in numbered if line.strip()]


def _ucf101_list(
    videos: Path, path: Path, labels: dict[str, int]
) -> list[Record]:
    records = []
    for number, line in _lines(path):
        file, *given = line.split()
        match = re.fullmatch(r"([^/]+)/(v_.+_(g\d+)_c\d+)\.\w+", file)
        if match is None or match[1] not in labels:
            raise ValueError(
                f"{path}:{number}: {file!r} is not <class>/v_..._gXX_cYY.avi "
                "with a class of classInd.txt"
            )
        label = labels[match[1]]
        if given and int(given[0]) != label + 1:
            raise ValueError(
                f"{path}:{number}: {file} has the label {given[0]}, its "
                f"folder is class {label + 1}"
            )
        records.append(Record(videos / file, label, match[2], match[3]))
    return records


def ut_interaction(root: str | Path, split: str = "1") -> Lists:
    """Read UT-Interaction's clips in `root/ut_interaction`.

    Split "1" (or "set1") trains on set 1 and tests on set 2, "2" the
    reverse. The group is the sequence with its set. Where
    `ut_clips_derived.csv` is there, records have `main_actor` and `spans`.
    """
    split = str(split).removeprefix("set")
    if split not in ("1", "2"):
        raise ValueError(
            f"UT-Interaction has the splits '1' and '2', not {split!r}"
        )
    root = require(Path(root) / "ut_interaction", "UT-Interaction", HOW_UT)
    sheet = _ut_sheet(root / "ut_clips_derived.csv")
    parts = {part: _ut_clips(root, part, sheet) for part in ("1", "2")}
    train, test = parts.pop(split), *parts.values()
    return Lists(train, test, list(UT_CLASSES))


def _ut_sheet(path: Path) -> dict[str, dict[str, str]]:
    """The derived sheet's rows by clip; empty where there is no sheet."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = csv.reader(file)
        # The header explains its codes in brackets: main_actor(0=left;...
        names = [title.split("(")[0] for title in next(rows)]
        return {row[0]: dict(zip(names, row, strict=True)) for row in rows}


def _ut_clips(
    root: Path, part: str, sheet: dict[str, dict[str, str]]
) -> list[Record]:
    folder = require(root / f"clips_set{part}", "a set's clips", HOW_UT)
    numbers = {}
    for path in folder.glob("*.avi"):
        match = re.fullmatch(r"(\d+)_(\d+)_([0-5])", path.stem)
        if match is None:
            raise ValueError(
                f"{path}: expected the name <index>_<sequence>_<label>.avi "
                "with a label from 0 to 5"
            )
        numbers[path] = tuple(int(n) for n in match.groups())
    if not numbers:
        raise FileNotFoundError(f"no .avi clips in {folder}. {HOW_UT}")
    records = []
    for path in sorted(numbers, key=numbers.get):
        _, sequence, label = numbers[path]
        name, group = f"set{part}_{path.stem}", f"set{part}_{sequence:02d}"
        record = Record(path, label, name, group)
        if sheet:
            clip = f"{folder.name}/{path.name}"
            if clip not in sheet:
                raise ValueError(
                    f"ut_clips_derived.csv has no row {clip!r}: complete "
                    "the sheet, or remove it to go without its answers"
                )
            row = sheet[clip]
            end = int(row["n_frames"]) - UT_MARGIN
            record = record._replace(
                spans=((UT_MARGIN, end),),
                main_actor=UT_ACTORS[row["main_actor"]],
            )
        records.append(record)
    return records


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
