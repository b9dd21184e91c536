"""UCF101: 13,320 clips of 101 actions, three splits. 7 GB.

Licence: none is stated; the videos were taken from YouTube, so use them for
research only and pass nothing on.
Cite: Khurram Soomro, Amir Roshan Zamir, Mubarak Shah: UCF101: A Dataset of
101 Human Actions Classes From Videos in The Wild, CRCV-TR-12-01, 2012.

    python data_scripts/ucf101.py --root data
"""

from prepare import Part, Recipe, main

from lib.data.sets import ucf101

RECIPE = Recipe("UCF101", ucf101, (
    Part("UCF-101", ucf101.VIDEOS),
    Part("ucfTrainTestlist", ucf101.LISTS, lists=True),
))

if __name__ == "__main__":
    raise SystemExit(main(__doc__, RECIPE))
