"""A widget to look through attention, frame by frame.

Live in JupyterLab; on GitHub, and wherever no kernel runs, the same output
shows a still strip instead. It is built from sliders, `observe` and an image
alone, since `interact` and `Output` widgets hang headless runs.
"""

import base64
from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import numpy as np
from IPython.display import Image
from torch import Tensor

from lib.scores import metrics
from lib.show import figures, layout

WIDTH = 360


class Explorer(widgets.VBox):
    """Look at where and when a model looked, video by video.

    `samples` are the data set's dicts, `outputs` what `training.predict` made
    of them, in the same order: `logits` (N, K) and, where the model has them,
    `where` (N, T', h, w), `when` (N, T') and `spans` (T', 2).
    """

    def __init__(self, samples: Sequence[Mapping],
                 outputs: Mapping[str, Tensor], classes: Sequence[str]):
        if not 0 < len(samples) == len(outputs["logits"]):
            raise ValueError(
                f"{len(samples)} samples, but outputs for "
                f"{len(outputs['logits'])}: predict on the same videos")
        self._samples, self._outputs = samples, outputs
        self._classes = classes
        self.video = widgets.Dropdown(description="video", options=[
            (f"{i}: {classes[int(sample['label'])]}", i)
            for i, sample in enumerate(samples)])
        self.frame = widgets.IntSlider(description="frame")
        self.play = widgets.Play(interval=250)
        widgets.jslink((self.play, "value"), (self.frame, "value"))
        self.where = self._toggle("where (heat map)", "where" in outputs)
        self.when = self._toggle("when (weights)", "when" in outputs)
        self.outline = self._toggle("true outline", "mask" in samples[0])
        # on a narrow page the controls wrap and the picture shrinks
        self.image = widgets.Image(format="jpeg", layout=widgets.Layout(
            max_width="100%", height="auto"))
        super().__init__([
            *(widgets.HBox(row, layout=widgets.Layout(
                flex_flow="row wrap", max_width="100%")) for row in (
                    [self.video, self.frame, self.play],
                    [self.where, self.when, self.outline])),
            self.image,
        ], layout=widgets.Layout(align_items="flex-start"))
        self._choose()
        self.video.observe(lambda _: self._choose(), "value")
        for control in (self.frame, self.where, self.when, self.outline):
            control.observe(lambda _: self._draw(), "value")

    def still(self) -> Image:
        """The chosen video as a strip, for pages without a kernel."""
        return figures.strip(
            self._sample, self._where, self._when, classes=self._classes,
            predicted=self._predicted, title=self._sample["name"])

    def _repr_mimebundle_(self, **options) -> tuple[dict, dict]:
        """The live view with the still beside it; a page shows what it can.

        nbval compares the plain text, so that names no result.
        """
        live = super()._repr_mimebundle_(**options)
        still = base64.b64encode(self.still().data).decode()
        text = f"Explorer of {len(self._samples)} videos"
        bundle = live | {"text/plain": text, "image/jpeg": still}
        return bundle, {"image/jpeg": {"alt": text}}

    @staticmethod
    def _toggle(name: str, exists: bool) -> widgets.Checkbox:
        return widgets.Checkbox(value=exists, disabled=not exists,
                                description=name, indent=False)

    def _choose(self) -> None:
        """Prepare the chosen video's maps once, then draw its first frame."""
        self._sample = self._samples[self.video.value]
        self._predicted = self._outputs["logits"][self.video.value].softmax(0)
        self._where = self._on_frames("where")
        self._when = self._on_frames("when")
        if self._where is not None:
            self._heat = figures.overlay(self._sample["video"], self._where)
        last = len(self._sample["video"]) - 1
        self.frame.max = self.play.max = last
        self.frame.value = 0
        self._draw()

    def _on_frames(self, name: str) -> Tensor | None:
        if name not in self._outputs:
            return None
        values = self._outputs[name][self.video.value, None]
        if "spans" in self._outputs:
            values = metrics.expand(values, self._outputs["spans"],
                                    len(self._sample["video"]))
        return values[0]

    def _draw(self) -> None:
        t, sample = self.frame.value, self._sample
        frames = self._heat if self.where.value else sample["video"]
        lanes = [72] * self.when.value + [20] * ("relevant" in sample)
        title = f"Frame {t} of 0–{len(frames) - 1}"
        if "fps" in sample:
            title += f", second {(t + 0.5) / float(sample['fps']):.1f}"
        notes = layout.verdict(sample["label"], self._predicted,
                               self._classes)
        for name, shown in (("where", self.where), ("when", self.when)):
            if shown.value:
                notes += layout.even(name, getattr(self, f"_{name}"))
        figure, axes = layout.sheet(
            [layout.height(frames, WIDTH), *lanes], WIDTH, title=title,
            notes=notes, right=layout.SCALE)
        layout.film(axes[0], frames[t, None])
        layout.name_row(axes[0], "where" if self.where.value else "frame")
        if self.where.value:
            layout.heat_scale(axes[0], float(self._where.max()))
        if self.outline.value:
            layout.outlines(axes[0], sample["mask"][t, None])
        if self.when.value:
            self._bars(axes[1], t)
        if "relevant" in sample:
            layout.lane(axes[-1], sample["relevant"], len(frames), 1.0)
            layout.name_row(axes[-1], "true when")
        self.image.value = layout.picture(figure, photo=True,
                                          alt="one frame").data

    def _bars(self, ax, now: int) -> None:
        colours = ["#BFBFBF"] * len(self._when)
        colours[now] = layout.INK
        centres = np.arange(len(self._when)) + 0.5
        ax.bar(centres, self._when.numpy(), 0.9, color=colours)
        top = float(self._when.max())
        ax.set_xlim(0, len(self._when))
        ax.yaxis.tick_right()
        ax.set_yticks((0, top), ("0", f"{top:.2g}"), fontsize=7)
        ax.tick_params(labelbottom=False, bottom=False, right=False)
        layout.name_row(ax, "when")
