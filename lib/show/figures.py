"""Figures: film strips, heat maps, boxes, timelines, curves, intervals.

Call `style()` once. Every figure takes `title`, which states the finding, and
returns an `IPython.display.Image`: as the last line of a cell it shows itself,
elsewhere write `display(...)`. Films are JPEG and plots PNG: small, and nbval
compares neither, so no test depends on a pixel.

Colours mean the same everywhere: blue is true, vermilion is predicted (the
two differ for every eye); heat runs from black, nothing, over red to yellow,
most; and of cells, white ones are nothing and full ones most: black ones of
`when` carry weight, blue ones are relevant. Maps, and cells, of one figure
have one scale unless they are `apart`; it stands on their right.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
import torch
from IPython.display import Image
from matplotlib.ticker import LogLocator, MaxNLocator
from torch import Tensor
from torch.nn import functional as F

from lib.scores import metrics
from lib.show import layout
from lib.show.layout import CYCLE, INK, PREDICTED, QUIET, TRUE

CELL = 100


def overlay(video: Tensor, where: Tensor,
            largest: float | None = None) -> Tensor:
    """Heat maps over greyed frames.

    `video` uint8 `(T, 3, H, W)`, `where` `(T, h, w)` of weights >= 0 ->
    uint8 `(T, 3, H, W)`. Maps are enlarged bilinearly and divided by
    `largest`, by default their own largest weight, never stretched from
    their smallest: an attention that is equal everywhere looks equal
    everywhere. It hides the less of the video the less it differs within
    it: a map of ones is a tint.
    """
    if len(where) != len(video):
        raise ValueError(
            f"`where` has {len(where)} steps, `video` {len(video)} frames; "
            "bring it to frames with metrics.expand(where, spans, frames)"
        )
    if not torch.isfinite(where).all() or (where < 0).any():
        raise ValueError("`where` must hold finite weights >= 0")
    heat = where.detach()[:, None].float()
    heat = heat / max(float(largest or heat.max()), 1e-12)
    heat = F.interpolate(heat, size=video.shape[-2:], mode="bilinear")
    tones = mpl.colormaps["inferno"](heat[:, 0].numpy())[..., :3]
    tones = torch.from_numpy(tones).permute(0, 3, 1, 2).float() * 255
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    grey = (video.float() * luma).sum(1, keepdim=True)
    mix = 0.3 + 0.4 * (heat - heat.min())
    tones = tones * (0.4 + 0.6 * grey / 255)  # people are seen through it
    return ((1 - mix) * grey + mix * tones).round().byte()


def contact_sheet(
    videos: Tensor | Sequence[Tensor], names: Sequence[str], *, title: str,
    columns: int = 8, cell: int = CELL, unit: str = "frame",
) -> Image:
    """One row of frames per video, at the same moments in each.

    `videos`: uint8 `(N, T, 3, H, W)` or a list of `(T, 3, H, W)`; the
    shortest one sets the moments, since flow has one frame less. `unit` is
    what the numbers count.
    """
    shown = layout.picks(min(len(video) for video in videos), columns)
    heights = [layout.height(video, cell) for video in videos]
    figure, axes = layout.sheet(heights, len(shown) * cell, title=title,
                                left=layout.margin(names))
    for ax, video, name in zip(axes, videos, names, strict=True):
        layout.film(ax, video[shown])
        layout.name_row(ax, name)
    layout.frame_ticks(axes[-1], shown, name=unit)
    return layout.picture(figure, photo=True, alt=title)


def strip(
    sample: Mapping, where: Tensor | None = None, when: Tensor | None = None,
    *, title: str, spans: Tensor | None = None, classes: Sequence[str] = (),
    predicted: int | Tensor | None = None, columns: int = 8,
    unit: str = "frame",
) -> Image:
    """What a model looks at in one video: Where-and-When, Fig. 4 and 7.

    Rows as in `rows`: frames, `where` `(T', h, w)` and `when` `(T',)`.
    `spans` `(T', 2)` brings steps to frames; without it T' = T. `predicted`
    is a class, or the probabilities `(K,)` of all. A sample without a
    `label`, as a video of one's own, shows the prediction alone.
    """
    def on_frames(name: str, x: Tensor | None) -> dict:
        if x is not None and spans is not None:
            x = metrics.expand(x[None], spans, len(sample["video"]))[0]
        return {} if x is None else {name: x}

    return rows(sample, on_frames("where", where), on_frames("when", when),
                title=title, columns=columns, unit=unit,
                notes=layout.verdict(sample.get("label"), predicted, classes))


def rows(
    sample: Mapping, maps: Mapping, weights: Mapping, *, title: str,
    columns: int = 8, notes: Sequence[tuple[str, str]] = (),
    unit: str = "frame", apart: bool = False,
) -> Image:
    """Several maps and weights over one video: RSTAN, Fig. 5 and 7-10.

    Rows: frames; each of `maps` `(T, h, w)` as heat over them; each of
    `weights` `(T,)` as cells, the largest of all black, or blue where one
    is bool, a truth. With them the truth, where the sample knows it: the
    outline of `mask`, and `relevant` frames. A sample with `fps` tells the
    frames' seconds, too. `notes` are `(words, colour)` below the title.
    `unit` is what the numbers count. Maps, and weights, that are `apart`, as
    of several models, have each a scale of their own; they are small, so the
    outline is on the frames alone.
    """
    video, mask = sample["video"], sample.get("mask")
    shown = layout.picks(len(video), columns)
    maps, weights = ({name: x.detach() for name, x in part.items()}
                     for part in (maps, weights))
    hottest = _largest(maps, apart)
    films = {"frames": video} | {
        name: overlay(video, x, hottest[name]) for name, x in maps.items()}
    lanes = {**weights}
    if "relevant" in sample:
        lanes["true when"] = sample["relevant"]
    most = _largest(lanes, apart)
    cell = min(CELL, 320 // len(films))  # more rows, smaller frames
    heights = [layout.height(video, cell)] * len(films) + [20] * len(lanes)
    notes = [*notes, *[("line: true outline", TRUE)] * (mask is not None)]
    for name, x in (*maps.items(), *lanes.items()):
        notes += layout.even(name, x) if x.dtype != torch.bool else []
    figure, axes = layout.sheet(
        heights, len(shown) * cell, title=title, notes=notes,
        left=layout.margin([*films, *weights]),
        right=layout.SCALE if maps or lanes else layout.RIGHT)
    for i, (name, frames) in enumerate(films.items()):
        layout.film(axes[i], frames[shown])
        layout.name_row(axes[i], name)
        if mask is not None and (i == 0 if apart else i > 0 or not maps):
            layout.outlines(axes[i], mask[shown])
        if i > 0:
            layout.heat_scale(axes[i], hottest[name])
    for ax, (name, x) in zip(axes[len(films):], lanes.items(), strict=True):
        layout.lane(ax, x, len(shown), most[name])
        layout.name_row(ax, name)
    layout.frame_ticks(axes[-1], shown, sample.get("fps"), unit)
    return layout.picture(figure, photo=True, alt=title)


def _largest(parts: Mapping[str, Tensor], apart: bool) -> dict[str, float]:
    """The top of each part's scale; a truth has no say in the others'."""
    own = {name: float(x.max()) for name, x in parts.items()}
    every = max((own[name] for name, x in parts.items()
                 if x.dtype != torch.bool), default=0.0)
    return own if apart else dict.fromkeys(own, every)


def boxes(
    frames: Tensor, predicted: Tensor, true: Tensor, iou: Sequence[float],
    *, title: str, columns: int = 6, cell: int = 132,
) -> Image:
    """Predicted and true boxes: Where-and-When, Fig. 5, 8 and 9.

    `frames` uint8 `(N, 3, H, W)`, boxes `(N, 4)` in pixels (NaN = none).
    Each frame carries its IoU, in vermilion where it is below a half.
    """
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    figure, axes = layout.sheet(
        [layout.height(frames, cell)] * rows, columns * cell, title=title,
        notes=[("true box", TRUE), ("predicted box", PREDICTED)],
        left=layout.RIGHT, gap=28, above=20,
    )
    size = frames.shape[-2:]
    for row, ax in enumerate(axes):
        part = range(row * columns, min((row + 1) * columns, len(frames)))
        layout.film(ax, frames[part.start:part.stop], columns)
        for column, i in enumerate(part):
            layout.box(ax, column, true[i], size, TRUE)
            layout.box(ax, column, predicted[i], size, PREDICTED)
            known = not torch.isnan(true[i]).any()
            ax.text(
                column + 0.5, 1 + 5 / cell, ha="center",
                s=f"IoU {float(iou[i]):.2f}" if known else "no true box",
                color=PREDICTED if known and iou[i] < 0.5 else INK,
            )
    return layout.picture(figure, photo=True, alt=title)


def timeline(
    when: Tensor, true: Tensor, predicted: Tensor, *, fps: float, title: str,
    threshold: float | None = None, video: Tensor | None = None,
    columns: int = 10,
) -> Image:
    """`when` `(T,)` over an untrimmed video: Fig. 6 and 10.

    `true` and `predicted` are segments `(K, 2)` in seconds; `threshold` the
    weight above which they were cut; `video` `(T, 3, H, W)` adds its frames.
    """
    cell, seconds = 84, len(when) / fps
    films = [] if video is None else [layout.height(video, cell)]
    figure, axes = layout.sheet(
        [*films, 100, 40], columns * cell, title=title, left=104, gap=10)
    if video is not None:
        layout.film(axes[0], video[layout.picks(len(video), columns)])
        layout.name_row(axes[0], "frames")
    curve, lanes = axes[-2:]
    edges = np.linspace(0, seconds, len(when) + 1)
    curve.stairs(when.numpy(), edges, fill=True, color="#BFBFBF")
    curve.set_ylim(0, 1.1 * max(float(when.max()), threshold or 0, 1e-12))
    curve.tick_params(labelbottom=False)
    curve.locator_params(axis="y", nbins=3)
    layout.name_row(curve, "when\n(weight)", pad=32)
    if threshold is not None:
        curve.axhline(threshold, color=INK, lw=1, ls=(0, (4, 3)))
        curve.text(0, threshold, " threshold", ha="left", va="bottom")
    pairs = ((1.5, true, TRUE), (0.5, predicted, PREDICTED))
    for y, segments, colour in pairs:
        for start, end in segments.tolist():
            lanes.barh(y, end - start, 0.76, left=start, color=colour)
    lanes.set(ylim=(0, 2), xlabel="seconds")
    lanes.set_yticks((0.5, 1.5), ("predicted", "true"))
    lanes.tick_params(axis="y", length=0)
    for ax in (curve, lanes):
        ax.set_xlim(0, seconds)
    return layout.picture(figure, photo=video is not None, alt=title)


def curves(
    histories: Mapping[str, Sequence[Mapping]], key: str, *, title: str,
    label: str | None = None, chance: float | None = None,
) -> Image:
    """Entry `key` of each training history, by name, over the steps.

    A value logged at every step is noisy: it is drawn pale, with its running
    mean over a twentieth of the run on top.
    """
    figure, ax = layout.plot(5.6, 3.0, title)
    for (name, history), colour in zip(
            histories.items(), itertools.cycle(CYCLE), strict=False):
        rows = [row for row in history if key in row]
        steps = np.array([row["step"] for row in rows])
        values = np.array([row[key] for row in rows])
        width = max(1, len(rows) // 20) if len(rows) == len(history) else 1
        if width > 1:
            ax.plot(steps, values, color=colour, alpha=0.2, lw=0.8)
            values = np.convolve(values, np.ones(width) / width, "valid")
            steps = steps[width - 1:]
        ax.plot(steps, values, color=colour, label=name,
                marker="" if width > 1 else "o", ms=4)
    if chance is not None:
        ax.axhline(chance, color=QUIET, ls=(0, (4, 3)), lw=1, label="chance")
    ax.set(xlabel="training step", ylabel=label or key)
    ax.grid(axis="y")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return layout.picture(figure, photo=False, alt=title)


def accuracies(
    runs: Mapping[str, Sequence[float]], gains: Mapping[str, Sequence[float]],
    *, metric: str, base: str, title: str,
    interval: Callable[[Sequence[float]], tuple[float, float]],
) -> Image:
    """Runs as dots, a line for each row; beside them what it gains.

    runs: a metric of each seed, by row. gains: differences to row `base`,
    paired by seed. interval: gives the mean and half of its 95 % interval,
    NaN for too few seeds: then it is not drawn, as fewer say nothing about
    another start of training.
    """
    figure, (left, right) = layout.plot(
        8.6, 1.1 + 0.32 * len(runs), title, ncols=2, sharey=True)
    for level, row in enumerate(reversed(runs)):
        for ax, numbers in ((left, runs[row]), (right, gains.get(row, []))):
            middle, half = interval(numbers)
            ax.plot(numbers, [level] * len(numbers), "o", ms=4,
                    color=CYCLE[4], alpha=0.8)
            ax.plot([middle], [level], "|", ms=13, mew=2, color=TRUE)
            if half == half:
                ax.plot([middle - half, middle + half], [level] * 2,
                        color=TRUE, lw=1.8)
    right.axvline(0, color=INK, lw=1)
    for ax in (left, right):
        ax.grid(axis="x")
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        # what is far below a point of accuracy is not drawn as a difference
        low, high = ax.get_xlim()
        spare = max(0.0, 0.1 - (high - low)) / 2
        ax.set_xlim(low - spare, high + spare)
    names = [f"{row} (n={len(own)})" for row, own in runs.items()]
    left.set_yticks(range(len(runs)), names[::-1])
    left.set(xlabel=metric, ylim=(-0.6, len(runs) - 0.4))
    right.set_xlabel(f"above {base}, seed by seed")
    return layout.picture(figure, photo=False, alt=title)


def attention(scores: Mapping[str, float], *, title: str) -> Image:
    """What `metrics.attention_scores` gave: bars, each beside its rivals.

    The rivals are an attention that is even everywhere (chance), one that
    always looks at the middle (centre), and the truth itself (true).
    """
    rivals = {"chance": "|", "centre": "x", "true": "^"}
    names = [name for name in scores if not name.endswith((*rivals,))]
    figure, ax = layout.plot(6.4, 1.0 + 0.36 * len(names), title)
    for level, name in enumerate(reversed(names)):
        ax.barh(level, scores[name], 0.5, color=CYCLE[4])
        marks = [scores.get(f"{name} {rival}") for rival in rivals]
        for (rival, marker), x in zip(rivals.items(), marks, strict=True):
            if x is not None:
                ax.plot(x, level, marker, color=INK, ms=9, mew=1.6,
                        mfc="none", label=rival)
    ax.set_yticks(range(len(names)), [f"{name} {scores[name]:.2f}"
                                      for name in reversed(names)])
    ax.set(xlabel="share", xlim=(0, 1.04))
    ax.tick_params(axis="y", length=0)
    handles, labels = ax.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    ax.legend(unique.values(), unique, loc="center left",
              bbox_to_anchor=(1.02, 0.5))
    return layout.picture(figure, photo=False, alt=title)


def sweep(
    lines: Mapping[str, Mapping[float, tuple[float, float]]], *, title: str,
    label: str, axis: str,
) -> Image:
    """Lines by name: setting -> mean and half of its interval (or NaN)."""
    return sweeps({axis: lines}, title=title, label=label)


def sweeps(
    parts: Mapping[str, Mapping[str, Mapping[float, tuple[float, float]]]],
    *, title: str, label: str,
) -> Image:
    """As `sweep`, in a panel for each axis; all share names and scale.

    A line may lack some settings of the others, the first line none.
    """
    figure, axes = layout.plot(
        2.4 + 3.2 * len(parts), 3.0, title, ncols=len(parts), sharey=True,
        squeeze=False)
    for ax, (axis, lines) in zip(axes[0], parts.items(), strict=True):
        every = [*dict.fromkeys(value for points in lines.values()
                                for value in points)]
        for name, points in lines.items():
            means, halves = np.array([*points.values()]).reshape(-1, 2).T
            ax.errorbar([*map(every.index, points)], means,
                        np.nan_to_num(halves), marker="o", ms=5, capsize=3,
                        label=name)
        ax.set_xticks(range(len(every)), [f"{value:g}" for value in every])
        ax.set_xlabel(axis)
        ax.grid(axis="y")
    axes[0, 0].set_ylabel(label)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return layout.picture(figure, photo=False, alt=title)


def head_rooms(
    worlds: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]], *,
    title: str,
) -> Image:
    """What attention wins of what there is to win: a panel for each world.

    worlds: name -> model -> "plain mean", "oracle", "even" and "model", each
    a mean and half of its interval (NaN: not drawn), in per cent. The bar
    reaches from the plain mean to the oracle; the circle is the model with
    even weights, the dot the model itself.
    """
    most, columns = max(map(len, worlds.values())), 2
    down = -(-len(worlds) // columns)
    figure, axes = layout.plot(
        4.3 * columns, 0.9 + down * (0.55 + 0.26 * most), title, nrows=down,
        ncols=columns, sharex=True, squeeze=False)
    for ax in axes.flat[len(worlds):]:
        ax.set_axis_off()
    for ax, (world, models) in zip(axes.flat, worlds.items(), strict=False):
        for level, own in enumerate(reversed(models.values())):
            low, high = own["plain mean"][0], own["oracle"][0]
            ax.barh(level, high - low, 0.62, left=low, color="#DCDCDC",
                    label="head room: plain mean to oracle")
            even, full = own["even"], own["model"]
            if even[0] == even[0] and full[0] == full[0]:
                colour = TRUE if full[0] > even[0] else PREDICTED
                ax.plot([even[0], full[0]], [level] * 2, color=colour, lw=2)
            for name, (x, half), fill in (
                    ("attention even", even, "white"),
                    ("the model", full, INK)):
                ax.errorbar(x, level, xerr=half if half == half else None,
                            fmt="o", ms=5.5, mfc=fill, mec=INK, ecolor=QUIET,
                            elinewidth=1, label=name)
        ax.set_yticks(range(len(models)), [*models][::-1])
        ax.set_title(world, loc="left", weight="bold")
        ax.set(xlim=(0, 100), ylim=(-0.6, most - 0.4))
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x")
    for ax in axes.flat[:len(worlds)][-columns:]:
        ax.set_xlabel("accuracy, per cent")
        ax.tick_params(labelbottom=True)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique, loc="outside lower left", ncols=3)
    return layout.picture(figure, photo=False, alt=title)


def scatter(
    parts: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], *,
    title: str, axis: str, label: str, log: bool = False,
) -> Image:
    """Points (x, y) by name, in a panel for each part; log: of x."""
    figure, axes = layout.plot(
        1.2 + 3.4 * len(parts), 3.1, title, ncols=len(parts), sharey=True,
        squeeze=False)
    every = [*dict.fromkeys(name for part in parts.values() for name in part)]
    for ax, (part, groups) in zip(axes[0], parts.items(), strict=True):
        for name, points in groups.items():
            place = every.index(name)
            x, y = np.array(points, float).reshape(-1, 2).T
            ax.plot(x, y, "osD^vP*"[place % 7], ms=5, alpha=0.75,
                    color=CYCLE[place % len(CYCLE)], label=name)
        ax.set_title(part, loc="left")
        ax.set(xlabel=axis, xscale="log" if log else "linear")
        if log:  # 3 and 30, not powers of ten
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter("")
        ax.grid()
    axes[0, 0].set_ylabel(label)
    handles = {name: handle for ax in axes[0] for handle, name in zip(
        *ax.get_legend_handles_labels(), strict=True)}
    axes[0, -1].legend(handles.values(), handles, loc="center left",
                       bbox_to_anchor=(1, 0.5))
    return layout.picture(figure, photo=False, alt=title)


def columns(values: Mapping[str, float], *, title: str, label: str) -> Image:
    """One bar for each name, with its value: a few numbers of one run."""
    figure, ax = layout.plot(6.4, 0.9 + 0.32 * len(values), title)
    levels = np.arange(len(values))[::-1]
    ax.barh(levels, [*values.values()], 0.55, color=CYCLE[4])
    for level, value in zip(levels, values.values(), strict=True):
        ax.annotate(f"{value:.2f}", (value, level), (6, 0),
                    textcoords="offset points", va="center")
    ax.set_yticks(levels, [*values])
    ax.set(xlabel=label, xlim=(0, 1.15 * max(values.values())))
    ax.tick_params(axis="y", length=0)
    return layout.picture(figure, photo=False, alt=title)


def histograms(values: Mapping[str, Tensor], *, title: str,
               label: str) -> Image:
    """Shares of each name's values over a common range."""
    figure, ax = layout.plot(5.6, 2.6, title)
    every = torch.cat([x.flatten() for x in values.values()])
    edges = np.linspace(float(every.min()), float(every.max()), 31)
    for (name, x), colour in zip(values.items(), CYCLE, strict=False):
        x = x.flatten().numpy()
        ax.hist(x, edges, weights=np.full(len(x), 1 / len(x)), alpha=0.6,
                color=colour, label=f"{name}, mean {x.mean():.2f}")
    ax.set(xlabel=label, ylabel="share")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return layout.picture(figure, photo=False, alt=title)


def matrix(
    table: Tensor, rows: Sequence[str], columns: Sequence[str], *,
    title: str, rows_are: str, columns_are: str,
) -> Image:
    """Shares `table` `(rows, columns)` in [0, 1] as cells, darker is more.

    A confusion matrix, say; shares of 0.1 and more are also written.
    """
    figure, ax = layout.plot(
        1.6 + 0.42 * len(columns), 1.4 + 0.34 * len(rows), title
    )
    ax.imshow(table.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(table.numpy()):
        if share >= 0.1:
            ax.text(column, row, f"{100 * share:.0f}", ha="center",
                    va="center", color="white" if share > 0.6 else INK)
    ax.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    ax.set_yticks(range(len(rows)), rows)
    ax.set(xlabel=f"{columns_are} (per cent of a row)", ylabel=rows_are)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return layout.picture(figure, photo=False, alt=title)


def heat(parts: Mapping[str, Tensor], *, title: str, axis: str,
         rows_are: str, height: float = 3.0) -> Image:
    """Matrices by name, side by side, each with a scale of its own.

    Dark is least and bright most; where there are numbers below zero, blue
    is below and red above.
    """
    figure, axes = layout.plot(1.0 + 2.1 * len(parts), height, title,
                               ncols=len(parts), squeeze=False)
    for ax, (name, values) in zip(axes[0], parts.items(), strict=True):
        signed = bool((values < 0).any())
        most = float(values.abs().max()) or 1.0
        shown = ax.imshow(
            values.numpy(), aspect="auto", interpolation="nearest",
            cmap="RdBu_r" if signed else "viridis",
            vmin=-most if signed else 0, vmax=most)
        ax.set_title(name, size=9)
        ax.set(xlabel=axis)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        if len(values) > 1:
            ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            ax.set_ylabel(rows_are)
        else:
            ax.set_yticks([])
        figure.colorbar(shown, ax=ax)
    return layout.picture(figure, photo=True, alt=title)
