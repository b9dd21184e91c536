"""Optical flow: measure it, keep it, warp by it, look at it.

Flow is (T-1, 2, H, W) float32 in pixels per frame, x first: the surface
point at a pixel of frame t is that far away in frame t + 1.
"""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

# The coarsest patches of DIS are 8 pixels wide; below this OpenCV fails.
SMALLEST = 12


def dis(video: torch.Tensor) -> torch.Tensor:
    """Dense inverse search flow (Kroeger et al., 2016), medium preset.

    video: uint8 (T, 3, H, W), at least 12 x 12 pixels.
    Returns the flow (T-1, 2, H, W) between neighbouring frames.
    """
    import cv2

    if video.ndim != 4 or video.shape[1] != 3 or video.dtype != torch.uint8:
        raise ValueError(
            "video must be uint8 (T, 3, H, W), got "
            f"{video.dtype} {tuple(video.shape)}"
        )
    frames, _, height, width = video.shape
    if min(height, width) < SMALLEST:
        raise ValueError(
            f"DIS flow needs {SMALLEST} x {SMALLEST} pixels, got {height} x "
            f"{width}: take the flow first and resize after, or enlarge"
        )
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    greys = [
        cv2.cvtColor(frame.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY)
        for frame in video.cpu().contiguous()
    ]
    flow = torch.empty(max(frames - 1, 0), 2, height, width)
    for t in range(frames - 1):
        moved = search.calc(greys[t], greys[t + 1], None)
        flow[t] = torch.from_numpy(moved).permute(2, 0, 1)
    return flow


def tvl1(video: torch.Tensor) -> torch.Tensor:
    """TV-L1 flow (Zach et al., 2007), as two-stream networks were trained on.

    Forty times as slow as `dis`. Shapes as there. ImportError without
    OpenCV's contrib modules.
    """
    import cv2

    if not hasattr(cv2, "optflow"):
        raise ImportError("TV-L1 flow needs opencv-contrib-python-headless "
                          "in the place of opencv-python-headless")
    search = cv2.optflow.DualTVL1OpticalFlow_create()
    greys = [cv2.cvtColor(frame.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY)
             for frame in video.cpu().contiguous()]
    fields = [search.calc(a, b, None)
              for a, b in zip(greys, greys[1:], strict=False)]
    if not fields:
        return torch.empty(0, 2, *video.shape[-2:])
    return torch.from_numpy(np.stack(fields)).movedim(-1, 1).contiguous()


@functools.cache
def _raft(device: str, pretrained: bool) -> torch.nn.Module:
    from torchvision.models import optical_flow as models

    weights = models.Raft_Large_Weights.DEFAULT if pretrained else None
    return models.raft_large(weights=weights).to(device).eval()


@torch.no_grad()
def raft(video: torch.Tensor, device: str = "cuda", *,
         pretrained: bool = True, batch: int = 8) -> torch.Tensor:
    """RAFT flow (Teed and Deng, 2020) by torchvision's network.

    For a GPU: `batch` pairs at once. Shapes as in `dis`; frames are
    widened by their edges to the 128 pixels and the multiples of eight that
    the network needs. pretrained: False is for tests without a network.
    """
    height, width = video.shape[-2:]
    more = [max(128, -(-n // 8) * 8) - n for n in (width, height)]
    frames = F.pad(video.float() / 127.5 - 1, (0, more[0], 0, more[1]),
                   mode="replicate")
    net, fields = _raft(device, pretrained), []
    for t in range(0, len(video) - 1, batch):
        first = frames[t:min(t + batch, len(video) - 1)].to(device)
        second = frames[t + 1:t + 1 + batch].to(device)
        fields.append(net(first, second)[-1][..., :height, :width].cpu())
    return torch.cat(fields) if fields else torch.empty(0, 2, height, width)


def without_camera(flow: torch.Tensor) -> torch.Tensor:
    """Warped flow: what remains after the motion of the camera.

    For each field a homography is fitted to a grid of its vectors by RANSAC,
    so that people who move do not count, and its motion subtracted. That is
    the first order of what improved dense trajectories do (Wang and Schmid,
    2013), who measure the flow anew after warping. Shapes (T-1, 2, H, W).
    """
    import cv2

    height, width = flow.shape[-2:]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    points = np.stack([x, y], -1)
    some = slice(None, None, max(min(height, width) // 32, 1))
    rest = flow.clone()
    for field in rest:
        moved = points + field.permute(1, 2, 0).numpy()
        camera, _ = cv2.findHomography(
            points[some, some].reshape(-1, 1, 2),
            moved[some, some].reshape(-1, 1, 2), cv2.RANSAC, 1.0)
        if camera is None:
            continue  # no common motion: nothing to subtract
        went = cv2.perspectiveTransform(points.reshape(-1, 1, 2), camera)
        still = went.reshape(height, width, 2) - points
        field -= torch.from_numpy(still).permute(2, 0, 1)
    return rest


def quantise(flow: torch.Tensor, bound: float = 20.0) -> torch.Tensor:
    """Flow as int8: clipped to `bound` pixels, in 254 steps.

    Within the bound the error is at most bound / 254: 0.08 pixels for 20.
    """
    scaled = flow.clamp(-bound, bound) * (127 / bound)
    return scaled.round().to(torch.int8)


def dequantise(kept: torch.Tensor, bound: float = 20.0) -> torch.Tensor:
    """The flow (float32) that `quantise` has kept with the same bound."""
    return kept.float() * (bound / 127)


def chairs(root: str | Path, part: str, *, lists_only: bool = False) -> list[
        tuple[Path, Path, Path]]:
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


def read_flo(path: Path) -> torch.Tensor:
    """Middlebury's .flo file as flow (2, H, W)."""
    data = path.read_bytes()
    width, height = np.frombuffer(data[4:12].ljust(8, b"\0"), "<i4").tolist()
    if data[:4] != b"PIEH" or len(data) != 12 + 8 * width * height:
        raise ValueError(f"{path} is no whole .flo file: get it again")
    field = np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2)
    return torch.from_numpy(field.copy()).permute(2, 0, 1).contiguous()


class FlyingChairs(Dataset):
    """Pairs of frames: `video` uint8 (2, 3, H, W), `flow` (1, 2, H, W).

    part: "train" or "val". Samples also have `name` and `fps` (1).
    """

    def __init__(self, root: str | Path, part: str):
        self.pairs = chairs(root, part)

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


def stacked(clips: torch.Tensor) -> torch.Tensor:
    """What a motion network sees of each moment: DIS flow in a stack.

    clips: uint8 (n, L+1, 3, H, W), L+1 consecutive frames from each of n
    sampled ones. Returns float16 (n, 2L, H, W): x and y of each of the L
    fields in turn, as in two-stream networks (Simonyan and Zisserman, 2014).
    """
    fields = torch.stack([dis(clip) for clip in clips])
    return fields.flatten(1, 2).half()


def warp(image: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Fetch each pixel from where the flow points (backward warping).

    With flow from frame t to t + 1, `warp(video[1:], flow)` looks like
    `video[:-1]`. From outside the frame comes the nearest edge pixel.

    image: (N, C, H, W) or (C, H, W), uint8 or float. flow: the same with
    C = 2. Returns float of the image's shape, in its range.
    """
    if image.shape[-2:] != flow.shape[-2:] or image.ndim != flow.ndim:
        raise ValueError(
            f"image {tuple(image.shape)} and flow {tuple(flow.shape)} need "
            "the same number of dimensions, height and width"
        )
    if image.ndim == 3:
        return warp(image[None], flow[None])[0]
    height, width = flow.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=flow.device),
        torch.arange(width, device=flow.device),
        indexing="ij",
    )
    # grid_sample counts from -1 to 1 between the outer edges of the frame.
    grid = torch.stack(
        [
            (2 * (x + flow[:, 0]) + 1) / width - 1,
            (2 * (y + flow[:, 1]) + 1) / height - 1,
        ],
        dim=-1,
    )
    pixels = image if image.is_floating_point() else image.to(flow.dtype)
    return F.grid_sample(
        pixels,
        grid.to(pixels.dtype),
        padding_mode="border",
        align_corners=False,
    )


def to_rgb(flow: torch.Tensor, largest: float | None = None) -> torch.Tensor:
    """Colour flow by a wheel: hue is direction, saturation is speed.

    Rest is white; right is red, down is yellow-green, left is cyan, up is
    violet. `largest` is the speed of full colour, by default the fastest
    pixel of all.

    flow: (..., 2, H, W). Returns uint8 (..., 3, H, W).
    """
    x, y = flow.unbind(-3)
    speed = torch.hypot(x, y)
    top = float(speed.max()) if largest is None else largest
    saturation = (speed / max(top, 1e-6)).clamp(max=1)
    hue = torch.atan2(y, x) / (2 * math.pi) % 1
    # HSV at full value: each channel falls from 1 by the saturation as the
    # hue leaves that channel's third of the circle.
    third = torch.tensor([0, 1 / 3, 2 / 3], device=flow.device)
    distance = (hue.unsqueeze(-3) - third.view(3, 1, 1) + 0.5) % 1 - 0.5
    channel = (2 - 6 * distance.abs()).clamp(0, 1)
    rgb = 1 - saturation.unsqueeze(-3) * (1 - channel)
    return (255 * rgb).round().to(torch.uint8)
