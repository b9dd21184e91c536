"""JSTA's Algorithm 1: S-step and T-step, each interrupted and resumed."""

import copy

import pytest
import torch
from torch import nn

from lib.data import batches
from lib.data.sampling import clips_of
from lib.lab import training
from lib.networks.cnn3d import clip_cnn
from lib.papers import jsta

CLASSES, STEPS = 3, 6


class OnVideos(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, video):
        return self.net(*clips_of(video))


def videos(count=8):
    draw = torch.Generator().manual_seed(0)
    return batches.Columns({
        "video": torch.randint(0, 256, (count, 20, 3, 32, 32),
                               dtype=torch.uint8, generator=draw),
        "label": torch.arange(count) % CLASSES})


def first_step():
    """A 3D network with the block in it, whose BatchNorm keeps statistics."""
    torch.manual_seed(0)
    cnn = clip_cnn("resnet3d_small")
    cnn.stages["identity3b"] = jsta.SpatialAttention(cnn.widths["identity3b"])
    return OnVideos(jsta.ClipClassifier(cnn, cnn.channels, CLASSES))


def second_step():
    torch.manual_seed(1)
    return jsta.TemporalClassifier(
        64, CLASSES, attention=jsta.TemporalAttention(64, 5), hidden=5)


def features(first, data):
    return batches.Columns(training.predict(
        first, data, keys=("features", "valid")))


def s_step(model, batch):
    return jsta.loss(model(batch["video"]), batch["label"])


def t_step(model, batch):
    return jsta.loss(model(batch["features"], batch["valid"]), batch["label"])


def fit(model, data, step, folder=None):
    return training.fit(model, data, step, steps=STEPS, batch=4, lr=1e-3,
                        checkpoint=folder, save_every=2, device="cpu")


def interrupted(step, after):
    calls = []

    def once(model, batch):
        calls.append(1)
        if len(calls) > after:
            raise KeyboardInterrupt
        return step(model, batch)

    return once


@pytest.mark.parametrize("which", ["S-step", "T-step"])
def test_an_interrupted_step_ends_with_the_same_bits(tmp_path, which):
    data, make, step = videos(), first_step, s_step
    if which == "T-step":
        data, make, step = features(first_step(), data), second_step, t_step
    whole = make()
    history = fit(whole, data, step)
    with pytest.raises(KeyboardInterrupt):
        fit(make(), data, interrupted(step, after=3), tmp_path)
    resumed, calls = make(), []
    again = fit(resumed, data, lambda model, batch: (
        calls.append(1), step(model, batch))[1], tmp_path)
    assert len(calls) == STEPS - 2  # two were on the disk
    assert again == history
    for name, value in whole.state_dict().items():  # running means as well
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_second_step_through_the_frozen_first_is_that_on_kept_features():
    """No weight of the first step moves, and no running mean."""
    first, data = first_step(), videos()
    kept, through = second_step(), second_step()
    fit(kept, features(first, data), t_step)
    before = copy.deepcopy(first.state_dict())
    fit(OnVideos(jsta.JSTA(training.freeze(first.net), through)), data, s_step)
    for name, value in before.items():
        assert torch.equal(value, first.state_dict()[name]), name
    for name, value in kept.state_dict().items():
        torch.testing.assert_close(value, through.state_dict()[name],
                                   rtol=1e-3, atol=1e-5)
    assert not torch.equal(through.classify.weight,
                           second_step().classify.weight)
