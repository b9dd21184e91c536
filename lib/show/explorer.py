"""Widgets to look through attention, frame by frame.

`Explorer` shows one model, `SideBySide` several on the same video. Both are
live in JupyterLab; on GitHub, and wherever no kernel runs, the same output
shows a still strip instead. They are built from sliders, `observe` and images
alone, since `interact` and `Output` widgets hang headless runs.
"""

import base64
from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import numpy as np
from IPython.display import Image
from matplotlib.axes import Axes
from torch import Tensor

from lib.scores import metrics
from lib.show import figures, layout

WIDTH = 360
ABREAST = 670  # pixels that the models of SideBySide share


class _Viewer(widgets.VBox):
    """Videos to choose and to play, with a still beside the live view.

    A kind of it has `_prepare`, for a video just chosen, `_draw` and `still`.
    """

    def __init__(self, samples: Sequence[Mapping], classes: Sequence[str],
                 toggles: Sequence[widgets.Checkbox],
                 picture: widgets.Widget, text: str):
        self._samples, self._classes, self._text = samples, classes, text
        self.video = widgets.Dropdown(description="video", options=[
            (f"{i}: {classes[int(sample['label'])]}", i)
            for i, sample in enumerate(samples)])
        self.frame = widgets.IntSlider(description="frame")
        self.play = widgets.Play(interval=250)
        widgets.jslink((self.play, "value"), (self.frame, "value"))
        super().__init__([
            _row([self.video, self.frame, self.play]), _row(toggles), picture,
        ], layout=widgets.Layout(align_items="flex-start"))
        self._choose()
        self.video.observe(lambda _: self._choose(), "value")
        for control in (self.frame, *toggles):
            control.observe(lambda _: self._draw(), "value")

    def _repr_mimebundle_(self, **options) -> tuple[dict, dict]:
        """The live view with the still beside it; a page shows what it can.

        nbval compares the plain text, so that names no result.
        """
        live = super()._repr_mimebundle_(**options)
        still = base64.b64encode(self.still().data).decode()
        bundle = live | {"text/plain": self._text, "image/jpeg": still}
        return bundle, {"image/jpeg": {"alt": self._text}}

    def _choose(self) -> None:
        """Prepare the chosen video's maps once, then draw its first frame."""
        self._sample = self._samples[self.video.value]
        self._prepare()
        last = len(self._sample["video"]) - 1
        self.frame.max = self.play.max = last
        self.frame.value = 0
        self._draw()

    def _on_frames(self, name: str, outputs: Mapping) -> Tensor | None:
        """`where` or `when` of the chosen video, if the model has it."""
        if name not in outputs:
            return None
        values = outputs[name][self.video.value, None]
        frames = len(self._sample["video"])
        if "spans" in outputs:
            values = metrics.expand(values, outputs["spans"], frames)
        if values.shape[1] != frames:
            raise ValueError(f"`{name}` has {values.shape[1]} steps, the "
                             f"video {frames} frames: it needs `spans`")
        return values[0]

    def _moment(self) -> str:
        t, sample = self.frame.value, self._sample
        words = f"Frame {t} of 0–{len(sample['video']) - 1}"
        if "fps" in sample:
            words += f", second {(t + 0.5) / float(sample['fps']):.1f}"
        return words


class Explorer(_Viewer):
    """Look at where and when a model looked, video by video.

    `samples` are the data set's dicts, `outputs` what `training.predict` made
    of them, in the same order: `logits` (N, K) and, where the model has them,
    `where` (N, T', h, w), `when` (N, T') and `spans` (T', 2).
    """

    def __init__(self, samples: Sequence[Mapping],
                 outputs: Mapping[str, Tensor], classes: Sequence[str]):
        _agree(samples, outputs)
        self._outputs = outputs
        self.where = _toggle("where (heat map)", "where" in outputs)
        self.when = _toggle("when (weights)", "when" in outputs)
        self.outline = _toggle("true outline", "mask" in samples[0])
        self.image = _image()
        super().__init__(
            samples, classes, [self.where, self.when, self.outline],
            self.image, f"Explorer of {len(samples)} videos")

    def still(self) -> Image:
        """The chosen video as a strip, for pages without a kernel."""
        return figures.strip(
            self._sample, self._where, self._when, classes=self._classes,
            predicted=self._predicted, title=self._sample["name"])

    def _prepare(self) -> None:
        self._predicted = self._outputs["logits"][self.video.value].softmax(0)
        self._where = self._on_frames("where", self._outputs)
        self._when = self._on_frames("when", self._outputs)
        if self._where is not None:
            self._heat = figures.overlay(self._sample["video"], self._where)

    def _draw(self) -> None:
        t, sample = self.frame.value, self._sample
        frames = self._heat if self.where.value else sample["video"]
        lanes = [72] * self.when.value + [20] * ("relevant" in sample)
        notes = layout.verdict(sample["label"], self._predicted, self._classes)
        for name, shown in (("where", self.where), ("when", self.when)):
            if shown.value:
                notes += layout.even(name, getattr(self, f"_{name}"))
        figure, axes = layout.sheet(
            [layout.height(frames, WIDTH), *lanes], WIDTH,
            title=self._moment(), notes=notes, right=layout.SCALE)
        layout.film(axes[0], frames[t, None])
        layout.name_row(axes[0], "where" if self.where.value else "frame")
        if self.where.value:
            layout.heat_scale(axes[0], float(self._where.max()))
        if self.outline.value:
            layout.outlines(axes[0], sample["mask"][t, None])
        if self.when.value:
            top = _bars(axes[1], self._when, t, 0.9)
            axes[1].yaxis.tick_right()
            axes[1].set_yticks((0, top), ("0", f"{top:.2g}"), fontsize=7)
            axes[1].tick_params(labelbottom=False, bottom=False, right=False)
            layout.name_row(axes[1], "when")
        if "relevant" in sample:
            layout.lane(axes[-1], sample["relevant"], len(frames), 1.0)
            layout.name_row(axes[-1], "true when")
        self.image.value = layout.picture(figure, photo=True,
                                          alt="one frame").data


class SideBySide(_Viewer):
    """Look at where and when several models looked in the same video.

    `samples` as for `Explorer`; `outputs` by the models' names, each as for
    `Explorer`, with steps and maps of its own. Heat and bars are relative to
    the model's own largest weight in the video, which stands beside them:
    what is bright in one picture need not weigh more than in the next.
    """

    def __init__(self, samples: Sequence[Mapping],
                 outputs: Mapping[str, Mapping[str, Tensor]],
                 classes: Sequence[str]):
        for name, own in outputs.items():
            _agree(samples, own, f"{name}: ")
        self._outputs = outputs
        self.heat = _toggle("where (heat maps)", any(
            "where" in own for own in outputs.values()))
        self.outline = _toggle("true outline", "mask" in samples[0])
        self.moment = widgets.Label()
        # a picture for each model: on a narrow page they wrap, and their
        # words stay as large as they are
        self.images = {name: _image() for name in outputs}
        super().__init__(
            samples, classes, [self.heat, self.outline],
            widgets.VBox([self.moment, _row(self.images.values())]),
            f"{len(outputs)} models side by side on {len(samples)} videos")

    def still(self) -> Image:
        """The chosen video, a row for each map and each model's weights."""
        label, notes = self._sample["label"], []
        for name, seen in self._seen.items():
            true, said, *_ = layout.verdict(
                label, seen["shares"], self._classes, f"{name}: ")
            notes += [said] if notes else [true, said]
        maps, weights = ({
            f"{name} {part}": seen[part] for name, seen in self._seen.items()
            if seen[part] is not None} for part in ("where", "when"))
        return figures.rows(self._sample, maps, weights, notes=notes,
                            title=self._sample["name"], apart=True, columns=6)

    def _prepare(self) -> None:
        self._seen = {}
        for name, own in self._outputs.items():
            try:
                where, when = (self._on_frames(part, own)
                               for part in ("where", "when"))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            self._seen[name] = {
                "where": where, "when": when,
                "shares": own["logits"][self.video.value].softmax(0),
                "heat": where if where is None else figures.overlay(
                    self._sample["video"], where)}

    def _draw(self) -> None:
        self.moment.value = self._moment()
        for name, seen in self._seen.items():
            self.images[name].value = self._column(name, **seen).data

    def _column(self, name: str, where: Tensor | None, when: Tensor | None,
                shares: Tensor, heat: Tensor | None) -> Image:
        """A model's name, frame and prediction; its bars above the truth."""
        t, sample = self.frame.value, self._sample
        count, hot = len(sample["video"]), self.heat.value and heat is not None
        wide = min(WIDTH, ABREAST // min(len(self.images), 5)) - 8
        figure, (film, said, bars) = layout.sheet(
            [layout.height(sample["video"], wide), 32, 66], wide, title="",
            left=4, right=4, above=-8, below=18)
        layout.film(film, (heat if hot else sample["video"])[t, None])
        if self.outline.value:
            layout.outlines(film, sample["mask"][t, None])
        for ax in (said, bars):
            ax.set(xlim=(0, count), ylim=(0, 1), xticks=[], yticks=[])
            ax.spines[:].set_visible(False)

        def write(ax: Axes, y: float, words: str, size: float = 7,
                  **how) -> None:
            size = min(size, 1.2 * wide / len(words))  # long names fit
            ax.text(0, y, words, size=size, transform=ax.transAxes, **how)

        write(film, 1.04, name, 9.5)
        if where is None:
            write(said, 0.75, "no where")
        elif hot:
            write(said, 0.75, f"where 0 to {float(where.max()):.2g}")
            said.imshow(np.linspace(0, 1, 64)[None], cmap="inferno",
                        aspect="auto", extent=(0.78 * count, count, 0.75, 1))
        [words, colour] = layout.verdict(
            sample["label"], shares, self._classes, "")[1]
        write(said, 0.2, words, 9, color=colour)
        bars.axvline(t + 0.5, color=layout.INK, lw=0.8, ls=":")
        top = 1.0 if when is None else _bars(bars, when, t, 1.0)
        write(bars, 0.87,
              "no when" if when is None else f"when 0 to {top:.2g}")
        top = top or 1.0  # weights of zeros have room, too
        bars.set_ylim(-0.2 * top, 1.3 * top)
        if "relevant" in sample:  # below zero
            true = sample["relevant"].numpy()
            bars.bar(np.arange(count) + 0.5, -0.2 * top * true, 1,
                     color=layout.TRUE)
            write(bars, -0.17, "true when", color=layout.TRUE)
        return layout.picture(figure, photo=True, alt=name)


def _row(children: Sequence[widgets.Widget]) -> widgets.HBox:
    """Side by side; on a narrow page they wrap."""
    return widgets.HBox([*children], layout=widgets.Layout(
        flex_flow="row wrap", max_width="100%"))


def _image() -> widgets.Image:
    """Room for a picture, which shrinks on a narrow page."""
    return widgets.Image(format="jpeg", layout=widgets.Layout(
        max_width="100%", height="auto"))


def _toggle(name: str, exists: bool) -> widgets.Checkbox:
    return widgets.Checkbox(value=exists, disabled=not exists,
                            description=name, indent=False)


def _agree(samples: Sequence, outputs: Mapping, model: str = "") -> None:
    for name in ("logits", "where", "when"):
        count = len(outputs.get(name, samples))
        if not 0 < len(samples) == count:
            raise ValueError(f"{model}{len(samples)} samples, but outputs "
                             f"for {count}: predict on the same videos")


def _bars(ax: Axes, weights: Tensor, now: int, wide: float) -> float:
    """Draw `weights` (T,) as bars, dark at frame `now`; the largest one."""
    colours = ["#BFBFBF"] * len(weights)
    colours[now] = layout.INK
    centres = np.arange(len(weights)) + 0.5
    ax.bar(centres, weights.numpy(), wide, color=colours)
    ax.set_xlim(0, len(weights))
    return float(weights.max())
