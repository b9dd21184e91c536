"""THUMOS14, detection: 413 untrimmed videos of 20 actions. 30 GB and more.

Licence: research only, after registration on the challenge's page.
Cite: Y.-G. Jiang, J. Liu, A. Roshan Zamir, G. Toderici, I. Laptev, M. Shah,
R. Sukthankar: THUMOS Challenge: Action Recognition with a Large Number of
Classes, 2014.

Of the validation and test videos only those with segments are kept: 200
and 213. The test archive is encrypted; registration gives the password.

    python data_scripts/thumos14.py --root data --from FOLDER
"""

import sys
from functools import partial
from pathlib import Path

from prepare import Count, Part, Recipe, Source, files_count, lists_counts
from prepare import main as run

from lib.data.sets import thumos14

LISTS = "http://crcv.ucf.edu/THUMOS14/"
VIDEOS = "https://storage.googleapis.com/thumos14_files/"


def keep_annotated(part: str, folder: Path, root: Path) -> None:
    """Remove the videos without segments, nine tenths of them."""
    known = thumos14.thumos14_instances(root, part)
    for file in sorted(folder.rglob("*.mp4")):
        if file.stem in known:
            file.replace(folder / file.name)
        else:
            file.unlink()


def counts(root: Path, lists_only: bool) -> list[Count]:
    """Annotated videos, the reader's lists, and the videos."""
    found = []
    for part, videos, instances in (("val", 200, 3007), ("test", 213, 3358)):
        known = thumos14.thumos14_instances(root, part)
        sure = sum(one.action != thumos14.AMBIGUOUS
                   for some in known.values() for one in some)
        found += [Count(f"annotated {part} videos", len(known), videos),
                  Count(f"{part} instances", sure, instances)]
    lists = thumos14.read(root, lists_only=lists_only)
    found += lists_counts(lists, (183, 210, 20), "of one class: ")
    if not lists_only:
        found.append(files_count(lists.train + lists.test))
    return found


def annotations(part: str, place: str, archive: str) -> Part:
    """The segments of one part, a text file per class."""
    return Part(f"thumos14/annotation_{part}", Source(
        archive, (f"{LISTS}{place}/{archive}",)), inside="annotation",
        lists=True)


RECIPE = Recipe("THUMOS14", (
    annotations("val", "Validation_set",
                "TH14_Temporal_annotations_validation.zip"),
    annotations("test", "test_set", "TH14_Temporal_annotations_test.zip"),
    Part("thumos14/videos/validation", Source(
        "TH14_validation_set_mp4.zip",
        (f"{VIDEOS}TH14_validation_set_mp4.zip",)), inside=".",
        finish=partial(keep_annotated, "val")),
    Part("thumos14/videos/test", Source(
        "TH14_Test_set_mp4.zip", (f"{VIDEOS}TH14_Test_set_mp4.zip",)),
        inside=".", finish=partial(keep_annotated, "test")),
), counts, by_hand="register at crcv.ucf.edu/THUMOS14, which gives the "
    "password; unpack the encrypted archive with it (unzip, 7z) into a "
    "folder TH14_Test_set_mp4; then",
    notes=[f"{name} is left out of the test: {why}"
           for name, why in thumos14.FAULTY.items()])

if __name__ == "__main__":
    sys.exit(run(__doc__, RECIPE))
