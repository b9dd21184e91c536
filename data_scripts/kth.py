"""KTH: 599 videos of 25 people and six actions. 1.2 GB.

Licence: none is stated; a citation is asked for.
Cite: Christian Schuldt, Ivan Laptev, Barbara Caputo: Recognizing Human
Actions: A Local SVM Approach, ICPR 2004.

    python data_scripts/kth.py --root data
"""

import sys
from pathlib import Path

from prepare import Count, Part, Recipe, Source, files_count, lists_counts
from prepare import main as run

from lib.data.sets import kth

HOST = "http://www.nada.kth.se/cvap/actions/"


def counts(root: Path, lists_only: bool) -> list[Count]:
    """Both lists (training with validation people), and the videos."""
    lists = kth.read(root, lists_only=lists_only)
    found = lists_counts(lists, (383, 216, 6))
    if not lists_only:
        found.append(files_count(lists.train + lists.test))
    return found


RECIPE = Recipe("KTH", (
    Part("kth/00sequences.txt", Source(
        "00sequences.txt", (f"{HOST}00sequences.txt",)), lists=True),
    *(Part(f"kth/{name}", Source(f"{name}.zip", (f"{HOST}{name}.zip",)),
           inside=".") for name in kth.KTH_CLASSES),
), counts, notes=["person13_handclapping_d3 does not exist: 599, not 600."])

if __name__ == "__main__":
    sys.exit(run(__doc__, RECIPE))
