"""FlyingChairs: pairs of frames with exact flow.

Dosovitskiy et al., ICCV 2015; STA-CNN pre-trains its attention on them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from lib.flow import read_flo


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
        if not path.exists():
            raise FileNotFoundError(
                f"FlyingChairs not found: {path}. Run data_scripts/"
                "flying_chairs.py --root FOLDER, and name FOLDER by "
                "data_root or DATA_ROOT.")
    flags = sheet.read_text().split()
    if not set(flags) <= {"1", "2"}:
        raise ValueError(f"{sheet}: lines other than 1 and 2")
    wanted = {"train": "1", "val": "2"}[part]
    return [tuple(folder / "data" / f"{i:05d}_{name}"
                  for name in ("img1.ppm", "img2.ppm", "flow.flo"))
            for i, flag in enumerate(flags, start=1) if flag == wanted]


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
