"""UCF101 (Soomro et al., 2012)."""


import re
from pathlib import Path

from lib.data.sets.records import (
    HOW_UCF101,
    Listed,
    Lists,
    Record,
    beside,
    checked,
    in_order,
    lines,
    require,
)


def read(
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
    source = require(folder / "classInd.txt", "a list of UCF101", HOW_UCF101)
    classes = in_order(source, (
        (where, *re.fullmatch(r"(\S+)\s*(.*)", line).groups())
        for where, line in lines(source)), 1)
    labels = {name: label for label, name in enumerate(classes)}
    parts = (
        _ucf101_list(root / "UCF-101", folder / f"{part}0{split}.txt", labels)
        for part in ("trainlist", "testlist")
    )
    return checked(root, folder, *parts, classes)


def _ucf101_list(
    videos: Path, path: Path, labels: dict[str, int]
) -> list[Listed]:
    require(path, "a list of UCF101", HOW_UCF101)
    listed = []
    for where, line in lines(path):
        file, *given = line.split()
        match = re.fullmatch(r"([^/]+)/(v_.+_(g[0-9]+)_c[0-9]+)\.\w+", file)
        if match is None or match[1] not in labels:
            raise ValueError(
                f"{where}: {file!r} is not <class>/v_..._gXX_cYY.avi "
                "with a class of classInd.txt"
            )
        label = labels[match[1]]
        if given and given != [str(label + 1)]:
            raise ValueError(
                f"{where}: {file} has the label {' '.join(given)}, its "
                f"folder is class {label + 1}"
            )
        listed.append((
            where, Record(videos / file, label, match[2], match[3])))
    return listed
