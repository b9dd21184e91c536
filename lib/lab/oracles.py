"""How much attention can win in a world: heads that know the true answers.

Features of a frozen network are averaged over places (*where*) and over steps
(*when*), and one linear layer classifies the result. The weights of each
average are even, learned (a softmax over linear scores), or true: the share
of a cell that the actor covers, the relevant frames. So *even, even* is the
plain mean that attention must beat, *learned* is the simplest attention, and
*true, true* is what a perfect one would reach with these features. The room
between the first and the last is measured before any paper's model is trained
(`table`), and the dials of the worlds were set by such runs alone.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import pandas as pd
import torch
import yaml
from einops import einsum, rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from lib.data import datasets
from lib.data.batches import Columns, in_memory
from lib.data.sampling import clips_of
from lib.lab import tables, training
from lib.lab.features import extract
from lib.lab.parameters import defaults
from lib.lab.study import NOTEBOOKS, Run, Study
from lib.networks import cnn2d, cnn3d, pretrained
from lib.scores import metrics
from lib.worlds.worlds import ALIASES

CHOICES = ("even", "learned", "true")
NAMES = {"even, even": "plain mean", "learned, even": "learned where",
         "even, learned": "learned when", "learned, learned": "learned both",
         "true, even": "true where", "even, true": "true when",
         "true, true": "true both"}
"""Where and when of a row: its name in the tables."""
ROWS = {f"{kind}: {name}": {"features": kind, "where": where, "when": when}
        for kind in ("frames", "clips", "end to end") for name in NAMES
        for where, when in [name.split(", ")]
        # a network that trains has no true weights of its maps
        if kind != "end to end" or name in ("even, even", "learned, learned")}
BACKBONE = {"frames": "backbone", "clips": "clip_backbone",
            "end to end": "backbone"}
INPUTS = ("cube", "where", "when", "spans")
CNN_RATE = 0.1  # of the head's learning rate: the CNN comes trained


class PooledOutput(NamedTuple):
    """Logits (B, K), where (B, T', h, w), when (B, T'), spans (T', 2)."""

    logits: Tensor
    where: Tensor
    when: Tensor
    spans: Tensor


class Standardised(nn.Linear):
    """A linear layer on features that are standardised first.

    A network's channels differ in size by orders of magnitude, and averages
    vary less than what they are averages of. So each layer has the `mean`
    and `std` (C,) of what it reads.
    """

    def __init__(self, channels: int, outputs: int):
        super().__init__(channels, outputs)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def measure(self, features: Tensor) -> None:
        """Take mean and std from training features (N, C)."""
        std, mean = torch.std_mean(features.float(), 0)
        self.std.copy_(std.clamp(min=1e-4)), self.mean.copy_(mean)

    def forward(self, features: Tensor) -> Tensor:
        return super().forward((features - self.mean) / self.std)


class Pooled(nn.Module):
    """A linear classifier of features averaged over places and steps.

    where, when: of CHOICES. Learned weights are a softmax over one linear
    score of each cell, and of each step's average.
    """

    def __init__(self, channels: int, classes: int, where: str = "even",
                 when: str = "even"):
        super().__init__()
        self.classify = Standardised(channels, classes)
        # the scores start even: nothing is known yet
        for name, choice in (("where", where), ("when", when)):
            score = Standardised(channels, 1) if choice == "learned" else None
            if score is not None:
                nn.init.zeros_(score.weight)
            setattr(self, name, score)

    def measure(self, cube: Tensor) -> None:
        """Standardise what each layer reads, by training features.

        cube (N, T', C, h, w): averages of it are even, as at the start.
        """
        steps = cube.float().mean((3, 4))
        self.classify.measure(steps.mean(1))
        if self.when is not None:
            self.when.measure(steps.flatten(0, 1))
        if self.where is not None:
            self.where.measure(rearrange(cube, "n t c h w -> (n t h w) c"))

    def forward(self, cube: Tensor, where: Tensor, when: Tensor,
                spans: Tensor) -> PooledOutput:
        """cube (B, T', C, h, w), and weights where nothing is learned:
        where (B, T', h, w) and when (B, T')."""
        cells = cube.flatten(3)
        if self.where is not None:
            # less the mean, which a softmax does not see
            scores = (self.where.weight / self.where.std) @ cells
            where = scores.softmax(-1).view_as(where)
        steps = (cells @ where.flatten(2)[..., None]).squeeze(-1)
        if self.when is not None:
            when = self.when(steps).squeeze(-1).softmax(-1)
        pooled = einsum(steps, when, "b t c, b t -> b c")
        return PooledOutput(self.classify(pooled), where, when, spans[0])


class EndToEnd(nn.Module):
    """A network of frames that trains together with the head on it."""

    def __init__(self, cnn: cnn2d.FrameCNN, head: Pooled):
        super().__init__()
        self.cnn, self.head = cnn, head

    def forward(self, video: Tensor) -> PooledOutput:
        """video (B, T, 3, H, W) -> as `Pooled`; weights even or learned."""
        cube = self.cnn(video)
        even = torch.ones_like(cube[:, :, 0])
        steps = torch.arange(video.shape[1], device=video.device)
        return self.head(cube, shares(even, 2), shares(even[..., 0, 0], 1),
                         torch.stack([steps, steps + 1], 1)[None])


def shares(values: Tensor, dims: int) -> Tensor:
    """Weights that sum to one over the last `dims`; even where all are 0."""
    flat = values.flatten(-dims).double()
    total = flat.sum(-1, keepdim=True)
    even = torch.full_like(flat, 1 / flat.shape[-1])
    return torch.where(total > 0, flat / total.clamp(min=1e-9), even
                       ).float().view(values.shape)


def weighed(features: Columns, frames: int, where: str,
            when: str) -> Columns:
    """The features with the weights of a row, ready for `Pooled`.

    What is not learned is averaged here, once: the cube has one cell, one
    step, or one of each then. frames: of the videos of `features`.
    """
    columns = features.columns
    cube = columns["cube"]
    n, steps, _, *size = cube.shape
    ends = torch.arange(steps + 1) * frames // steps
    spans = torch.stack([ends[:-1], ends[1:]], 1)

    def on_steps(values: Tensor) -> Tensor:
        return torch.stack([values[:, a:b].double().mean(1)
                            for a, b in spans.tolist()], 1)

    at = torch.zeros(n, steps, *size)
    if where == "true":
        at = on_steps(torch.stack([metrics.cell_shares(mask, tuple(size))
                                   for mask in columns["mask"]]))
    at, times = shares(at, 2), torch.zeros(n, steps)
    if when == "true":
        times = on_steps(columns["relevant"])
    times = shares(times, 1)
    made = {"label": columns["label"], "spans": spans.expand(n, -1, -1)}
    if where != "learned":
        # some videos at a time: in float32 they may not fit the memory
        cube = torch.cat([
            einsum(some.float(), weights, "n t c h w, n t h w -> n t c")
            for some, weights in zip(cube.split(64), at.split(64),
                                     strict=True)])
        at = torch.ones(n, steps, 1, 1)
        if when != "learned":
            cube = einsum(cube, times, "n t c, n t -> n c")[:, None]
            at, times = at[:, :1], torch.ones(n, 1)
            made["spans"] = torch.tensor([0, frames]).expand(n, 1, 2)
        cube = cube[..., None, None]
    return Columns(made | {"cube": cube, "where": at, "when": times},
                   classes=features.classes)


class Clips(nn.Module):
    """A 3D network's maps of all clips of 8 frames of a video."""

    def __init__(self, net: cnn3d.ClipCNN):
        super().__init__()
        self.net = net

    def features(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Cube (B, T', C, h, w) and vector (B, T', C), as `extract` asks."""
        clips, _ = clips_of(video)
        maps = self.net(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
        return maps.flatten(1, 2), maps.flatten(1, 2).mean((3, 4))


class Oracles:
    """What a study of ROWS calls; the features of its videos are kept."""

    def __init__(self):
        self.kept: dict[tuple, Columns] = {}

    def train(self, run: Run) -> tuple[Pooled, list[dict]]:
        """The head of a row, trained for the `epochs` of the settings.

        The weights of the epoch with the best validation accuracy are kept;
        test videos only count.
        """
        train_set, val = (self.weighed(run, part)
                          for part in run.study.data[:2])
        own, settings = run.options, run.study.settings
        some, more = train_set.columns, {}
        some = some["video" if "video" in some else "cube"][
            ::max(1, len(train_set) // 500)]
        if own["features"] == "end to end":
            cnn = cnn2d.frame_cnn(settings["backbone"], "puppets")
            with training.evaluating(cnn):
                some = torch.cat([cnn(part.float() / 255)
                                  for part in some.split(64)])
        torch.manual_seed(run.seed)
        model = Pooled(some.shape[2], len(run.study.data.classes),
                       own["where"], own["when"])
        model.measure(some)
        if own["features"] == "end to end":
            model = EndToEnd(cnn, model)
            more["optimizer"] = training.two_rates(torch.optim.AdamW, [cnn],
                                                   CNN_RATE)
        batch, epochs = settings["batch"], settings["epochs"]
        steps = max(1, len(train_set) // batch)
        return model, training.fit(
            model, train_set, _step, steps=epochs * steps, batch=batch,
            lr=run.rate, weight_decay=1e-3, schedule="cosine",
            seed=run.seed, val=val, score=_accuracy, every=steps,
            device=run.study.device, checkpoint=run.folder, **more)

    def predict(self, run: Run, videos: Dataset) -> dict[str, Tensor]:
        """Logits and the weights that were used; whole maps where learned."""
        return training.predict(run.model, self.weighed(run, videos),
                                inputs=_inputs(run.model))

    def scores(self, run: Run) -> dict[str, float]:
        """Accuracy, and how far learned weights agree with the truth."""
        learned = {name: run.outputs[name] for name in ("where", "when")
                   if run.options[name] == "learned"}
        truth = self.features(run, run.study.data.test).columns
        return {"top-1": metrics.topk_accuracy(run.outputs["logits"],
                                               run.outputs["label"])
                } | metrics.attention_scores(
            learned | {"spans": run.outputs["spans"]}, truth,
            run.study.settings["frames"])

    def features(self, run: Run, videos: Dataset) -> Columns:
        """The frozen network's maps of all videos, with the true answers.

        The videos themselves where the network is not frozen.
        """
        kind = run.options["features"]
        name = run.study.settings[BACKBONE[kind]]

        def make() -> Columns:
            if kind == "end to end":
                return in_memory(videos)
            net = (cnn2d.frame_cnn(name, "puppets") if kind == "frames"
                   else Clips(cnn3d.clip_cnn(name, "puppets")))
            found = extract({"video": net}, videos, device=run.study.device)
            found.columns["cube"] = found.columns.pop("video_cube")
            del found.columns["video_vector"]
            return found

        return self._once((id(videos), kind), make)

    def weighed(self, run: Run, videos: Dataset) -> Columns:
        """The features with the weights of the run's row."""
        own = run.options
        if own["features"] == "end to end":
            return self.features(run, videos)
        return self._once(
            (id(videos), *own.values()), lambda: weighed(
                self.features(run, videos), run.study.settings["frames"],
                own["where"], own["when"]))

    def _once(self, key: tuple, make: Callable[[], Columns]) -> Columns:
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]


def _inputs(model: nn.Module) -> tuple[str, ...]:
    return INPUTS if isinstance(model, Pooled) else ("video",)


def _step(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    logits = model(*(batch[name] for name in _inputs(model))).logits
    return {"loss": F.cross_entropy(logits, batch["label"])}


def _accuracy(model: nn.Module, data: Dataset) -> float:
    found = training.predict(model, data, inputs=_inputs(model),
                             keys=("logits",), batch=256)
    return metrics.topk_accuracy(found["logits"], found["label"])


def start(row: str, settings: Mapping[str, Any]) -> str:
    """The weights of the frozen network."""
    kind = ROWS[row]["features"]
    return pretrained.fingerprint(settings[BACKBONE[kind]], "puppets")


def needs(row: str) -> set[str]:
    """The true answers that a row reads."""
    own = ROWS[row]
    return ({"mask"} if own["where"] == "true" else set()) | (
        {"relevant"} if own["when"] == "true" else set())


def study(parameters: Mapping[str, Any], data: datasets.Splits) -> Study:
    """The study of notebook 00: ROWS on one world."""
    own = Oracles()
    return Study("00", ROWS, own.train, own.predict, own.scores,
                 parameters=parameters, data=data, start=start)


def recorded(world: str, preset: str = "lab") -> tables.Records:
    """The recorded runs of a world, by the preset `<preset>_<world>`."""
    preset = f"{preset}_{ALIASES.get(world, world)}"
    given = defaults("00") | yaml.safe_load(
        (NOTEBOOKS / "presets/00" / f"{preset}.yaml").read_text("utf-8"))
    data = datasets.load(given["dataset"], **{
        name: given[name] for name in ("frames", "size", "n_train", "n_val",
                                       "n_test")})
    return study(given, data).recorded(preset)


def rivals(world: str, kind: str = "frames") -> list[dict]:
    """The recorded lines of a world's heads, to stand beside a paper's rows.

    Only those of today's code: a table does not tell them apart.
    kind: of features, "frames", "clips" or "end to end" (short worlds only).
    Each line's row has one of NAMES.
    """
    preset = "end" if kind == "end to end" else "lab"
    return [line | {"variant": NAMES[name]}
            for line in recorded(world, preset).fresh
            for features, name in [line["variant"].split(": ")]
            if features == kind and name in NAMES]


def table(worlds: Iterable[str], kind: str = "frames") -> pd.DataFrame:
    """Accuracy in per cent of the plain mean, learned and true attention.

    One line a world, from recorded runs on features of `kind`: means with
    95 % intervals. "end to end", which has no true weights, has a line for
    each row, with the gain and what the weights look at.
    """
    if kind == "end to end":
        return pd.concat({world: tables.overview(
            rivals(world, kind), NAMES.values(), ("top-1", "point", "when"),
            "plain mean") for world in worlds})
    found = {}
    for world in worlds:
        runs = tables.values(rivals(world, kind), "top-1")
        found[world] = {
            name: tables.percent([*runs.get(name, {}).values()])
            for row, name in NAMES.items() if f"{kind}: {row}" in ROWS}
    return tables.frame(found)
