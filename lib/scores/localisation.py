"""Scores of boxes and segments under their true names, and what is free.

Boxes are `x1 y1 x2 y2` in pixels with exclusive `x2 y2`, a row of NaN where
there is none; segments are `[start, end)` in seconds. In the order of this
file: overlaps and scores; the trivial answers, beside whose scores a score
belongs; and what a model's `where` and `when` give, boxes out of maps and
segments out of weights.
"""


import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from lib.data.boxes import tight_boxes

# IoU thresholds of Where-and-When's Tables 3 and 4.
BOX_ALPHAS = (0.05, 0.1, 0.2, 0.3)
SEGMENT_ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5)


class MeanAP(NamedTuple):
    """Mean over the classes that have ground truth; NaN if none has."""

    value: float
    classes: dict[int, float]


class Detections(NamedTuple):
    """One video's predicted segments (M, 2), their `labels` and `scores`."""

    segments: Tensor
    labels: Tensor
    scores: Tensor


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union (...) of boxes (..., 4), paired by broadcast.

    A box of NaN, without area or turned inside out overlaps with nothing: 0.
    """
    return _iou(_last(boxes, 4, "boxes"), _last(others, 4, "others"))


def temporal_iou(segments: Tensor, others: Tensor) -> Tensor:
    """Intersection over union (...) of segments (..., 2), by broadcast."""
    return _iou(_last(segments, 2, "segments"), _last(others, 2, "others"))


def _iou(a: Tensor, b: Tensor) -> Tensor:
    first, second = a.chunk(2, -1), b.chunk(2, -1)
    # each side is clamped by itself: the product of two negative sides would
    # make diagonally disjoint boxes overlap, as in the paper's released code
    sides = torch.minimum(first[1], second[1])
    sides = sides - torch.maximum(first[0], second[0])
    inner = sides.clamp(min=0).prod(-1)
    sizes = [(end - start).prod(-1) for start, end in (first, second)]
    union = sizes[0] + sizes[1] - inner
    return (inner / union).where(union > 0, 0)


def frame_localisation_accuracy(
    predicted: Tensor, true: Tensor, alpha: float
) -> float:
    """Share of the annotated frames whose predicted box has IoU >= `alpha`.

    Boxes (..., 4), one per frame; no box is a miss. The code released for
    Where-and-When computes this and calls it mAP, but neither scores nor
    classes enter. NaN if no frame is annotated.
    """
    _check_alpha(alpha)
    hits = box_iou(predicted, true) >= alpha
    return hits[_present(true)].double().mean().item()


def average_precision(
    scores: Tensor, hits: Tensor, positives: int, *, interpolate: bool
) -> float:
    """Average precision of detections with `scores` (M,) and `hits` (M,).

    The precision at each hit, from the highest score down, summed over
    `positives`, the number of ground truths: THUMOS' rule. `interpolate`
    takes the best precision at that recall or beyond: the area under VOC's
    all-point curve. Detections of equal score enter together, so their order
    does not matter. NaN if there is nothing to find.
    """
    if not scores.isfinite().all():
        raise ValueError("scores must be finite; did training diverge?")
    if positives == 0:
        return float("nan")
    scores, order = scores.sort(descending=True)
    ends = scores.unique_consecutive(return_counts=True)[1].cumsum(0)
    found = torch.cat([torch.zeros(1), hits[order].double().cumsum(0)])[ends]
    precision = found / ends
    if interpolate:
        precision = precision.flip(0).cummax(0).values.flip(0)
    gain = found.diff(prepend=found.new_zeros(1))
    return (gain * precision).sum().item() / positives


def frame_map(
    boxes: Tensor,
    probabilities: Tensor,
    true_boxes: Tensor,
    labels: Tensor,
    alpha: float,
) -> MeanAP:
    """Frame-mAP: mean over classes of the AP of boxes in single frames.

    `boxes`, `true_boxes` (N, T, 4), at most one per frame; `probabilities`
    (N, K) and true `labels` (N,) of the videos. For each class every box is
    a detection with its video's probability as score; it hits if the frame
    is annotated with that class and IoU >= `alpha`. All-point interpolation.
    """
    _check_alpha(alpha)
    overlap = box_iou(boxes, true_boxes) >= alpha
    present, annotated = _present(boxes), _present(true_boxes)
    classes = {}
    for k in labels.unique().tolist():
        own = (labels == k)[:, None]
        scores = probabilities[:, k, None].expand(present.shape)[present]
        positives = int((annotated & own).sum())
        if positives:
            classes[k] = average_precision(
                scores, (overlap & own)[present], positives, interpolate=True
            )
    return _mean(classes)


def temporal_map(
    predictions: Sequence[Detections],
    truths: Sequence[tuple[Tensor, Tensor | int]],
    alpha: float,
    *,
    ambiguous: Sequence[Tensor] | None = None,
) -> MeanAP:
    """Temporal mAP at tIoU `alpha` over whole videos (THUMOS14).

    One entry per video: predicted segments, and true segments (K, 2) with
    their labels (K,) or the one label of all. By falling score a detection
    takes the free truth of its class that it overlaps most; it hits if that
    tIoU >= `alpha`, and every second detection of a truth is a miss. A miss
    that touches an `ambiguous` segment (A, 2) of its video does not count. AP
    as `average_precision`.
    (In the THUMOS toolkit truths choose detections, and tIoU must exceed
    alpha; an older version of it takes 11-point AP.)
    """
    _check_alpha(alpha)
    if len(predictions) != len(truths) or (
        ambiguous is not None and len(ambiguous) != len(truths)
    ):
        raise ValueError(
            "predictions, truths and ambiguous need one entry per video; got "
            f"{len(predictions)}, {len(truths)} and "
            f"{'none' if ambiguous is None else len(ambiguous)}"
        )
    if ambiguous is None:
        ambiguous = [torch.empty(0, 2)] * len(truths)
    answers = [
        (segments, torch.as_tensor(label).expand(len(segments)))
        for segments, label in truths
    ]
    classes = {}
    for k in sorted({k for _, labels in answers for k in labels.tolist()}):
        scores, hits, positives = [torch.empty(0)], [torch.empty(0).bool()], 0
        for found, (true, labels), unsure in zip(
            predictions, answers, ambiguous, strict=True
        ):
            own, mine = found.labels == k, labels == k
            positives += int(mine.sum())
            if not own.any():
                continue
            segments, score = _ranked(found.segments[own], found.scores[own])
            hit = _match(segments, true[mine], alpha)
            touch = temporal_iou(segments[:, None], unsure[None]) > 0
            counts = hit | ~touch.any(1)
            scores.append(score[counts])
            hits.append(hit[counts])
        classes[k] = average_precision(
            torch.cat(scores), torch.cat(hits), positives, interpolate=False
        )
    return _mean(classes)


def _ranked(segments: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    # ties go to the earlier segment: the order of the input never matters
    rows = torch.cat([-scores[:, None].double(), segments.double()], 1)
    order = sorted(range(len(rows)), key=lambda i: rows[i].tolist())
    return segments[order], scores[order]


def _match(segments: Tensor, true: Tensor, alpha: float) -> Tensor:
    true = _ranked(true, torch.zeros(len(true)))[0]
    overlaps = temporal_iou(segments[:, None], true[None])
    hits = torch.zeros(len(segments), dtype=torch.bool)
    for i in range(len(segments) if len(true) else 0):
        best = int(overlaps[i].argmax())
        if overlaps[i, best] >= alpha:
            hits[i] = True
            overlaps[:, best] = 0  # taken
    return hits


def released_recall(predicted: Tensor, true: Tensor) -> Tensor:
    """|prediction within truth| / |truth| (K,) for each true segment (K, 2).

    The code released for Where-and-When thresholds this in the place of the
    IoU. Nothing punishes predicting too much: one segment over the whole
    video gets 1. Here only to show that; overlaps in `predicted` (M, 2)
    count once.
    """
    order = predicted[:, 0].argsort()
    start, end = _last(predicted, 2, "predicted")[order].T
    if len(start):
        covered = torch.cat([start[:1], end.cummax(0).values[:-1]])
        start = torch.maximum(start, covered)
    low, high = _last(true, 2, "true").T
    inner = torch.minimum(end, high[:, None])
    inner = inner - torch.maximum(start, low[:, None])
    return inner.clamp(min=0).sum(1) / (high - low)


def full_frame(height: int, width: int) -> Tensor:
    """The box (4,) of the whole frame."""
    return torch.tensor([0.0, 0.0, width, height])


def centre_box(height: int, width: int, *, area: float = 0.5) -> Tensor:
    """A box (4,) in the middle, in the frame's shape, of `area` of it.

    `area` may be the training set's `mean_share`.
    """
    half = torch.tensor([width, height]) * area**0.5 / 2
    middle = torch.tensor([width, height]) / 2
    return torch.cat([middle - half, middle + half])


def mean_share(boxes: Tensor, height: int, width: int) -> float:
    """Mean share of the frame's area that the boxes (..., 4) take up."""
    boxes = boxes[_present(boxes)].double()
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return area.mean().item() / (height * width)


def random_boxes(
    n: int, height: int, width: int, *, generator: torch.Generator
) -> Tensor:
    """Boxes (n, 4), each spanned by two points drawn evenly in the frame."""
    corners = torch.rand(n, 2, 2, generator=generator).sort(1).values
    return (corners * torch.tensor([width, height])).flatten(1)


def predict_all(duration: float) -> Tensor:
    """One segment (1, 2) over the whole video."""
    return torch.tensor([[0.0, duration]])


def random_segments(
    n: int, duration: float, *, generator: torch.Generator
) -> Tensor:
    """Segments (n, 2), each between two times drawn evenly in the video."""
    return torch.rand(n, 2, generator=generator).sort(1).values * duration


def _present(boxes: Tensor) -> Tensor:
    return ~boxes.isnan().any(-1)


def _mean(classes: dict[int, float]) -> MeanAP:
    value = sum(classes.values()) / len(classes) if classes else float("nan")
    return MeanAP(value, classes)


def _last(values: Tensor, size: int, name: str) -> Tensor:
    if values.shape[-1:] != (size,):
        raise ValueError(
            f"{name} must be (..., {size}); got {tuple(values.shape)}"
        )
    return values.double()


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must be in (0, 1]; got {alpha}")


# Two recipes each for Where-and-When (Meng et al., ICLR 2019 submission):
# "paper" is what section 4.2 says, "released" what the released scripts do.
BOXES = {
    "paper": {"stretch": False, "threshold": 0.5, "largest": False},
    "released": {"stretch": True, "threshold": 200 / 255, "largest": True},
}
# The released threshold is 0.023 for windows of 50 frames, whose uniform
# weight is 0.02: kept as a multiple of uniform, so that it fits any n.
SEGMENTS = {
    "paper": {"stretch": True, "threshold": 0.5},
    "released": {"stretch": False, "threshold": 0.023 * 50},
}


def _stretch(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Shift and scale to [0, 1] over `dims`; a constant becomes zero."""
    low, high = x.amin(dims, keepdim=True), x.amax(dims, keepdim=True)
    return (x - low) / (high - low).clamp_min(1e-12)


def boxes_from_maps(
    where: Tensor, size: tuple[int, int], *, recipe: str = "paper"
) -> Tensor:
    """The tightest box around each thresholded map, ``(B, T, 4)`` pixels.

    Maps ``(B, T, h, w)`` are resized to `size` (height, width) by bilinear
    interpolation, then thresholded at or above the recipe's value. "paper":
    values as they are, all regions together; "released": each frame stretched
    to [0, 1], its largest 8-connected region. Nothing above the threshold:
    NaN, which every metric counts as a miss. x2 and y2 are exclusive.

    Raises:
        ValueError: for an unknown recipe.
    """
    settings = _pick(BOXES, recipe)
    found = []
    for one in where:  # maps of a whole test set at this size fill the memory
        # float64: a map of exactly the threshold must not fall below it
        maps = F.interpolate(one[None].double(), size=size, mode="bilinear",
                             align_corners=False)[0]
        if settings["stretch"]:
            maps = _stretch(maps, (-2, -1))
        inside = maps >= settings["threshold"] - 1e-9
        found.append(tight_boxes(
            _largest_region(inside) if settings["largest"] else inside))
    return torch.stack(found)


def _largest_region(inside: Tensor) -> Tensor:
    """Keep the largest 8-connected region of each mask ``(..., H, W)``."""
    flat = inside.flatten(0, -3).numpy()
    kept = np.zeros_like(flat)
    for i, mask in enumerate(flat):
        regions, count = ndimage.label(mask, structure=np.ones((3, 3)))
        if count:
            kept[i] = regions == 1 + np.bincount(regions.flat)[1:].argmax()
    return torch.from_numpy(kept).view(inside.shape)


def segments_from_weights(
    when: Tensor, fps: float, *, recipe: str = "paper"
) -> list[Tensor]:
    """Runs of frames whose weight reaches a threshold, one tensor per video.

    Weights ``(B, T)`` give for each video ``(K, 3)``: start and end in
    seconds (frame index / `fps`) and the mean weight inside. "paper": weights
    stretched to [0, 1] per video, threshold 0.5; "released": weights as they
    are, threshold 1.15 times uniform. Uniform weights give no segment.

    Raises:
        ValueError: for an unknown recipe.
    """
    settings = _pick(SEGMENTS, recipe)
    if settings["stretch"]:
        above = _stretch(when, (-1,)) >= settings["threshold"]
    else:
        above = when >= settings["threshold"] / when.shape[-1]
    found = []
    for weights, inside in zip(when, above, strict=True):
        steps = F.pad(inside.int(), (1, 1)).diff()
        starts = (steps == 1).nonzero().flatten().tolist()
        ends = (steps == -1).nonzero().flatten().tolist()
        runs = [
            (start / fps, end / fps, weights[start:end].mean().item())
            for start, end in zip(starts, ends, strict=True)
        ]
        found.append(torch.tensor(runs).reshape(-1, 3))
    return found


def _pick(recipes: dict[str, dict], name: str) -> dict:
    if name not in recipes:
        raise ValueError(f"recipe {name!r}: choose one of {list(recipes)}")
    return recipes[name]


def box_scores(outputs: Mapping[str, Tensor], truth: Mapping[str, Any],
               size: tuple[int, int], seen: Tensor) -> dict[str, float]:
    """Boxes from `where`, and boxes that need no model, as in Table 3.

    outputs: `where` (B, T, h, w), `logits` (B, K), `label` (B,). truth:
    `boxes` (B, T, 4) and, where it is known, `relevant` (B, T): the other
    frames do not count. size: (H, W) of the frames. seen: the training
    boxes, whose mean area the centre box has.

    `box` and `released box` are read from the maps in the paper's way and
    in that of its released code; `frame mAP` ranks the boxes of the first
    by the probability of a class.
    """
    true, relevant = truth["boxes"], truth.get("relevant")
    if relevant is not None:
        true = true.masked_fill(~relevant[..., None], math.nan)
    draw = torch.Generator().manual_seed(0)
    own = boxes_from_maps(outputs["where"], size)
    found = {
        "box": own,
        "released box": boxes_from_maps(outputs["where"], size,
                                        recipe="released"),
        "full frame": full_frame(*size).expand_as(true),
        "centre box": centre_box(
            *size, area=mean_share(seen, *size)).expand_as(true),
        "random box": random_boxes(true[..., 0].numel(), *size,
                                   generator=draw).view_as(true)}
    probability = outputs["logits"].softmax(1)
    return {
        f"{name}@{alpha}": frame_localisation_accuracy(boxes, true, alpha)
        for name, boxes in found.items() for alpha in BOX_ALPHAS
    } | {
        f"frame mAP@{alpha}": frame_map(
            own, probability, true, outputs["label"], alpha).value
        for alpha in BOX_ALPHAS}


def segment_scores(outputs: Mapping[str, Tensor],
                   truth: Mapping[str, Any]) -> dict[str, float]:
    """Segments from `when`, the whole video, and a random segment: Table 4.

    outputs: `when` (B, T), `logits` (B, K), `label` (B,). truth: `segments`,
    of each video (N, 2) seconds, and `fps` (B,). A segment carries the
    predicted class, and its probability times the mean weight inside.
    Temporal mAP by name and threshold.
    """
    when = outputs["when"]
    probability, label = outputs["logits"].softmax(1).max(1)
    draw = torch.Generator().manual_seed(0)
    true = list(zip(truth["segments"], outputs["label"].tolist(), strict=True))
    found: dict[str, list[Tensor]] = {
        "segment": [], "released segment": [], "predict all": [],
        "random segment": []}
    for weights, rate in zip(when, truth["fps"], strict=True):
        length, one = when.shape[1] / float(rate), torch.ones(1, 1)
        for recipe, name in (("paper", "segment"),
                             ("released", "released segment")):
            found[name] += segments_from_weights(
                weights[None], float(rate), recipe=recipe)
        found["predict all"].append(torch.cat((predict_all(length), one), 1))
        found["random segment"].append(torch.cat(
            (random_segments(1, length, generator=draw), one), 1))
    return {
        f"{name}@{alpha}": temporal_map([
            Detections(s[:, :2], k.expand(len(s)), p * s[:, 2])
            for s, k, p in zip(segments, label, probability, strict=True)
        ], true, alpha).value
        for name, segments in found.items() for alpha in SEGMENT_ALPHAS}
