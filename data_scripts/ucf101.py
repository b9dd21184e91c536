"""UCF101: 13,320 clips of 101 actions, three splits. 7 GB.

Licence: none is stated; the videos were taken from YouTube, so use them for
research only and pass nothing on.
Cite: Khurram Soomro, Amir Roshan Zamir, Mubarak Shah: UCF101: A Dataset of
101 Human Actions Classes From Videos in The Wild, CRCV-TR-12-01, 2012.

    python data_scripts/ucf101.py --root data
"""

import sys
from pathlib import Path

from prepare import Count, Part, Recipe, Source, files_count, lists_counts
from prepare import main as run

from lib.data.sets import ucf101

HOST = "https://www.crcv.ucf.edu/data/UCF101/"
SPLITS = "UCF101TrainTestSplits-RecognitionTask.zip"
OFFICIAL = {"1": (9537, 3783, 101), "2": (9586, 3734, 101),
            "3": (9624, 3696, 101)}

VIDEOS = Part("UCF-101", Source("UCF101.rar", (f"{HOST}UCF101.rar",),
                                6_932_971_618))
LISTS = Part("ucfTrainTestlist", Source(
    SPLITS, (f"{HOST}{SPLITS}",), 113_943,
    "sha256:5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27"
), lists=True)


def counts(root: Path, lists_only: bool) -> list[Count]:
    """The three splits, and the videos that they name."""
    found, records = [], []
    for split, official in OFFICIAL.items():
        if not (root / f"ucfTrainTestlist/trainlist0{split}.txt").is_file():
            found.append(Count(f"split {split}", 0, 1))
            continue
        lists = ucf101.read(root, split, lists_only=lists_only)
        found += lists_counts(lists, official, f"split {split}: ")
        records += lists.train + lists.test
    videos = [] if lists_only else [files_count(records)]
    return [*found, *videos]


RECIPE = Recipe("UCF101", (VIDEOS, LISTS), counts)

if __name__ == "__main__":
    sys.exit(run(__doc__, RECIPE))
