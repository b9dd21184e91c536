"""Lists with masks, joints or boxes: JHMDB, Penn Action, UCF101-24.

Readers as in annotations.py. What is known of each frame is read when a
record's `truth` is called. Pickles and .mat files are read without running
what they hold. MATLAB counts pixels from 1; here the middle of the first
pixel is (0, 0), and x2, y2 of a box are its exclusive edges.
"""

import hashlib
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib import annotations
from lib.annotations import HOW, Lists, Record, beside, one_split, require
from lib.annotations_lists import flagged
from lib.puppets import tight_boxes

LARGEST = 64 * 2**20  # bytes of an annotation file: ten times the largest
PLAIN = "biufU"  # kinds of dtypes: numbers and text, no objects


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
    videos = root / "ReCompress_Videos"
    if not lists_only:
        require(videos, "JHMDB's videos", HOW.format("jhmdb"))
    train, test, classes = flagged("jhmdb", root / "splits", split, videos)

    def told(record: Record) -> Record:
        own = f"{classes[record.label]}/{record.name}"
        return record._replace(truth=Puppet(
            root / "puppet_mask" / own / "puppet_mask.mat",
            root / "joint_positions" / own / "joint_positions.mat"))

    return Lists(*([told(r) for r in part] for part in (train, test)),
                 classes)


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
        mask = read_mat(self.mask, "part_mask")["part_mask"]
        if mask.ndim != 3:
            raise ValueError(f"{self.mask}: part_mask is {mask.shape}, not "
                             "(height, width, frames)")
        mask = _frames(np.moveaxis(mask, 2, 0) > 0, index, False)
        known = {"mask": torch.from_numpy(mask),
                 "boxes": torch.from_numpy(tight_boxes(mask))}
        if joints:
            place = read_mat(self.joints, "pos_img")["pos_img"]  # (2, J, T)
            place = np.float32(place.transpose(2, 1, 0) - 1)
            known["joints"] = torch.from_numpy(_frames(place, index, np.nan))
        return known


def penn_action(
    root: str | Path, split: str = "1", *, lists_only: bool = False
) -> Lists:
    """Read Penn Action: 2,326 clips, 15 classes; `root/penn_action/`.

    `labels/0001.mat` holds class, list, boxes and joints; the frames, which
    are published as JPEG files, are expected in `videos/0001.avi`, where
    data_scripts/penn_action.py packs them as they are. Samples have
    `boxes` and on request 13 `joints`, NaN where they cannot be seen. No
    groups are given, so each clip is its own.
    """
    one_split("Penn Action", split)
    root, how = Path(root) / "penn_action", HOW.format("penn_action")
    files = sorted(require(root / "labels", "its labels", how).glob("*.mat"))
    if not files:
        raise FileNotFoundError(f"no .mat files in {root / 'labels'}. {how}")
    if not lists_only:
        require(root / "videos", "Penn Action's packed frames", how)
    told = {file: read_mat(file, "action", "train") for file in files}
    names = {file: str(np.ravel(one["action"])[0])
             for file, one in told.items()}
    classes = sorted(set(names.values()))
    parts: dict[bool, list[Record]] = {True: [], False: []}
    for file, name in names.items():
        training = int(np.ravel(told[file]["train"])[0]) == 1  # else -1
        parts[training].append(Record(
            root / "videos" / f"{file.stem}.avi", classes.index(name),
            file.stem, file.stem, truth=Labelled(file)))
    return Lists(parts[True], parts[False], classes)


@dataclass(frozen=True)
class Labelled:
    """Penn Action's box and joints of each frame, from its .mat file."""

    file: Path

    def __call__(self, index: Tensor, joints: bool = False) -> dict[
            str, Tensor]:
        """The answers for frames `index` (T,); `joints` only if wanted."""
        told = read_mat(self.file, "bbox", "x", "y", "visibility")
        boxes = np.float32(told["bbox"].reshape(-1, 4)) - [1, 1, 0, 0]
        boxes = _frames(np.float32(boxes), index, np.nan)
        known = {"boxes": torch.from_numpy(boxes)}
        if joints:
            place = np.float32(np.stack([told["x"], told["y"]], -1)) - 1
            place[told["visibility"] == 0] = np.nan
            known["joints"] = torch.from_numpy(_frames(place, index, np.nan))
        return known


def _frames(values: np.ndarray, index: Tensor, unknown: Any) -> np.ndarray:
    """Rows `index` of `values` (T, ...); `unknown` after the last one."""
    index = index.numpy()
    picked = np.full((len(index), *values.shape[1:]), unknown, values.dtype)
    known = index < len(values)
    picked[known] = values[index[known]]
    return picked


def read_mat(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Variables of a MATLAB file; a clear ValueError for a broken one."""
    from scipy.io import loadmat

    if not path.is_file():
        raise FileNotFoundError(f"no annotation file {path}: complete the "
                                "data set (run its script again)")
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST} bytes")
        held = loadmat(path, variable_names=names)
        return {name: held[name] for name in names}
    except Exception as error:  # scipy raises many kinds for damaged files
        raise ValueError(f"{path}: no MATLAB file (version 5) with {names}: "
                         f"{error}") from error


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
    lists = whole.restrict([n for n in whole.classes if n in present])

    def told(record: Record) -> Record:
        own = tubes.get(f"{record.path.parent.name}/{record.name}", ())
        spans = tuple(sorted({(s, s + len(boxes)) for s, boxes in own}))
        return record._replace(truth=Tubes(own), spans=spans)

    train, test = ([told(r) for r in part] for part in lists[:2])
    return Lists(train, [r for r in test if r.spans], lists.classes)


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


def _from_matlab(path: Path) -> dict[str, tuple]:
    """Tubes by video; `sf` counts from 1."""
    found = {}
    for entry in read_mat(path, "annot")["annot"].ravel():
        found[str(entry["name"].item())] = tuple(
            (int(tube["sf"].item()) - 1, tube["boxes"].reshape(-1, 4))
            for tube in entry["tubes"].ravel())
    return found


def _pickled(path: Path) -> dict[str, tuple]:
    """Tubes by video; `sf` counts from 0."""
    try:
        return {str(name): tuple(
            (int(tube["sf"]), tube["boxes"].values.reshape(-1, 4))
            for tube in entry["annotations"])
            for name, entry in read_pickle(path).items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not hold UCF101-24's tubes "
                         f"({error!r}): get it again") from error


def read_pickle(path: Path) -> Any:
    """What a pickle of numbers, text, containers and NumPy arrays holds.

    Nothing in it is run: it may name four functions of NumPy, and gets our
    own in their place. An array is an object with `values`. Raises
    ValueError for any other content.
    """
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} has more than {LARGEST} bytes")
    with path.open("rb") as file:
        try:
            # latin1: what Python 2 wrote holds bytes as text
            return _Unpickler(file, encoding="latin1").load()
        except Exception as error:  # damaged pickles raise many kinds
            raise ValueError(f"{path} is not read ({error}): it must be a "
                             "pickle of numbers, text and arrays") from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = {"_reconstruct": _Array, "scalar": _scalar,
                 "dtype": _Type, "ndarray": "ndarray"}
        if module in ("numpy", "numpy.core.multiarray",
                      "numpy._core.multiarray") and name in known:
            return known[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}")


class _Type:
    """Stands in for a dtype of numbers or text."""

    def __init__(self, code: str, *_: Any):
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in PLAIN:
            raise pickle.UnpicklingError(f"an array of {code}")

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


def _bytes(data: bytes | str) -> bytes:
    return data.encode("latin1") if isinstance(data, str) else data


def _scalar(kind: _Type, data: bytes | str) -> int | float | str:
    return np.frombuffer(_bytes(data), kind.dtype).item()


class _Array:
    """Stands in for an array; its `values` come with its state."""

    def __init__(self, *_: Any):
        self.values = np.empty(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, data = state
        values = np.frombuffer(_bytes(data), kind.dtype)
        self.values = values.reshape(shape, order="F" if fortran else "C")
