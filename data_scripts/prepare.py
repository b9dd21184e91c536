"""What the scripts of all data sets share: options, places, counts.

A data set is a list of parts, folders or files below the root. A part that
is there is left alone; else it comes from what the user has (`--from`) or
by download, is made beside its place and then renamed: so a run that was
killed leaves nothing that looks whole, and the next one goes on.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from fetch import Unreachable, checked, download, locked
from unpack import SUFFIXES, is_archive, unpack

from lib.data.sets.records import Source


@dataclass(frozen=True)
class Part:
    """A folder or file that a data set needs.

    target: its place below the root. source: the published file, or the
    archive in which it is called `inside` (a path; by default the last
    name of `target`; "." is the whole archive). lists: whether it is one of
    the small files that `--splits-only` gets. finish: works on the folder
    before it is put in its place; its second argument is the root.
    """

    target: str
    source: Source
    inside: str = ""
    lists: bool = False
    finish: Callable[[Path, Path], None] | None = None


class Count(NamedTuple):
    """What was found, and how much there officially is (None: not said)."""

    what: str
    found: int
    official: int | None = None


def lists_counts(reader: ModuleType, root: Path, lists_only: bool
                 ) -> list[Count]:
    """Videos and classes of each split, and the videos that are there."""
    found, paths = [], set()
    for split, official in reader.COUNTS.items():
        lists = reader.read(root, split, lists_only=lists_only)
        own = f"split {split}: " * (len(reader.COUNTS) > 1)
        found += [Count(f"{own}{name}", len(some), number) for name, some,
                  number in zip(("training videos", "test videos", "classes"),
                                lists, official, strict=True)]
        paths |= {record.path for record in lists.train + lists.test}
    if not lists_only:
        found.append(Count("listed videos that are there",
                           sum(path.is_file() for path in paths), len(paths)))
    return found


@dataclass(frozen=True)
class Recipe:
    """How to prepare a data set.

    reader: its file of lib/data/sets. counts: called with the reader, the
    root and whether only the lists are there. by_hand: what to do where no
    host gives the files. notes: printed beside the counts.
    """

    name: str
    reader: ModuleType
    parts: Sequence[Part]
    counts: Callable[[ModuleType, Path, bool], list[Count]] = lists_counts
    by_hand: str = ""
    notes: Sequence[str] = ()


def prepare(recipe: Recipe, root: Path, given: Path | None = None,
            splits_only: bool = False) -> list[Count]:
    """Put every part of the data set below `root`, and count."""
    if given is not None and not given.is_dir():
        raise NotADirectoryError(f"--from {given}: no such folder")
    with locked(root):
        for old in root.glob(".preparing-*"):  # of a run that was killed
            shutil.rmtree(old, ignore_errors=True)
        with tempfile.TemporaryDirectory(
                prefix=".preparing-", dir=root) as work:
            unpacked: dict[Path, Path] = {}  # parts may share an archive
            for part in recipe.parts:
                target = root / part.target
                if not target.exists() and (part.lists or not splits_only):
                    own = find(part, recipe, given) or download(
                        part.source, root / "downloads")
                    _place(part, own, root, Path(work), unpacked)
    return recipe.counts(recipe.reader, root, splits_only)


def _place(part: Part, own: Path, root: Path, work: Path,
           unpacked: dict[Path, Path]) -> None:
    """Make a part of what is at `own`, then put it in its place."""
    target = root / part.target
    made = work / f"made-{target.name}"
    if own.is_file() and is_archive(own.name):
        if own not in unpacked:
            print(f"unpacking {own.name} ...")
            unpacked[own] = work / f"all{len(unpacked)}"
            unpack(own, unpacked[own])
        shutil.move(inside(unpacked[own], part), made)
    elif own.is_dir():
        shutil.copytree(own, made, copy_function=_link)
    else:
        _link(own, made)
    if part.finish:
        part.finish(made, root)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(made, target)


def find(part: Part, recipe: Recipe, given: Path | None) -> Path | None:
    """The part, or the archive it is in, in the user's folder."""
    if given is None:
        return None
    names = [part.target, Path(part.target).name]
    if part.inside and sum(p.inside == part.inside for p in recipe.parts) < 2:
        names.append(part.inside)
    for name in names:
        if name != "." and (given / name).exists():
            return given / name
    if (own := given / part.source.name).is_file():
        return checked(part.source, own)
    stem = part.source.name.partition(".")[0]
    if (given / stem).is_dir():  # unpacked by the user
        return inside(given / stem, part, lift=False)
    # packed by somebody else, so without a published hash
    return next((given / f"{stem}{suffix}" for suffix in SUFFIXES
                 if (given / f"{stem}{suffix}").is_file()), None)


def inside(folder: Path, part: Part, lift: bool = True) -> Path:
    """Where the part lies in an unpacked folder, up to two folders deep.

    lift: the whole of an archive that holds a single folder is that folder.
    """
    held = sorted(folder.iterdir())
    if part.inside == ".":
        single = lift and len(held) == 1 and held[0].is_dir()
        return held[0] if single else folder
    name = part.inside or Path(part.target).name
    for pattern in ("", "*/", "*/*/"):
        if found := sorted(folder.glob(f"{pattern}{name}")):
            return found[0]
    raise FileNotFoundError(f"{part.source.name} holds no {name!r}, but "
                            f"{[p.name for p in held[:8]]}")


def _link(source: str | Path, target: str | Path) -> None:
    """Copy a file; a hard link, where it works, costs no space."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)


def report(counts: Sequence[Count]) -> int:
    """Print the counts; the number of those that differ."""
    wrong = 0
    for what, found, official in counts:
        word = ""
        if official is not None:
            differs = found != official
            word = f"expected {official:9,}{'  DIFFERS' * differs}"
            wrong += differs
        print(f"{what:40s}{found:9,}  {word}")
    return wrong


def main(text: str, recipe: Recipe, arguments: Sequence[str] | None = None
         ) -> int:
    """The command line of a data set's script; 0 if all is there.

    text: the script's docstring: its first line, and licence and citation.
    """
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--root", type=Path, required=True,
                        help="folder of all data sets (DATA_ROOT)")
    parser.add_argument("--from", type=Path, dest="given", metavar="FOLDER",
                        help="where the files are that you already have")
    parser.add_argument("--splits-only", action="store_true",
                        help="get the lists and annotations, no videos")
    options = parser.parse_args(arguments)
    # a relative root counts from where the script was called
    print(f"{text.strip()}\n\n{recipe.name} in {options.root.absolute()}:")
    # as Ctrl-C does: what was begun is cleared away, no program works on
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        counts = prepare(recipe, options.root, options.given,
                         options.splits_only)
    except Unreachable as error:
        print(f"\nNo host gave what {recipe.name} needs:\n{error}\n\n"
              f"By hand: {by_hand(recipe, options.splits_only)}",
              file=sys.stderr)
        return 1
    except (OSError, ValueError, RuntimeError) as error:
        print(f"\n{error}\n\nNothing half-made was left; run it again when "
              "that is mended.", file=sys.stderr)
        return 1
    for note in recipe.notes:
        print(note)
    if wrong := report(counts):
        print(f"\n{wrong} of these counts differ from those of the whole set: "
              "this is a part of it, or another version")
    return int(wrong > 0)


def by_hand(recipe: Recipe, splits_only: bool) -> str:
    """What a user can do who has another way to the files."""
    wanted = {part.source.name: part.source for part in recipe.parts
              if part.lists or not splits_only}
    lines = [recipe.by_hand] if recipe.by_hand else []
    lines.append("get these files, by a browser or from someone who has "
                 "them, put them into one folder, and run this script again "
                 "with --from FOLDER:")
    lines += [f"  {name}  {source.url}" for name, source in wanted.items()]
    return "\n".join(lines)
