"""Layout of figures: rows of frames, cells and boxes, placed in pixels.

A *sheet* is a figure of stacked rows. In a row frame `i` spans one unit of x,
`[i, i + 1)`, and y runs from 0 (bottom) to 1 (top); so cells below a film
line up with its frames whatever the size of the video. `figures.py` is built
from these pieces.
"""

import io
import textwrap
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import torch
from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image as PillowImage
from torch import Tensor

TRUE, PREDICTED, INK, QUIET = "#0072B2", "#D55E00", "#262626", "#8C8C8C"
LEFT, RIGHT, BOTTOM, DPI = 88, 12, 40, 100
SCALE = 58  # pixels on the right of rows that show their scale
CYCLE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
GUTTER = 0.015
JPEG_BYTES = 25_000


def style() -> None:
    """Set the one style of the course for every figure drawn later."""
    mpl.rcParams.update({
        "figure.dpi": DPI, "font.size": 9, "text.color": INK,
        "axes.titlesize": 9, "axes.labelsize": 9, "axes.labelcolor": INK,
        "axes.edgecolor": QUIET, "axes.linewidth": 0.8,
        "axes.spines.top": False, "axes.spines.right": False,
        "axes.axisbelow": True, "grid.color": "#E6E6E6",
        "axes.prop_cycle": mpl.cycler(color=CYCLE), "lines.linewidth": 1.6,
        "xtick.color": INK, "ytick.color": INK, "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5, "xtick.major.size": 3, "ytick.major.size": 3,
        "legend.frameon": False, "legend.fontsize": 8.5,
    })


def picture(figure: Figure, *, photo: bool, alt: str) -> Image:
    """A finished figure as an image: JPEG for a `photo`, else PNG.

    The JPEG's quality steps down until it weighs at most 25 kB.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
    drawn = PillowImage.fromarray(pixels)
    file = io.BytesIO()
    if not photo:
        drawn.quantize(128).save(file, "png")
        return Image(file.getvalue(), alt=alt)
    for quality in (85, 75, 65, 55, 45, 35, 28):
        file = io.BytesIO()
        drawn.save(file, "jpeg", quality=quality, optimize=True)
        if file.tell() <= JPEG_BYTES:
            break
    return Image(file.getvalue(), alt=alt)


def sheet(
    heights: Sequence[int], width: int, *, title: str,
    notes: Sequence[tuple[str, str]] = (), left: int = LEFT,
    right: int = RIGHT, gap: int = 6, above: int = 0, below: int = BOTTOM,
) -> tuple[Figure, list[Axes]]:
    """A figure with one row of axes per entry of `heights`, in pixels.

    `notes` are `(words, colour)` on lines below the title; `gap` is left
    between rows, `above` over the first one and `below` the last one.
    """
    total = left + width + right
    lines = textwrap.wrap(title, total // 8) or [""]
    noted = _note_lines(notes, total)
    top = 14 + 18 * len(lines) + 20 * len(noted) + above
    tall = top + sum(heights) + gap * (len(heights) - 1) + below
    figure = Figure(figsize=(total / DPI, tall / DPI), dpi=DPI)
    figure.text(8 / total, 1 - 8 / tall, "\n".join(lines), va="top",
                size=10.5)
    for i, line in enumerate(noted):
        y = 10 + 18 * len(lines) + 20 * i
        for x, words, colour in line:
            figure.text(x / total, 1 - y / tall, words, va="top",
                        color=colour)
    axes, y = [], top
    for height in heights:
        y += height
        axes.append(figure.add_axes(
            (left / total, 1 - y / tall, width / total, height / tall)
        ))
        y += gap
    return figure, axes


def _note_lines(notes: Sequence[tuple[str, str]],
                total: int) -> list[list[tuple[float, str, str]]]:
    """Notes and where they begin, in lines no wider than `total` pixels."""
    lines, x = [], float(total)
    for words, colour in notes:
        wide = _wide(words)
        if x + wide > total - 8:
            lines, x = [*lines, []], 8.0
        lines[-1].append((x, words, colour))
        x += wide + 18
    return lines


def _wide(words: str) -> float:
    return Figure(dpi=DPI).text(0, 0, words).get_window_extent().width


def margin(names: Sequence[str]) -> int:
    """Pixels on the left that the longest name of a row needs."""
    return max([LEFT, *(max(20 + 7 * len(name), 12 + round(_wide(name)))
                        for name in names)])


def picks(total: int, columns: int) -> list[int]:
    """The middle frame of each of `columns` equal parts of a video."""
    columns = min(columns, total)
    return [int((i + 0.5) * total / columns) for i in range(columns)]


def height(video: Tensor, cell: int) -> int:
    """Pixels that a frame of `video` is tall when it is `cell` wide."""
    return round(cell * video.shape[-2] / video.shape[-1])


def film(ax: Axes, frames: Tensor, columns: int | None = None) -> None:
    """Draw `frames` uint8 `(n, 3, H, W)` side by side, room for `columns`."""
    for i, frame in enumerate(frames):
        ax.imshow(
            frame.permute(1, 2, 0).numpy(), interpolation="bicubic",
            extent=(i + GUTTER, i + 1 - GUTTER, 0, 1), aspect="auto",
        )
    ax.set(xlim=(0, columns or len(frames)), ylim=(0, 1), yticks=[])
    ax.tick_params(labelbottom=False, bottom=False)
    ax.spines[:].set_visible(False)


def lane(ax: Axes, values: Tensor, columns: int, largest: float) -> None:
    """One cell per frame, and their scale on the right.

    Weights are white for 0 and black for the `largest`, a bool truth is blue.
    """
    truth = values.dtype == torch.bool
    colour, full, none = (TRUE, "yes", "no") if truth else (
        INK, f"{largest:.2g}", "0")
    most = 1.0 if truth else max(largest, 1e-12)
    shade = (values.detach().float() / most).clamp(0, 1).numpy()[:, None]
    ax.imshow(
        (1 - shade * (1 - np.array(to_rgb(colour))))[None],
        extent=(0, columns, 0, 1), aspect="auto", interpolation="nearest",
    )
    for t in range(1, len(values)):
        ax.axvline(t * columns / len(values), color=QUIET, lw=0.8)
    ax.set(xlim=(0, columns), ylim=(0, 1), yticks=[])
    ax.tick_params(labelbottom=False, bottom=False)
    ax.spines[:].set_visible(True)
    ax.annotate(
        f"■ {full}\n□ {none}", (1, 0.5), (5, 0), color=colour,
        xycoords="axes fraction", textcoords="offset points", va="center",
        fontsize=7, linespacing=1.0,
    )


def heat_scale(ax: Axes, largest: float) -> None:
    """Draw the colours of `overlay`, from 0 to `largest`, beside a film."""
    place = ax.get_position()
    pixel = 1 / (ax.figure.get_figwidth() * DPI)
    bar = ax.figure.add_axes(
        (place.x1 + 5 * pixel, place.y0, 9 * pixel, place.height))
    bar.imshow(np.linspace(1, 0, 64)[:, None], cmap="inferno", aspect="auto",
               extent=(0, 1, 0, 1))
    bar.yaxis.tick_right()
    bar.set_xticks([])
    bar.set_yticks((0, 1), ("0", f"{largest:.2g}"), fontsize=7)
    bar.tick_params(axis="y", length=0, pad=2)
    for label, side in zip(bar.get_yticklabels(), ("bottom", "top"),
                           strict=True):
        label.set_va(side)


def even(name: str, values: Tensor) -> list[tuple[str, str]]:
    """A note for a sheet, if weights differ by less than a tenth."""
    low, high, mean = (float(x) for x in (
        values.min(), values.max(), values.float().mean()))
    return [(f"{name} is even: mean {mean:.2g}", INK)] * (
        high - low <= high / 10)


def outlines(ax: Axes, masks: Tensor) -> None:
    """Draw the edges of `masks` bool `(n, H, W)` over a film."""
    n, tall, wide = masks.shape
    y = 1 - (np.arange(tall) + 0.5) / tall
    inner = (np.arange(wide) + 0.5) / wide
    for i, mask in enumerate(masks.float().numpy()):
        if mask.min() < mask.max():
            x = i + GUTTER + inner * (1 - 2 * GUTTER)
            ax.contour(x, y, mask, [0.5], colors="white", linewidths=1.7)
            ax.contour(x, y, mask, [0.5], colors=TRUE, linewidths=0.9)


def box(ax: Axes, column: int, corners: Tensor, size: tuple, colour: str):
    """Draw one `x1 y1 x2 y2` box over the frame in `column`; NaN = none."""
    if torch.isnan(corners).any():
        return
    tall, wide = size
    scale = torch.tensor([wide, tall, wide, tall])
    x1, y1, x2, y2 = (corners / scale).tolist()
    span = 1 - 2 * GUTTER
    for width, shade in ((3.4, "white"), (2.0, colour)):
        ax.add_patch(Rectangle(
            (column + GUTTER + x1 * span, 1 - y2), (x2 - x1) * span, y2 - y1,
            fill=False, edgecolor=shade, linewidth=width,
        ))


def name_row(ax: Axes, name: str, pad: int = 8) -> None:
    """Write the row's name `pad` points to its left."""
    ax.annotate(
        name, (0, 0.5), (-pad, 0), xycoords="axes fraction",
        textcoords="offset points", ha="right", va="center",
    )


def frame_ticks(ax: Axes, shown: Sequence[int], fps: float | None = None,
                name: str = "frame") -> None:
    """Number the frames under the last row; with `fps` also in seconds.

    Frame i stands for the seconds [i / fps, (i + 1) / fps): its middle.
    """
    labels = [f"{i}" for i in shown]
    if fps is not None:
        name = f"{name}\nsecond"
        labels = [f"{i}\n{(i + 0.5) / float(fps):.1f}" for i in shown]
    ax.tick_params(labelbottom=True, length=0)
    ax.set_xticks([i + 0.5 for i in range(len(shown))], labels)
    ax.annotate(
        name, (0, 0), (-8, -3), xycoords="axes fraction", va="top",
        textcoords="offset points", ha="right",
        fontsize=mpl.rcParams["xtick.labelsize"])


def verdict(
    label: int | None, predicted: int | Tensor | None,
    classes: Sequence[str], said: str = "predicted: ",
) -> list[tuple[str, str]]:
    """Notes for a sheet: what is true and, after `said`, what was predicted.

    `predicted` is a class, or the probabilities `(K,)` of all: then they are
    told of the first three. ValueError if those do not sum to one.
    """
    def name(i: int) -> str:
        return classes[int(i)] if classes else f"class {int(i)}"

    notes, sure, others = [], "", ""
    if isinstance(predicted, Tensor) and predicted.ndim:
        shares = predicted.detach().float().cpu()
        if (shares < 0).any() or abs(float(shares.sum()) - 1) > 0.01:
            raise ValueError("`predicted` are probabilities that sum to one: "
                             "give logits.softmax(0)")
        first, *rest = shares.argsort(descending=True)[:3].tolist()
        predicted, sure = first, f" {shares[first]:.0%}"
        others = ", ".join(f"{name(i)} {shares[i]:.0%}" for i in rest)
    if label is not None:
        notes.append((f"true: {name(label)}", TRUE))
    if predicted is not None:
        wrong = label is not None and int(label) != int(predicted)
        mark = "" if label is None else " ✗" if wrong else " ✓"
        notes.append((f"{said}{name(predicted)}{sure}{mark}",
                      PREDICTED if wrong else INK))
    return notes + [(f"then {others}", QUIET)] * bool(others)


def plot(width: float, height: float, title: str, **axes):
    """An empty plot, `width` by `height` inches, below its title.

    Returns the figure and what `Figure.subplots(**axes)` gives.
    """
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, wspace=0.04)
    lines = textwrap.fill(title, int(width * 13))
    figure.suptitle(lines, x=0.01, ha="left", size=10.5)
    return figure, figure.subplots(**axes)
