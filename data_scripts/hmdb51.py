"""HMDB51: 6,766 clips of 51 actions, three splits. 2 GB.

Licence: Creative Commons Attribution 4.0 (so its home page says).
Cite: H. Kuehne, H. Jhuang, E. Garrote, T. Poggio, T. Serre: HMDB: A Large
Video Database for Human Motion Recognition, ICCV 2011.

The videos are a rar archive of 51 rar archives.

    python data_scripts/hmdb51.py --root data
"""

import sys
from pathlib import Path

from prepare import Count, Part, Recipe, Source, files_count, lists_counts
from prepare import main as run
from unpack import is_archive, unpack

from lib.data.sets import hmdb51

HOST = "https://serre-lab.clps.brown.edu/wp-content/uploads/2013/10/"
OFFICIAL = (3570, 1530, 51)


def unpack_classes(folder: Path, root: Path) -> None:
    """Unpack the archive of each class, and remove it."""
    for archive in sorted(folder.iterdir()):
        if archive.is_file() and is_archive(archive.name):
            name = archive.name.partition(".")[0]
            work = folder / f"{name}.all"
            unpack(archive, work)
            # some hold a folder of the class's name, some the clips alone
            held = work / name
            (held if held.is_dir() else work).rename(folder / name)
            if work.exists():
                work.rmdir()
            archive.unlink()


def counts(root: Path, lists_only: bool) -> list[Count]:
    """The three splits, and the videos that they name."""
    found, records = [], []
    for split in ("1", "2", "3"):
        lists = hmdb51.read(root, split, lists_only=lists_only)
        found += lists_counts(lists, OFFICIAL, f"split {split}: ")
        records += lists.train + lists.test
    videos = [] if lists_only else [files_count(records)]
    return [*found, *videos]


RECIPE = Recipe("HMDB51", (
    Part("hmdb51/hmdb51_org", Source(
        "hmdb51_org.rar", (f"{HOST}hmdb51_org.rar",),
        hash="md5:517d6f1f19f215c45cdd4d25356be1fb"), inside=".",
        finish=unpack_classes),
    Part("hmdb51/testTrainMulti_7030_splits", Source(
        "test_train_splits.rar", (f"{HOST}test_train_splits.rar",),
        hash="md5:15e67781e70dcfbdce2d7dbb9b3344b5"), lists=True),
), counts)

if __name__ == "__main__":
    sys.exit(run(__doc__, RECIPE))
