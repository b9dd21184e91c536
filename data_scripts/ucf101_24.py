"""UCF101-24: boxes for 24 classes of UCF101. The videos are UCF101's.

Licence: none is stated.
Cite: UCF101 (see ucf101.py), and for the corrected boxes Gurkirt Singh,
Suman Saha, Michael Sapienza, Philip Torr, Fabio Cuzzolin: Online Real-time
Multiple Spatiotemporal Action Localisation and Prediction, ICCV 2017.

    python data_scripts/ucf101_24.py --root data
"""

import sys
from pathlib import Path

import ucf101
from prepare import Count, Part, Recipe, Source, files_count, lists_counts
from prepare import main as run

from lib.data.sets import ucf101_24

BOXES = ("https://raw.githubusercontent.com/gurkirt/corrected-UCF101-Annots/"
         "master/pyannot.pkl")


def counts(root: Path, lists_only: bool) -> list[Count]:
    """Both lists, the clips with boxes, and the videos."""
    lists = ucf101_24.read(root, lists_only=lists_only)
    records = lists.train + lists.test
    boxed = sum(bool(record.spans) for record in records)
    found = [*lists_counts(lists, (2293, 910, 24)),
             Count("clips with boxes", boxed, 3194)]
    return found if lists_only else [*found, files_count(records)]


RECIPE = Recipe("UCF101-24", (
    ucf101.VIDEOS, ucf101.LISTS,
    Part("ucf101_24/pyannot.pkl", Source("pyannot.pkl", (BOXES,)),
         lists=True),
), counts)

if __name__ == "__main__":
    sys.exit(run(__doc__, RECIPE))
