"""Segments on a timeline: actions, windows, anchors, and detections.

As in `figures`: blue is true, vermilion is predicted. A detection that hits
is full, one that misses is empty; grey segments are neither.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from IPython.display import Image
from matplotlib.axes import Axes
from torch import Tensor

from lib.show import layout

BAR = 19  # pixels of a row of bars
KINDS = {  # fill, edge and words
    "true": (layout.TRUE, "white", "white"),
    "hit": (layout.PREDICTED, "white", "white"),
    "miss": ("white", layout.PREDICTED, layout.PREDICTED),
    "other": ("#CFCFCF", "white", layout.INK)}


class Bar(NamedTuple):
    """A segment in seconds, the words on it, and one of KINDS."""

    start: float
    end: float
    words: str = ""
    kind: str = "other"


def bars(segments: Tensor, words: Sequence[str] = (),
         kinds: str | Sequence[str] = "other") -> list[Bar]:
    """Segments (N, 2) in seconds as bars, one kind for all or one each."""
    count = len(segments)
    words = words or [""] * count
    kinds = [kinds] * count if isinstance(kinds, str) else kinds
    return [Bar(*ends, *more) for ends, *more in
            sorted(zip(segments.tolist(), words, kinds, strict=True))]


def timelines(lanes: Mapping[str, Sequence[Bar]], *, seconds: float,
              title: str, video: Tensor | None = None, columns: int = 10,
              notes: Sequence[tuple[str, str]] = ()) -> Image:
    """Lanes of bars by name, over a video's seconds.

    Bars of a lane that would cover each other stand in several rows. video:
    uint8 (T, 3, H, W) adds its frames. notes: as in `figures.rows`.
    """
    rows = {name: _rows(bars) for name, bars in lanes.items()}
    width = 84 * columns
    films = [] if video is None else [layout.height(video, 84)]
    deep = [BAR * max(1, 1 + max(own, default=0)) for own in rows.values()]
    figure, axes = layout.sheet(
        [*films, *deep], width, title=title, notes=notes,
        left=layout.margin([*lanes]), gap=8)
    if video is not None:
        layout.film(axes[0], video[layout.picks(len(video), columns)])
        layout.name_row(axes[0], "frames")
    for ax, (name, bars) in zip(axes[len(films):], lanes.items(),
                                strict=True):
        for bar, row in zip(bars, rows[name], strict=True):
            _draw(ax, bar, row, width / seconds)
        ax.set(xlim=(0, seconds), yticks=[],
               ylim=(1 + max(rows[name], default=0), 0))
        ax.spines["left"].set_visible(False)
        ax.tick_params(labelbottom=ax is axes[-1])
        layout.name_row(ax, name)
    axes[-1].set_xlabel("seconds")
    return layout.picture(figure, photo=video is not None, alt=title)


def _rows(bars: Sequence[Bar]) -> list[int]:
    """The row of each bar: the first in which it covers no other."""
    taken: list[list[Bar]] = []
    found = []
    for bar in bars:
        row = next((i for i, own in enumerate(taken) if all(
            bar.end <= other.start or other.end <= bar.start
            for other in own)), len(taken))
        taken[row:row + 1] = [[*(taken[row] if row < len(taken) else []),
                               bar]]
        found.append(row)
    return found


def _draw(ax: Axes, bar: Bar, row: int, pixels: float) -> None:
    fill, edge, ink = KINDS[bar.kind]
    ax.barh(row + 0.5, bar.end - bar.start, 0.74, left=bar.start, color=fill,
            edgecolor=edge, linewidth=1)
    if 5.2 * len(bar.words) <= (bar.end - bar.start) * pixels:
        ax.text((bar.start + bar.end) / 2, row + 0.5, bar.words, ha="center",
                va="center", color=ink, size=7.5)


def lines(parts: Mapping[str, tuple[Sequence[float], Sequence[float]]], *,
          title: str, axis: str, label: str,
          least: bool = False) -> Image:
    """Lines y over x by name; least: a dot where each is lowest."""
    figure, ax = layout.plot(5.6, 2.8, title)
    for name, (x, y) in parts.items():
        drawn, = ax.plot(x, y, label=name)
        if least:
            low = int(np.argmin(y))
            ax.plot(x[low], y[low], "o", ms=5, color=drawn.get_color())
    ax.set(xlabel=axis, ylabel=label)
    ax.grid()
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return layout.picture(figure, photo=False, alt=title)
