"""Windows of a batch, what is read of buffers, and one video overfitted."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lib.data.batches import collate
from lib.data.untrimmed import Annotated, rows_of
from lib.lab import detectors, training
from lib.papers import detection
from lib.scores.detections import map_scores

ACTIONS = [torch.tensor([[1.0, 3.0], [7.0, 9.0]]), torch.tensor([[6.0, 8.0]])]
LABELS = [torch.tensor([1, 0]), torch.tensor([0])]
VIDEOS = [Annotated(name, ends, labels, torch.empty(0, 2)) for
          name, ends, labels in zip("ab", ACTIONS, LABELS, strict=True)]
PRIOR = torch.full((2, 2), 0.5)


def samples():
    """Two buffers of 96 frames; a class has a brightness of its own."""
    found = []
    for name, ends, labels in zip("ab", ACTIONS, LABELS, strict=True):
        video = torch.zeros(96, 3, 4, 4, dtype=torch.uint8)
        for (start, end), k in zip((ends * 8).long(), labels, strict=True):
            video[start:end, k] = 200
        found.append({"video": video, "name": name, "start": 0.0, "fps": 8.0,
                      "actions": rows_of(ends, labels, 2)})
    return found


@pytest.fixture
def batch():
    return training.to_device(collate(samples()), torch.device("cpu"))


@pytest.fixture
def windows():
    return detectors.Windows(96, [16, 32], PRIOR)


def test_truths_are_in_frames(batch):
    for found, ends, labels in zip(detectors.truths(batch), ACTIONS, LABELS,
                                   strict=True):
        assert_close(found[0], ends * 8)
        assert torch.equal(found[1], labels)


def test_windows_are_seen_by_their_number(batch, windows):
    count = len(windows.segments)
    rows = torch.tensor([3, count + 25])
    found = windows.see(batch, rows)
    frames = detection.frames_of(windows.segments)
    for one, which, row in ((found[0], 0, 3), (found[1], 1, 25)):
        assert torch.equal(one, batch["video"][which, frames[row]])
    cube = torch.arange(2.0 * count * 3).view(2, count * 3, 1, 1, 1)
    found = windows.see({"video_cube": cube}, rows)
    assert found[1, :, 0, 0, 0].tolist() == [
        count * 3 + 25 * 3 + i for i in range(3)]


def test_what_is_drawn_has_every_action_and_a_share_of_background(
        batch, windows):
    torch.manual_seed(0)
    for share in (1.0, 0.5):
        clips, label, fit = windows.draw(batch, share)
        good = int((label > 0).sum())
        assert len(clips) == len(label) == len(fit)
        assert int((label == 0).sum()) == round(share * good) > 0
        assert {*label.tolist()} == {0, 1, 2}
        assert (fit[label > 0] >= 0.5).all() and (fit[label == 0] < 0.3).all()


class Mean(nn.Module):
    """Maps of four frames a step: their mean colour, larger."""

    def forward(self, clips):
        steps = clips.unflatten(1, (-1, 4)).mean(2)
        return 4 * steps.mean((3, 4), keepdim=True).expand(-1, -1, -1, 2, 2)


def trained(model, terms, steps, lr):
    training.fit(model, Samples(), terms, steps=steps, batch=2, lr=lr,
                 device="cpu", clip=None)
    return model


class Samples(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, i):
        return samples()[i]


def test_rc3d_overfits_two_videos_to_an_map_of_95():
    torch.manual_seed(0)
    model = trained(
        detection.RC3D(Mean(), 3, 2, stride=4, scales=(4, 8), units=16,
                       most=20),
        lambda model, batch: detection.detection_loss(
            model, model(detectors.maps_of(batch)),
            detectors.truths(batch)), 100, 0.02)
    found, proposals = detectors.detect(model, detectors.read_buffer,
                                        Samples(), VIDEOS)
    values = map_scores(found, VIDEOS)
    assert values["mAP@0.5"] >= 0.95, values
    assert all(some.min() >= 0 and some.max() <= 12 for some in proposals)
    told, given = detectors.detect(
        model, lambda model, batch: detectors.read_buffer(
            model, batch, told=True), Samples(), VIDEOS)
    assert_close(given[0], ACTIONS[0])
    assert map_scores(told, VIDEOS, (0.5,))["mAP@0.5"] >= 0.95


def test_scnn_overfits_two_videos_to_an_map_of_95(windows):
    def propose(model, batch):
        clips, label, _ = windows.draw(batch, 1.0)
        return {"loss": nn.functional.cross_entropy(
            model(clips), (label > 0).long())}

    def localise(model, batch):
        clips, label, fit = windows.draw(batch, 0.5)
        return detection.localisation_loss(model(clips), label, fit)

    torch.manual_seed(0)
    first, last = (
        trained(detection.SegmentNetwork(Mean(), 3, outputs), terms, 60, 0.3)
        for outputs, terms in ((2, propose), (3, localise)))

    def read(model, batch, told=False):
        return windows.read(model, batch, first, told)

    found, proposals = detectors.detect(last, read, Samples(), VIDEOS)
    assert map_scores(found, VIDEOS, (0.5,))["mAP@0.5"] >= 0.95
    assert all(len(some) for some in proposals)
    fits = windows.fits(last, Samples())
    assert all(0.5 <= v <= 1 and 0 <= p <= 1 for v, p in fits)
    assert len(fits) >= len(proposals[0])
