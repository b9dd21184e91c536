"""A study: the rows of a paper's tables over seeds, trained and recorded.

A notebook says what is the paper's: its `rows`, how one is trained, what a
model predicts and what is scored. The study does what every notebook needs::

    def train(run):            # run.row, run.options, run.seed, run.folder
        model = build(run.options)
        return model, fit(model, splits.train, step, seed=run.seed,
                          checkpoint=run.folder)

    def predict(run, videos):  # run.model
        return training.predict(run.model, videos)

    def scores(run):           # run.outputs: those to the test videos
        return {"top-1": topk_accuracy(run.outputs["logits"], ...)}

    study = Study("03", ROWS, train, predict, scores,
                  parameters=globals(), data=splits)
    study.run(variants, seeds)

It holds no training logic: without it, `fit` is called in the same way.
"""

import functools
import hashlib
import json
import math
import operator
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from IPython.display import Image
from torch import nn

from lib import ROOT
from lib.data.datasets import Splits, Videos
from lib.data.sets.records import Record
from lib.lab import gpu, processes, tables
from lib.lab import parameters as checked
from lib.lab.fingerprint import source_digest
from lib.lab.progress import progress
from lib.lab.registry import Registry, commit, device_name
from lib.show import figures
from lib.show.explorer import Explorer

NOTEBOOKS = ROOT / "notebooks"
ANSWERS = {"mask", "relevant", "where", "weights"}  # few data sets tell


@dataclass
class Run:
    """One row with one seed: what it is asked for, then what came of it.

    options: the row's entry in the table of rows. folder: for its
    checkpoints, or None where nothing is kept. model, history: what `train`
    returned. outputs: what `predict` gave for the test videos.
    """

    row: str
    seed: int
    options: Mapping
    folder: Path | None
    study: "Study" = field(repr=False)
    model: nn.Module | None = field(default=None, repr=False)
    history: Sequence[Mapping] = field(default=(), repr=False)
    outputs: Mapping = field(default_factory=dict, repr=False)

    @property
    def rate(self) -> float:
        """The row's learning rate: its own of `rates`, or `lr`."""
        settings = self.study.settings
        return settings["rates"].get(self.row, settings["lr"])

    def of(self, row: str) -> "Run":
        """The run of another row with the same seed, trained if need be."""
        return self.study.trained(row, self.seed)


class Study:
    """Rows by seeds of one notebook on one data set.

    rows: name -> options, which are plain values that JSON can hold. A row
        that builds on others names them in a list.
    train: called with a `Run`; returns the model and the history.
    predict: called with a trained `Run` and a data set of videos; returns
        its outputs by name.
    scores: called with a trained `Run` that has its `outputs` to the test
        videos; returns metrics by name. No choice may depend on them.
    parameters: the notebook's globals; those of its parameters that shape a
        result are the settings of every run.
    data: the splits.
    start: called with a row's name and the settings; returns what else the
        run starts from, such as the digest of a backbone's weights.
    sample: called with a data set and a number; returns what pictures show
        of this video, where a model sees less than the data set's frames.

    A run is known by a key: the digest of its settings, its options, what it
    starts from, and the source of everything that the functions can call, in
    the notebook and in lib. A recorded line with this key, on the same data,
    is taken instead of training.

    Raises ValueError for a name that is no row, also among `rates`, and
    TypeError for options that JSON cannot hold.
    """

    def __init__(self, notebook: str, rows: Mapping[str, Mapping],
                 train: Callable[[Run], tuple],
                 predict: Callable[[Run, Any], Mapping],
                 scores: Callable[[Run], Mapping[str, float]], *,
                 parameters: Mapping[str, Any], data: Splits,
                 start: Callable[[str, Mapping], Any] | None = None,
                 sample: Callable[[Any, int], Mapping] = operator.getitem):
        self.notebook, self.rows, self.data = notebook, dict(rows), data
        self._train, self._predict, self._scores = train, predict, scores
        self._start, self._sample = start, sample
        self.settings = checked.settings(parameters)
        for row in self.settings.get("rates", {}):
            self._known(row)
        self.device = parameters["device"]
        results = parameters.get("results", "")
        self.registry = Registry(results) if results else None
        self.source = source_digest(
            [train, predict, scores, *filter(None, [start])])
        self.lines: list[dict] = []
        self._runs: dict[str, Run] = {}

    def run(self, rows: Iterable[str], seeds: Iterable[int]) -> list[dict]:
        """Train, score and record every row with every seed; their lines.

        All rows of a seed come before the next seed. What the registry has
        is read there; a run that was interrupted goes on from its checkpoint.
        """
        plan = [(row, seed) for seed in seeds for row in rows]
        lines = []
        with progress(len(plan)) as say:
            for number, (row, seed) in enumerate(plan, 1):
                say(f"run {number} of {len(plan)}: {row}, seed {seed}")
                lines.append(self._line(row, seed))
        self.lines = lines
        return lines

    def trained(self, row: str, seed: int) -> Run:
        """The run with its model and outputs, trained now if it is not here.

        Runs are kept in memory by their key, so that a changed parameter
        gives another run, and a picture shows the model that was scored.
        """
        key = self.head(row, seed)["key"]
        if key not in self._runs:
            # other data must not go on from these checkpoints
            folder = ROOT / "runs" / f"{key}-{self.data.digest}"
            run = Run(row, seed, self.rows[row],
                      folder if self.registry else None, self)
            try:
                run.model, run.history = self._train(run)
            except KeyError as error:
                if {*error.args} & ANSWERS:
                    raise ValueError(
                        f"the row {row!r} asks for the true answer {error}, "
                        f"which {self.settings['dataset']} does not tell: "
                        "leave it out of `variants`") from error
                raise
            run.outputs = self._predict(run, self.data.test)
            self._runs[key] = run
        return self._runs[key]

    def head(self, row: str, seed: int,
             settings: Mapping | None = None) -> dict:
        """The part of a run's line that is known before it is trained."""
        settings = self.settings if settings is None else settings
        self._known(row)
        params = dict(settings) | {"row": self.rows[row]}
        if "rates" in settings:  # those of other rows change nothing here
            params["rates"] = {
                name: rate for name, rate in settings["rates"].items()
                if name in self.built_on(row)}
        precision = gpu.environment()[0]
        if settings is self.settings and precision != "tf32":
            params["precision"] = precision
        if self._start:
            params["start"] = self._start(row, settings)
        try:
            text = json.dumps([row, seed, params, self.source], sort_keys=True)
        except TypeError as error:
            raise TypeError(f"the options of {row!r} must be numbers, texts, "
                            f"lists and dicts: {error}") from error
        return {"notebook": self.notebook, "dataset": params["dataset"],
                "split": params["split"], "variant": row, "seed": seed,
                "params": params,
                "key": hashlib.sha256(text.encode()).hexdigest()[:16]}

    def built_on(self, row: str) -> list[str]:
        """The rows that its options name, and theirs; the row comes last."""
        names = [name for value in self.rows[row].values()
                 if isinstance(value, list) for name in value
                 if isinstance(name, str) and name in self.rows]
        return [*dict.fromkeys(
            below for name in names for below in self.built_on(name)), row]

    def _known(self, row: str) -> None:
        if row not in self.rows:
            raise ValueError(f"no row {row!r}: choose from {[*self.rows]}")

    def _line(self, row: str, seed: int) -> dict:
        head = self.head(row, seed) | {"data": self.data.digest}
        line = self.registry and processes.first(
            self.registry.find(head["key"], head["data"]))
        if not line:
            start = time.monotonic()
            metrics = self._scores(self.trained(row, seed))
            line = head | commit() | {
                "n_test": len(self.data.test),
                "metrics": {name: _number(value)
                            for name, value in metrics.items()},
                "device": device_name(self.device),
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "minutes": round((time.monotonic() - start) / 60, 3)}
            if self.registry:
                # another run may have finished it in the meantime
                found = self.registry.find(head["key"], head["data"])
                if not found and processes.ranks()[0] == 0:
                    self.registry.append(line)
                line = processes.first(found or line)
        return line | {"stale": False}

    # What to look at after a run.

    def curves(self, key: str, rows: Iterable[str], *, title: str,
               label: str = "", chance: float | None = None) -> Image:
        """Entry `key` of the histories of some rows, first seed."""
        seed = self.lines[0]["seed"]
        return figures.curves(
            {row: self.trained(row, seed).history for row in rows
             if row in {line["variant"] for line in self.lines}},
            key, label=label or key, title=title, chance=chance)

    def accuracies(self, base: str, *, metric: str = "top-1",
                   title: str = "Accuracy on the test videos") -> Image:
        """Each run as a dot, and beside it what it is above row `base`."""
        runs = tables.values(self.lines, metric)
        base = base if base in runs else next(iter(runs))
        return figures.accuracies(
            {row: [*own.values()] for row, own in runs.items()},
            {row: tables.gains(runs, row, base) for row in runs
             if row != base},
            metric=metric, base=base, title=title,
            interval=tables.mean)

    def explorer(self, row: str, count: int = 8) -> Explorer:
        """Look through the last test videos with a row of the first seed."""
        run = self.trained(row, self.lines[0]["seed"])
        total = len(self.data.test)
        samples = [self._sample(self.data.test, i)
                   for i in range(total - count, total)]
        outputs = {name: value if name == "spans" else value[-count:]
                   for name, value in run.outputs.items()}
        return Explorer(samples, outputs, self.data.classes)

    def own_video(self, path: str, row: str) -> Image | None:
        """What a row of the first seed sees in a video file of yours.

        Nothing where `path` is empty.
        """
        if not path:
            return None
        file = Path(path).absolute()
        video = Videos([Record(file, 0, file.name, file.name)],
                       classes=self.data.classes,
                       **{name: self.settings[name]
                          for name in ("frames", "size", "fields")
                          if name in self.settings})
        run = self.trained(row, self.lines[0]["seed"])
        outputs = self._predict(run, video)
        sample = {k: v for k, v in self._sample(video, 0).items()
                  if k != "label"}
        return figures.strip(
            sample, *(outputs[name][0] if name in outputs else None
                      for name in ("where", "when")),
            spans=outputs.get("spans"), classes=self.data.classes,
            predicted=outputs["logits"][0].softmax(0), title=file.name)

    # What was recorded.

    def recorded(self, preset: str) -> "tables.Records":
        """The registry's lines of a preset, stale ones marked.

        A line is stale if its code or its settings have changed since. A
        line of other data than those at hand does not count; where the data
        of the preset are not at hand, it does.
        """
        rows, seeds, settings = self.preset(preset)
        lines = Registry(f"notebooks/results/{self.notebook}.jsonl").lines()
        about = ("dataset", "split", "classes", "n_train", "n_test")
        here = all(settings.get(name) == self.settings.get(name)
                   for name in about)
        return tables.Records.of(
            lines, [self.head(row, seed, settings)
                    for seed in seeds for row in rows],
            self.data.digest if here else None)

    def preset(self, name: str) -> tuple[list[str], list[int], dict]:
        """Rows, seeds and settings of a preset; the rest as by default."""
        file = NOTEBOOKS / "presets" / self.notebook / f"{name}.yaml"
        given = checked.defaults(self.notebook) | yaml.safe_load(
            file.read_text(encoding="utf-8"))
        return given["variants"], given["seeds"], checked.settings(given)


def remembered(parameters: Mapping[str, Any]) -> Callable:
    """Keep what a notebook's function returned, as `functools.cache` does.

    parameters: the notebook's globals. A call with another value of any
    parameter computes anew.
    """
    kept: dict[tuple, Any] = {}

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def call(*arguments):
            key = (arguments, repr([parameters[name] for name in
                                    parameters["__annotations__"]]))
            if key not in kept:
                kept[key] = function(*arguments)
            return kept[key]
        return call
    return decorate


def _number(value: Any) -> float | None:
    """JSON knows no NaN: a metric without a value is null."""
    value = float(value)
    return value if math.isfinite(value) else None
