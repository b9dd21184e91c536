"""More official lists: HMDB51, KTH, Moments in Time, THUMOS14.

Readers as in annotations.py: they return `Lists`, open no video, and say
what is missing. With `lists_only` the videos may lack.
"""

import csv
import json
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from lib.annotations import HOW, Lists, Record, beside, one_split, require

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
    records = flagged("hmdb51", folder, split, videos)
    return Lists(*records)


def flagged(name: str, folder: Path, split: str, videos: Path) -> tuple[
        list[Record], list[Record], list[str]]:
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
    parts: dict[str, list[Record]] = {"train": [], "test": []}
    for label, action in enumerate(classes):
        for where, line in _lines(folder / f"{action}{ending}"):
            words = line.split()
            clip = CLIP.fullmatch(words[0])
            if (len(words) != 2 or words[1] not in FLAGS or clip is None
                    or not clip[1].endswith(f"_{action}") or "/" in words[0]):
                raise ValueError(
                    f"{where}: {line.strip()!r} is not <source>_{action}_"
                    "<properties>_<number>.avi with a flag 0, 1 or 2")
            if part := FLAGS[words[1]]:
                parts[part].append(Record(
                    videos / action / words[0], label,
                    words[0].removesuffix(".avi"), clip[1]))
    return parts["train"], parts["test"], classes


def _lines(path: Path) -> list[tuple[str, str]]:
    """The lines that are not empty, each with `file:number`."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return [(f"{path}:{number}", line)
            for number, line in enumerate(text.splitlines(), start=1)
            if line.strip()]


KTH_CLASSES = ("boxing", "handclapping", "handwaving", "jogging", "running",
               "walking")
KTH_TEST = (22, 2, 3, 5, 6, 7, 8, 9, 10)


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
    for where, line in _lines(path):
        match = re.match(r"(person(\d\d)_([a-z]+)_d\d)\s+(.*)", line)
        if match is None:
            continue  # prose above the list
        name, person, action, frames = match.groups()
        if "missing" in frames:
            continue
        spans = re.findall(r"(\d+)-(\d+)", frames)
        if action not in KTH_CLASSES or not spans:
            raise ValueError(f"{where}: {line.strip()!r} is not a person, an "
                             "action and frames such as 1-95, 96-185")
        part = test if int(person) in KTH_TEST else train
        part.append(Record(
            root / "kth" / action / f"{name}_uncomp.avi",
            KTH_CLASSES.index(action), name, f"person{person}",
            # the list counts from 1 and includes the last frame
            tuple((int(a) - 1, int(b)) for a, b in spans)))
    return Lists(train, test, list(KTH_CLASSES))


def moments_classes(folder: Path) -> list[str]:
    """The 339 names; lines `name,index`, or `name` alone in their order."""
    names = ("moments_categories.txt", "category_moment_v1_339.txt")
    path = next((folder / n for n in names if (folder / n).is_file()),
                folder / names[0])
    require(path, "the classes of Moments in Time",
            HOW.format("moments_in_time"))
    numbered = {}
    for i, (where, line) in enumerate(_lines(path)):
        name, _, number = line.strip().rpartition(",")
        if not name:
            name, number = number, str(i)
        if not number.strip().isdigit():
            raise ValueError(f"{where}: {line.strip()!r} is not name,index")
        numbered[name.strip()] = int(number)
    if sorted(numbered.values()) != list(range(len(numbered))):
        raise ValueError(f"{path}: the classes are not numbered 0, 1, 2, ...")
    return sorted(numbered, key=numbered.get)


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
        parts.append(records := [])
        with sheet.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                action, _, video = row[0].partition("/") if row else ("",) * 3
                if action not in labels or not video or "/" in video or (
                        row[1:2] != [action]):
                    raise ValueError(
                        f"{sheet}:{number}: {row[:2]} is not <class>/<file>, "
                        "<class> with a class of the list")
                name = f"{action}/{video.rpartition('.')[0]}"
                records.append(Record(folder / part / row[0], labels[action],
                                      name, name))
    return Lists(*parts, classes)


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
    folder = beside(Path(root), "thumos14", "thumos14")
    found: dict[str, list[Instance]] = {}
    own, sheet = folder / f"annotation_{part}", folder / "gt.json"
    if own.is_dir():
        for path in sorted(own.glob(f"*_{part}.txt")):
            for where, line in _lines(path):
                words = line.split()
                if len(words) != 3:
                    raise ValueError(f"{where}: {line!r} is not a video, "
                                     "a start and an end")
                found.setdefault(words[0], []).append(_instance(
                    where, path.stem.rpartition("_")[0], *words[1:]))
    else:
        require(sheet, "THUMOS14's segments", HOW.format("thumos14"))
        subset = {"val": "train", "test": "test"}[part]
        for name, entry in json.loads(sheet.read_text())["database"].items():
            if entry["subset"] == subset:
                found[name] = [
                    _instance(f"{sheet}: {name}", one["label"],
                              *one["segment"])
                    for one in entry["annotations"]]
    return {name: sorted(found[name], key=lambda one: one[1:])
            for name in sorted(found)}


def _instance(where: str, action: str, start: str, end: str) -> Instance:
    try:
        one = Instance(action, float(start), float(end))
    except ValueError as error:
        raise ValueError(f"{where}: no times in {start!r}, {end!r}") from error
    if not 0 <= one.start < one.end < float("inf"):
        raise ValueError(f"{where}: no segment from {start} to {end} s")
    return one


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
        parts.append(records := [])
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
            records.append(Record(
                videos / f"{name}.mp4", classes.index(action), name, name,
                segments=_times(some, action),
                ambiguous=_times(some, AMBIGUOUS)))
    return Lists(*parts, classes)


def _times(some: list[Instance], action: str) -> tuple[
        tuple[float, float], ...]:
    return tuple(one[1:] for one in some if one.action == action)
