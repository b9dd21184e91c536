"""UCF101-24: boxes for 24 classes of UCF101. The videos are UCF101's.

Licence: none is stated.
Cite: UCF101 (see ucf101.py), and for the corrected boxes Gurkirt Singh,
Suman Saha, Michael Sapienza, Philip Torr, Fabio Cuzzolin: Online Real-time
Multiple Spatiotemporal Action Localisation and Prediction, ICCV 2017.

    python data_scripts/ucf101_24.py --root data
"""

from pathlib import Path
from types import ModuleType

from prepare import Count, Part, Recipe, lists_counts, main

from lib.data.sets import ucf101, ucf101_24


def counts(reader: ModuleType, root: Path, lists_only: bool
           ) -> list[Count]:
    """Both lists, the clips with boxes, and the videos."""
    lists = reader.read(root, lists_only=lists_only)
    boxed = sum(bool(record.spans) for record in lists.train + lists.test)
    return [*lists_counts(reader, root, lists_only),
            Count("clips with boxes", boxed, reader.BOXED)]


RECIPE = Recipe("UCF101-24", ucf101_24, (
    Part("UCF-101", ucf101.VIDEOS),
    Part("ucfTrainTestlist", ucf101.LISTS, lists=True),
    Part("ucf101_24/finalAnnots.mat", ucf101_24.BOXES, lists=True),
), counts)

if __name__ == "__main__":
    raise SystemExit(main(__doc__, RECIPE))
