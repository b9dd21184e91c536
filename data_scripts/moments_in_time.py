"""Moments in Time: 802,264 training and 33,900 validation videos of 3 s.

Licence: non-commercial research and education, signed by a form on
moments.csail.mit.edu; the videos may not be passed on.
Cite: Mathew Monfort et al.: Moments in Time Dataset: one million videos for
event understanding, TPAMI 2019.

There is no public address: the form's answer gives one. Unpack what it
leads to (Moments_in_Time_Raw) and name the folder.

    python data_scripts/moments_in_time.py --root data --from FOLDER
"""

from prepare import Part, Recipe, main

from lib.data.sets import moments

RECIPE = Recipe("Moments in Time", moments, (
    *(Part(f"moments/{name}", moments.ALL, lists=True) for name in
      ("moments_categories.txt", "trainingSet.csv", "validationSet.csv")),
    *(Part(f"moments/{name}", moments.ALL) for name in
      ("training", "validation")),
), by_hand="fill in the form on moments.csail.mit.edu; then")

if __name__ == "__main__":
    raise SystemExit(main(__doc__, RECIPE))
