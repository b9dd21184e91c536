"""UCF101-24: the 24 classes of UCF101 with boxes (THUMOS13, corrected)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib.data.matlab import read_mat
from lib.data.sets import records, ucf101
from lib.data.sets.records import Listed, Lists, Record, Source, shaped

BOXES = Source("finalAnnots.mat", "https://raw.githubusercontent.com/gurkirt/"
               "corrected-UCF101-Annots/master/")
COUNTS, BOXED = {"1": (2293, 910, 24)}, 3194  # clips with boxes
VAL_SHARE, FPS = ucf101.VAL_SHARE, ucf101.FPS


def read(root: Path, split: str = "1", *, lists_only: bool = False) -> Lists:
    """Read UCF101-24: the 24 classes of UCF101 with boxes; split "1".

    Videos and lists are UCF101's. `root/ucf101_24/finalAnnots.mat` (or the
    same in `annotations/ucf101_24/`) holds the corrected boxes of Singh et
    al.; their pyannot.pkl is a copy of it, and a pickle may run what it
    likes. The test is the 910 annotated clips; of the 2,293 for training, 9
    have no boxes. Frames between the start and the end of a person's tube
    are `spans`. A frame with several people has the box of the longest tube.
    """
    records.known_split("UCF101-24", split, COUNTS)
    path = records.require(
        records.beside(root, "ucf101_24", "ucf101_24") / BOXES.name,
        "ucf101_24")
    tubes = _tubes(path)
    present = {name.partition("/")[0] for name in tubes}
    whole = ucf101.read(root, "1", lists_only=lists_only)
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

    train, test = (map(told, part) for part in (lists.train, lists.test))
    return records.checked(root, path, [*train], [
        one for one in test if one[1].spans], lists.classes)


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


def _tubes(path: Path) -> dict[str, tuple[Tube, ...]]:
    """Tubes by video; `sf` counts from 1."""
    found: dict[str, tuple[Tube, ...]] = {}
    seen: dict[str, str] = {}
    try:
        for entry in read_mat(path, "annot")["annot"]:
            where = f"{path}: {entry['name']}"
            records.once(seen, entry["name"], where)
            frames = _number(where, entry, "num_imgs")
            found[entry["name"]] = tuple(
                _tube(where, tube, frames) for tube in entry["tubes"])
    except (IndexError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not hold UCF101-24's tubes "
                         f"({error!r}): get it again") from error
    return found


def _number(where: str, held: dict[str, Any], name: str) -> int:
    value = float(shaped(where, held, name, "1 1").item())
    if not value.is_integer():
        raise ValueError(f"{where}: {name} is {value}")
    return int(value)


def _tube(where: str, held: dict[str, Any], frames: int) -> Tube:
    """A tube of [start, end) frames; a ValueError if it cannot be one."""
    start, end = _number(where, held, "sf") - 1, _number(where, held, "ef")
    if not 0 <= start < end <= frames:
        raise ValueError(f"{where}: no tube can last from frame {start} to "
                         f"{end} of {frames}")
    boxes = shaped(where, held, "boxes", f"{end - start} 4")
    box = (np.isfinite(boxes).all(1) & (boxes[:, :2] >= 0).all(1)
           & (boxes[:, 2:] > 0).all(1))
    if not box.all():
        raise ValueError(f"{where}: {boxes[~box][0]} is no box x y w h")
    return start, boxes
