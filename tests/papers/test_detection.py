"""S-CNN and R-C3D against slow loops, hand-made cases and torchvision."""

import pytest
import torch
from checks import random, refused
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torchvision.models.detection import _utils as boxes
from torchvision.ops import box_iou

from lib.papers import detection
from lib.papers.detection import Detected
from lib.scores.localisation import temporal_iou

ACTIONS = torch.tensor([[10.0, 40], [60, 90]])
CLASSES = torch.tensor([1, 3])


def segments(count, longest=40.0, seed=0):
    draw = torch.Generator().manual_seed(seed)
    start, length = torch.rand(2, count, generator=draw)
    return torch.stack((start * 100, start * 100 + 1 + length * longest), 1)


def as_boxes(some):
    """Boxes of height one, for torchvision's detectors of objects."""
    low = torch.zeros(len(some))
    return torch.stack((some[:, 0], low, some[:, 1], low + 1), 1)


def test_overlap_is_that_of_boxes_and_of_the_scores():
    a, b = segments(20), segments(15, seed=1)
    found = detection.overlap(a, b)
    assert_close(found, box_iou(as_boxes(a), as_boxes(b)))
    assert_close(found.double(), temporal_iou(a[:, None], b[None]))
    assert detection.overlap(a, a + 1000).max() == 0


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.6, 1.0])
def test_suppression_equals_a_slow_loop(threshold):
    found = Detected(segments(60), torch.arange(60) % 3,
                     torch.rand(60, generator=torch.Generator().manual_seed(
                         2)))
    kept = []
    for i in sorted(range(60), key=lambda i: -found.scores[i]):
        same = [j for j in kept if found.labels[i] == found.labels[j]]
        if all(detection.overlap(found.segments[[i]], found.segments[[j]])
               <= threshold for j in same):
            kept.append(i)
    for values, wanted in zip(detection.suppress(found, threshold), found,
                              strict=True):
        assert torch.equal(values, wanted[kept])
    fewer = detection.at_threshold(found, threshold).scores
    assert {*fewer.tolist()} <= {*found.scores.tolist()}


def test_windows_cover_the_video_and_overlap_by_three_quarters():
    found = detection.windows(96, (16, 32))
    for length, step in ((16, 4), (32, 8)):
        own = found[found[:, 1] - found[:, 0] == length]
        assert torch.equal(own[:, 0], torch.arange(0, 97 - length, step))
    for frame in range(96):
        assert ((found[:, 0] <= frame) & (frame < found[:, 1])).any()
    assert len(detection.windows(20, (16, 32))) == 2
    refused("15 frames are fewer", detection.windows, 15, (16, 32))


def test_a_window_shows_frames_in_order_and_its_own_alone():
    found = detection.frames_of(torch.tensor([[8, 24], [0, 64], [5, 13]]))
    assert torch.equal(found[0], torch.arange(8, 24))
    assert torch.equal(found[1], torch.arange(2, 64, 4))
    assert found[2].tolist() == [5 + i // 2 for i in range(16)]


def test_labels_of_windows():
    some = torch.tensor([[10.0, 38], [12, 52], [40, 60], [60, 80], [0, 24]])
    found = detection.label_windows(some, ACTIONS, CLASSES)
    # a good one; one in between; background; the best of its action though
    # below 0.7; in between again
    assert found.label.tolist() == [2, -1, 0, 4, -1]
    assert_close(found.overlap, detection.overlap(some, ACTIONS).amax(1))
    wide = detection.label_windows(some, ACTIONS, CLASSES, positive=0.5)
    assert wide.label.tolist() == [2, 2, 0, 4, -1]
    none = detection.label_windows(some, ACTIONS[:0], CLASSES[:0])
    assert none.label.tolist() == [0] * 5


@pytest.mark.equation("scnn", 1, 2, 3)
def test_localisation_loss_equals_a_loop_over_windows():
    logits, label = random(6, 4), torch.tensor([0, 1, 2, 3, 3, 0])
    v = torch.tensor([0.1, 0.9, 0.7, 0.8, 0.75, 0.2])
    softmax = overlap = 0.0
    for row, k, fit in zip(logits, label, v, strict=True):
        p = row.exp()[k] / row.exp().sum()
        softmax -= p.log() / 6
        overlap += 0.5 * (p ** 2 / fit ** 0.25 - 1) / 6 if k > 0 else 0
    found = detection.localisation_loss(logits, label, v, weight=2.0)
    assert_close(found["softmax"], softmax)
    assert_close(found["overlap"], overlap)
    assert_close(found["loss"], softmax + 2 * overlap)
    plain = detection.localisation_loss(logits, label, v, weight=0.0)
    assert_close(plain["loss"], F.cross_entropy(logits, label))


@pytest.mark.equation("scnn", 3)
@pytest.mark.parametrize("v", [0.5, 0.7, 1.0])
def test_the_loss_is_least_where_its_derivative_says(v):
    p = torch.linspace(0.3, 0.9999, 5000)
    logits = torch.stack((torch.zeros(5000), (p / (1 - p)).log()), 1)
    loss = torch.stack([detection.localisation_loss(
        row[None], torch.tensor([1]), torch.tensor([v]))["loss"]
        for row in logits[::10]])
    assert_close(p[::10][loss.argmin()], torch.tensor(v ** 0.125),
                 atol=2e-3, rtol=0)


def test_lengths_fit_actions_of_half_to_twice():
    actions = [(torch.tensor([[0.0, 20], [0, 40]]), torch.tensor([0, 0])),
               (torch.tensor([[5.0, 12]]), torch.tensor([1]))]
    found = detection.length_prior(actions, 3, (16, 32))
    # of class 0 one fits 16 and both fit 32; of class 1 neither; none of 2
    assert_close(found, torch.tensor([[1 / 3, 2 / 3], [0.5, 0.5], [0.5, 0.5]]))


def test_windows_are_read_as_released():
    some = torch.tensor([[0, 16], [0, 32], [8, 24], [16, 48]])
    logits = torch.tensor([[0.0, 3, 0], [0, 0, 2], [5, 0, 0], [0, 9, 0]])
    prior = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    found = detection.read_windows(
        some, torch.tensor([0.9, 0.8, 0.9, 0.6]), logits, prior, (16, 32))
    p = logits.softmax(1)
    assert found.segments.tolist() == [[0, 16], [0, 32]]
    assert found.labels.tolist() == [0, 1]
    assert_close(found.scores, torch.stack((p[0, 1] / 4, p[1, 2] / 2)))


def test_anchors_lie_around_steps_and_cover_the_buffer():
    found = detection.anchors(4, (1, 2), 8).view(4, 2, 2)
    assert found[0].tolist() == [[0, 8], [-4, 12]]
    assert torch.equal(found[1:] - 8, found[:-1])
    ones = detection.anchors(12, (1,), 8)
    assert torch.equal(ones[1:, 0], ones[:-1, 1])
    assert ones[0, 0] == 0 and ones[-1, 1] == 96


@pytest.mark.equation("rc3d", 2)
def test_offsets_are_the_box_coder_s_and_lead_back():
    own, others = segments(50), segments(50, seed=3)
    offsets = detection.encode(own, others)
    coder = boxes.BoxCoder((1.0, 1.0, 1.0, 1.0))
    assert_close(offsets, coder.encode_single(
        as_boxes(own), as_boxes(others))[:, [0, 2]], atol=1e-5, rtol=1e-4)
    assert_close(detection.decode(offsets, others), own, atol=1e-3, rtol=0)
    assert_close(detection.encode(others, others), torch.zeros(50, 2))
    far = detection.decode(torch.tensor([[0.0, 50.0]]), others[:1])
    assert far.isfinite().all()


def test_anchors_match_as_torchvision_s_do():
    some = torch.cat((detection.anchors(12, (1, 2, 4), 8), segments(40)))
    state, number = detection.match(some, ACTIONS)
    found = boxes.Matcher(0.7, 0.3, allow_low_quality_matches=True)(
        detection.overlap(ACTIONS, some))
    wanted = torch.where(found >= 0, 1, torch.where(found == -1, 0, -1))
    assert torch.equal(state, wanted)
    good = state == 1
    assert torch.equal(number[good], found[good])
    assert good.sum() >= len(ACTIONS)
    assert not detection.match(some, ACTIONS[:0])[0].any()


def test_what_is_drawn_is_balanced():
    state = torch.tensor([1] * 10 + [0] * 90 + [-1] * 20)
    torch.manual_seed(0)
    for count, share, good in ((16, 0.5, 8), (128, 0.25, 10), (8, 0.25, 2)):
        drawn = detection.balanced(state, count, share)
        assert (state[drawn] == 1).sum() == good
        assert len(drawn.unique()) == len(drawn) == min(count, good + 90)
        assert (state[drawn] >= 0).all()


def test_roi_pooling_equals_a_slow_loop():
    maps, stride = random(2, 3, 12, 4, 6), 8
    some = torch.tensor([[0.0, 96], [16, 80], [40, 48], [3, 61]])
    video = torch.tensor([0, 1, 1, 0])
    found = detection.pool(maps, video, some, stride)
    assert found.shape == (4, 3, 4, 2, 2)
    for one, of, (start, end) in zip(found, video, some.tolist(),
                                     strict=True):
        first = int(start / stride + 0.5)
        count = max(1, int((end - stride) / stride + 0.5) - first + 1)
        for t in range(4):
            low = first + t * count // 4
            high = first - (-(t + 1) * count // 4)
            part = maps[of, :, low:min(high, 12)]
            for y in range(2):
                for x in range(2):
                    assert torch.equal(one[:, t, y, x], part[
                        :, :, 2 * y:2 * y + 2, 3 * x:3 * x + 3].amax(
                            (1, 2, 3)))


class Base(nn.Module):
    """Maps that were computed before, in the place of C3D."""

    def forward(self, maps):
        return maps


def small(seed=0, **options):
    torch.manual_seed(seed)
    return detection.RC3D(Base(), 6, 4, stride=8, scales=(1, 2, 4), units=16,
                          most=20, **options)


def test_rc3d_has_shapes_and_proposals_in_the_buffer():
    model = small()
    out = model(random(2, 12, 6, 4, 4))
    assert out.anchors.shape == (36, 2) and out.scores.shape == (2, 36)
    assert out.offsets.shape == (2, 36, 2)
    assert out.maps.shape == (2, 6, 12, 4, 4)
    for some in model.proposals(out):
        assert 0 < len(some) <= 20
        assert some.min() >= 0 and some.max() <= 96
        assert (some[:, 1] - some[:, 0] >= 1).all()
    found = detection.read_proposals(model, out)
    assert len(found) == 2
    for one in found:
        assert one.segments.shape == (len(one.scores), 2)
        assert one.labels.min() >= 0 and one.labels.max() <= 3
    # each score is of its own anchor: the map of anchors is not turned
    score = model.score(model.propose(out.maps))
    assert_close(out.scores[1].view(12, 3), score[1].T)
    shift = model.shift(model.propose(out.maps))
    assert_close(out.offsets[1].view(12, 3, 2)[5, 2], shift[1, 4:6, 5])


@pytest.mark.equation("rc3d", 1)
def test_the_loss_equals_its_parts_and_reaches_every_weight():
    model = small()
    with torch.no_grad():
        for layer in (model.score, model.shift, model.classify, model.move):
            layer.weight.normal_(0, 0.3)
    out = model(random(1, 12, 6, 4, 4))
    # all anchors and proposals are drawn: no chance is left
    every = {"anchors_each": 1000, "proposals_each": 1000}
    found = detection.detection_loss(model, out, [(ACTIONS, CLASSES)],
                                     weight=0.5, **every)
    state, number = detection.match(out.anchors, ACTIONS)
    good, used = state == 1, state >= 0
    assert_close(found["found"], F.binary_cross_entropy_with_logits(
        out.scores[0, used], state[used].float()))
    assert_close(found["shift"], F.smooth_l1_loss(
        out.offsets[0, good], detection.encode(
            ACTIONS[number[good]], out.anchors[good])) * 2)
    some = torch.cat((ACTIONS, model.proposals(out)[0]))
    most, which = detection.overlap(some, ACTIONS).max(1)
    good = most >= 0.5
    label = torch.where(good, CLASSES[which] + 1, 0)
    logits, moves = model.refine(out.maps, torch.zeros(len(some)), some)
    assert_close(found["class"], F.cross_entropy(logits, label))
    wanted = detection.encode(ACTIONS[which[good]], some[good])
    assert_close(found["move"], F.smooth_l1_loss(
        moves[good, label[good]],
        wanted / torch.tensor(detection.SPREAD)) * 2)
    assert_close(found["loss"], found["found"] + found["class"]
                 + 0.5 * (found["shift"] + found["move"]))
    found["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0
               for p in model.parameters())


def test_a_buffer_without_actions_teaches_background():
    model = small()
    out = model(random(2, 12, 6, 4, 4))
    found = detection.detection_loss(model, out, [
        (ACTIONS, CLASSES), (ACTIONS[:0], CLASSES[:0])])
    assert all(value.isfinite() for value in found.values())


def test_one_buffer_is_overfitted():
    """Every action is found, with its class and its ends."""
    model, maps = small(), random(1, 12, 6, 4, 4)
    best = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(100):
        loss = detection.detection_loss(model, model(maps),
                                        [(ACTIONS, CLASSES)])["loss"]
        best.zero_grad()
        loss.backward()
        best.step()
    (found,) = detection.read_proposals(model, model(maps))
    found = detection.at_threshold(found, 0.7)
    for ends, k in zip(ACTIONS, CLASSES, strict=True):
        own = found.labels == k
        first = found.segments[own][found.scores[own].argmax()]
        assert detection.overlap(first[None], ends[None]) > 0.9
        assert found.scores[own].max() > 0.9


def test_a_segment_network_averages_its_map():
    net = detection.SegmentNetwork(Base(), 6, 5)
    maps = random(3, 2, 6, 4, 4)
    assert_close(net(maps), net.classify(maps.mean((1, 3, 4))))
