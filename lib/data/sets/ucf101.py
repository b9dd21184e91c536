"""UCF101 (Soomro et al., 2012): 101 actions, three splits."""

import re
from pathlib import Path

from lib.data.sets import records
from lib.data.sets.records import Listed, Lists, Record, Source, require

HOST = "https://www.crcv.ucf.edu/data/UCF101/"
VIDEOS = Source("UCF101.rar", HOST, 6_932_971_618)
LISTS = Source(
    "UCF101TrainTestSplits-RecognitionTask.zip", HOST, 113_943,
    "sha256:5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27")
COUNTS = {"1": (9537, 3783, 101), "2": (9586, 3734, 101),
          "3": (9624, 3696, 101)}
VAL_SHARE, FPS = 0.1, 25.0


def read(root: Path, split: str = "1", *, lists_only: bool = False) -> Lists:
    """Read UCF101's split "1", "2" or "3".

    `root` holds `UCF-101/<class>/v_..._gXX_cYY.avi` and the lists in
    `ucfTrainTestlist/` (or in `annotations/ucf101_splits/`). The class is
    the folder's name: the file's prefix differs in
    HandstandPushups/v_HandStandPushups_... . The group is gXX over all
    classes, as the official splits cut it.
    """
    split = records.known_split("UCF101", split, COUNTS)
    folder = records.beside(root, "ucfTrainTestlist", "ucf101_splits")
    if not lists_only:
        require(root / "UCF-101", "ucf101")
    source = require(folder / "classInd.txt", "ucf101")
    classes = records.in_order(source, (
        (where, *re.fullmatch(r"(\S+)\s*(.*)", line).groups())
        for where, line in records.lines(source)), 1)
    parts = (
        _listed(root / "UCF-101", folder / f"{part}list0{split}.txt", classes)
        for part in ("train", "test"))
    return records.checked(root, folder, *parts, classes)


def _listed(videos: Path, path: Path, classes: list[str]) -> list[Listed]:
    listed = []
    labels = {name: label for label, name in enumerate(classes)}
    for where, line in records.lines(require(path, "ucf101")):
        file, *given = line.split()
        match = re.fullmatch(r"([^/]+)/(v_.+_(g[0-9]+)_c[0-9]+)\.\w+", file)
        if match is None or match[1] not in labels:
            raise ValueError(f"{where}: {file!r} is not <class>/v_..._gXX_"
                             "cYY.avi with a class of classInd.txt")
        label = labels[match[1]]
        if given and given != [str(label + 1)]:
            raise ValueError(f"{where}: {file} has the label "
                             f"{' '.join(given)}, its folder is class "
                             f"{label + 1}")
        listed.append((
            where, Record(videos / file, label, match[2], match[3])))
    return listed
