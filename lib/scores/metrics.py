"""Scores and costs: accuracy, attention against the true answers, size.

An attention score means little alone, so each comes as a `Score` beside its
chance level: what attention spread evenly over the same frames would get.
`attention_scores` gives all that a model's output and the truth allow.
Inputs are CPU tensors; boxes and segments are scored in `localisation.py`,
intervals over seeds are in `lib/lab/tables.py`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


class Score(NamedTuple):
    """A mean over `n` frames or videos; both numbers are NaN if `n` is 0."""

    value: float
    chance: float
    n: int


def topk_accuracy(logits: Tensor, label: Tensor, k: int = 1) -> float:
    """Share of videos whose true class is among the `k` highest logits.

    `logits` (N, K), `label` (N,). A tie with the true class counts as lost.
    """
    if logits.ndim != 2 or label.shape != logits.shape[:1]:
        raise ValueError(
            "logits must be (N, K) and label (N,); got "
            f"{tuple(logits.shape)} and {tuple(label.shape)}"
        )
    if not len(label):
        raise ValueError("logits and label are empty: nothing to score")
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    own = logits.gather(1, label[:, None])
    # "not below" instead of "above": ties and NaN count against the model,
    # so that constant or broken logits cannot score by accident
    rank = (~(logits < own)).sum(1)
    return (rank <= k).double().mean().item()


def video_and_clip_accuracy(clips: Tensor, valid: Tensor,
                            label: Tensor) -> dict[str, float]:
    """Two figures that papers mix up, from one test run's logits.

    "video": the mean over a video's clips decides, once for each video;
    "clip": each clip for itself. `clips` (N, t, K) holds zeros where `valid`
    (N, t) says that a clip is padding, `label` (N,).
    """
    every = label[:, None].expand_as(valid)
    return {"video": topk_accuracy(clips.sum(1), label),
            "clip": topk_accuracy(clips[valid], every[valid])}


def expand(values: Tensor, spans: Tensor, frames: int) -> Tensor:
    """Put a model's per-step `where` or `when` on the input frames.

    `values` (B, T', ...), `spans` (T', 2) the frames [start, end) of each
    step -> (B, frames, ...). A frame gets the mean of the steps that cover
    it, and 0 if none does: the model did not look there. A step's value is
    its level, not its mass: all its frames get it in full.
    """
    if spans.shape != (values.shape[1], 2):
        raise ValueError(
            f"spans must be ({values.shape[1]}, 2), one row per step of "
            f"values; got {tuple(spans.shape)}"
        )
    start, end = spans.T
    if (start < 0).any() or (end > frames).any() or (start >= end).any():
        raise ValueError(
            f"spans must satisfy 0 <= start < end <= frames = {frames}; got "
            f"{spans.tolist()}"
        )
    frame = torch.arange(frames)[:, None]
    cover = ((start <= frame) & (frame < end)).float()
    cover /= cover.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("ft,bt...->bf...", cover, values.float())


def cell_shares(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Share of each cell of an attention map that the mask covers.

    `mask` (T, H, W) bool, `size` (H', W') -> (T, H', W') float64. A cell is
    the rectangle of H/H' by W/W' pixels; pixels cut by an edge count by
    their area. So a map's mass on the mask is exact at any two sizes, as if
    each cell spread its value evenly over its area.
    """
    rows, columns = (
        _overlap(cells, pixels)
        for cells, pixels in zip(size, mask.shape[-2:], strict=True)
    )
    return rows @ mask.double() @ columns.T


def _overlap(cells: int, pixels: int) -> Tensor:
    edge = torch.arange(cells + 1, dtype=torch.float64) * pixels / cells
    pixel = torch.arange(pixels, dtype=torch.float64)
    high = torch.minimum(edge[1:, None], pixel + 1)
    low = torch.maximum(edge[:-1, None], pixel)
    return (high - low).clamp(min=0) * cells / pixels


def mass_on_actor(
    where: Tensor, mask: Tensor, *, relevant: Tensor | None = None
) -> Score:
    """Share of the spatial attention that lies on the actor.

    `where` (B, T, H', W') non-negative, one map per frame (`expand`), each
    normalised here to sum 1; `mask` (B, T, H, W) bool. Mean over the frames
    that show an actor and, if given, are `relevant` (B, T). Chance is the
    mask's share of the frame; a map of zeros has no mass and counts as 0.
    """
    return _on_actor(_normalise, where, *_shares(where, mask, relevant))


def pointing_game(
    where: Tensor, mask: Tensor, *, relevant: Tensor | None = None
) -> Score:
    """How often the most attended point lies on the actor.

    Arguments and frames as in `mass_on_actor`. The point is drawn evenly
    from the cell of the maximum (from all of them in a tie) and its expected
    hit counted; at the mask's own size that is a plain hit or miss. Chance
    is the mask's share of the frame; a map of zeros points nowhere: 0.
    """
    return _on_actor(_peak, where, *_shares(where, mask, relevant))


def centre_prior(where: Tensor, *, spread: float = 0.25) -> Tensor:
    """The map of one who always looks at the middle: a baseline for `where`.

    A Gaussian in the shape of `where` (..., H', W') with a standard deviation
    of `spread` times the side, to be scored by the same functions.
    """
    rows, columns = (
        torch.exp(-((((torch.arange(n) + 0.5) / n - 0.5) / spread) ** 2) / 2)
        for n in where.shape[-2:]
    )
    return (rows[:, None] * columns).expand(where.shape)


def mass_on_relevant(when: Tensor, relevant: Tensor) -> Score:
    """Share of the temporal attention that lies on the relevant frames.

    `when` (B, T) non-negative, one value per frame (`expand`), normalised
    here to sum 1 over time; `relevant` (B, T) bool. Mean over the videos
    with a relevant frame. Chance is the share of relevant frames; weights
    that are all zero count as 0.
    """
    _check("when", when)
    if when.shape != relevant.shape or when.ndim != 2:
        raise ValueError(
            "when and relevant must both be (B, T); got "
            f"{tuple(when.shape)} and {tuple(relevant.shape)}: expand `when` "
            "to the frames first"
        )
    scored = relevant.any(1)
    truth = relevant[scored].double()
    return _score((_normalise(when[scored]) * truth).sum(1), truth.mean(1))


def _shares(where: Tensor, mask: Tensor,
            relevant: Tensor | None) -> tuple[Tensor, Tensor]:
    """What the actor covers of each cell, and which frames (B, T) count."""
    _check("where", where)
    if where.ndim != 4 or mask.ndim != 4 or where.shape[:2] != mask.shape[:2]:
        raise ValueError(
            "where must be (B, T, H', W') and mask (B, T, H, W) with the same "
            f"B and T; got {tuple(where.shape)} and {tuple(mask.shape)}: "
            "expand `where` to the frames first"
        )
    scored = mask.flatten(2).any(2)
    if relevant is not None:
        if relevant.shape != scored.shape:
            raise ValueError(
                f"relevant must be {tuple(scored.shape)}, (B, T) of mask; got "
                f"{tuple(relevant.shape)}"
            )
        scored = scored & relevant
    # one video at a time: masks of a whole test set as floats fill the memory
    return torch.stack([cell_shares(one, where.shape[2:])
                        for one in mask]), scored


def _on_actor(weigh: Callable[[Tensor], Tensor], where: Tensor,
              shares: Tensor, scored: Tensor) -> Score:
    maps, shares = where[scored].flatten(1), shares[scored].flatten(1)
    return _score((weigh(maps) * shares).sum(1), shares.mean(1))


def _peak(maps: Tensor) -> Tensor:
    return _normalise((maps == maps.amax(1, keepdim=True)) & (maps > 0))


def _normalise(weights: Tensor) -> Tensor:
    weights = weights.double()
    total = weights.sum(1, keepdim=True)
    return weights / total.where(total > 0, 1)


def _score(values: Tensor, chances: Tensor) -> Score:
    return Score(values.mean().item(), chances.mean().item(), len(values))


def _check(name: str, values: Tensor) -> None:
    if not (values.isfinite().all() and (values >= 0).all()):
        raise ValueError(
            f"{name} must be finite and non-negative; did training diverge, "
            "or are these logits?"
        )


def attention_scores(outputs: Mapping[str, Any], truth: Mapping[str, Any],
                     frames: int) -> dict[str, float]:
    """How a model's `where` and `when` agree with the true answers.

    outputs: of `predict`: `where` (B, T', H', W'), `when` (B, T') and
        `spans`; what is not there, or None, is not scored.
    truth: columns of the same videos, of `frames` frames: `mask` (B, T, H,
        W), `relevant` (B, T) and `main_actor` (B texts) if there are any.

    - `where`: share of the maps on the actor, `point`: how often their
      maximum is on the actor, both in the relevant frames alone;
    - `when`: share of the weights on the relevant frames of the whole video;
    - `side`: how often most of `where` is on the side of the main actor,
      where that is "left" or "right"; a tie is lost.

    Beside each stands `... chance`, of an attention that is the same
    everywhere (of `side`: of always the more frequent side), beside `where`
    and `point` also `... centre`, of always looking at the middle, and
    beside all three `... true`, of the truth at the resolution of the maps
    and steps. NaN where no frame or video counts.
    """
    found: dict[str, float] = {}
    where, when = outputs.get("where"), outputs.get("when")
    spans, relevant = outputs.get("spans"), truth.get("relevant")

    def on_frames(values: Tensor) -> Tensor:
        return expand(values, spans, frames)

    def on_steps(values: Tensor) -> Tensor:
        return torch.stack([values[:, start:end].double().mean(1)
                            for start, end in spans.tolist()], 1)

    if where is not None:
        where = on_frames(where)
        if (mask := truth.get("mask")) is not None:
            shares, scored = _shares(where, mask, relevant)
            for name, weigh in (("where", _normalise), ("point", _peak)):
                for beside, maps in (
                        ("", where), (" centre", centre_prior(where)),
                        (" true", on_frames(on_steps(shares)))):
                    found[name + beside], found[f"{name} chance"], _ = (
                        _on_actor(weigh, maps, shares, scored))
        if "main_actor" in truth:
            found |= _on_side(where, truth["main_actor"])
    if when is not None and relevant is not None:
        for name, weights in (("when", when),
                              ("when true", on_steps(relevant))):
            found[name], found["when chance"], _ = mass_on_relevant(
                on_frames(weights), relevant)
    return found


def _on_side(where: Tensor, actors: Sequence[str | None]) -> dict[str, float]:
    named = [i for i, side in enumerate(actors) if side in ("left", "right")]
    right = torch.tensor([actors[i] == "right" for i in named]).bool()
    maps, half = where[named].sum((1, 2)), where.shape[-1] // 2
    lean = maps[:, maps.shape[1] - half:].sum(1) - maps[:, :half].sum(1)
    hits = torch.where(right, lean > 0, lean < 0).double().mean().item()
    often = right.double().mean().item()
    return {"side": hits, "side chance": max(often, 1 - often)}


def parameters(model: nn.Module, *, trainable: bool = False) -> int:
    """Number of parameters, shared ones once; `trainable` ones only."""
    return sum(
        p.numel()
        for p in model.parameters()
        if p.requires_grad or not trainable
    )


def flops(model: nn.Module, *inputs: Tensor) -> int:
    """Floating point operations of one forward pass in eval mode.

    Two per multiply-add, as torch's FlopCounterMode counts them: halve it to
    compare with papers that count multiply-adds. Only convolutions and matrix
    products count (no bias, norm, activation or pooling), and `nn.LSTM`
    counts as 0: state its cost apart.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()  # else the pass would move the running statistics
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(*inputs)
    finally:
        for module, training in modes:
            module.training = training
    return counter.get_total_flops()


def fuse(logits: Sequence[Tensor],
         weights: Sequence[float] | None = None) -> Tensor:
    """The weighted mean of softmax probabilities: shares (N, K).

    logits: of independent streams (RSTAN, Table I) or of several views
        (section IV-D), each (N, K). For what is already a probability,
        give its logarithm.
    weights: one per entry, not negative; by default all the same.
    """
    weights = [1.0] * len(logits) if weights is None else list(weights)
    shapes = {tuple(one.shape) for one in logits}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ValueError(
            f"logits of shapes {sorted(shapes)}: all need one shape (N, K)")
    if len(weights) != len(logits) or min(weights) < 0 or not (
            0 < sum(weights) < math.inf):
        raise ValueError(
            f"weights {weights} for {len(logits)} logits: one for each, "
            "none negative, not all zero")
    total = sum(weights)
    return sum(weight / total * one.softmax(1)
               for weight, one in zip(weights, logits, strict=True))


def order(logits: Tensor, label: Tensor,
          pairs: Sequence[tuple[int, int]]) -> float:
    """How often a class has a higher logit than its mirror image in time.

    `logits` (N, K), `label` (N,). `pairs` are classes with the same poses in
    opposite order; other videos do not count, and without any it is NaN. A
    model that is blind to order gets a half; a tie counts as lost.
    """
    hits = [logits[label == own, own] > logits[label == own, rival]
            for pair in pairs for own, rival in (pair, pair[::-1])]
    return torch.cat(hits).double().mean().item() if hits else math.nan


def reach(network: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, float]:
    """How much of what a cell of a map sees lies around that cell.

    The gradient of a middle cell of `network(x)` (..., h, w) with respect to
    the frames `x` (..., H, W): the share of its energy in the cell's own
    pixels, and within one and two cells around it. Where the first is small,
    a map of cells does not tell the place that a model looks at.
    """
    x = x.detach().clone().requires_grad_()
    maps = network(x)
    size = maps.shape[-2:]
    row, column = (n // 2 for n in size)
    maps[..., row, column].sum().backward()
    energy = x.grad.square().flatten(0, -3).sum(0, keepdim=True)
    energy = nn.functional.adaptive_avg_pool2d(energy, size)[0]
    return {f"{2 * n + 1} × {2 * n + 1} of {size[0]} × {size[1]} cells": (
        energy[max(row - n, 0):row + n + 1, max(column - n, 0):column + n + 1]
        .sum() / energy.sum()).item() for n in range(3)}
