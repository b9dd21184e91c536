"""HMDB51: 6,766 clips of 51 actions, three splits. 2 GB.

Licence: Creative Commons Attribution 4.0 (so its home page says).
Cite: H. Kuehne, H. Jhuang, E. Garrote, T. Poggio, T. Serre: HMDB: A Large
Video Database for Human Motion Recognition, ICCV 2011.

The videos are a rar archive of 51 rar archives.

    python data_scripts/hmdb51.py --root data
"""

from pathlib import Path

from prepare import Part, Recipe, main
from unpack import is_archive, unpack

from lib.data.sets import hmdb51


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


RECIPE = Recipe("HMDB51", hmdb51, (
    Part("hmdb51/hmdb51_org", hmdb51.VIDEOS, inside=".",
         finish=unpack_classes),
    Part("hmdb51/testTrainMulti_7030_splits", hmdb51.LISTS, lists=True),
))

if __name__ == "__main__":
    raise SystemExit(main(__doc__, RECIPE))
