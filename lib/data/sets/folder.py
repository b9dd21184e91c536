"""Your own videos: a folder for each class, or a list; see `entries.py`.

A group is what no test video may share with training: a person, a scene.
"""

import functools
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from lib.data import decode
from lib.data.sets import records
from lib.data.sets.entries import Entry, entries, natural
from lib.data.sets.records import Lists, Record, split_by_group

VAL_SHARE, FPS = 0.2, decode.IMAGE_RATE
LARGEST_VAL = 0.34  # of the training videos: they lack more than they tell
FIFTHS = 5
NAMED = 12  # classes, groups and files that are named one by one


class Found(NamedTuple):
    """The videos that can be read, and what was left out and why."""

    entries: list[Entry]
    classes: list[str]
    left_out: list[tuple[str, str]]

    @property
    def groups(self) -> list[str]:
        """The names of the groups; none where none are given."""
        return sorted({e.group for e in self.entries} - {""}, key=natural)

    @property
    def given(self) -> bool:
        """Whether folders or lists say what is for testing."""
        return {"train"} < {e.part for e in self.entries}

    def tests(self) -> dict[str, list[Entry]]:
        """The test videos of each split that there is; see `read`."""
        if self.given:
            parts = _by(self.entries, "part")
            return {"1": parts.get("test") or parts["val"]}
        fifths: dict[str, list[Entry]] = {
            str(n): [] for n in range(1, FIFTHS + 1)}
        if not self.groups:
            # whole fifths: neighbours may be parts of one recording
            for own in _by(self.entries, "label").values():
                for i, e in enumerate(own):
                    fifths[str(1 + i * FIFTHS // len(own))].append(e)
            return {n: test for n, test in fifths.items() if test}
        groups = _by(self.entries, "group")
        # in turn, so that a fifth has groups of all classes
        order = sorted(groups, key=lambda name: (
            sorted({e.label for e in groups[name]}), natural(name)))
        for i, name in enumerate(order):
            fifths[str(1 + i % FIFTHS)] += groups[name]
        return {n: test for n, test in fifths.items() if test} | groups

    def rounds(self) -> list[str]:
        """The splits that test each video once: the groups, if they are few.

        Else fifths.
        """
        if self.given or not self.groups:
            return [*self.tests()]
        fifths = [str(n) for n in range(1, FIFTHS + 1)]
        few = len(self.groups) <= FIFTHS or {*fifths} & {*self.groups}
        return self.groups if few else fifths

    def __str__(self) -> str:
        """How many there are of what, and what was left out."""
        said = [f"{len(self.entries)} videos of {len(self.classes)} classes: "
                + _counts(e.label for e in self.entries)]
        if self.groups:
            said.append(f"{len(self.groups)} groups: "
                        + _counts(e.group for e in self.entries))
        said += [f"left out: {name} ({why})"
                 for name, why in self.left_out[:NAMED]]
        if len(self.left_out) > NAMED:
            said.append(f"left out: {len(self.left_out) - NAMED} more")
        return "\n".join(said)


def read(root: Path, split: str = "1", *, lists_only: bool = False) -> Lists:
    """Read the videos in your folder `root`, or of your list `root`.

    split: the name of the group that is left out for testing; or n = "1" to
        "5", the n-th part of the groups, or where there are none of each
        class. Where folders or lists give train, val and test, these hold,
        and the split is "1"; val joins training, if there is a test part.

    Prints, once, how it was split and what was left out. Unless `lists_only`
    every video is decoded once, and one that is broken or lacks is left out.

    Raises FileNotFoundError without videos, and ValueError for what cannot
    be; that of a split begins with the word.
    """
    found = find(root, lists_only=lists_only)
    tests, split = found.tests(), str(split)
    if split not in tests:
        raise ValueError(f"split {split!r}: {root} has the splits "
                         f"{_some([*tests])}")
    test = tests[split]
    held = {e.name for e in test}
    train = [e for e in found.entries if e.name not in held]
    both = {e.group for e in train} & {e.group for e in test} - {""}
    if both:
        raise ValueError(f"{root}: {_some(sorted(both))} in training and "
                         "test: move their videos, or give no parts")
    if lacks := {*found.classes} - {e.label for e in train}:
        raise ValueError(f"split {split!r}: leaves no training videos of "
                         f"{_some(sorted(lacks))}: add some, or take another")
    train, cut = _apart(train)
    what = ", as given" if found.given else ", by file"
    if found.groups and not found.given:
        what = f" of {_some(sorted({e.group for e in test}, key=natural))}"
    _say(root, f"{found}\ntest: {len(test)} videos{what}; training: "
         f"{len(train)}, some of them for validation{cut}")
    labels = {name: i for i, name in enumerate(found.classes)}
    listed = [[(e.where, Record(e.path, labels[e.label], e.name,
                                e.group or e.name)) for e in part]
              for part in (train, test)]
    return records.checked(Path(Path(root).absolute().anchor), root, *listed,
                           found.classes)


def find(root: Path, *, lists_only: bool = False) -> Found:
    """All videos of a folder or list, and which can be read; see `read`."""
    root = Path(os.path.abspath(root))
    if not root.exists():
        raise FileNotFoundError(f"not found: {root}")
    found, left_out = entries(root)
    seen: dict[str, str] = {}
    for e in found:
        records.once(seen, e.name, e.where)
    classes = sorted({e.label for e in found}, key=natural)
    if len(classes) < 2:
        raise FileNotFoundError(
            f"{root}: has videos of {len(classes)} classes, and two are "
            "needed: put them into a folder for each class, or add a list")
    bare = [e.where for e in found if not e.group]
    if 0 < len(bare) < len(found):
        raise ValueError(f"{bare[0]}: has no group, and others have: give all "
                         "videos one, or none")
    if not lists_only:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            flaws = [*pool.map(_flaw, [e.path for e in found])]
        pairs = [*zip(found, flaws, strict=True)]
        left_out += [(e.name, flaw) for e, flaw in pairs if flaw]
        found = [e for e, flaw in pairs if not flaw]
    for name in {*classes} - {e.label for e in found}:
        why = "".join(f"\n  {each}: {flaw}" for each, flaw in left_out[:3])
        raise ValueError(f"{root}: no video of the class {name!r} can be "
                         f"read: add some, or take it out{why}")
    return Found(found, classes, left_out)


def _flaw(path: Path) -> str:
    """Why a video cannot be read; nothing if it can."""
    try:
        decode.probe(path).require_whole()
    except decode.VideoError as error:
        # FFmpeg's words have the path again
        return str(error).removeprefix(f"{decode.located(path)}: ").replace(
            f": '{path}'", "")
    return ""


def _apart(train: list[Entry]) -> tuple[list[Entry], str]:
    """The training videos, in groups that validation can be cut from; how.

    Of two persons validation would take a half: so each video counts as a
    group there, and validation shares persons with training. It only chooses
    among steps; the test videos never share one.
    """
    labels = {label: i for i, label in enumerate(_by(train, "label"))}
    grouped = any(e.group for e in train)
    for some in (train, [e._replace(group="") for e in train]):
        try:
            val = split_by_group([
                Record(e.path, labels[e.label], e.name, e.group or e.name)
                for e in some], VAL_SHARE)[1]
        except ValueError:
            continue
        if len(val) <= LARGEST_VAL * len(train) or some is not train:
            break
    else:
        raise ValueError("no class has two training videos: add some")
    return some, "" if not grouped else (
        ": whole groups" if some is train else
        ": by file, since there are too few groups")


@functools.cache
def _say(root: Path, text: str) -> None:
    """Print a text of a folder once: a notebook may load it twice."""
    print(text)


def _by(found: Iterable[Entry], field: str) -> dict[str, list[Entry]]:
    parts: dict[str, list[Entry]] = {}
    for e in found:
        parts.setdefault(getattr(e, field), []).append(e)
    return parts


def _some(names: list[str]) -> str:
    """The first few names."""
    return ", ".join(names[:NAMED] + ["..."] * (len(names) > NAMED))


def _counts(names: Iterable[str]) -> str:
    counts = Counter(names)
    return _some([f"{name} {counts[name]}"
                  for name in sorted(counts, key=natural)])
