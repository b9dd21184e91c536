"""FlyingChairs: pairs of frames with exact flow.

Dosovitskiy et al., ICCV 2015; STA-CNN pre-trains its attention on them.
"""


from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from lib.data.sets.records import HOW, lines, require

PARTS = {"train": "1", "val": "2"}


def pairs(root: str | Path, part: str, *,
          lists_only: bool = False) -> list[tuple[Path, Path, Path]]:
    """FlyingChairs' pairs of `part` "train" or "val", with their flow.

    `root/flying_chairs/` holds `FlyingChairs_train_val.txt`, whose line i
    is 1 (train) or 2 (val) for pair i, and `data/00001_img1.ppm`, `_img2`
    and `_flow.flo`.
    """
    folder = Path(root) / "flying_chairs"
    sheet = folder / "FlyingChairs_train_val.txt"
    for path in (sheet, *(() if lists_only else (folder / "data",))):
        require(path, "FlyingChairs", HOW.format("flying_chairs"))
    if part not in PARTS:
        raise ValueError(f"part {part!r}: one of {[*PARTS]}")
    found = []
    for i, (where, flag) in enumerate(lines(sheet), start=1):
        if flag not in PARTS.values():
            raise ValueError(f"{where}: {flag!r} is not 1 or 2")
        if flag == PARTS[part]:
            found.append(tuple(
                folder / "data" / f"{i:05d}_{name}"
                for name in ("img1.ppm", "img2.ppm", "flow.flo")))
    if not found:
        raise ValueError(f"{sheet} lists no pairs of {part}")
    return found


class FlyingChairs(Dataset):
    """Pairs of frames: `video` uint8 (2, 3, H, W), `flow` (1, 2, H, W).

    part: "train" or "val". Samples also have `name` and `fps` (1). As
    `Snippets(FlyingChairs(root, part), 1, keys=("video", "flow"))` they are
    what STA-CNN's attention network learns from.
    """

    classes = ()  # nothing to classify

    def __init__(self, root: str | Path, part: str):
        self.pairs = pairs(root, part)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        from PIL import Image

        *images, field = self.pairs[index]
        frames = [np.array(Image.open(path).convert("RGB"))
                  for path in images]
        return {
            "video": torch.from_numpy(np.stack(frames)).movedim(-1, 1),
            "flow": read_flo(field)[None], "fps": 1,
            "name": field.name.removesuffix("_flow.flo")}
FLO = 202021.25  # with which a .flo file starts


def read_flo(path: str | Path) -> torch.Tensor:
    """The flow (2, H, W) of a .flo file, as FlyingChairs has them.

    Middlebury's format: 202021.25 as float32, width and height as int32, then
    x and y of each pixel as float32, row by row, little-endian.

    Raises:
        ValueError: if it is no such file, or cut.
    """
    raw = Path(path).read_bytes()
    head = np.frombuffer(raw[:12].ljust(12, b"\0"), "<i4")
    width, height = head[1:].tolist()
    if head.view("<f4")[0] != FLO or min(width, height) < 1:
        raise ValueError(f"{path} is no .flo file: it does not start with "
                         f"{FLO}, width and height")
    if len(raw) != 12 + 8 * width * height:
        raise ValueError(
            f"{path} holds {len(raw)} bytes, not the {12 + 8 * width * height}"
            f" of {width} x {height} pixels: copy or unpack it again")
    pixels = np.frombuffer(raw, "<f4", offset=12).astype(np.float32)
    return torch.from_numpy(
        pixels.reshape(height, width, 2)).permute(2, 0, 1).contiguous()
