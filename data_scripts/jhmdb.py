"""JHMDB: 928 clips of 21 actions with masks and joints, three splits. 0.3 GB.

Licence: none is stated; the clips are from HMDB51 (CC BY 4.0).
Cite: H. Jhuang, J. Gall, S. Zuffi, C. Schmid, M. J. Black: Towards
Understanding Action Recognition, ICCV 2013.

    python data_scripts/jhmdb.py --root data
"""

import sys
from pathlib import Path

from prepare import Count, Part, Recipe, Source, files_count, lists_counts
from prepare import main as run

from lib.data.sets import jhmdb

HOST = "https://files.is.tue.mpg.de/jhmdb/"
OFFICIAL = {"1": (660, 268, 21), "2": (658, 270, 21), "3": (663, 265, 21)}


def part(target: str, archive: str, md5: str, lists: bool = False) -> Part:
    """A folder of JHMDB and the archive it comes in."""
    return Part(f"jhmdb/{target}", Source(
        archive, (f"{HOST}{archive}",), hash=f"md5:{md5}"), lists=lists)


def counts(root: Path, lists_only: bool) -> list[Count]:
    """The three splits, the videos, and the masks and joints of each."""
    found = []
    for split, official in OFFICIAL.items():
        lists = jhmdb.read(root, split, lists_only=lists_only)
        found += lists_counts(lists, official, f"split {split}: ")
    records = lists.train + lists.test
    if not lists_only:
        found.append(files_count(records))
        found += [Count(what, sum(getattr(r.truth, what).is_file()
                                  for r in records), len(records))
                  for what in ("mask", "joints")]
    return found


RECIPE = Recipe("JHMDB", (
    part("ReCompress_Videos", "JHMDB_video.zip",
         "0aca5af988892c8c2afe652a30544b8c"),
    part("puppet_mask", "puppet_mask.zip",
         "eebf6c6c71faa16709b709b758710d17"),
    part("joint_positions", "joint_positions.zip",
         "3d1ac91bcb8544ddfdd9547997db239f"),
    part("splits", "splits.zip", "15b9f2f7a99d63c07f3be0c9ecde43b5", True),
), counts)

if __name__ == "__main__":
    sys.exit(run(__doc__, RECIPE))
