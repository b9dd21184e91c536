"""Backbones of detectors: their parts are the whole, their maps as named."""

import pytest
import torch
from checks import random, refused
from torch.testing import assert_close

from lib.networks import cnn3d
from lib.networks import detector_parts as detectors
from lib.papers.detection import frames_of


@pytest.mark.parametrize("role, name", [("base", "resnet3d_small"),
                                        ("C3D", "c3d_small")])
def test_both_parts_of_a_window_network_are_the_network(role, name):
    frozen, rest, channels = detectors.for_windows(role, "resnet3d_small",
                                                   "puppets")
    clips = random(2, 16, 3, 32, 32).abs().clamp(max=1)
    whole = cnn3d.clip_cnn(name, "puppets").eval()
    with torch.no_grad():
        found = rest.eval()(frozen.eval()(clips))
        assert_close(found, whole(clips))
    assert found.shape[2] == channels


def test_the_base_of_rc3d_is_c3d_to_conv5b():
    whole = cnn3d.clip_cnn("c3d_small", "puppets").eval()
    conv5 = whole.stages["conv5"][:-1]
    clips = random(1, 32, 3, 64, 64).abs().clamp(max=1)
    for stride, steps in ((8, 4), (4, 8)):
        frozen, rest, channels = detectors.for_buffers(
            "resnet3d_small", "puppets", stride=stride)
        with torch.no_grad():
            maps = rest(frozen(clips))
            if stride == 8:
                assert_close(maps, conv5(whole(clips, "conv4").transpose(
                    1, 2)).transpose(1, 2))
        assert maps.shape == (1, steps, channels, 4, 4)
    refused("use 4 or 8", detectors.for_buffers, "resnet3d_small", stride=2)


def test_published_sizes_give_r_c3d_its_96_steps():
    with torch.device("meta"):
        frozen, rest, channels = detectors.for_buffers("resnet3d")
        maps = rest(frozen(torch.zeros(1, 768, 3, 112, 112)))
    assert maps.shape == (1, 96, channels, 7, 7) == (1, 96, 512, 7, 7)


def test_windows_are_seen_as_clips_of_their_own():
    frozen = detectors.for_windows("base", "resnet3d_small", "puppets").frozen
    some = frames_of(torch.tensor([[0, 16], [8, 40], [24, 40]]))
    net = detectors.OnWindows(frozen, some).eval()
    video = random(2, 40, 3, 32, 32).abs().clamp(max=1)
    with torch.no_grad():
        maps, means = net.features(video)
        own = frozen(video[1, some[1]][None])[0]
    per = len(own)
    assert_close(maps[1, per:2 * per], own)
    assert_close(means[1, 1], own.mean((0, 2, 3)))
