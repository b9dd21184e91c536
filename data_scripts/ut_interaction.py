"""UT-Interaction: 120 clips of six interactions, two sets. 30 MB.

Licence: none is stated; a citation is asked for.
Cite: M. S. Ryoo, J. K. Aggarwal: UT-Interaction Dataset, ICPR contest on
Semantic Description of Human Activities (SDHA), 2010.

    python data_scripts/ut_interaction.py --root data
"""

from prepare import Part, Recipe, main

from lib.data.sets import ut_interaction

RECIPE = Recipe("UT-Interaction", ut_interaction, [
    Part(f"ut_interaction/clips_set{number}", source,
         inside=f"segmented_set{number}")
    for number, source in ut_interaction.VIDEOS.items()
], notes=["The names of the clips are the lists."])

if __name__ == "__main__":
    raise SystemExit(main(__doc__, RECIPE))
