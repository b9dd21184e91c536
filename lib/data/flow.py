"""Optical flow: measure it, take the camera out, look at it.

Flow is (T-1, 2, H, W) float32 in pixels per frame, x first: the surface
point at a pixel of frame t is that far away in frame t + 1.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

# The coarsest patches of DIS are 8 pixels wide; below this OpenCV fails.
SMALLEST = 12
# RAFT halves an eighth of the frame three times, and needs something left.
RAFT_SMALLEST = 128


def dis(video: torch.Tensor) -> torch.Tensor:
    """Dense inverse search flow (Kroeger et al., 2016), medium preset.

    video: uint8 (T, 3, H, W), at least 12 x 12 pixels.
    Returns the flow (T-1, 2, H, W) between neighbouring frames.
    """
    import cv2

    if video.ndim != 4 or video.shape[1] != 3 or video.dtype != torch.uint8:
        raise ValueError("video must be uint8 (T, 3, H, W), got "
                         f"{video.dtype} {tuple(video.shape)}")
    frames, _, height, width = video.shape
    if min(height, width) < SMALLEST:
        raise ValueError(
            f"DIS flow needs {SMALLEST} x {SMALLEST} pixels, got {height} x "
            f"{width}: take the flow first and resize after, or enlarge")
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    greys = [cv2.cvtColor(frame.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY)
             for frame in video.cpu().contiguous()]
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


def raft(video: torch.Tensor, network: Callable | None = None, *,
         batch: int = 8) -> torch.Tensor:
    """RAFT (Teed and Deng, ECCV 2020): finer than `dis`, and for a GPU.

    video: uint8 (T, 3, H, W). network: maps two batches of frames in [-1, 1]
        to a list of flows, of which the last counts; by default torchvision's
        raft_large, downloaded once, on the GPU. Frames are stretched to what
        it can take, multiples of 8 pixels and at least 128.
    Returns the flow (T-1, 2, H, W) between neighbouring frames, on the CPU.
    """
    network, device = (network, video.device) if network else _raft()
    size = video.shape[-2:]
    wide = [max(-(-side // 8) * 8, RAFT_SMALLEST) for side in size]
    shrink = torch.tensor([size[1] / wide[1], size[0] / wide[0]])
    flow = torch.empty(max(len(video) - 1, 0), 2, *size)
    for start in range(0, len(flow), batch):
        frames = video[start:start + batch + 1].to(device).float() / 127.5 - 1
        frames = F.interpolate(frames, wide, mode="bilinear")
        with torch.inference_mode():
            moved = network(frames[:-1], frames[1:])[-1]
        moved = F.interpolate(moved, size, mode="bilinear", antialias=True)
        flow[start:start + batch] = moved.cpu() * shrink.view(2, 1, 1)
    return flow


@functools.lru_cache(maxsize=1)
def _raft() -> tuple[torch.nn.Module, str]:
    from torchvision.models import optical_flow

    if not torch.cuda.is_available():
        raise ValueError("RAFT takes seconds a frame without a GPU: use `dis`")
    network = optical_flow.raft_large(weights=None)
    # weights_only: never run what a downloaded file brings along
    network.load_state_dict(optical_flow.Raft_Large_Weights.DEFAULT
                            .get_state_dict(progress=False, check_hash=True,
                                            weights_only=True))
    return network.to("cuda").eval(), "cuda"


def without_camera(flow: torch.Tensor) -> torch.Tensor:
    """Warped flow: what is left of (T, 2, H, W) when the camera stands still.

    As for improved trajectories (Wang and Schmid, ICCV 2013), the camera's
    motion is the homography that most of the frame agrees with, found by
    RANSAC, but from the flow itself, on a grid of about 32 x 32 points,
    instead of matched features; and the flow's end points are moved back by
    it, instead of the second frame, whose flow would be measured anew. Where
    less than a tenth of the frame agrees the flow stays as it is; a person
    who fills most of the frame would be taken for the camera.
    """
    import cv2

    height, width = flow.shape[-2:]
    pixel = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    step = max(min(height, width) // 32, 1)
    left = torch.empty(flow.shape)
    for t, field in enumerate(flow.float().cpu().permute(0, 2, 3, 1).numpy()):
        end = (pixel + field).astype(np.float64)
        grid = (x[::step, ::step].reshape(-1, 2) for x in (pixel, end))
        # a pixel of 256: wider, and slow people count as background
        camera, agree = cv2.findHomography(
            *(x.astype(np.float32) for x in grid), cv2.RANSAC,
            min(height, width) / 256)
        if camera is not None and agree.mean() > 0.1:
            end = cv2.perspectiveTransform(end, np.linalg.inv(camera))
        left[t] = torch.from_numpy(end - pixel).permute(2, 0, 1)
    return left


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
            "the same number of dimensions, height and width")
    if image.ndim == 3:
        return warp(image[None], flow[None])[0]
    pixels = image if image.is_floating_point() else image.to(flow.dtype)
    # grid_sample counts from -1 to 1 between the outer edges of the frame
    still = F.affine_grid(torch.eye(2, 3).to(flow).expand(len(flow), 2, 3),
                          flow.shape, align_corners=False)
    step = 2 / flow.new_tensor([flow.shape[-1], flow.shape[-2]])
    grid = still + flow.movedim(1, -1) * step
    return F.grid_sample(pixels, grid.to(pixels), padding_mode="border",
                         align_corners=False)


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
