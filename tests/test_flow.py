"""Flow points where things go: measured, warped and coloured."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lib import flow


def texture(height, width, seed=0):
    """A smooth random picture (3, H, W), uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 8, width // 8, generator=generator)
    fine = F.interpolate(coarse, (height, width), mode="bicubic")
    return (255 * fine.clamp(0, 1)).to(torch.uint8)[0]


@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (0, -2), (-1, 2)])
def test_dis_finds_a_shift_x_first(dx, dy):
    picture = texture(96, 128)
    video = torch.stack(
        [picture.roll((t * dy, t * dx), (1, 2)) for t in range(3)]
    )
    measured = flow.dis(video)
    assert measured.shape == (2, 2, 96, 128)
    assert measured.dtype == torch.float32
    middle = measured[:, :, 16:-16, 16:-16].flatten(2).median(2).values
    want = torch.tensor([dx, dy], dtype=torch.float32).expand(2, 2)
    assert (middle - want).abs().max() < 0.25


def test_dis_sees_no_motion_in_a_still():
    assert flow.dis(texture(64, 64).expand(3, -1, -1, -1)).abs().max() < 0.05


def test_dis_of_one_frame_is_empty():
    assert flow.dis(texture(64, 64)[None]).shape == (0, 2, 64, 64)


def test_dis_limits():
    assert flow.dis(torch.zeros(2, 3, 12, 12, dtype=torch.uint8)).shape
    for height, width in ((11, 64), (64, 11)):
        small = torch.zeros(2, 3, height, width, dtype=torch.uint8)
        with pytest.raises(ValueError, match="12 x 12.*resize"):
            flow.dis(small)
    for bad in (torch.zeros(2, 3, 32, 32), torch.zeros(3, 32, 32)):
        with pytest.raises(ValueError, match="uint8"):
            flow.dis(bad)


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
    half = torch.zeros(1, 2, 4, 6)
    half[:, 0] = 0.5
    out = flow.warp(image, half)[0, 0, 0]
    assert torch.allclose(out[:5], torch.arange(5.0) + 0.5, atol=1e-5)


def test_warp_takes_bytes_single_images_and_gradients():
    image = texture(16, 20)
    still = torch.zeros(2, 16, 20, requires_grad=True)
    out = flow.warp(image, still)
    assert torch.allclose(out, image.float(), atol=1e-3)
    out.sum().backward()
    assert still.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="height and width"):
        flow.warp(image, torch.zeros(2, 8, 20))


def test_warping_back_by_dis_undoes_the_motion():
    picture = texture(96, 128)
    video = torch.stack([picture, picture.roll((2, 4), (1, 2))])
    back = flow.warp(video[1:], flow.dis(video))
    inside = (..., slice(12, -12), slice(12, -12))
    error = (back - video[:1].float())[inside].abs().mean()
    before = (video[1:].float() - video[:1].float())[inside].abs().mean()
    assert error < 0.25 * before


def test_the_puppets_true_flow_is_flow_in_this_sense():
    puppets = pytest.importorskip("lib.puppets")
    improved = 0
    for sample in puppets.Puppets("val", 6, extras=("flow",)):
        frames = sample["video"].float()
        actor = sample["mask"][:-1]
        back = flow.warp(frames[1:], sample["flow"])
        error = (back - frames[:-1]).abs().mean(1)[actor].mean()
        still = (frames[1:] - frames[:-1]).abs().mean(1)[actor].mean()
        improved += int(error < still)
    assert improved == 6


def test_colours_of_the_wheel():
    directions = torch.tensor(
        [[1, 0], [0, 1], [-1, 0], [0, -1], [0, 0]], dtype=torch.float32
    )
    colours = flow.to_rgb(directions[:, :, None, None], largest=1.0)
    assert colours.dtype == torch.uint8
    assert colours[:, :, 0, 0].tolist() == [
        [255, 0, 0], [128, 255, 0], [0, 255, 255], [128, 0, 255],
        [255, 255, 255],
    ]


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
    field[0, 0, 2, 1] = 7
    colours = flow.to_rgb(field)
    assert colours[0, :, 2, 1].tolist() == [255, 0, 0]
    assert (flow.to_rgb(torch.zeros(1, 2, 4, 4)) == 255).all()
