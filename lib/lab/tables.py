"""Recorded runs as tables: means, paired differences, and what they decide.

Differences are paired by seed: two rows of one seed share their data, the
order of the batches and the first weights of all that they have in common.
An interval needs five seeds; a verdict needs an interval.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import yaml

from lib import ROOT

PAPERS = "notebooks/results/papers.yaml"
NO_FIGURE = ("not given", "damaged")
SEEDS = 5  # runs of a row that an interval needs


@dataclass
class Records:
    """Lines of the registry that belong to some heads (`Study.head`).

    lines: the newest line of each head, `stale` where its key is another:
        of the same row, seed and data, with the same settings as far as it
        names them, but of other code. missing: heads without a line.
    """

    lines: list[dict]
    missing: list[dict]

    @classmethod
    def of(cls, lines: Iterable[Mapping], heads: Iterable[Mapping],
           digest: str | None = None) -> "Records":
        """digest: of the data at hand; None where they are not."""
        lines, found, missing = list(lines), [], []
        for head in heads:
            same = [line for line in lines if _same(line, head, digest)]
            fresh = [x for x in same if x["key"] == head["key"]]
            if same:
                found.append((fresh or same)[-1] | {"stale": not fresh})
            else:
                missing.append(head)
        return cls(found, missing)

    @property
    def fresh(self) -> list[dict]:
        return [line for line in self.lines if not line["stale"]]

    def __str__(self) -> str:
        text = f"{len(self.lines)} recorded runs"
        if self.missing:
            text += f", {len(self.missing)} not yet trained"
        stale = len(self.lines) - len(self.fresh)
        if stale:
            text += f"; {stale} of them by earlier code"
        if stale or self.missing:
            text += " (train them: python -m lib.lab.run)"
        return text


def _same(line: Mapping, head: Mapping, digest: str | None) -> bool:
    names = ("notebook", "dataset", "split", "variant", "seed")
    if any(line[name] != head[name] for name in names):
        return False
    if digest and line.get("data") and line["data"] != digest:
        return False
    had, wanted = line["params"], head["params"]
    own = {"row", "start", "weights", "backbone", "rates"}  # of the row itself
    return all(had[name] == wanted[name]
               for name in had.keys() & wanted.keys() - own)


def values(lines: Iterable[Mapping], metric: str) -> dict[str, dict]:
    """A metric by row and seed; what has no value is left out."""
    found: dict[str, dict[int, float]] = {}
    for line in lines:
        own = found.setdefault(line["variant"], {})
        if line["seed"] in own:
            raise ValueError(f"two lines of {line['variant']}, seed "
                             f"{line['seed']}: ask Records.of for one")
        if line["metrics"].get(metric) is not None:
            own[line["seed"]] = line["metrics"][metric]
    return {row: own for row, own in found.items() if own}


def mean(numbers: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of its 95 % interval (Student's t): NaN below SEEDS."""
    from scipy.stats import sem, t

    if not len(numbers):
        return math.nan, math.nan
    half = (t.ppf(0.975, len(numbers) - 1) * sem(numbers)
            if len(numbers) >= SEEDS else math.nan)
    return float(np.mean(numbers)), float(half)


def visible(numbers: Sequence[float]) -> float:
    """The true mean that as many such numbers would tell from zero.

    With the spread of these and a two-sided test at 5 %, in four of five
    cases: a power of 80 %. NaN from fewer than SEEDS.
    """
    from scipy.stats import t

    level, power = t.ppf((0.975, 0.8), len(numbers) - 1)
    return mean(numbers)[1] * (1 + power / level)


def gains(runs: Mapping[str, Mapping[int, float]], row: str,
          base: str) -> list[float]:
    """What `row` is above `base`, for each seed that both have."""
    ours, theirs = runs.get(row, {}), runs.get(base, {})
    return [ours[seed] - theirs[seed] for seed in ours if seed in theirs]


def paper(name: str, table: str) -> pd.DataFrame:
    """A paper's table as typed in papers.yaml, in the file's order.

    Values are floats, or "not given" or "damaged" as text.
    """
    entries = _parsed((ROOT / PAPERS).read_text(encoding="utf-8"))
    chosen = [e for e in entries
              if (e["paper"], e["table"]) == (name, str(table))]
    if not chosen:
        known = sorted({f"{e['paper']} {e['table']}" for e in entries})
        raise KeyError(f"{PAPERS} has no {name} {table}: it has {known}")
    frame = pd.DataFrame(NO_FIGURE[0], dtype=object,
                         index=dict.fromkeys(e["row"] for e in chosen),
                         columns=dict.fromkeys(e["column"] for e in chosen))
    for e in chosen:
        frame.loc[e["row"], e["column"]] = e["value"]
    return frame


@lru_cache(1)  # it takes a quarter of a second
def _parsed(text: str) -> list[dict]:
    return yaml.safe_load(text)


def against(lines: Iterable[Mapping], table: pd.DataFrame, column: str,
            pairs: Iterable[tuple[str, str, str, str]], *,
            metric: str = "top-1") -> pd.DataFrame:
    """Each row beside its rival, ours and the paper's, in per cent.

    pairs: our row, our rival, and the paper's rows of both in `table`, whose
        `column` is compared. Columns: what the paper has for the row, what
        it gains there over the rival; the same of ours, with 95 % intervals;
        `visible`: the smallest gain that so many runs would tell from zero
        in four of five cases; `n` seeds; and the verdict: "confirmed" or
        "contradicted" where the interval excludes zero, else "undecided".
    A pair of which nothing was recorded is left out.
    """
    runs, found = values(lines, metric), {}
    for row, rival, their, their_rival in pairs:
        if row not in runs or rival not in runs:
            continue
        value, base = table.loc[their, column], table.loc[their_rival, column]
        known = not {value, base} & set(NO_FIGURE)
        gain = value - base if known else math.nan
        differences = gains(runs, row, rival)
        ours, half = mean(differences)
        found[f"{row} – {rival}"] = {
            f"paper, {column}": as_text(value, ".1f"),
            "paper's gain": as_text(gain, "+.1f"),
            "ours": percent([*runs[row].values()]),
            "our gain": as_text(100 * ours, 100 * half, "+.1f"),
            "visible": as_text(100 * visible(differences), ".1f"),
            "n": len(differences),
            "verdict": verdict(gain, ours, half)}
    return frame(found)


def claims(lines: Iterable[Mapping], table: pd.DataFrame, column: str,
           said: Iterable[str], *, names: Mapping[str, str] | None = None,
           stream: str = "",
           metrics: Sequence[str] = ("top-1",)) -> pd.DataFrame:
    """What a paper says of differences, beside ours, in points.

    said: rows "ONE over OTHER" of `table`, in whose `column` is what ONE
        gains; "not given" stands there for "better" without a figure.
    names: of the paper's rows ours, where they are called otherwise.
    stream: what the names of our rows begin with.
    For each of `metrics` three columns: what our row has, what it gains, with
    intervals, and the verdict as in `against`; `n` seeds. A claim of which
    nothing was recorded is left out.
    """
    lines, names, found = list(lines), names or {}, {}
    runs = {metric: values(lines, metric) for metric in metrics}
    for claim in said:
        row, rival = (stream + names.get(x, x) for x in claim.split(" over "))
        value, line = table.loc[claim, column], {}
        for metric, own in runs.items():
            if not (differences := gains(own, row, rival)):
                continue
            ours, half = mean(differences)
            level = as_text(*_percent(mean([*own[row].values()])), ".1f")
            line |= {metric: level, f"{metric}, gain": as_text(
                         *_percent((ours, half)), "+.1f"),
                     f"{metric}, verdict": verdict(
                         1.0 if value in NO_FIGURE else value, ours, half),
                     "n": len(differences)}
        if line:
            found[f"{row} – {rival}"] = {
                "paper's gain": "better" if value in NO_FIGURE
                else as_text(value, "+.1f")} | line
    return frame(found)


def verdict(paper_gain: float, ours: float, half: float) -> str:
    """What a paired difference with its interval says of the paper's gain."""
    if math.isnan(paper_gain) or paper_gain == 0:
        return "no figure in the paper"
    if not abs(ours) > half:
        return "undecided"
    same = (paper_gain > 0) == (ours > 0)
    return "confirmed" if same else "contradicted"


def overview(lines: Iterable[Mapping], rows: Iterable[str],
             metrics: Iterable[str], base: str | None = None) -> pd.DataFrame:
    """Means of several metrics in per cent, with intervals, as text.

    With `base`, the column after the first metric is the gain over it. What
    a row does not have is "–".
    """
    lines, rows, metrics = list(lines), [*rows], [*metrics]
    runs = {metric: values(lines, metric) for metric in metrics}
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if not any(row in own for own in runs.values()):
            continue
        found[row] = {"n": max(len(own.get(row, ())) for own in runs.values())}
        for metric in metrics:
            own = [*runs[metric].get(row, {}).values()]
            found[row][metric] = as_text(*_percent(mean(own)), ".1f")
            if base and metric == metrics[0]:
                above = gains(runs[metric], row, base) if row != base else []
                found[row][f"gain over {base}"] = as_text(
                    *_percent(mean(above)), "+.1f")
    return frame(found)


def frame(rows: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Rows by name as a table."""
    return pd.DataFrame.from_dict(rows, orient="index")


def percent(numbers: Sequence[float]) -> str:
    """Mean and interval of some shares in per cent, as text."""
    return as_text(*_percent(mean(numbers)), ".1f")


def _percent(pair: tuple[float, float]) -> tuple[float, float]:
    return 100 * pair[0], 100 * pair[1]


def as_text(value: float | str, *more: float | str) -> str:
    """`as_text(1.2, ".1f")`, `as_text(1.2, 0.3, ".1f")`; "–" for NaN."""
    *half, form = more
    if isinstance(value, str):
        return value
    if math.isnan(value):
        return "–"
    number = f"{value:{form}}"
    return number if not half or math.isnan(half[0]) else (
        f"{number} ± {half[0]:.1f}")


def over_splits(lines: Iterable[Mapping], metric: str,
                splits: Iterable[str] = ("1", "2", "3")) -> list[dict]:
    """Average each row and seed over the official splits.

    The mean of the splits' values, as the papers take it, and not of all
    test videos. A row and seed that lacks a split is left out; of several
    lines of a split the last counts. Runs of different settings (`params`)
    are never mixed. Returns lines with that metric alone.
    """
    runs: dict[tuple, dict[str, Mapping]] = {}
    for line in lines:
        if line["metrics"].get(metric) is not None:
            params = {k: v for k, v in line["params"].items() if k != "split"}
            same = (line["variant"], line["seed"], repr(params))
            runs.setdefault(same, {})[line["split"]] = line
    splits, found = list(splits), {}
    for (row, seed, _), own in runs.items():
        if set(splits) <= set(own):
            value = np.mean([own[k]["metrics"][metric] for k in splits])
            found[row, seed] = {
                "variant": row, "seed": seed, "split": "+".join(splits),
                "metrics": {metric: float(value)}}
    return list(found.values())
