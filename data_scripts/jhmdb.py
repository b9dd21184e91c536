"""JHMDB: 928 clips of 21 actions with masks and joints, three splits. 0.3 GB.

Licence: none is stated; the clips are from HMDB51 (CC BY 4.0).
Cite: H. Jhuang, J. Gall, S. Zuffi, C. Schmid, M. J. Black: Towards
Understanding Action Recognition, ICCV 2013.

    python data_scripts/jhmdb.py --root data
"""

from pathlib import Path
from types import ModuleType

from prepare import Count, Part, Recipe, lists_counts, main

from lib.data.sets import jhmdb


def counts(reader: ModuleType, root: Path, lists_only: bool
           ) -> list[Count]:
    """The three splits, the videos, and the masks and joints of each."""
    found = lists_counts(reader, root, lists_only)
    if not lists_only:
        lists = reader.read(root)
        told = [record.truth for record in lists.train + lists.test]
        found += [Count(what, sum(getattr(one, what).is_file()
                                  for one in told), len(told))
                  for what in ("mask", "joints")]
    return found


RECIPE = Recipe("JHMDB", jhmdb, (
    Part("jhmdb/ReCompress_Videos", jhmdb.VIDEOS),
    Part("jhmdb/puppet_mask", jhmdb.MASKS),
    Part("jhmdb/joint_positions", jhmdb.JOINTS),
    Part("jhmdb/splits", jhmdb.LISTS, lists=True),
), counts)

if __name__ == "__main__":
    raise SystemExit(main(__doc__, RECIPE))
