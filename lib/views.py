"""Many looks at one video, and many scores for one video.

A `View` is a look: a part of the video, a crop, a mirror. The scores of
several looks, streams or programs are fused into one.

    answers = [predict(model, through(test, view))["logits"]
               for view in spatio_temporal_22()]
    shares = fuse(answers)
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lib import ROOT, clips


@dataclass(frozen=True)
class View:
    """One look at a video.

    part: the shares (start, end) of its length to sample frames from.
    top, left: the crop's corner, in shares of the frame's height and width.
    side: the crop's height and width, in the same shares: the crop has the
        frame's aspect. It is resized to the size of the frame.
    mirror: left and right change places, after the crop.
    """

    part: tuple[float, float] = (0.0, 1.0)
    top: float = 0.0
    left: float = 0.0
    side: float = 1.0
    mirror: bool = False

    def __post_init__(self):
        start, end = self.part
        corner, far = min(self.top, self.left), max(self.top, self.left)
        inside = corner >= 0 and self.side > 0 and far + self.side < 1 + 1e-9
        if not (0 <= start < end <= 1 and inside):
            raise ValueError(
                f"{self}: a part needs 0 <= start < end <= 1, a crop must "
                "lie in the frame, whose height and width are 1")


WHOLE = View()
"""The whole video, the whole frame."""


def spatio_temporal_22() -> list[View]:
    """The 22 looks of RSTAN's multi-scale test (Du et al., section IV-D).

    Ten are spatial: the four corners and the centre, of 224 of 256 pixels,
    and their mirrors, all over the whole video. Twelve are spatio-temporal:
    the first two thirds, the last two thirds and the whole video, each in
    two sizes, 256 x 256 and 192 x 192 "with center crops", and mirrored.

    No crop of 224 pixels fits in a frame of 192. Here the two sizes are
    centre crops of 256 and 192 of a frame's 256 pixels, resized to what
    the network takes. So read, no two of the 22 are the same.
    """
    side = 224 / 256
    far, middle = 1 - side, (1 - side) / 2
    corners = [*product((0.0, far), repeat=2), (middle, middle)]
    views = [View((0.0, 1.0), *corner, side, mirror)
             for corner, mirror in product(corners, (False, True))]
    parts = ((0.0, 2 / 3), (1 / 3, 1.0), (0.0, 1.0))
    for part, side in product(parts, (256 / 256, 192 / 256)):
        middle = (1 - side) / 2
        views += [View(part, middle, middle, side, mirror)
                  for mirror in (False, True)]
    return views


class _Seen(Dataset):
    """A dataset through a view; see `through`."""

    def __init__(self, data: Dataset, view: View):
        self.data, self.view, self.classes = data, view, data.classes

    def identity(self, i: int) -> str:
        """All that sample i depends on: that of the data, and the view."""
        return repr((self.data.identity(i), self.view))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return look(self.data[index], self.view)


def through(data: Dataset, view: View) -> Dataset:
    """`data` as seen through `view`; samples keep their shapes.

    data: of `datasets.load`, whose `between` samples the view's part. The
        part is of the whole video, whatever `data` was sampled from.
    The result has `classes` and `identity` as `data` has.
    """
    if not hasattr(data, "between"):
        raise TypeError(
            f"a {type(data).__name__} cannot sample a part of its videos: "
            "give a dataset of datasets.load")
    return _Seen(data.between(*view.part), view)


def look(sample: dict[str, Any], view: View) -> dict[str, Any]:
    """Crop, resize to the frame's own size and mirror a sample.

    Video, mask and boxes go together, `main_actor` changes sides. `motion`
    is resized like an image; its values, pixels per frame, grow with it,
    and its x channels change their sign in a mirror. The view's part is the
    dataset's to sample. Raises ValueError for the keys of `clips.FIXED`.
    """
    from torchvision.transforms import v2

    height, width = sample["video"].shape[-2:]
    top, rows = _pixels(view.top, view.side, height)
    left, columns = _pixels(view.left, view.side, width)

    def crop(image: Tensor) -> Tensor:
        return v2.functional.resized_crop(
            image, top, left, rows, columns, [height, width], antialias=True)

    seen = {key: x for key, x in sample.items() if key != "motion"}
    seen = clips.transform(seen, lambda h, w: [v2.Lambda(crop, Tensor)])
    if view.mirror:
        seen = clips.flip(seen, p=1)
    if "motion" in sample:
        motion = crop(sample["motion"].float())
        motion[:, 0::2] *= width / columns
        motion[:, 1::2] *= height / rows
        if view.mirror:
            motion = motion.flip(-1)
            motion[:, 0::2] *= -1
        seen["motion"] = motion.to(sample["motion"].dtype)
    return seen


def _pixels(start: float, side: float, total: int) -> tuple[int, int]:
    """First pixel and length of a crop; it never leaves the frame."""
    length = max(round(side * total), 1)
    return min(round(start * total), total - length), length


def fuse(logits: Sequence[Tensor],
         weights: Sequence[float] | None = None) -> Tensor:
    """The weighted mean of softmax probabilities: shares (N, K).

    logits: of independent streams (RSTAN, Table I) or of several views
        (section IV-D), each (N, K). For what is already a probability, as
        of `read_scores`, give its logarithm.
    weights: one per entry, not negative; by default all the same.
    """
    weights = [1.0] * len(logits) if weights is None else list(weights)
    shapes = {tuple(one.shape) for one in logits}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ValueError(
            f"logits of shapes {sorted(shapes)}: all need one shape (N, K)")
    if len(weights) != len(logits) or min(weights) < 0 or not (
            0 < sum(weights) < math.inf):
        raise ValueError(
            f"weights {weights} for {len(logits)} logits: one for each, "
            "none negative, not all zero")
    total = sum(weights)
    return sum(weight / total * one.softmax(1)
               for weight, one in zip(weights, logits, strict=True))


def read_scores(path: str | Path, names: Sequence[str],
                classes: Sequence[str]) -> Tensor:
    """Another program's scores (N, K) for the videos `names`.

    Late fusion with hand-made features, as RSTAN adds iDT-FV in Table IV.
    path: a CSV file, counted from the project root, with the header
        `name,<class>,...` and one row per video, in any order of rows and
        columns. It may hold more videos than asked for.
    Returns the scores as they are, in the order of `names` and `classes`.

    The paper does not say how it normalises scores before the fusion. A
    mean with the probabilities of `fuse` needs shares that sum to one, so
    other rows are an error. Errors are ValueErrors that name the line.
    """
    file = ROOT / Path(path).expanduser()
    try:
        # a byte order mark is what spreadsheets begin with
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines)
            rows = [(reader.line_num, [cell.strip() for cell in row])
                    for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{file} is no CSV file in UTF-8 ({error}): export it as one"
        ) from error
    if not rows:
        raise ValueError(f"{file} is empty: it needs name,<class>,... first")
    (line, header), *rows = rows
    _check_header(f"{file}, line {line}", header, classes)
    scores, found = {}, {}
    for line, row in rows:
        where = f"{file}, line {line}"
        if len(row) != len(header):
            raise ValueError(f"{where} has {len(row)} cells, the header "
                             f"{len(header)}: give one cell per column")
        cells = dict(zip(header, row, strict=True))
        name = cells.pop("name")
        if name in found:
            raise ValueError(f"{where}: {name} is there already, on line "
                             f"{found[name]}: keep one of the two")
        found[name] = line
        scores[name] = _shares(where, cells, classes)
    if missing := [name for name in names if name not in scores]:
        raise ValueError(
            f"{file} lacks {len(missing)} of {len(names)} videos, as "
            f"{missing[0]}: add a row for each")
    return torch.tensor([scores[name] for name in names])


def _check_header(where: str, header: list[str],
                  classes: Sequence[str]) -> None:
    wanted = ["name", *classes]
    wrong = {
        "lacks": [name for name in wanted if name not in header],
        "has the unknown": [name for name in header if name not in wanted],
        "repeats": sorted({n for n in header if header.count(n) > 1})}
    for what, columns in wrong.items():
        if columns:
            raise ValueError(f"{where}: the header {what} {columns}: it "
                             "needs `name` and each class once")


def _shares(where: str, cells: dict[str, str],
            classes: Sequence[str]) -> list[float]:
    shares = []
    for name in classes:
        try:
            shares.append(float(cells[name]))
        except ValueError:
            shares.append(math.nan)
        if not math.isfinite(shares[-1]):
            raise ValueError(f"{where}: {cells[name]!r} for {name} is no "
                             "finite number: write one with a decimal point")
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-3:
        raise ValueError(
            f"{where}: the scores are no shares that sum to one (lowest "
            f"{min(shares):g}, sum {sum(shares):g}): apply a softmax first")
    return shares
