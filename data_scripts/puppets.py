"""Write the built-in videos as files, in the format of a real data set.

    python data_scripts/puppets.py --root data/puppets

makes ROOT/UCF-101/<Class>/v_<Class>_gXX_cYY.avi (MPEG-4 video, XVID) and
the lists ROOT/ucfTrainTestlist/{classInd,trainlist01,testlist01}.txt, so
that whatever reads UCF101 reads them. --format names another data set (see
puppet_formats.py): what its archives hold is written, for its script:

    python data_scripts/puppets.py --root given --format jhmdb
    python data_scripts/jhmdb.py --root data/puppets --from given

--world names another world than *alone*, as stage or crowd_long: rivals act
too, or the light goes out. No group is in both lists. Run again, it keeps the
files that are there and makes those that are missing; each is written beside
its place and then renamed, so an interrupted run leaves no broken video.
ROOT/puppets.json keeps the settings: other ones need another --root, for a
list must not name videos of two kinds.
"""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from puppet_files import Order, write_list  # noqa: E402
from puppet_formats import FORMATS  # noqa: E402

from lib.worlds.actions import CLASSES  # noqa: E402
from lib.worlds.worlds import WORLDS  # noqa: E402

VIDEOS = (".avi", ".mp4", ".jpg", ".ppm")


def claim(root: Path, settings: dict) -> None:
    """Keep the settings below `root`; ValueError if others are there."""
    note, text = root / "puppets.json", json.dumps(settings, indent=1)
    if note.exists() and note.read_text() != text:
        raise ValueError(
            f"{note} tells of videos with other settings: choose another "
            "root, or remove this one first")
    write_list(note, [text], "")


def main(root: Path, *, format: str = "ucf101", world: str = "",
         n_train: int = 280, n_test: int = 140, size: int = 64,
         frames: int = 0, seed: int = 0) -> dict[str, int]:
    """Write `n_train` + `n_test` videos below `root`; count what is there.

    format: a name of FORMATS. world: a name of WORLDS; by default "alone",
        for thumos14 "alone_long". frames: of each video; 0 for the world's.
    Returns the number of classes, of listed train and test videos, and of
    the files of videos or pictures that this call added. ValueError for an
    odd `size`, an unknown format or world, and a root that holds other videos.
    """
    if size % 2:
        raise ValueError(f"size={size}: the codec needs an even size")
    if format not in FORMATS:
        raise ValueError(f"format={format!r}: use one of {[*FORMATS]}")
    if not world:
        world = "alone_long" if format == "thumos14" else "alone"
    if world not in WORLDS:
        raise ValueError(f"world={world!r}: use one of {[*WORLDS]}")
    dials = WORLDS[world]
    dials = replace(dials, size=size, frames=frames or dials.frames)
    settings = {"seed": seed, "dials": asdict(dials)}
    claim(root, settings | (
        {"format": format} if format != "ucf101" else {}))
    before = count_videos(root)
    counts = FORMATS[format](root, Order(n_train, n_test, dials, seed))
    return {"classes": len(CLASSES)} | counts | {
        "written": count_videos(root) - before}


def count_videos(root: Path) -> int:
    """How many files of videos and pictures are below `root`."""
    return sum(file.suffix in VIDEOS for file in root.rglob("*"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--format", choices=FORMATS, default="ucf101")
    parser.add_argument("--world", choices=WORLDS, default="")
    for name, default in (("n-train", 280), ("n-test", 140), ("size", 64),
                          ("frames", 0), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = vars(parser.parse_args())
    for what, count in main(options.pop("root"), **options).items():
        print(f"{what:8s}{count:6d}")
