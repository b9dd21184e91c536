"""THUMOS14, detection: 413 untrimmed videos of 20 actions. 30 GB and more.

Licence: research only, after registration on the challenge's page.
Cite: Y.-G. Jiang, J. Liu, A. Roshan Zamir, G. Toderici, I. Laptev, M. Shah,
R. Sukthankar: THUMOS Challenge: Action Recognition with a Large Number of
Classes, 2014.

Of the validation and test videos only those with segments are kept: 200
and 213. The test archive is encrypted; registration gives the password.

    python data_scripts/thumos14.py --root data --from FOLDER
"""

from functools import partial
from pathlib import Path
from types import ModuleType

from prepare import Count, Part, Recipe, lists_counts, main

from lib.data.sets import thumos14


def keep_annotated(part: str, folder: Path, root: Path) -> None:
    """Remove the videos without segments, nine tenths of them."""
    known = thumos14.instances(root, part)
    for file in sorted(folder.rglob("*.mp4")):
        if file.stem in known:
            file.replace(folder / file.name)
        else:
            file.unlink()


def counts(reader: ModuleType, root: Path, lists_only: bool
           ) -> list[Count]:
    """Annotated videos, the reader's lists, and the videos."""
    found = []
    for part, (videos, instances) in thumos14.ANNOTATED.items():
        known = thumos14.instances(root, part)
        sure = sum(one.action != thumos14.AMBIGUOUS
                   for some in known.values() for one in some)
        found += [Count(f"annotated {part} videos", len(known), videos),
                  Count(f"{part} instances", sure, instances)]
    return [*found, *lists_counts(reader, root, lists_only)]


RECIPE = Recipe("THUMOS14", thumos14, (
    *(Part(f"thumos14/annotation_{part}", source, inside="annotation",
           lists=True) for part, source in thumos14.LISTS.items()),
    *(Part(f"thumos14/videos/{folder}", thumos14.VIDEOS[part], inside=".",
           finish=partial(keep_annotated, part))
      for part, folder in (("val", "validation"), ("test", "test"))),
), counts, by_hand="register at crcv.ucf.edu/THUMOS14, which gives the "
    "password; unpack the encrypted archive with it (unzip, 7z) into a "
    "folder TH14_Test_set_mp4; then",
    notes=[f"{name} is left out of the test: {why}"
           for name, why in thumos14.FAULTY.items()])

if __name__ == "__main__":
    raise SystemExit(main(__doc__, RECIPE))
