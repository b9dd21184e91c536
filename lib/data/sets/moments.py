"""Moments in Time (Monfort et al., TPAMI 2020)."""

from pathlib import Path

from lib.data.sets import records
from lib.data.sets.records import Lists, Record, Source, require

ALL = Source("Moments_in_Time_Raw.zip")  # its address is not public
COUNTS = {"1": (802_264, 33_900, 339)}
# A fiftieth for validation is 16,000 videos. Their rate varies.
VAL_SHARE, FPS = 0.02, 25.0
SCRIPT = "moments_in_time"


def categories(folder: Path) -> list[str]:
    """The 339 names; lines `name,index`, or `name` alone in their order."""
    names = ("moments_categories.txt", "category_moment_v1_339.txt")
    path = next((folder / n for n in names if (folder / n).is_file()),
                folder / names[0])
    entries = []
    for i, (where, line) in enumerate(records.lines(require(path, SCRIPT))):
        name, comma, number = line.rpartition(",")
        entries.append((where, number.strip(), name.strip()) if comma else
                       (where, str(i), line))
    return records.in_order(path, entries, 0)


def read(root: Path, split: str = "1", *, lists_only: bool = False) -> Lists:
    """Read Moments in Time, `root/moments/`.

    `trainingSet.csv` and `validationSet.csv` begin each line with
    `<class>/<file>.mp4,<class>`; the videos lie in `training/` and
    `validation/`. The labels of the test set are not public: as in the
    paper, the official validation list is the test. No groups are given,
    so each video is its own.
    """
    records.known_split("Moments in Time", split, COUNTS)
    folder = records.beside(root, "moments", "moments")
    classes = categories(folder)
    labels = {name: i for i, name in enumerate(classes)}
    parts = []
    for part in ("training", "validation"):
        sheet = require(folder / f"{part}Set.csv", SCRIPT)
        if not lists_only:
            require(folder / part, SCRIPT)
        parts.append(listed := [])
        for where, row in records.rows(sheet):
            action, _, video = row[0].partition("/")
            if action not in labels or not video or "/" in video or (
                    row[1:2] != [action]):
                raise ValueError(
                    f"{where}: {row[:2]} is not <class>/<file>, <class> "
                    "with a class of the list")
            name = f"{action}/{video.rpartition('.')[0]}"
            listed.append((where, Record(
                folder / part / row[0], labels[action], name, name)))
    return records.checked(root, folder, *parts, classes)
