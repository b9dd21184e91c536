"""Drawings of models: boxes with what they do, arrows with tensors' shapes."""

from collections.abc import Mapping, Sequence

from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from lib.show import layout

# What a box is: given, frozen, trained, or the attention of the paper.
COLOURS = {"data": "#F0F0F0", "frozen": "#D9D9D9", "trained": "#CFE3F1",
           "where": "#F9DCC8", "when": "#F7E3A8", "what": "#D5EBDD"}
SHAPE = "#404040"
SIDE, TALL = 0.27, 0.62  # half a box's width and its height; one unit apart
INCH = 1.55, 0.98  # of a unit on paper


def diagram(boxes: Mapping[str, tuple[float, float, str]],
            arrows: Sequence[tuple[str, str, str]], *, title: str) -> Image:
    """Draw a model from a list of boxes and a list of arrows.

    boxes: text (lines by newline) -> column from the left, lane from the
        top, and a kind of `COLOURS`; columns and lanes may be broken
        numbers.
    arrows: text of the box that it leaves, of the one that it enters, and
        what it carries: a shape, or "". An arrow that goes back, as of a
        recurrent state, is bent below its boxes.
    """
    missing = {name for a, b, _ in arrows for name in (a, b)} - set(boxes)
    if missing:
        raise ValueError(f"arrows to {sorted(missing)}: no such boxes")
    columns = max(column for column, _, _ in boxes.values()) + 1
    lanes = max(lane for _, lane, _ in boxes.values()) + 1
    back = any(boxes[a][0] > boxes[b][0] and boxes[a][1] >= boxes[b][1]
               for a, b, _ in arrows)
    figure, ax = layout.plot(columns * INCH[0],
                             (lanes + 0.35 * back) * INCH[1] + 0.6, title)
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(lanes - 0.5 + 0.35 * back, -0.5))
    ax.axis("off")
    for text, (column, lane, kind) in boxes.items():
        ax.add_patch(FancyBboxPatch(
            (column - SIDE + 0.02, lane - TALL / 2 + 0.04),
            2 * SIDE - 0.04, TALL - 0.08,
            boxstyle="round,pad=0.02,rounding_size=0.06",
            facecolor=COLOURS[kind], edgecolor=layout.QUIET, linewidth=0.8))
        ax.text(column, lane, text, ha="center", va="center", size=8)
    for start, end, shape in arrows:
        # lanes to the other ends of the arrows that share an end with this
        lanes_off = [boxes[b if a == start else a][1] - boxes[start][1]
                     for a, b, _ in arrows if (a == start) != (b == end)
                     and boxes[a][0] < boxes[b][0]]
        _arrow(ax, boxes[start][:2], boxes[end][:2], shape,
               below=min(lanes_off, default=0) < 0
               or max(lanes_off, default=0) <= 0)
    kinds = {kind for _, _, kind in boxes.values()}
    for i, kind in enumerate(k for k in COLOURS if k in kinds):
        figure.text(0.99 - 0.07 * (len(kinds) - i), 0.985, kind, va="top",
                    size=8, bbox={"facecolor": COLOURS[kind], "pad": 2,
                                  "edgecolor": layout.QUIET, "lw": 0.5})
    return layout.picture(figure, photo=False, alt=title)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float],
           carries: str, below: bool) -> None:
    # below: of a level arrow the shape may stand there, no arrow crosses it
    (x0, y0), (x1, y1) = start, end
    rise, bend = TALL / 2 - 0.02, 0.0
    if x1 > x0:
        a, b = (x0 + SIDE, y0), (x1 - SIDE, y1)
    elif x1 == x0:
        rise = rise if y1 > y0 else -rise
        a, b = (x0, y0 + rise), (x1, y1 - rise)
    elif y1 > y0:  # back and down: from below, to the right side
        a, b, bend = (x0, y0 + rise), (x1 + SIDE, y1), -0.3
    else:  # back on one lane: a bow below both
        a, b, bend = (x0, y0 + rise), (x1, y1 + rise), -0.3
    ax.add_patch(FancyArrowPatch(
        a, b, arrowstyle="-|>", mutation_scale=9, color=layout.INK, lw=0.9,
        connectionstyle=f"arc3,rad={bend}", shrinkA=0, shrinkB=0))
    name, _, shape = carries.partition(" ")
    middle, level = (a[0] + b[0]) / 2, (a[1] + b[1]) / 2
    both = f"{name}\n{shape}".strip()
    if x1 > x0 and y1 == y0:  # its name above the arrow, its shape below
        upper, lower = (name, shape) if below else (both, "")
        for text, place in ((upper, "bottom"), (lower, "top")):
            ax.text(middle, level + (0.04 if place == "top" else -0.04), text,
                    ha="center", va=place, size=7.5, color=SHAPE)
    else:  # beside the arrow, on the side to which it does not go
        right, down, place = (
            (0.14, 0.16, "top") if bend and y1 > y0 else
            (0.06, 0.12, "center") if bend else
            (0.06, 0.0, "center") if x1 == x0 else
            (0.06, 0.0, "bottom") if y1 > y0 else (0.06, -0.06, "top"))
        ax.text(middle + right, level + down, both, size=7.5, color=SHAPE,
                va=place, ha="left")
