"""FlyingChairs: pairs of frames with exact flow.

Dosovitskiy et al., ICCV 2015; STA-CNN pre-trains its attention on them.
torchvision's FlyingChairs pairs files by their place in the sorted folder:
where one lacks, all that follow get the flow of others. Here a pair is the
three files of its number.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from lib.data.sets.records import Source, lines, require

HOST = "https://lmb.informatik.uni-freiburg.de/"
LISTS = Source("FlyingChairs_train_val.txt",
               f"{HOST}resources/datasets/FlyingChairs/")
PAIRS = Source("FlyingChairs.zip", f"{HOST}data/FlyingChairs/")
COUNTS = {"train": 22_232, "val": 640}
FLAGS = {"train": "1", "val": "2"}


def pairs(root: Path, part: str, *,
          lists_only: bool = False) -> list[tuple[Path, Path, Path]]:
    """FlyingChairs' pairs of `part` "train" or "val", with their flow.

    `root/flying_chairs/` holds `FlyingChairs_train_val.txt`, whose line i
    is 1 (train) or 2 (val) for pair i, and `data/00001_img1.ppm`, `_img2`
    and `_flow.flo`.
    """
    folder = root / "flying_chairs"
    sheet = require(folder / LISTS.name, "flying_chairs")
    if not lists_only:
        require(folder / "data", "flying_chairs")
    if part not in FLAGS:
        raise ValueError(f"part {part!r}: one of {[*FLAGS]}")
    found = []
    for i, (where, flag) in enumerate(lines(sheet), start=1):
        if flag not in FLAGS.values():
            raise ValueError(f"{where}: {flag!r} is not 1 or 2")
        if flag == FLAGS[part]:
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

    def __init__(self, root: Path, part: str):
        self.pairs = pairs(root, part)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        *images, field = self.pairs[index]
        frames = [np.array(Image.open(path).convert("RGB"))
                  for path in images]
        return {
            "video": torch.from_numpy(np.stack(frames)).movedim(-1, 1),
            "flow": read_flo(field)[None], "fps": 1,
            "name": field.name.removesuffix("_flow.flo")}


def read_flo(path: str | Path) -> torch.Tensor:
    """The flow (2, H, W) of a .flo file.

    Middlebury's format: PIEH, width and height as int32, then x and y of
    each pixel as float32, row by row, little-endian. Raises ValueError if it
    is no such file, or cut.
    """
    raw = Path(path).read_bytes()
    width, height = np.frombuffer(raw[4:12].ljust(8, b"\0"), "<i4").tolist()
    if raw[:4] != b"PIEH" or min(width, height) < 1:
        raise ValueError(f"{path} is no .flo file: it does not start with "
                         "PIEH, width and height")
    if len(raw) != (whole := 12 + 8 * width * height):
        raise ValueError(f"{path} holds {len(raw)} bytes, not the {whole} of "
                         f"{width} x {height} pixels: copy or unpack it again")
    field = np.frombuffer(raw, "<f4", offset=12).astype(np.float32)
    return torch.from_numpy(
        field.reshape(height, width, 2)).permute(2, 0, 1).contiguous()
