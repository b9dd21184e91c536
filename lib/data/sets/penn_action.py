"""Penn Action (Zhang et al., ICCV 2013): joints and boxes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lib.data.matlab import read_mat
from lib.data.sets import records
from lib.data.sets.records import Lists, Record, Source, require, shaped

ALL = Source("Penn_Action.tar.gz", "https://www.cis.upenn.edu/~kostas/")
COUNTS = {"1": (1258, 1068, 15)}
# Nobody says how many of its frames there are in a second.
VAL_SHARE, FPS = 0.1, 25.0


def read(root: Path, split: str = "1", *, lists_only: bool = False) -> Lists:
    """Read Penn Action: 2,326 clips, 15 classes; `root/penn_action/`.

    `labels/0001.mat` holds class, list, boxes and joints; the frames, which
    are published as JPEG files, are expected in `videos/0001.avi`, where
    data_scripts/penn_action.py packs them as they are. Samples have
    `boxes` and on request 13 `joints`, NaN where they cannot be seen, and
    where a row of numbers is no box. No groups are given, so each clip is
    its own.
    """
    records.known_split("Penn Action", split, COUNTS)
    root, name = root / "penn_action", "penn_action"
    labels = require(root / "labels", name)
    files = sorted(labels.glob("*.mat"))
    if not files:
        raise FileNotFoundError(
            f"no .mat files in {labels}. {records.HOW.format(name)}")
    if not lists_only:
        require(root / "videos", name)
    told = {file: Labelled(file).whole() for file in files}
    classes = sorted({one["action"] for one in told.values()})
    train, test = [], []
    for file, one in told.items():
        record = Record(root / "videos" / f"{file.stem}.avi",
                        classes.index(one["action"]), file.stem, file.stem,
                        truth=Labelled(file))
        (train if one["train"] == 1 else test).append((str(file), record))
    return records.checked(root, labels, train, test, classes)


@dataclass(frozen=True)
class Labelled:
    """Penn Action's box and joints of each frame, from its .mat file."""

    file: Path

    def __call__(self, index: Tensor, joints: bool = False) -> dict[
            str, Tensor]:
        """The answers for frames `index` (T,); `joints` only if wanted."""
        told = self.whole()
        return {key: records.at_frames(told[key], index, np.nan)
                for key in ("boxes", *["joints"] * joints)}

    def whole(self) -> dict[str, Any]:
        """`action`, `train` (1 or not), `boxes` (T, 4), `joints` (T, J, 2)."""
        held = read_mat(self.file, "action", "train", "bbox", "x", "y",
                        "visibility")
        train = shaped(self.file, held, "train", "1 1").item()
        if not isinstance(held["action"], str) or not held["action"]:
            raise ValueError(f"{self.file}: action is no text")
        boxes = np.float32(shaped(self.file, held, "bbox", "T 4"))
        # what is no box must not be scored, and half of one not be taken for
        # a box: all four numbers are unknown
        box = np.isfinite(boxes).all(1) & (boxes[:, :2] < boxes[:, 2:]).all(1)
        boxes = np.where(box[:, None], boxes - np.float32([1, 1, 0, 0]),
                         np.float32(np.nan))
        x, y, seen = (np.float32(shaped(self.file, held, name, "T J"))
                      for name in ("x", "y", "visibility"))
        if not x.shape == y.shape == seen.shape:
            raise ValueError(f"{self.file}: x, y and visibility have the "
                             f"shapes {x.shape}, {y.shape}, {seen.shape}")
        joints = records.whole_points(np.stack([x, y], -1) - 1)
        joints[seen == 0] = np.nan
        return {"action": held["action"], "train": train, "boxes": boxes,
                "joints": joints}
