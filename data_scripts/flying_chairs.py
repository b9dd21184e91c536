"""FlyingChairs: 22,872 pairs of frames with exact flow. 30 GB.

Licence: research only.
Cite: A. Dosovitskiy et al.: FlowNet: Learning Optical Flow with
Convolutional Networks, ICCV 2015.

STA-CNN's attention network is trained on flow first.

    python data_scripts/flying_chairs.py --root data
"""

import sys
from pathlib import Path

from prepare import Count, Part, Recipe, Source
from prepare import main as run

from lib.data.sets import flying_chairs

HOST = "https://lmb.informatik.uni-freiburg.de/"
SPLIT = "FlyingChairs_train_val.txt"


def counts(root: Path, lists_only: bool) -> list[Count]:
    """The pairs of both lists, and those that are there."""
    parts = {part: flying_chairs.pairs(root, part, lists_only=lists_only)
             for part in ("train", "val")}
    found = [Count("training pairs", len(parts["train"]), 22_232),
             Count("validation pairs", len(parts["val"]), 640)]
    if not lists_only:
        pairs = parts["train"] + parts["val"]
        whole = sum(all(file.is_file() for file in pair) for pair in pairs)
        found.append(Count("listed pairs that are there", whole, len(pairs)))
    return found


RECIPE = Recipe("FlyingChairs", (
    Part(f"flying_chairs/{SPLIT}", Source(SPLIT, (
        f"{HOST}resources/datasets/FlyingChairs/{SPLIT}",)), lists=True),
    Part("flying_chairs/data", Source("FlyingChairs.zip", (
        f"{HOST}data/FlyingChairs/FlyingChairs.zip",))),
), counts)

if __name__ == "__main__":
    sys.exit(run(__doc__, RECIPE))
