"""Flow points where things go: measured, warped and coloured."""

import math

import numpy as np
import pytest
import torch
from checks import refused
from torch.nn import functional as F
from torch.testing import assert_close

from lib.data import flow
from lib.worlds import worlds


def texture(height, width):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, height // 8, width // 8, generator=generator)
    fine = F.interpolate(coarse, (height, width), mode="bicubic")
    return (255 * fine.clamp(0, 1)).to(torch.uint8)[0]


@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (0, -2), (-1, 2)])
def test_dis_finds_a_shift_x_first(dx, dy):
    picture = texture(96, 128)
    video = torch.stack(
        [picture.roll((t * dy, t * dx), (1, 2)) for t in range(3)])
    measured = flow.dis(video)
    assert measured.shape == (2, 2, 96, 128)
    assert measured.dtype == torch.float32
    middle = measured[:, :, 16:-16, 16:-16].flatten(2).median(2).values
    want = torch.tensor([dx, dy], dtype=torch.float32).expand(2, 2)
    assert (middle - want).abs().max() < 0.25


def test_dis_of_a_still_and_of_one_frame():
    still = texture(64, 64).expand(3, -1, -1, -1)
    assert flow.dis(still).abs().max() < 0.05
    assert flow.dis(still[:1]).shape == (0, 2, 64, 64)


def test_dis_limits():
    assert flow.dis(torch.zeros(2, 3, 12, 12, dtype=torch.uint8)).shape
    for size in ((11, 64), (64, 11)):
        refused("12 x 12.*resize", flow.dis, torch.zeros(2, 3, *size).byte())
    for bad in (torch.zeros(2, 3, 32, 32), torch.zeros(3, 32, 32)):
        refused("uint8", flow.dis, bad)


def test_warp_by_whole_pixels_is_a_shift():
    image = torch.rand(2, 3, 9, 11)
    shift = torch.zeros(2, 2, 9, 11)
    shift[0, 0], shift[1, 1] = 2, -3
    out = flow.warp(image, shift)
    assert torch.allclose(out[0, :, :, :-2], image[0, :, :, 2:], atol=1e-5)
    assert torch.allclose(out[1, :, 3:], image[1, :, :-3], atol=1e-5)
    # Beyond the frame comes its edge.
    edge = image[0, :, :, -1:].expand(-1, -1, 2)
    assert torch.allclose(out[0, :, :, -2:], edge, atol=1e-5)


def test_warp_between_pixels_is_their_mean():
    image = torch.arange(6.0).expand(1, 1, 4, 6)
    half = torch.tensor([0.5, 0]).view(1, 2, 1, 1).expand(1, 2, 4, 6)
    out = flow.warp(image, half)[0, 0, 0]
    assert torch.allclose(out[:5], torch.arange(5.0) + 0.5, atol=1e-5)


def test_warp_takes_bytes_single_images_and_gradients():
    image = texture(16, 20)
    still = torch.zeros(2, 16, 20, requires_grad=True)
    out = flow.warp(image, still)
    assert torch.allclose(out, image.float(), atol=1e-3)
    out.sum().backward()
    assert still.grad.abs().sum() > 0
    refused("height and width", flow.warp, image, torch.zeros(2, 8, 20))


def test_the_puppets_true_flow_is_flow_in_this_sense():
    for sample in worlds.Puppets("val", 6, extras=("flow",)):
        frames = sample["video"].float()
        actor = sample["mask"][:-1]
        back = flow.warp(frames[1:], sample["flow"])
        error = (back - frames[:-1]).abs().mean(1)[actor].mean()
        still = (frames[1:] - frames[:-1]).abs().mean(1)[actor].mean()
        assert error < still


def camera(height=64, width=85, zoom=1.02, turn=0.01, shift=(2.0, -1.0)):
    y, x = torch.meshgrid(torch.arange(height) - height / 2,
                          torch.arange(width) - width / 2, indexing="ij")
    cos, sin = zoom * math.cos(turn), zoom * math.sin(turn)
    return torch.stack((cos * x - sin * y + shift[0] - x,
                        sin * x + cos * y + shift[1] - y))


def test_the_cameras_motion_is_taken_out():
    field = camera()[None].repeat(2, 1, 1, 1)
    field[1, :, 20:40, 30:50] += torch.tensor([3.0, 1.0]).view(2, 1, 1)
    left = flow.without_camera(field)
    assert field.abs().mean() > 1 and left[0].abs().max() < 1e-3
    inside = torch.zeros(64, 85, dtype=torch.bool)
    inside[20:40, 30:50] = True
    assert left[1][:, ~inside].abs().max() < 1e-3
    # seen by a camera that stands still, the zoom of 2 % is gone too
    own = left[1][:, inside].mean(1)
    assert_close(own, torch.tensor([3.0, 1.0]), rtol=0.03, atol=0.03)
    assert torch.equal(left, flow.without_camera(field))


def test_nothing_in_common_is_no_camera():
    noise = 3 * torch.randn(2, 2, 64, 64, generator=torch.manual_seed(0))
    assert_close(flow.without_camera(noise), noise, rtol=0, atol=1e-5)
    still = torch.zeros(1, 2, 64, 64)
    still[..., 30:40, 30:40] = 2
    assert_close(flow.without_camera(still), still, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 100), (128, 136), (130, 131)])
def test_raft_is_asked_in_sizes_it_can_take(size):
    """Its answer, in pixels of what it saw, comes back in the video's."""
    seen = []

    def network(first, second):
        seen.append(first.shape)
        assert -1.001 < first.min() < -0.5 and 0.5 < first.max() < 1.001
        assert first.shape == second.shape
        height, width = first.shape[-2:]
        shift = torch.tensor([width, height]).view(2, 1, 1) / 10
        return [None, shift.expand(len(first), 2, height, width)]

    video = torch.stack([texture(*size).clone() for _ in range(6)])
    moved = flow.raft(video, network, batch=2)
    assert moved.shape == (5, 2, *size)
    assert [len(shape) and shape[0] for shape in seen] == [2, 2, 1]
    assert all(n % 8 == 0 and n >= 128 for s in seen for n in s[-2:])
    want = torch.tensor([size[1], size[0]]).view(2, 1, 1) / 10
    assert_close(moved, want.expand_as(moved))


def test_raft_of_torchvision_answers():
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)
    net = raft_small(weights=None).eval()
    video = torch.stack([texture(64, 64)] * 2)
    moved = flow.raft(video, lambda a, b: net(a, b, num_flow_updates=1))
    assert moved.shape == (1, 2, 64, 64) and moved.isfinite().all()
    assert flow.raft(video[:1], net).shape == (0, 2, 64, 64)
    if not torch.cuda.is_available():
        refused("use `dis`", flow.raft, video)


def test_colours_agree_with_hsv():
    import colorsys

    vectors = torch.randn(50, 2, 1, 1, generator=torch.manual_seed(0))
    colours = flow.to_rgb(vectors, largest=2.0)[:, :, 0, 0]
    for (x, y), colour in zip(vectors[:, :, 0, 0], colours, strict=True):
        hue = math.atan2(y, x) / (2 * math.pi) % 1
        speed = min(math.hypot(x, y) / 2, 1)
        want = 255 * np.array(colorsys.hsv_to_rgb(hue, speed, 1))
        assert np.abs(want - colour.numpy()).max() <= 1


def test_the_fastest_pixel_has_full_colour():
    field = torch.zeros(1, 2, 4, 4)
    assert (flow.to_rgb(field) == 255).all()
    field[0, 0, 2, 1] = 7
    assert flow.to_rgb(field)[0, :, 2, 1].tolist() == [255, 0, 0]
