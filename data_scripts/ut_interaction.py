"""UT-Interaction: 120 clips of six interactions, two sets. 30 MB.

Licence: none is stated; a citation is asked for.
Cite: M. S. Ryoo, J. K. Aggarwal: UT-Interaction Dataset, ICPR contest on
Semantic Description of Human Activities (SDHA), 2010.

    python data_scripts/ut_interaction.py --root data
"""

import sys
from pathlib import Path

from prepare import Count, Part, Recipe, Source, lists_counts
from prepare import main as run

from lib.data.sets import ut_interaction

HOST = "https://cvrc.ece.utexas.edu/SDHA2010/videos/competition_1/"
SIZES = {"1": 13_265_124, "2": 16_423_456}


def counts(root: Path, lists_only: bool) -> list[Count]:
    """The clips of both sets; the names of the files are the lists."""
    if lists_only:
        return []
    return lists_counts(ut_interaction.read(root, "1"), (60, 60, 6))


RECIPE = Recipe("UT-Interaction", [
    Part(f"ut_interaction/clips_set{number}", Source(
        f"ut-interaction_segmented_set{number}.zip",
        (f"{HOST}ut-interaction_segmented_set{number}.zip",), size),
        inside=f"segmented_set{number}")
    for number, size in SIZES.items()
], counts, notes=["The names of the clips are the lists."])

if __name__ == "__main__":
    sys.exit(run(__doc__, RECIPE))
