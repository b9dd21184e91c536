"""THUMOS14 (Jiang et al., 2014): untrimmed videos and their segments."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from lib.data.sets import records
from lib.data.sets.records import Lists, Record, Source, require

HOST = "http://crcv.ucf.edu/THUMOS14/"
LISTS = {
    "val": Source("TH14_Temporal_annotations_validation.zip",
                  f"{HOST}Validation_set/"),
    "test": Source("TH14_Temporal_annotations_test.zip", f"{HOST}test_set/")}
STORE = "https://storage.googleapis.com/thumos14_files/"
VIDEOS = {"val": Source("TH14_validation_set_mp4.zip", STORE),
          "test": Source("TH14_Test_set_mp4.zip", STORE)}
# Annotated videos and instances, but for the ambiguous; and the lists here.
ANNOTATED = {"val": (200, 3007), "test": (213, 3358)}
COUNTS = {"1": (183, 210, 20)}
VAL_SHARE, FPS = 0.1, 30.0

# THUMOS14's test videos whose segments are wrong or end after the video;
# evaluations of the field leave them out.
FAULTY = {
    "video_test_0000270": "its segments do not fit the video",
    "video_test_0001292": "all of its segments are ambiguous",
    "video_test_0001496": "its segments do not fit the video",
}
AMBIGUOUS = "Ambiguous"


class Instance(NamedTuple):
    """An action in an untrimmed video: seconds [start, end)."""

    action: str
    start: float
    end: float


def instances(root: Path, part: str) -> dict[str, list[Instance]]:
    """All annotated instances of THUMOS14's videos, by the video's name.

    part: "val" or "test". Reads `thumos14/annotation_<part>/<Class>_<part>
    .txt`, whose lines are a video, a start and an end. The class of an
    ambiguous instance is "Ambiguous". Who scores detections wants these: a
    video of two classes has the instances of one only in its record.
    """
    found: dict[str, list[Instance]] = {}
    seen: dict[tuple, str] = {}
    for path in sorted(_folder(root, part).glob(f"*_{part}.txt")):
        action = path.stem.rpartition("_")[0]
        for where, line in records.lines(path):
            name, *times = line.split()
            try:
                start, end = map(float, times)
            except ValueError as error:
                raise ValueError(f"{where}: {line[:200]!r} is not a video, a "
                                 "start and an end") from error
            if not 0 <= start < end < float("inf"):
                raise ValueError(f"{where}: no segment from {start} to {end}")
            one = Instance(action, start, end)
            records.once(seen, (name, *one), where)
            found.setdefault(name, []).append(one)
    return {name: sorted(found[name], key=lambda one: one[1:])
            for name in sorted(found)}


def _folder(root: Path, part: str) -> Path:
    folder = records.beside(root, "thumos14", "thumos14")
    return require(folder / f"annotation_{part}", "thumos14")


def read(root: Path, split: str = "1", *, lists_only: bool = False) -> Lists:
    """Read THUMOS14's detection task: 20 classes, untrimmed videos.

    `root/thumos14/videos/{validation,test}/<name>.mp4`. The validation
    videos are the training list; those of several classes are left out of
    it, as Where-and-When does. Each CliffDiving is annotated as Diving
    too: it counts as CliffDiving alone, or none were left to train on. A
    test video has the class with the longest total time and `segments` of
    that class. Test videos in `FAULTY` are left out.
    """
    records.known_split("THUMOS14", split, COUNTS)
    parts = []
    annotated = {part: instances(root, part) for part in ANNOTATED}
    classes = sorted({one.action for videos in annotated.values()
                      for some in videos.values() for one in some}
                     - {AMBIGUOUS})
    for part, folder in (("val", "validation"), ("test", "test")):
        videos = root / "thumos14" / "videos" / folder
        if not lists_only:
            require(videos, "thumos14")
        parts.append(listed := [])
        for name, some in annotated[part].items():
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
            where = f"{_folder(root, part)}: {name}"
            listed.append((where, Record(
                videos / f"{name}.mp4", classes.index(action), name, name,
                segments=_times(some, action),
                ambiguous=_times(some, AMBIGUOUS))))
    return records.checked(root, _folder(root, "val").parent, *parts, classes)


def _times(some: list[Instance], action: str) -> tuple[
        tuple[float, float], ...]:
    return tuple(one[1:] for one in some if one.action == action)
