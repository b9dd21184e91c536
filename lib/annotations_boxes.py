"""Lists with masks, joints or boxes: JHMDB, Penn Action, UCF101-24.

Readers as in annotations.py. What is known of each frame is read when a
record's `truth` is called. MATLAB counts pixels from 1; here the middle of
the first pixel is (0, 0), and x2, y2 of a box are its exclusive edges.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib import annotations
from lib.annotations import (
    HOW,
    Listed,
    Lists,
    Record,
    beside,
    checked,
    once,
    one_split,
    require,
)
from lib.annotations_lists import flagged
from lib.puppets import tight_boxes
from lib.untrusted import read_mat, read_pickle


def jhmdb(
    root: str | Path, split: str = "1", *, lists_only: bool = False
) -> Lists:
    """Read JHMDB's split "1", "2" or "3": 928 clips, 21 classes.

    `root/jhmdb/` holds `ReCompress_Videos/<class>/<clip>.avi`, the lists
    `splits/<class>_test_split1.txt`, `puppet_mask/<class>/<clip>/
    puppet_mask.mat` and `joint_positions/.../joint_positions.mat`. Samples
    have `mask`, `boxes` around it, and on request 15 `joints`. The group is
    the clip's source, as in HMDB51.
    """
    root = Path(root) / "jhmdb"
    folder, videos = root / "splits", root / "ReCompress_Videos"
    if not lists_only:
        require(videos, "JHMDB's videos", HOW.format("jhmdb"))
    *parts, classes = flagged("jhmdb", folder, split, videos)

    def told(record: Record) -> Record:
        own = f"{classes[record.label]}/{record.name}"
        return record._replace(truth=Puppet(
            root / "puppet_mask" / own / "puppet_mask.mat",
            root / "joint_positions" / own / "joint_positions.mat"))

    return checked(root, folder, *(
        [(where, told(record)) for where, record in part]
        for part in parts), classes)


@dataclass(frozen=True)
class Puppet:
    """JHMDB's mask of the actor, a box around it, and joints.

    Frames after the last annotated one have an empty mask, and NaN.
    """

    mask: Path
    joints: Path

    def __call__(self, index: Tensor, joints: bool = False) -> dict[
            str, Tensor]:
        """The answers for frames `index` (T,); `joints` only if wanted."""
        mask = _numbers(self.mask, read_mat(self.mask, "part_mask"),
                        "part_mask", "H W T")
        mask = _frames(np.moveaxis(mask, 2, 0) > 0, index, False)
        known = {"mask": torch.from_numpy(mask),
                 "boxes": torch.from_numpy(tight_boxes(mask))}
        if joints:
            place = _numbers(self.joints, read_mat(self.joints, "pos_img"),
                             "pos_img", "2 J T")
            place = _points(np.float32(place.transpose(2, 1, 0)) - 1)
            known["joints"] = torch.from_numpy(_frames(place, index, np.nan))
        return known


def penn_action(
    root: str | Path, split: str = "1", *, lists_only: bool = False
) -> Lists:
    """Read Penn Action: 2,326 clips, 15 classes; `root/penn_action/`.

    `labels/0001.mat` holds class, list, boxes and joints; the frames, which
    are published as JPEG files, are expected in `videos/0001.avi`, where
    data_scripts/penn_action.py packs them as they are. Samples have
    `boxes` and on request 13 `joints`, NaN where they cannot be seen, and
    where a row of numbers is no box. No groups are given, so each clip is
    its own.
    """
    one_split("Penn Action", split)
    root, how = Path(root) / "penn_action", HOW.format("penn_action")
    files = sorted(require(root / "labels", "its labels", how).glob("*.mat"))
    if not files:
        raise FileNotFoundError(f"no .mat files in {root / 'labels'}. {how}")
    if not lists_only:
        require(root / "videos", "Penn Action's packed frames", how)
    told = {file: Labelled(file).whole() for file in files}
    classes = sorted({one["action"] for one in told.values()})
    parts: dict[bool, list[Listed]] = {True: [], False: []}
    for file, one in told.items():
        parts[one["train"] == 1].append((str(file), Record(  # else -1
            root / "videos" / f"{file.stem}.avi",
            classes.index(one["action"]), file.stem, file.stem,
            truth=Labelled(file))))
    return checked(root, root / "labels", parts[True], parts[False], classes)


@dataclass(frozen=True)
class Labelled:
    """Penn Action's box and joints of each frame, from its .mat file."""

    file: Path

    def __call__(self, index: Tensor, joints: bool = False) -> dict[
            str, Tensor]:
        """The answers for frames `index` (T,); `joints` only if wanted."""
        told = self.whole()
        known = {"boxes": torch.from_numpy(
            _frames(told["boxes"], index, np.nan))}
        if joints:
            known["joints"] = torch.from_numpy(
                _frames(told["joints"], index, np.nan))
        return known

    def whole(self) -> dict[str, Any]:
        """`action`, `train` (1 or not), `boxes` (T, 4), `joints` (T, J, 2)."""
        held = read_mat(self.file, "action", "train", "bbox", "x", "y",
                        "visibility")
        train = _numbers(self.file, held, "train", "1 1").item()
        if not isinstance(held["action"], str) or not held["action"]:
            raise ValueError(f"{self.file}: action is no text")
        boxes = np.float32(_numbers(self.file, held, "bbox", "T 4"))
        # what is no box must not be scored, and half of one not be taken for
        # a box: all four numbers are unknown
        box = np.isfinite(boxes).all(1) & (boxes[:, :2] < boxes[:, 2:]).all(1)
        boxes = np.where(box[:, None], boxes - np.float32([1, 1, 0, 0]),
                         np.float32(np.nan))
        x, y, seen = (np.float32(_numbers(self.file, held, name, "T J"))
                      for name in ("x", "y", "visibility"))
        if not x.shape == y.shape == seen.shape:
            raise ValueError(f"{self.file}: x, y and visibility have the "
                             f"shapes {x.shape}, {y.shape}, {seen.shape}")
        joints = _points(np.stack([x, y], -1) - 1)
        joints[seen == 0] = np.nan
        return {"action": held["action"], "train": train, "boxes": boxes,
                "joints": joints}


def _points(places: np.ndarray) -> np.ndarray:
    """Joints (..., 2); those of which a number is unknown are NaN."""
    places[~np.isfinite(places).all(-1)] = np.nan
    return places


def _numbers(where: Path | str, held: dict[str, Any], name: str,
             shape: str) -> np.ndarray:
    """The array held[name]; a ValueError if it has not the `shape`.

    shape: a word for each axis, a number where it has a fixed length.
    """
    found = getattr(held[name], "shape", None)
    axes = shape.split()
    if found is None or len(found) != len(axes) or any(
            axis.isdigit() and int(axis) != length
            for axis, length in zip(axes, found, strict=True)):
        raise ValueError(f"{where}: {name} is {found or 'no array'}, not "
                         f"numbers of the shape ({', '.join(axes)})")
    return held[name]


def _frames(values: np.ndarray, index: Tensor, unknown: Any) -> np.ndarray:
    """Rows `index` of `values` (T, ...); `unknown` after the last one."""
    index = index.numpy()
    picked = np.full((len(index), *values.shape[1:]), unknown, values.dtype)
    known = index < len(values)
    picked[known] = values[index[known]]
    return picked


def ucf101_24(
    root: str | Path, split: str = "1", *, lists_only: bool = False
) -> Lists:
    """Read UCF101-24: the 24 classes of UCF101 with boxes; split "1".

    Videos and lists are UCF101's. `root/ucf101_24/pyannot.pkl` (or
    `finalAnnots.mat`, or either in `annotations/ucf101_24/`) holds the
    corrected boxes of Singh et al. The test is the 910 annotated clips; of
    the 2,293 for training, 9 have no boxes. Frames between the start and
    the end of a person's tube are `spans`. A frame with several people has
    the box of the longest tube.
    """
    one_split("UCF101-24", split)
    folder = beside(Path(root), "ucf101_24", "ucf101_24")
    path = folder / "pyannot.pkl"
    if not path.is_file() and (folder / "finalAnnots.mat").is_file():
        path = folder / "finalAnnots.mat"
    require(path, "UCF101-24's boxes", HOW.format("ucf101_24"))
    tubes = (_pickled if path.suffix == ".pkl" else _from_matlab)(path)
    present = {name.partition("/")[0] for name in tubes}
    whole = annotations.ucf101(root, "1", lists_only=lists_only)
    unknown = {*tubes} - {f"{record.path.parent.name}/{record.name}"
                          for record in whole.train + whole.test}
    if unknown or not tubes:
        raise ValueError(f"{path} holds boxes of {len(tubes)} videos; not in "
                         f"UCF101's lists: {sorted(unknown)[:3]}")
    lists = whole.restrict([n for n in whole.classes if n in present])

    def told(record: Record) -> Listed:
        own = tubes.get(f"{record.path.parent.name}/{record.name}", ())
        spans = tuple(sorted({(s, s + len(boxes)) for s, boxes in own}))
        return f"{path}: {record.name}", record._replace(
            truth=Tubes(own), spans=spans)

    train, test = ([told(r) for r in part] for part in lists[:2])
    return checked(root, path, train, [one for one in test if one[1].spans],
                   lists.classes)


@dataclass(frozen=True, eq=False, repr=False)
class Tubes:
    """Boxes of people: each tube has a first frame and (n, 4) x y w h."""

    tubes: Sequence[tuple[int, np.ndarray]]

    def __call__(self, index: Tensor, joints: bool = False) -> dict[
            str, Tensor]:
        """The box of the longest tube at frames `index` (T,), or NaN."""
        boxes = np.full((len(index), 4), np.nan, np.float32)
        for start, own in sorted(self.tubes, key=lambda tube: len(tube[1])):
            row = index.numpy() - start
            inside = (0 <= row) & (row < len(own))
            # 8-bit numbers: x + w would start again at 256
            x, y, w, h = own[row[inside]].astype(np.float32).T
            boxes[inside] = np.stack([x, y, x + w, y + h], 1)
        return {"boxes": torch.from_numpy(boxes)}

    def __repr__(self) -> str:
        digest = hashlib.sha256()
        for start, boxes in self.tubes:
            digest.update(repr((start, boxes.tolist())).encode())
        return f"Tubes({digest.hexdigest()[:16]})"


# A tube: its first frame, counted from 0, and its boxes x y w h (n, 4).
Tube = tuple[int, np.ndarray]


def _from_matlab(path: Path) -> dict[str, tuple[Tube, ...]]:
    """Tubes by video; `sf` counts from 1."""
    def number(held: dict[str, Any], name: str) -> int | float:
        value = float(_numbers(path, held, name, "1 1").item())
        return int(value) if value.is_integer() else value

    found: dict[str, tuple[Tube, ...]] = {}
    seen: dict[str, str] = {}
    try:
        for entry in read_mat(path, "annot")["annot"]:
            where = f"{path}: {entry['name']}"
            once(seen, entry["name"], where)
            frames = number(entry, "num_imgs")
            found[entry["name"]] = tuple(
                _tube(where, number(tube, "sf") - 1, number(tube, "ef"),
                      frames, tube["boxes"]) for tube in entry["tubes"])
    except (AttributeError, KeyError, TypeError) as error:
        raise _no_tubes(path, error) from error
    return found


def _pickled(path: Path) -> dict[str, tuple[Tube, ...]]:
    """Tubes by video; `sf` counts from 0."""
    try:
        return {name: tuple(
            _tube(f"{path}: {name}", tube["sf"], tube["ef"], entry["numf"],
                  tube["boxes"].values) for tube in entry["annotations"])
            for name, entry in read_pickle(path).items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise _no_tubes(path, error) from error


def _no_tubes(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} does not hold UCF101-24's tubes ({error!r}): "
                      "get it again")


def _tube(where: str, start: int, end: int, frames: int,
          boxes: np.ndarray) -> Tube:
    """A tube in frames [start, end); a ValueError if it cannot be one."""
    if not (type(start) is type(end) is type(frames) is int
            and 0 <= start < end <= frames):
        raise ValueError(f"{where}: no tube can last from frame {start} to "
                         f"{end} of {frames}")
    boxes = _numbers(where, {"boxes": boxes}, "boxes", f"{end - start} 4")
    box = (np.isfinite(boxes).all(1) & (boxes[:, :2] >= 0).all(1)
           & (boxes[:, 2:] > 0).all(1))
    if not box.all():
        raise ValueError(f"{where}: {boxes[~box][0]} is no box x y w h")
    return start, boxes
