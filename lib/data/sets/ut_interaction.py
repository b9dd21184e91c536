"""UT-Interaction (Ryoo and Aggarwal, 2010): two people, six classes."""

import re
from pathlib import Path

from lib.data.sets import records
from lib.data.sets.records import Listed, Lists, Record, Source, require

HOST = "https://cvrc.ece.utexas.edu/SDHA2010/videos/competition_1/"
VIDEOS = {number: Source(f"ut-interaction_segmented_set{number}.zip", HOST,
                         size)
          for number, size in (("1", 13_265_124), ("2", 16_423_456))}
COUNTS = {"1": (60, 60, 6), "2": (60, 60, 6)}
# Ten sequences train: a tenth of them would be one.
VAL_SHARE, FPS = 0.2, 30.0
CLASSES = ("hand-shake", "hug", "kick", "point", "punch", "push")
# The clips begin about so many frames before the action and end as many
# after it (the sheet's `extra_frames_vs_label` is the sum).
MARGIN = 14
ACTORS = {"0": "left", "1": "right", "-1": "both"}


def read(root: Path, split: str = "1", *, lists_only: bool = False) -> Lists:
    """Read UT-Interaction's clips in `root/ut_interaction`.

    Split "1" (or "set1") trains on set 1 and tests on set 2, "2" the
    reverse. The group is the sequence with its set. Where
    `ut_clips_derived.csv` is there, records have `main_actor` and `spans`.
    The names of the clips are the lists: `lists_only` needs them all.
    """
    split = records.known_split(
        "UT-Interaction", str(split).removeprefix("set"), COUNTS)
    root = root / "ut_interaction"
    told = _sheet(root / "ut_clips_derived.csv")
    parts = {part: _clips(root, part, told) for part in ("1", "2")}
    train, test = parts.pop(split), *parts.values()
    return records.checked(root, root, train, test, CLASSES)


# What a row of the derived sheet tells: its place, frames, and who acts.
Told = tuple[str, int, str]


def _sheet(path: Path) -> dict[str, Told] | None:
    """What the derived sheet tells of each clip; None without a sheet."""
    if not path.is_file():
        return None
    sheet = records.rows(path)
    where, titles = next(sheet, (f"{path}:1", []))
    # The header explains its codes in brackets: main_actor(0=left;...
    titles = [title.split("(")[0] for title in titles]
    if lacking := {"clip", "n_frames", "main_actor"} - {*titles}:
        raise ValueError(f"{where}: no columns {sorted(lacking)}")
    seen: dict[str, str] = {}
    told = {}
    for where, cells in sheet:
        row = dict(zip(titles, cells, strict=False))
        if (len(cells) != len(titles) or row["main_actor"] not in ACTORS
                or not records.NUMBER.fullmatch(row["n_frames"])):
            raise ValueError(
                f"{where}: {cells} is not {len(titles)} cells with a number "
                f"of frames and a main actor of {[*ACTORS]}")
        records.once(seen, row["clip"], where)
        told[row["clip"]] = (
            where, int(row["n_frames"]), ACTORS[row["main_actor"]])
    return told


def _clips(
    root: Path, part: str, told: dict[str, Told] | None
) -> list[Listed]:
    folder = require(root / f"clips_set{part}", "ut_interaction")
    numbers = {}
    for path in folder.glob("*.avi"):
        match = re.fullmatch(r"([0-9]+)_([0-9]+)_([0-5])", path.stem)
        if match is None:
            raise ValueError(
                f"{path}: expected the name <index>_<sequence>_<label>.avi "
                "with a label from 0 to 5"
            )
        numbers[path] = tuple(int(n) for n in match.groups())
    if not numbers:
        raise FileNotFoundError(f"no .avi clips in {folder}. "
                                + records.HOW.format("ut_interaction"))
    listed = []
    for path in sorted(numbers, key=numbers.get):
        _, sequence, label = numbers[path]
        name, group = f"set{part}_{path.stem}", f"set{part}_{sequence:02d}"
        where, record = str(path), Record(path, label, name, group)
        if told is not None:
            clip = f"{folder.name}/{path.name}"
            if clip not in told:
                raise ValueError(
                    f"{root / 'ut_clips_derived.csv'} has no row {clip!r}: "
                    "complete it, or remove it to go without its answers"
                )
            where, frames, actor = told[clip]
            record = record._replace(
                spans=((MARGIN, frames - MARGIN),), main_actor=actor)
        listed.append((where, record))
    return listed
