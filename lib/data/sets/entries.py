"""What lies in a folder of your videos, or stands in your lists of them.

    DIR/<class>/<video>                DIR/<class>/<group>/<video>
    DIR/{train,val,test}/<class>/...   DIR/list.csv, DIR/list.txt

A folder of images is a video. Lists are read in three forms:

- .csv with a header: path,label and perhaps group and split;
- Kinetics' .csv: label,youtube_id,time_start,time_end,split, of files
  <id>_<start:06d>_<end:06d>.mp4 anywhere below the list; the id is the group;
- lines `path label` or `path frames label`, as mmaction2 has them. A .txt
  beside it with class or label in its name names the numbered classes.

Paths count from the list's folder, or from a folder in it. Several lists in
DIR are parts, if train, val and test stand in their names.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lib.data import decode
from lib.data.sets import records

VIDEOS = (".3gp .asf .avi .flv .gif .m2ts .m4v .mj2 .mkv .mov .mp4 .mpeg .mpg "
          ".mts .ogv .ts .webm .wmv").split()
PARTS = {word: part for part, words in {
    "train": "train training", "val": "val valid validate validation",
    "test": "test testing"}.items() for word in words.split()}
NAMES = re.compile(r".*(class|label).*\.txt")
NO_LISTS = re.compile(r"readme.*|licen[cs]e.*")
# The columns that a list must have, and those that it may have.
OWN = ("path", "label"), ("group", "split")
KINETICS = ("label", "youtube_id", "time_start", "time_end"), (
    "split", "is_cc")


class Entry(NamedTuple):
    """A video as found, and the place that an error shall name.

    label: the name of the class. group, part (train, val or test): empty
        where none is given.
    """

    path: Path
    name: str
    label: str
    group: str
    part: str
    where: str


def natural(name: str) -> list[tuple[str, int]]:
    """Sorts clip 2 before clip 10."""
    return [(text, int(number or 0)) for text, number in
            re.findall(r"(\D*)(\d{0,15})", name)]


def entries(root: Path) -> tuple[list[Entry], list[tuple[str, str]]]:
    """The videos of the folder or list `root`, and what is left out and why.

    No video is opened. Raises a ValueError for what a folder or a list must
    not hold.
    """
    left_out: list[tuple[str, str]] = []
    lists = [root] if root.is_file() else _lists(root)
    if not lists:
        return [*_foldered(root, left_out)], left_out
    found = [*_listed(lists)]
    if all(e.label.isdecimal() for e in found):
        found = _named(lists[0].parent, found)
    return found, left_out


def _inside(folder: Path) -> list[Path]:
    """What lies in a folder, without what systems hide there."""
    return sorted((path for path in folder.iterdir()
                   if not path.name.startswith((".", "__"))),
                  key=lambda path: natural(path.name))


# Folders.

def _foldered(root: Path, left_out: list[tuple[str, str]]) -> Iterator[Entry]:
    """The videos of a folder for each class, perhaps in parts."""
    tops = [path for path in _inside(root) if path.is_dir()]
    if tops and all(top.name.lower() in PARTS for top in tops):
        for top in tops:
            for path in _inside(top):
                if path.is_dir():
                    yield from _of_class(root, path, left_out,
                                         PARTS[top.name.lower()])
    else:
        for path in tops:
            yield from _of_class(root, path, left_out)


def _of_class(root: Path, folder: Path, left_out: list[tuple[str, str]],
              part: str = "") -> Iterator[Entry]:
    """The videos in the folder of a class, or in its folders of groups."""
    count = 0
    for first in _inside(folder):
        group = first.is_dir() and not _pictures(first)
        for path in _inside(first) if group else [first]:
            name = path.relative_to(root).as_posix()
            if path.is_dir() and not _pictures(path):
                left_out.append((name, "a folder without images"))
            elif path.is_file() and path.suffix.lower() in decode.IMAGES:
                raise ValueError(f"{path}: an image; give the images of each "
                                 "video a folder of their own")
            elif path.is_file() and path.suffix.lower() not in VIDEOS:
                left_out.append((name, "no video by its name"))
            else:
                count += 1
                yield Entry(path, name, folder.name,
                            first.name if group else "", part, str(path))
    if not count:
        raise ValueError(f"{folder}: a class without videos: add some, or "
                         "take the folder out")


def _pictures(folder: Path) -> bool:
    """Whether a folder is a video: one of images."""
    return any(path.suffix.lower() in decode.IMAGES for path in
               folder.iterdir())


# Lists.

def _lists(folder: Path) -> list[Path]:
    """The list in a folder, or those of its parts."""
    found = [path for path in _inside(folder)
             if path.suffix.lower() in (".csv", ".txt")
             and not NAMES.fullmatch(path.name.lower())
             and not NO_LISTS.fullmatch(path.name.lower())]
    parts = {_part(path) for path in found} - {""}
    if len(found) > 1 and len(parts) < len(found):
        raise ValueError(
            f"{folder}: holds the lists {[path.name for path in found]}: name "
            "one by data_root, or each by train, val and test")
    return found


def _part(path: Path) -> str:
    """train, val or test, if it is a word of a list's name."""
    words = re.split("[^a-z]+", path.stem.lower())
    return next((PARTS[word] for word in words if word in PARTS), "")


def _listed(lists: list[Path]) -> Iterator[Entry]:
    """The videos of lists, of whatever form."""
    for path in lists:
        folder, part = path.parent, _part(path) if len(lists) > 1 else ""
        places = [folder, *(p for p in _inside(folder) if p.is_dir())]
        form = _sheet if path.suffix.lower() == ".csv" else _spaced
        for where, row in form(path, places):
            own = row.get("split", part).lower()
            if own and own not in PARTS:
                raise ValueError(f"{where}: the split {own!r} is not one of "
                                 "train, val and test")
            yield Entry(_locate(places, row["path"]), row["path"],
                        row["label"], row.get("group", ""),
                        PARTS.get(own, ""), where)


def _locate(places: list[Path], name: str) -> Path:
    """A listed file in the first folder that has it, else in the first."""
    paths = [Path(os.path.abspath(place / name)) for place in places]
    return next((path for path in paths
                 if os.path.exists(decode.located(path))), paths[0])


def _sheet(path: Path, places: list[Path]) -> Iterator[tuple[str, dict]]:
    """Rows of a .csv with a header: ours, or Kinetics'."""
    sheet = records.rows(path)
    where, titles = next(sheet, (f"{path}:1", []))
    titles = [title.strip().lower() for title in titles]
    kinetics = "youtube_id" in titles
    needed, more = KINETICS if kinetics else OWN
    unknown, lacking = {*titles} - {*needed, *more}, {*needed} - {*titles}
    if unknown or lacking or len({*titles}) < len(titles):
        raise ValueError(
            f"{where}: unknown columns {sorted(unknown)}, missing columns "
            f"{sorted(lacking)}: the first line is {','.join(needed)} and "
            f"perhaps {','.join(more)}, each once")
    files = {file.rpartition(".")[0]: os.path.join(top, file)
             for top, _, names in os.walk(path.parent) for file in names
             } if kinetics else {}
    for where, cells in sheet:
        row = dict(zip(titles, map(str.strip, cells), strict=False))
        if len(cells) != len(titles) or "" in row.values():
            raise ValueError(f"{where}: {cells} are not {len(titles)} filled "
                             f"cells for {','.join(titles)}")
        if kinetics:
            try:
                start, end = (int(float(row[name])) for name in needed[2:])
            except (ValueError, OverflowError) as error:
                raise ValueError(f"{where}: times are seconds ({error})"
                                 ) from error
            name = f"{row['youtube_id']}_{start:06d}_{end:06d}"
            row |= {"group": row["youtube_id"],
                    "path": files.get(name, f"{name}.mp4")}
        yield where, row


def _spaced(path: Path, places: list[Path]) -> Iterator[tuple[str, dict]]:
    """Lines `path label`, or `path frames label` of a folder of images."""
    for where, line in records.lines(path):
        *name, label = line.rsplit(None, 1)
        if not name or not records.NUMBER.fullmatch(label):
            raise ValueError(
                f"{where}: {line[:80]!r} is no path with the number of its "
                "class. If this is no list, take it out of the folder")
        *inner, frames = name[0].rsplit(None, 1)
        if inner and records.NUMBER.fullmatch(frames) and not os.path.exists(
                decode.located(_locate(places, name[0]))):
            name = inner
        yield where, {"path": name[0], "label": str(int(label))}


def _named(folder: Path, found: list[Entry]) -> list[Entry]:
    """With the names of numbered classes, where a file beside has them."""
    files = [path for path in _inside(folder)
             if NAMES.fullmatch(path.name.lower())]
    if not files:
        return found
    told = [line for _, line in records.lines(files[0])]
    pairs = [re.fullmatch(r"(\d{1,9})\s+(\S.*)", line) for line in told]
    names = {int(m[1]): m[2] for m in pairs} if all(pairs) else dict(
        enumerate(told))
    for e in found:
        if int(e.label) not in names:
            raise ValueError(f"{e.where}: {files[0]} has no name of the class "
                             f"{e.label}")
    return [e._replace(label=names[int(e.label)]) for e in found]
