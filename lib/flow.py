"""Optical flow: measure it, warp by it, look at it.

Flow is (T-1, 2, H, W) float32 in pixels per frame, x first: the surface
point at a pixel of frame t is that far away in frame t + 1.
"""

import math

import torch
from torch.nn import functional as F

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
