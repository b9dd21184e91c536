"""JHMDB (Jhuang et al., ICCV 2013): a mask and joints in each frame.

MATLAB counts pixels from 1; here the middle of the first pixel is (0, 0).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from lib.data.boxes import tight_boxes
from lib.data.matlab import read_mat
from lib.data.sets import records
from lib.data.sets.hmdb51 import flagged
from lib.data.sets.records import (
    Lists,
    Record,
    Source,
    at_frames,
    shaped,
    whole_points,
)

HOST = "https://files.is.tue.mpg.de/jhmdb/"
VIDEOS = Source("JHMDB_video.zip", HOST,
                hash="md5:0aca5af988892c8c2afe652a30544b8c")
MASKS = Source("puppet_mask.zip", HOST,
               hash="md5:eebf6c6c71faa16709b709b758710d17")
JOINTS = Source("joint_positions.zip", HOST,
                hash="md5:3d1ac91bcb8544ddfdd9547997db239f")
LISTS = Source("splits.zip", HOST,
               hash="md5:15b9f2f7a99d63c07f3be0c9ecde43b5")
COUNTS = {"1": (660, 268, 21), "2": (658, 270, 21), "3": (663, 265, 21)}
VAL_SHARE, FPS = 0.1, 30.0


def read(root: Path, split: str = "1", *, lists_only: bool = False) -> Lists:
    """Read JHMDB's split "1", "2" or "3": 928 clips, 21 classes.

    `root/jhmdb/` holds `ReCompress_Videos/<class>/<clip>.avi`, the lists
    `splits/<class>_test_split1.txt`, `puppet_mask/<class>/<clip>/
    puppet_mask.mat` and `joint_positions/.../joint_positions.mat`. Samples
    have `mask`, `boxes` around it, and on request 15 `joints`. The group is
    the clip's source, as in HMDB51.
    """
    root = root / "jhmdb"
    folder, videos = root / "splits", root / "ReCompress_Videos"
    if not lists_only:
        records.require(videos, "jhmdb")
    *parts, classes = flagged("jhmdb", folder, split, videos, COUNTS)

    def told(record: Record) -> Record:
        own = f"{classes[record.label]}/{record.name}"
        return record._replace(truth=Annotation(
            root / "puppet_mask" / own / "puppet_mask.mat",
            root / "joint_positions" / own / "joint_positions.mat"))

    return records.checked(root, folder, *(
        [(where, told(record)) for where, record in part]
        for part in parts), classes)


@dataclass(frozen=True)
class Annotation:
    """The actor's mask in each frame of a clip, a box around it, and joints.

    Frames after the last annotated one have an empty mask, and NaN.
    """

    mask: Path
    joints: Path

    def __call__(self, index: Tensor, joints: bool = False) -> dict[
            str, Tensor]:
        """The answers for frames `index` (T,); `joints` only if wanted."""
        mask = shaped(self.mask, read_mat(self.mask, "part_mask"),
                      "part_mask", "H W T")
        mask = at_frames(np.moveaxis(mask, 2, 0) > 0, index, False)
        known = {"mask": mask, "boxes": tight_boxes(mask)}
        if joints:
            place = shaped(self.joints, read_mat(self.joints, "pos_img"),
                           "pos_img", "2 J T")
            place = whole_points(np.float32(place.transpose(2, 1, 0)) - 1)
            known["joints"] = at_frames(place, index, np.nan)
        return known
