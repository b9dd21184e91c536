"""Action detection: S-CNN and R-C3D, the systems that STA is put into.

Table VI of Li et al. (IEEE Transactions on Multimedia, 2020) compares two
detectors of actions in long videos with and without STA modules. A detector
says which actions a video shows, and from when to when. In the order of this
file:

- segments: overlap, suppression of what overlaps, and the class of a window;
- S-CNN (Shou et al., CVPR 2016): a 3D CNN sees windows of several lengths.
  One network finds those with an action, another knows its class and, by the
  overlap loss, how well the window fits;
- R-C3D (Xu et al., ICCV 2017): one 3D CNN reads the whole buffer. Anchors at
  each step are moved onto actions, and each proposal is classified and moved
  once more.

Attention goes into the backbones, which are passed in. Segments are
`[start, end)` in frames here, `label` 0 is background and k + 1 is class k.
Needs torch and torchvision only: copy the file. What the released code of
S-CNN and the PyTorch code of R-C3D, on which the paper builds, do beyond the
papers is called "released".
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms, roi_pool

LENGTHS = (16, 32, 64, 128, 256, 512)  # S-CNN's windows, in frames
SCALES = (2, 4, 5, 6, 8, 9, 10, 12, 14, 16)  # R-C3D's anchors, in steps
KEEP = 0.7  # windows below this probability of an action are dropped
SPREAD = (0.1, 0.2)  # released: what a proposal's offsets are divided by


class Detected(NamedTuple):
    """What was found in a video, in no order."""

    segments: Tensor  # (M, 2)
    labels: Tensor  # (M,) classes, without background
    scores: Tensor  # (M,)


def overlap(segments: Tensor, others: Tensor) -> Tensor:
    """Intersection over union ``(N, K)`` of segments (N, 2) and (K, 2)."""
    inner = (torch.minimum(segments[:, None, 1], others[:, 1])
             - torch.maximum(segments[:, None, 0], others[:, 0])).clamp(min=0)
    union = (segments[:, 1] - segments[:, 0])[:, None] + (
        others[:, 1] - others[:, 0]) - inner
    return inner / union.clamp(min=1e-9)


def suppress(found: Detected, threshold: float) -> Detected:
    """Non-maximum suppression, each class by itself; the surest come first.

    A segment goes if it overlaps a surer one of its class by more than
    `threshold`. Segments are boxes of height one to torchvision.
    """
    start, end = found.segments.float().T
    boxes = torch.stack((start, torch.zeros_like(start), end,
                         torch.ones_like(end)), 1)
    kept = batched_nms(boxes, found.scores.float(), found.labels, threshold)
    return Detected(*(values[kept] for values in found))


def at_threshold(found: Detected, alpha: float) -> Detected:
    """What remains for an evaluation at tIoU `alpha`: NMS at alpha - 0.1.

    The rule of the released code of both systems.
    """
    return suppress(found, max(alpha - 0.1, 0.0))


# S-CNN

class Labelled(NamedTuple):
    """What windows show; N windows of one video."""

    label: Tensor  # (N,) k + 1 of class k, 0 background, -1 neither
    overlap: Tensor  # (N,) v, with the action that it overlaps most


def windows(frames: int, lengths: Sequence[int] = LENGTHS,
            share: float = 0.75) -> Tensor:
    """Sliding windows ``(N, 2)`` of a video, each length behind the other.

    share: of a window that the next one sees again. Windows longer than
    the video are left out.

    Raises:
        ValueError: if the video is shorter than all windows.
    """
    found = [(start, start + length) for length in lengths
             for start in range(0, frames - length + 1,
                                max(1, round(length * (1 - share))))]
    if not found:
        raise ValueError(f"{frames} frames are fewer than any of {lengths}")
    return torch.tensor(found)


def frames_of(segments: Tensor, count: int = 16) -> Tensor:
    """The frames ``(N, count)`` that the network sees of windows, evenly."""
    start, end = segments.double().T[..., None]
    middle = (torch.arange(count) + 0.5) / count
    return (start + middle * (end - start)).long()


def label_windows(segments: Tensor, actions: Tensor, classes: Tensor, *,
                  positive: float = 0.7, negative: float = 0.3) -> Labelled:
    """The class of windows (N, 2), by the actions (K, 2) of `classes` (K,).

    A window is of the action that it overlaps most, if by `positive` or
    more; background, if by less than `negative`. The best window of an
    action counts for it from 0.5 on, or short actions would have none. The
    rest is neither, and trains nothing.
    """
    if not len(actions):
        return Labelled(torch.zeros(len(segments), dtype=torch.long),
                        torch.zeros(len(segments)))
    shared = overlap(segments, actions)
    most, action = shared.max(1)
    label = torch.where(most < negative, 0, -1)
    best = ((shared == shared.max(0).values) & (shared >= 0.5)).any(1)
    good = (most >= positive) | best
    label[good] = classes[action[good]] + 1
    return Labelled(label, most)


class SegmentNetwork(nn.Module):
    """One of S-CNN's three networks: a 3D CNN on windows, and one layer.

    backbone: windows ``(N, 16, 3, H, W)``, or maps of its frozen stages, to
        maps ``(N, T, channels, h, w)``, whose mean is classified.
    outputs: 2 for the proposal network, else the classes and background.
    """

    def __init__(self, backbone: nn.Module, channels: int, outputs: int):
        super().__init__()
        self.backbone = backbone
        self.classify = nn.Linear(channels, outputs)

    def forward(self, clips: Tensor) -> Tensor:
        """Logits ``(N, outputs)``; output 0 is background."""
        return self.classify(self.backbone(clips).mean((1, 3, 4)))


def localisation_loss(logits: Tensor, label: Tensor, v: Tensor, *,
                      weight: float = 1.0, alpha: float = 0.25
                      ) -> dict[str, Tensor]:
    """The loss of S-CNN's localisation network, scnn Eq. (1)-(3).

    logits (N, K+1), label (N,), and v (N,), each window's overlap with its
    action. Beside the cross entropy, an action's window of probability P
    costs (P^2 / v^alpha - 1) / 2: a confident window must fit. Together they
    are least at P = v^(alpha/2), the cross entropy alone at P = 1. weight:
    lambda of the second term; without it, a plain classifier.
    """
    softmax = F.cross_entropy(logits, label)
    p = logits.softmax(1).gather(1, label[:, None])[:, 0]
    cost = (p ** 2 / v.clamp(min=1e-3) ** alpha - 1) / 2
    fit = (cost * (label > 0)).mean()
    return {"loss": softmax + weight * fit, "softmax": softmax,
            "overlap": fit}


def length_prior(actions: Sequence[tuple[Tensor, Tensor]], classes: int,
                 lengths: Sequence[int] = LENGTHS) -> Tensor:
    """How often windows of each length fit each class: ``(K, L)``.

    From the training videos' actions (n, 2) and their classes (n,). A length
    fits an action that is half to twice as long, as released; a class that
    no length fits is even.
    """
    count = torch.zeros(classes, len(lengths))
    for segments, own in actions:
        ratio = (segments[:, 1] - segments[:, 0])[:, None] / torch.tensor(
            lengths)
        count.index_add_(0, own, ((ratio >= 0.5) & (ratio <= 2)).float())
    total = count.sum(1, keepdim=True)
    return torch.where(total > 0, count / total.clamp(min=1),
                       1 / len(lengths))


def read_windows(segments: Tensor, action: Tensor, logits: Tensor,
                 prior: Tensor, lengths: Sequence[int] = LENGTHS, *,
                 keep: float = KEEP) -> Detected:
    """What S-CNN finds in a video, before `at_threshold`.

    segments (N, 2); action (N,), the proposal network's probability; logits
    (N, K+1) of the localisation network. Windows that show no action, by
    either network, are dropped; each other has its likeliest class, with
    its probability times the `prior` (K, L) of its length.
    """
    probability, label = logits.softmax(1).max(1)
    kept = (action >= keep) & (label > 0)
    segments, label = segments[kept], label[kept] - 1
    size = (segments[:, 1] - segments[:, 0])[:, None]
    which = (size - torch.tensor(lengths)).abs().argmin(1)
    return Detected(segments.float(), label,
                    probability[kept] * prior[label, which])


# R-C3D

def anchors(steps: int, scales: Sequence[int] = SCALES,
            stride: int = 8) -> Tensor:
    """Anchors ``(steps * K, 2)`` in frames: K scales around each step.

    A step of the map stands for `stride` frames, a scale for as many steps.
    Anchors may reach beyond the buffer.
    """
    middle = (torch.arange(steps) + 0.5) * stride
    half = torch.tensor(scales) * stride / 2
    return torch.stack((middle[:, None] - half, middle[:, None] + half),
                       2).flatten(0, 1)


def encode(actions: Tensor, segments: Tensor) -> Tensor:
    """Offsets ``(N, 2)`` from segments to actions, rc3d Eq. (2).

    The shift of the centre in lengths of the segment, and the logarithm of
    the ratio of both lengths. torchvision's box coder does so in x and y.
    """
    size = segments[:, 1] - segments[:, 0]
    shift = (actions.sum(1) - segments.sum(1)) / 2 / size
    return torch.stack(
        (shift, ((actions[:, 1] - actions[:, 0]) / size).log()), 1)


def decode(offsets: Tensor, segments: Tensor) -> Tensor:
    """The segments that offsets lead to; `encode` turned round.

    Both ``(..., 2)``. Nothing becomes more than 62 times as long, which
    torchvision's box coder allows too.
    """
    size = segments[..., 1] - segments[..., 0]
    middle = segments.mean(-1) + offsets[..., 0] * size
    half = offsets[..., 1].clamp(max=math.log(1000 / 16)).exp() * size / 2
    return torch.stack((middle - half, middle + half), -1)


def match(segments: Tensor, actions: Tensor, *, positive: float = 0.7,
          negative: float = 0.3) -> tuple[Tensor, Tensor]:
    """Which anchors show an action: state ``(N,)`` and its number ``(N,)``.

    State 1 where the overlap reaches `positive` or is the best that an
    action has, 0 where it is below `negative`, -1 in between. With both at
    0.5 that is the second stage's rule, but for the best ones.
    """
    if not len(actions):
        none = torch.zeros(len(segments), dtype=torch.long)
        return none, none
    shared = overlap(segments, actions)
    most, number = shared.max(1)
    state = torch.where(most < negative, 0, -1)
    best = ((shared == shared.max(0).values) & (shared > 0)).any(1)
    state[(most >= positive) | best] = 1
    return state, number


def balanced(state: Tensor, count: int, share: float) -> Tensor:
    """Numbers of at most `count` segments to train on, drawn by chance.

    At most `share` of them have the state 1, the rest 0.
    """
    positive, negative = ((state == wanted).nonzero()[:, 0]
                          for wanted in (1, 0))
    positive = positive[torch.randperm(len(positive))][:round(count * share)]
    rest = count - len(positive)
    return torch.cat((positive, negative[
        torch.randperm(len(negative))][:rest]))


def pool(maps: Tensor, video: Tensor, segments: Tensor, stride: int,
         size: tuple[int, int, int] = (4, 2, 2)) -> Tensor:
    """3D RoI pooling: maps (B, C, T, h, w) in segments, ``(N, C, *size)``.

    The maximum of each part of a segment, cut into size[0] parts of time
    and size[1] by size[2] parts of the picture; segments (N, 2) in frames
    of the video of number `video` (N,). Steps are rounded, and a segment has
    one at least.
    """
    time, *places = size
    flat = F.adaptive_max_pool3d(maps, (maps.shape[2], *places))
    flat = flat.permute(0, 1, 3, 4, 2).flatten(1, 3)[:, :, None]
    start, end = (segments.to(maps) / stride).T
    last = maps.shape[2] - 1
    # torchvision's boxes count their last cell
    rois = torch.stack((video.to(maps), start.clamp(0, last),
                        torch.zeros_like(start), (end - 1).clamp(0, last),
                        torch.zeros_like(start)), 1)
    found = roi_pool(flat, rois, (1, time))
    return found[:, :, 0].unflatten(1, (maps.shape[1], *places)).permute(
        0, 1, 4, 2, 3)


class Proposed(NamedTuple):
    """What the first stage of R-C3D tells of its anchors."""

    maps: Tensor  # (B, C, T, h, w) shared with the second stage
    anchors: Tensor  # (N, 2) in frames
    scores: Tensor  # (B, N) logits of an action
    offsets: Tensor  # (B, N, 2)


class RC3D(nn.Module):
    """R-C3D: shared maps, a proposal network, and a classifier with offsets.

    Args:
        base: buffers ``(B, L, 3, H, W)``, or maps of its frozen stages, to
            maps ``(B, T, channels, h, w)``: C3D to conv5b, with attention
            or without. Both stages read them.
        stride: frames of a step of the maps; scales: of anchors, in steps.
        units: of the two layers before the last, 4096 as published (fc6 and
            fc7; released: fc6 alone).
        most: proposals that the second stage gets at test time.
    """

    def __init__(self, base: nn.Module, channels: int, classes: int, *,
                 stride: int = 8, scales: Sequence[int] = SCALES,
                 units: int = 4096, most: int = 300):
        super().__init__()
        self.base, self.stride, self.scales = base, stride, tuple(scales)
        self.most, kinds = most, len(self.scales)
        self.propose = nn.Sequential(
            nn.Conv3d(channels, channels, 3, padding=1), nn.ReLU(),
            nn.AdaptiveMaxPool3d((None, 1, 1)), nn.Flatten(2))
        self.score = nn.Conv1d(channels, kinds, 1)
        self.shift = nn.Conv1d(channels, 2 * kinds, 1)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(channels * 16, units), nn.ReLU(),
            nn.Linear(units, units), nn.ReLU())
        self.classify = nn.Linear(units, classes + 1)
        self.move = nn.Linear(units, 2 * (classes + 1))
        for layer in (self.score, self.shift, self.classify, self.move):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, buffers: Tensor) -> Proposed:
        """The first stage on buffers ``(B, ...)``, as `base` reads them."""
        maps = self.base(buffers).transpose(1, 2)
        x = self.propose(maps)
        steps = x.shape[2]
        where = anchors(steps, self.scales, self.stride).to(maps)
        scores = self.score(x).transpose(1, 2).flatten(1)
        offsets = self.shift(x).unflatten(1, (-1, 2)).permute(0, 3, 1, 2)
        return Proposed(maps, where, scores, offsets.flatten(1, 2))

    @torch.no_grad()
    def proposals(self, out: Proposed) -> list[Tensor]:
        """Of each buffer the surest segments (M, 2), after NMS at 0.7."""
        found, end = [], out.maps.shape[2] * self.stride
        moved = decode(out.offsets, out.anchors).clamp(0, end)
        for segments, scores in zip(moved, out.scores, strict=True):
            long = segments[:, 1] - segments[:, 0] >= 1
            one = torch.zeros(int(long.sum()), dtype=torch.long,
                              device=segments.device)
            kept = suppress(Detected(segments[long], one, scores[long]), 0.7)
            found.append(kept.segments[:self.most])
        return found

    def refine(self, maps: Tensor, video: Tensor,
               segments: Tensor) -> tuple[Tensor, Tensor]:
        """The second stage: logits ``(M, K+1)``, offsets ``(M, K+1, 2)``.

        segments (M, 2) in frames of the buffers of number `video` (M,).
        """
        x = self.head(pool(maps, video, segments, self.stride))
        return self.classify(x), self.move(x).unflatten(1, (-1, 2))


def _smooth(found: Tensor, wanted: Tensor) -> Tensor:
    """Smooth L1, summed over both offsets; the mean over segments."""
    return F.smooth_l1_loss(found, wanted, reduction="sum") / max(
        1, len(wanted))


def detection_loss(model: RC3D, out: Proposed,
                   truths: Sequence[tuple[Tensor, Tensor]], *,
                   anchors_each: int = 64, proposals_each: int = 128,
                   weight: float = 1.0) -> dict[str, Tensor]:
    """Both stages' loss, rc3d Eq. (1), over some segments of each buffer.

    truths: of each buffer the actions (K, 2) in frames and classes (K,). A
    stage's loss is its cross entropy over the segments that were drawn,
    plus `weight` times smooth L1 of the offsets of those that show an
    action. Half of the anchors do at most, and a quarter of the proposals,
    among which the true segments are, as released.
    """
    terms = {name: [] for name in ("found", "shift", "class", "move")}
    for i, ((actions, classes), proposed) in enumerate(
            zip(truths, model.proposals(out), strict=True)):
        state, number = match(out.anchors, actions)
        drawn = balanced(state, anchors_each, 0.5)
        good = drawn[state[drawn] == 1]
        terms["found"].append(F.binary_cross_entropy_with_logits(
            out.scores[i, drawn], state[drawn].to(out.scores)))
        terms["shift"].append(_smooth(
            out.offsets[i, good],
            encode(actions[number[good]], out.anchors[good])
            if len(good) else out.offsets[i, good]))
        proposed = torch.cat((actions.to(proposed), proposed))
        state, number = match(proposed, actions, positive=0.5, negative=0.5)
        drawn = balanced(state, proposals_each, 0.25)
        label = torch.zeros_like(state[drawn])
        good = state[drawn] == 1
        if len(actions):
            label[good] = classes[number[drawn][good]] + 1
        logits, moves = model.refine(
            out.maps, torch.full((len(drawn),), i, device=out.maps.device),
            proposed[drawn])
        terms["class"].append(F.cross_entropy(logits, label))
        own = moves[good, label[good]]
        terms["move"].append(_smooth(own, encode(
            actions[number[drawn][good]].to(own), proposed[drawn][good])
            / own.new_tensor(SPREAD) if len(own) else own))
    means = {name: torch.stack(values).mean()
             for name, values in terms.items()}
    return {"loss": means["found"] + means["class"] + weight * (
        means["shift"] + means["move"])} | means


@torch.no_grad()
def read_proposals(model: RC3D, out: Proposed,
                   proposals: Sequence[Tensor] | None = None, *,
                   least: float = 0.005) -> list[Detected]:
    """What R-C3D finds in each buffer, before `at_threshold`.

    proposals: of each buffer (M, 2), by default the first stage's. Every
    class of a proposal whose probability is above `least` is a detection,
    moved by the offsets of this class.
    """
    found, end = [], out.maps.shape[2] * model.stride
    for i, segments in enumerate(proposals or model.proposals(out)):
        video = torch.full((len(segments),), i, device=segments.device)
        logits, moves = model.refine(out.maps, video, segments)
        moved = decode(moves * moves.new_tensor(SPREAD),
                       segments[:, None]).clamp(0, end)
        scores = logits.softmax(1)[:, 1:]
        which, label = (scores > least).nonzero().T
        found.append(Detected(moved[which, label + 1], label,
                              scores[which, label]))
    return found
