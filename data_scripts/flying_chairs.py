"""FlyingChairs: 22,872 pairs of frames with exact flow. 30 GB.

Licence: research only.
Cite: A. Dosovitskiy et al.: FlowNet: Learning Optical Flow with
Convolutional Networks, ICCV 2015.

STA-CNN's attention network is trained on flow first.

    python data_scripts/flying_chairs.py --root data
"""

from pathlib import Path
from types import ModuleType

from prepare import Count, Part, Recipe, main

from lib.data.sets import flying_chairs


def counts(reader: ModuleType, root: Path, lists_only: bool
           ) -> list[Count]:
    """The pairs of both lists, and those that are there."""
    parts = {part: reader.pairs(root, part, lists_only=lists_only)
             for part in reader.COUNTS}
    found = [Count(f"pairs of {part}", len(parts[part]), official)
             for part, official in reader.COUNTS.items()]
    if not lists_only:
        pairs = sum(parts.values(), [])
        whole = sum(all(file.is_file() for file in pair) for pair in pairs)
        found.append(Count("listed pairs that are there", whole, len(pairs)))
    return found


RECIPE = Recipe("FlyingChairs", flying_chairs, (
    Part("flying_chairs/FlyingChairs_train_val.txt", flying_chairs.LISTS,
         lists=True),
    Part("flying_chairs/data", flying_chairs.PAIRS),
), counts)

if __name__ == "__main__":
    raise SystemExit(main(__doc__, RECIPE))
