"""More official lists: HMDB51, KTH, Moments in Time, THUMOS14.

Readers as in annotations.py: they return `Lists`, open no video, and say
what is missing. With `lists_only` the videos may lack.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from lib.annotations import (
    HOW,
    Listed,
    Lists,
    Record,
    beside,
    checked,
    in_order,
    lines,
    once,
    one_split,
    require,
    rows,
    text,
)

# What HMDB51 and JHMDB call a clip: source, class, five properties, number.
CLIP = re.compile(r"(.+)_[fhlu]_[cn]m_np\d+_(?:ba|bo|fr|le|ri)_"
                  r"(?:bad|med|goo)_\d+\.avi")
FLAGS = {"0": None, "1": "train", "2": "test"}
# THUMOS14's test videos whose segments are wrong or end after the video;
# evaluations of the field leave them out.
FAULTY = {
    "video_test_0000270": "its segments do not fit the video",
    "video_test_0001292": "all of its segments are ambiguous",
    "video_test_0001496": "its segments do not fit the video",
}
AMBIGUOUS = "Ambiguous"


def hmdb51(
    root: str | Path, split: str = "1", *, lists_only: bool = False
) -> Lists:
    """Read HMDB51's split "1", "2" or "3".

    `root` holds `hmdb51/hmdb51_org/<class>/*.avi` and the lists
    `hmdb51/testTrainMulti_7030_splits/<class>_test_split1.txt` (or
    `annotations/hmdb51_splits/`), whose flag is 1 for training, 2 for test,
    0 for neither: 3,570 and 1,530 of 6,766 clips. The group is the source of
    a clip with its class: so the official splits cut; a film's clips of two
    classes may lie on both sides.
    """
    root = Path(root)
    folder = beside(root, "hmdb51/testTrainMulti_7030_splits",
                    "hmdb51_splits")
    videos = root / "hmdb51" / "hmdb51_org"
    if not lists_only:
        require(videos, "HMDB51's videos", HOW.format("hmdb51"))
    return checked(root, folder, *flagged("hmdb51", folder, split, videos))


def flagged(name: str, folder: Path, split: str, videos: Path) -> tuple[
        list[Listed], list[Listed], list[str]]:
    """Training list, test list and classes of HMDB51 or JHMDB.

    folder: of files `<class>_test_split<k>.txt` with lines `<clip> <flag>`.
    videos: below it the clips are `<class>/<clip>`.
    """
    if str(split) not in ("1", "2", "3"):
        raise ValueError(f"{name} has the splits '1', '2', '3', not {split!r}")
    require(folder, f"the lists of {name}", HOW.format(name))
    ending = f"_test_split{split}.txt"
    classes = sorted(file.name.removesuffix(ending)
                     for file in folder.glob(f"*{ending}"))
    if not classes:
        raise FileNotFoundError(
            f"no <class>{ending} in {folder}. {HOW.format(name)}")
    parts: dict[str | None, list[Listed]] = {
        part: [] for part in FLAGS.values()}
    for label, action in enumerate(classes):
        seen: dict[str, str] = {}
        path, used = folder / f"{action}{ending}", False
        for where, line in lines(path):
            words = line.split()
            clip = CLIP.fullmatch(words[0])
            if (len(words) != 2 or words[1] not in FLAGS or clip is None
                    or not clip[1].endswith(f"_{action}") or "/" in words[0]):
                raise ValueError(
                    f"{where}: {line!r} is not <source>_{action}_"
                    "<properties>_<number>.avi with a flag 0, 1 or 2")
            once(seen, words[0], where)  # in none of the lists, too
            part = FLAGS[words[1]]
            used = used or part is not None
            parts[part].append((where, Record(
                videos / action / words[0], label,
                words[0].removesuffix(".avi"), clip[1])))
        if not used:
            raise ValueError(f"{path}: no clip has the flag 1 or 2; remove "
                             "the file to go without its class")
    return parts["train"], parts["test"], classes


KTH_CLASSES = ("boxing", "handclapping", "handwaving", "jogging", "running",
               "walking")
KTH_TEST = (22, 2, 3, 5, 6, 7, 8, 9, 10)
KTH_LINE = re.compile(
    r"(person([0-9]{2})_([a-z]+)_d[1-4])\s+(?:\*missing\*|frames\s+"
    r"([0-9]{1,9}-[0-9]{1,9}(?:,\s*[0-9]{1,9}-[0-9]{1,9})*))")


def kth(root: str | Path, split: str = "1", *,
        lists_only: bool = False) -> Lists:
    """Read KTH: 599 videos of 25 people; `root/kth/<class>/*.avi`.

    The list `kth/00sequences.txt` (or `annotations/kth/`) names the frames
    of the repetitions in each video; between them people may leave the
    picture. They become `spans`. Nine people are the test; the official
    training and validation people are the training list. The group is the
    person. person13_handclapping_d3 does not exist.
    """
    one_split("KTH", split)
    root = Path(root)
    folder = beside(root, "kth", "kth")
    names = ("00sequences.txt", "kth_sequences.txt")
    path = next((folder / n for n in names if (folder / n).is_file()),
                folder / names[0])
    require(path, "KTH's list of sequences", HOW.format("kth"))
    if not lists_only:
        require(root / "kth" / KTH_CLASSES[0], "KTH's videos",
                HOW.format("kth"))
    train, test = [], []
    for where, line in lines(path):
        match = KTH_LINE.fullmatch(line)
        if match is None or match[3] not in KTH_CLASSES:
            if "_" not in line and not train + test:
                continue  # prose above the list
            raise ValueError(f"{where}: {line!r} is not a person, an action "
                             "and frames such as 1-95, 96-185")
        name, person, action, frames = match.groups()
        if frames is None:  # missing
            continue
        if not 1 <= int(person) <= 25:
            raise ValueError(f"{where}: KTH has the people 01 to 25")
        part = test if int(person) in KTH_TEST else train
        part.append((where, Record(
            root / "kth" / action / f"{name}_uncomp.avi",
            KTH_CLASSES.index(action), name, f"person{person}",
            # the list counts from 1 and includes the last frame
            tuple((int(a) - 1, int(b))
                  for a, b in re.findall(r"(\d+)-(\d+)", frames)))))
    return checked(root, path, train, test, KTH_CLASSES)


def moments_classes(folder: Path) -> list[str]:
    """The 339 names; lines `name,index`, or `name` alone in their order."""
    names = ("moments_categories.txt", "category_moment_v1_339.txt")
    path = next((folder / n for n in names if (folder / n).is_file()),
                folder / names[0])
    require(path, "the classes of Moments in Time",
            HOW.format("moments_in_time"))
    entries = []
    for i, (where, line) in enumerate(lines(path)):
        name, comma, number = line.rpartition(",")
        entries.append((where, number.strip(), name.strip()) if comma else
                       (where, str(i), line))
    return in_order(path, entries, 0)


def moments(root: str | Path, split: str = "1", *,
            lists_only: bool = False) -> Lists:
    """Read Moments in Time, `root/moments/`.

    `trainingSet.csv` and `validationSet.csv` begin each line with
    `<class>/<file>.mp4,<class>`; the videos lie in `training/` and
    `validation/`. The labels of the test set are not public: as in the
    paper, the official validation list is the test. No groups are given,
    so each video is its own.
    """
    one_split("Moments in Time", split)
    root, how = Path(root), HOW.format("moments_in_time")
    folder = beside(root, "moments", "moments")
    classes = moments_classes(folder)
    labels = {name: i for i, name in enumerate(classes)}
    parts = []
    for part in ("training", "validation"):
        sheet = require(folder / f"{part}Set.csv", f"its {part} list", how)
        if not lists_only:
            require(folder / part, f"its {part} videos", how)
        parts.append(listed := [])
        for where, row in rows(sheet):
            action, _, video = row[0].partition("/")
            if action not in labels or not video or "/" in video or (
                    row[1:2] != [action]):
                raise ValueError(
                    f"{where}: {row[:2]} is not <class>/<file>, <class> "
                    "with a class of the list")
            name = f"{action}/{video.rpartition('.')[0]}"
            listed.append((where, Record(
                folder / part / row[0], labels[action], name, name)))
    return checked(root, folder, *parts, classes)


class Instance(NamedTuple):
    """An action in an untrimmed video: seconds [start, end)."""

    action: str
    start: float
    end: float


def thumos14_instances(root: str | Path, part: str) -> dict[
        str, list[Instance]]:
    """All annotated instances of THUMOS14's videos, by the video's name.

    part: "val" or "test". Reads `thumos14/annotation_<part>/<Class>_<part>
    .txt`, or `thumos14/gt.json`, whose times may be text and which has no
    ambiguous instances. The class of an ambiguous one is "Ambiguous". Who
    scores detections wants these: a video of two classes has the instances
    of one only in its record.
    """
    source = _thumos14_source(root, part)
    found: dict[str, list[Instance]] = {}
    if source.is_dir():
        for path in sorted(source.glob(f"*_{part}.txt")):
            for where, line in lines(path):
                words = line.split()
                if len(words) != 3:
                    raise ValueError(f"{where}: {line!r} is not a video, "
                                     "a start and an end")
                _add(found.setdefault(words[0], []), where,
                     path.stem.rpartition("_")[0], *words[1:])
    else:
        parts = {"train": "val", "test": "test"}
        for name, entry in _database(source).items():
            where, own = f"{source}: {name}", []
            try:
                for one in entry["annotations"]:
                    _add(own, where, one["label"], *one["segment"])
                if parts[entry["subset"]] == part:
                    found[name] = own
            except (KeyError, TypeError) as error:
                raise ValueError(f"{where}: no subset train or test, and "
                                 "annotations with label and segment "
                                 f"({error!r})") from error
    return {name: sorted(found[name], key=lambda one: one[1:])
            for name in sorted(found)}


def _thumos14_source(root: str | Path, part: str) -> Path:
    """The folder of text files, or the .json file where there is none."""
    folder = beside(Path(root), "thumos14", "thumos14")
    own = folder / f"annotation_{part}"
    return own if own.is_dir() else require(
        folder / "gt.json", "THUMOS14's segments", HOW.format("thumos14"))


def _database(path: Path) -> dict[str, Any]:
    """The videos in the .json file; a ValueError if it is another."""
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, str] = {}
        for key, _ in pairs:
            once(seen, key, str(path))
        return dict(pairs)

    try:
        # a whole number of 5,000 digits is no int, and no time
        held = json.loads(text(path), parse_int=float,
                          object_pairs_hook=unique)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: no JSON ({error})") from error
    if not isinstance(held, dict) or not isinstance(
            held.get("database"), dict):
        raise ValueError(f"{path}: no 'database' of videos by their names")
    return held["database"]


def _add(own: list[Instance], where: str, action: str, start: str | float,
         end: str | float) -> None:
    """Add an instance to a video's `own`; a ValueError if it cannot be."""
    try:
        one = Instance(action, float(start), float(end))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: no times in {start!r}, {end!r}") from error
    if not 0 <= one.start < one.end < float("inf"):
        raise ValueError(f"{where}: no segment from {start} to {end} s")
    if not isinstance(action, str) or one in own:
        raise ValueError(f"{where}: {action!r} from {start} to {end} s is "
                         "there already, or is no class")
    own.append(one)


def thumos14(root: str | Path, split: str = "1", *,
             lists_only: bool = False) -> Lists:
    """Read THUMOS14's detection task: 20 classes, untrimmed videos.

    `root/thumos14/videos/{validation,test}/<name>.mp4`. The validation
    videos are the training list; those of several classes are left out of
    it, as Where-and-When does. Each CliffDiving is annotated as Diving
    too: it counts as CliffDiving alone, or none were left to train on. A
    test video has the class with the longest total time and `segments` of
    that class. Test videos in `FAULTY` are left out.
    """
    one_split("THUMOS14", split)
    root, parts = Path(root), []
    instances = {part: thumos14_instances(root, part)
                 for part in ("val", "test")}
    classes = sorted({one.action for videos in instances.values()
                      for some in videos.values() for one in some}
                     - {AMBIGUOUS})
    for part, folder in (("val", "validation"), ("test", "test")):
        videos = root / "thumos14" / "videos" / folder
        if not lists_only:
            require(videos, "THUMOS14's videos", HOW.format("thumos14"))
        parts.append(listed := [])
        for name, some in instances[part].items():
            cliffs = {one[1:] for one in some if one.action == "CliffDiving"}
            times = Counter()
            for action, start, end in some:
                if action != AMBIGUOUS and not (
                        action == "Diving" and (start, end) in cliffs):
                    times[action] += end - start
            if name in FAULTY or not times or (
                    part == "val" and len(times) > 1):
                continue
            action = times.most_common(1)[0][0]
            where = f"{_thumos14_source(root, part)}: {name}"
            listed.append((where, Record(
                videos / f"{name}.mp4", classes.index(action), name, name,
                segments=_times(some, action),
                ambiguous=_times(some, AMBIGUOUS))))
    return checked(root, beside(root, "thumos14", "thumos14"), *parts,
                   classes)


def _times(some: list[Instance], action: str) -> tuple[
        tuple[float, float], ...]:
    return tuple(one[1:] for one in some if one.action == action)
