"""Moments in Time: 802,264 training and 33,900 validation videos of 3 s.

Licence: non-commercial research and education, signed by a form on
moments.csail.mit.edu; the videos may not be passed on.
Cite: Mathew Monfort et al.: Moments in Time Dataset: one million videos for
event understanding, TPAMI 2019.

There is no public address: the form's answer gives one. Unpack what it
leads to (Moments_in_Time_Raw) and name the folder.

    python data_scripts/moments.py --root data --from FOLDER
"""

import sys
from pathlib import Path

from prepare import Count, Part, Recipe, Source, files_count, lists_counts
from prepare import main as run

from lib.data.sets import moments

ARCHIVE = Source("Moments_in_Time_Raw.zip")
OFFICIAL = (802_264, 33_900, 339)


def counts(root: Path, lists_only: bool) -> list[Count]:
    """Both lists, the classes, and the videos."""
    lists = moments.read(root, lists_only=lists_only)
    found = lists_counts(lists, OFFICIAL)
    if not lists_only:
        found.append(files_count(lists.train + lists.test))
    return found


RECIPE = Recipe("Moments in Time", (
    *(Part(f"moments/{name}", ARCHIVE, lists=True) for name in
      ("moments_categories.txt", "trainingSet.csv", "validationSet.csv")),
    *(Part(f"moments/{name}", ARCHIVE) for name in
      ("training", "validation")),
), counts, by_hand="fill in the form on moments.csail.mit.edu; then")

if __name__ == "__main__":
    sys.exit(run(__doc__, RECIPE))
