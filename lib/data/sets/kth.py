"""KTH (Schuldt et al., ICPR 2004)."""


import re
from pathlib import Path

from lib.data.sets.records import (
    HOW,
    Lists,
    Record,
    beside,
    checked,
    lines,
    one_split,
    require,
)

KTH_CLASSES = ("boxing", "handclapping", "handwaving", "jogging", "running",
               "walking")
KTH_TEST = (22, 2, 3, 5, 6, 7, 8, 9, 10)
KTH_LINE = re.compile(
    r"(person([0-9]{2})_([a-z]+)_d[1-4])\s+(?:\*missing\*|frames\s+"
    r"([0-9]{1,9}-[0-9]{1,9}(?:,\s*[0-9]{1,9}-[0-9]{1,9})*))")


def read(root: str | Path, split: str = "1", *,
        lists_only: bool = False) -> Lists:
    """Read KTH: 599 videos of 25 people; `root/kth/<class>/*.avi`.

    The list `kth/00sequences.txt` (or `annotations/kth/`) names the frames
    of the repetitions in each video; between them people may leave the
    picture. They become `spans`. Nine people are the test; the official
    training and validation people are the training list. The group is the
    person. person13_handclapping_d3 does not exist.
    """
    one_split("KTH", split)
    root = Path(root)
    folder = beside(root, "kth", "kth")
    names = ("00sequences.txt", "kth_sequences.txt")
    path = next((folder / n for n in names if (folder / n).is_file()),
                folder / names[0])
    require(path, "KTH's list of sequences", HOW.format("kth"))
    if not lists_only:
        require(root / "kth" / KTH_CLASSES[0], "KTH's videos",
                HOW.format("kth"))
    train, test = [], []
    for where, line in lines(path):
        match = KTH_LINE.fullmatch(line)
        if match is None or match[3] not in KTH_CLASSES:
            if "_" not in line and not train + test:
                continue  # prose above the list
            raise ValueError(f"{where}: {line!r} is not a person, an action "
                             "and frames such as 1-95, 96-185")
        name, person, action, frames = match.groups()
        if frames is None:  # missing
            continue
        if not 1 <= int(person) <= 25:
            raise ValueError(f"{where}: KTH has the people 01 to 25")
        part = test if int(person) in KTH_TEST else train
        part.append((where, Record(
            root / "kth" / action / f"{name}_uncomp.avi",
            KTH_CLASSES.index(action), name, f"person{person}",
            # the list counts from 1 and includes the last frame
            tuple((int(a) - 1, int(b))
                  for a, b in re.findall(r"(\d+)-(\d+)", frames)))))
    return checked(root, path, train, test, KTH_CLASSES)
