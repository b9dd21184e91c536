"""The built-in videos in the formats of the real data sets.

Each function writes what a data set's archives hold, unpacked, so that its
script takes them by `--from` and its reader reads them. It returns how many
training and test videos are listed. Files that are there are kept.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from puppet_files import (
    Counts,
    Order,
    Take,
    film,
    frames_of,
    write_list,
    write_mat,
)

from lib.data.store import replacing
from lib.worlds.actions import CLASSES, FPS
from lib.worlds.worlds import camel


def ucf101(root: Path, order: Order) -> Counts:
    """UCF101: class folders, and three times the same lists."""
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for take in order.takes():
        name = take.data.name(take.number)
        line = f"{camel(take.action)}/{name}.avi"
        film(take, root / "UCF-101" / line)
        label = CLASSES.index(take.action) + 1
        lists[take.part].append(
            line if take.part == "test" else f"{line} {label}")
    folder = root / "ucfTrainTestlist"
    for part, lines in lists.items():
        for split in "123":
            write_list(folder / f"{part}list0{split}.txt", sorted(lines))
    write_list(folder / "classInd.txt",
               [f"{i} {camel(name)}" for i, name in enumerate(CLASSES, 1)])
    return order.counts()


def flags(root: Path, videos: str, lists: str, order: Order,
          tell: Callable[[Take, Path], None]) -> Counts:
    """HMDB51's and JHMDB's clips and lists; `tell` writes the rest.

    A clip of each class is in neither list: flag 0.
    """
    lines = {name: [f"spare_{name}_f_cm_np1_fr_med_0.avi 0 "]
             for name in CLASSES}
    for take in order.takes("joints"):
        name = (f"actor{take.actor}_{take.action}_f_cm_np1_fr_med_"
                f"{take.number}")
        film(take, root / videos / take.action / f"{name}.avi")
        tell(take, Path(take.action) / name)
        flag = {"train": 1, "test": 2}[take.part]
        lines[take.action].append(f"{name}.avi {flag} ")
    for action, own in lines.items():
        for split in "123":
            write_list(root / lists / f"{action}_test_split{split}.txt", own)
    return order.counts()


def hmdb51(root: Path, order: Order) -> Counts:
    """HMDB51: class folders, and three times the same lists with flags."""
    return flags(root, "hmdb51_org", "testTrainMulti_7030_splits", order,
                 lambda take, place: None)


def jhmdb(root: Path, order: Order) -> Counts:
    """JHMDB: as HMDB51, with a mask and joints for each clip."""
    def tell(take: Take, place: Path) -> None:
        mask = root / "puppet_mask" / place / "puppet_mask.mat"
        if not mask.exists():
            sample = take.sample()
            joints = sample["joints"].numpy().transpose(2, 1, 0)
            write_mat(root / "joint_positions" / place /
                      "joint_positions.mat", pos_img=joints + 1.0)
            write_mat(mask, part_mask=np.moveaxis(
                sample["mask"].numpy().astype(np.uint8), 0, 2))

    return flags(root, "ReCompress_Videos", "splits", order, tell)


def penn_action(root: Path, order: Order) -> Counts:
    """Penn Action: a folder of JPEG files and a .mat file per clip."""
    root = root / "Penn_Action"
    for i, take in enumerate(order.takes("joints"), start=1):
        label = root / "labels" / f"{i:04d}.mat"
        if label.exists():
            continue
        sample, folder = take.sample(), root / "frames" / f"{i:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        for t, frame in enumerate(frames_of(sample), start=1):
            Image.fromarray(frame).save(folder / f"{t:06d}.jpg", quality=95)
        height, width = frame.shape[:2]
        x, y = (sample["joints"].numpy() + 1.0).transpose(2, 0, 1)
        write_mat(label, action=take.action, nframes=len(x),
                  bbox=sample["boxes"].numpy() + [1.0, 1, 0, 0], x=x, y=y,
                  visibility=np.ones_like(x), train=1 if
                  take.part == "train" else -1,
                  dimensions=[[height, width, len(x)]])
    return order.counts()


def ucf101_24(root: Path, order: Order) -> Counts:
    """UCF101, and boxes x y w h for the classes of its first half.

    As in the corrected annotations a tube lasts from the frame `sf`, which
    counts from 1, to `ef`, and its numbers are small integers.
    """
    ucf101(root, order)
    videos = []
    for take in order.takes():
        if CLASSES.index(take.action) >= len(CLASSES) // 2:
            continue
        sample = take.sample()
        first, last = (sample["segments"][0] * FPS).round().int().tolist()
        x1, y1, x2, y2 = sample["boxes"][first:last].nan_to_num().T.numpy()
        boxes = np.stack([x1, y1, x2 - x1, y2 - y1], 1).astype(np.uint8)
        videos.append({
            "name": f"{camel(take.action)}/{take.data.name(take.number)}",
            "num_imgs": len(sample["video"]), "tubes": structs([
                {"sf": first + 1, "ef": last, "boxes": boxes}])})
    write_mat(root / "finalAnnots.mat", annot=structs(videos))
    return order.counts()


def structs(rows: list[dict]) -> np.ndarray:
    """Dicts of the same keys as SciPy writes MATLAB's array of structs."""
    made = np.empty((1, len(rows)), [(key, object) for key in rows[0]])
    for i, row in enumerate(rows):
        made[0, i] = tuple(row.values())
    return made


def thumos14(root: Path, order: Order) -> Counts:
    """THUMOS14: long videos, and a list of seconds for each class."""
    names = {"train": ("val", "validation", "TH14_validation_set_mp4"),
             "test": ("test", "test", "TH14_Test_set_mp4")}
    lines: dict[tuple[str, str], list[str]] = {}
    for take in order.takes():
        short, long, folder = names[take.part]
        name = f"video_{long}_{take.number:07d}"
        film(take, root / folder / f"{name}.mp4")
        own = lines.setdefault((take.part, camel(take.action)), [])
        own += [f"{name}  {start:.2f} {end:.2f}"
                for start, end in take.sample()["segments"].tolist()]
        lines.setdefault((take.part, "Ambiguous"), [f"{name}  0.0 0.1"])
    for (part, action), own in lines.items():
        short, long, _ = names[part]
        folder = f"TH14_Temporal_annotations_{long}/annotation"
        write_list(root / folder / f"{action}_{short}.txt", own, "\n")
    return order.counts()


def moments(root: Path, order: Order) -> Counts:
    """Moments in Time: class folders of mp4 files, and two sheets."""
    root = root / "Moments_in_Time_Raw"
    names = {"train": "training", "test": "validation"}
    rows: dict[str, list[str]] = {"training": [], "validation": []}
    for take in order.takes():
        part = names[take.part]
        video = f"{take.action}/{take.part}_{take.number}.mp4"
        film(take, root / part / video)
        rows[part].append(f"{video},{take.action},3,0")
    for part, own in rows.items():
        write_list(root / f"{part}Set.csv", own, "\n")
    write_list(root / "moments_categories.txt", [
        f"{name},{i}" for i, name in enumerate(CLASSES)], "\n")
    return order.counts()


def ut_interaction(root: Path, order: Order) -> Counts:
    """UT-Interaction: set 1 from the training actors, set 2 from others."""
    for take in order.takes(classes=6):
        part = {"train": 1, "test": 2}[take.part]
        label = CLASSES.index(take.action)
        film(take, root / f"ut-interaction_segmented_set{part}" /
             f"segmented_set{part}" /
             f"{take.number}_{take.actor}_{label}.avi")
    return order.counts()


def flying_chairs(root: Path, order: Order) -> Counts:
    """FlyingChairs: two frames and their exact flow from each video."""
    marks = []
    for i, take in enumerate(order.takes("flow"), start=1):
        marks.append({"train": "1", "test": "2"}[take.part])
        path = root / "data" / f"{i:05d}_flow.flo"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        sample = take.sample()
        for t, frame in enumerate(frames_of(sample)[:2], start=1):
            Image.fromarray(frame).save(root / f"data/{i:05d}_img{t}.ppm")
        field = sample["flow"][0].permute(1, 2, 0).numpy().astype("<f4")
        size = np.array([field.shape[1], field.shape[0]], "<i4")
        with replacing(path) as beside:
            beside.write_bytes(b"PIEH" + size.tobytes() + field.tobytes())
    write_list(root / "FlyingChairs_train_val.txt", marks, "\n")
    return order.counts()


FORMATS: dict[str, Callable[[Path, Order], Counts]] = {
    f.__name__: f for f in (
        ucf101, hmdb51, jhmdb, penn_action, ucf101_24, thumos14, moments,
        ut_interaction, flying_chairs)}
