"""HMDB51 (Kuehne et al., ICCV 2011), and lists with flags as its own."""

import re
from collections.abc import Collection
from pathlib import Path

from lib.data.sets import records
from lib.data.sets.records import Listed, Lists, Record, Source, require

HOST = "https://serre-lab.clps.brown.edu/wp-content/uploads/2013/10/"
VIDEOS = Source("hmdb51_org.rar", HOST,
                hash="md5:517d6f1f19f215c45cdd4d25356be1fb")
LISTS = Source("test_train_splits.rar", HOST,
               hash="md5:15e67781e70dcfbdce2d7dbb9b3344b5")
COUNTS = dict.fromkeys("123", (3570, 1530, 51))
VAL_SHARE, FPS = 0.1, 30.0
# What HMDB51 and JHMDB call a clip: source, class, five properties, number.
CLIP = re.compile(r"(.+)_[fhlu]_[cn]m_np\d+_(?:ba|bo|fr|le|ri)_"
                  r"(?:bad|med|goo)_\d+\.avi")
FLAGS = {"0": None, "1": "train", "2": "test"}


def read(root: Path, split: str = "1", *, lists_only: bool = False) -> Lists:
    """Read HMDB51's split "1", "2" or "3".

    `root` holds `hmdb51/hmdb51_org/<class>/*.avi` and the lists
    `hmdb51/testTrainMulti_7030_splits/<class>_test_split1.txt` (or
    `annotations/hmdb51_splits/`), whose flag is 1 for training, 2 for test,
    0 for neither: 3,570 and 1,530 of 6,766 clips. The group is the source of
    a clip with its class: so the official splits cut; a film's clips of two
    classes may lie on both sides.
    """
    folder = records.beside(
        root, "hmdb51/testTrainMulti_7030_splits", "hmdb51_splits")
    videos = root / "hmdb51" / "hmdb51_org"
    if not lists_only:
        require(videos, "hmdb51")
    lists = flagged("hmdb51", folder, split, videos, COUNTS)
    return records.checked(root, folder, *lists)


def flagged(name: str, folder: Path, split: str, videos: Path,
            splits: Collection[str]) -> tuple[
                list[Listed], list[Listed], list[str]]:
    """Training list, test list and classes of HMDB51 or JHMDB.

    folder: of files `<class>_test_split<k>.txt` with lines `<clip> <flag>`.
    videos: below it the clips are `<class>/<clip>`. splits: that there are.
    """
    ending = f"_test_split{records.known_split(name, split, splits)}.txt"
    classes = sorted(file.name.removesuffix(ending)
                     for file in require(folder, name).glob(f"*{ending}"))
    if not classes:
        raise FileNotFoundError(
            f"no <class>{ending} in {folder}. {records.HOW.format(name)}")
    parts: dict[str | None, list[Listed]] = {
        part: [] for part in FLAGS.values()}
    for label, action in enumerate(classes):
        seen: dict[str, str] = {}
        path, used = folder / f"{action}{ending}", False
        for where, line in records.lines(path):
            words = line.split()
            clip = CLIP.fullmatch(words[0])
            if (len(words) != 2 or words[1] not in FLAGS or clip is None
                    or not clip[1].endswith(f"_{action}") or "/" in words[0]):
                raise ValueError(
                    f"{where}: {line!r} is not <source>_{action}_"
                    "<properties>_<number>.avi with a flag 0, 1 or 2")
            records.once(seen, words[0], where)  # in none of the lists, too
            part = FLAGS[words[1]]
            used = used or part is not None
            parts[part].append((where, Record(
                videos / action / words[0], label,
                words[0].removesuffix(".avi"), clip[1])))
        if not used:
            raise ValueError(f"{path}: no clip has the flag 1 or 2; remove "
                             "the file to go without its class")
    return parts["train"], parts["test"], classes
