"""Ablations over seeds, their tables, and the papers' own figures."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from lib import ROOT
from lib.lab.registry import Experiment, Registry, commit, device_name

PAPERS = "notebooks/results/papers.yaml"
NO_FIGURE = ("not given", "damaged")


def ablate(variants: Mapping[str, Mapping], seeds: Iterable[int],
           run: Callable[[str, int], Mapping[str, float]], *,
           experiment: Experiment,
           registry: Registry | None = None) -> list[dict]:
    """Run every variant with every seed; return their lines.

    `run(variant, seed)` trains, tests and returns metrics. A run whose key
    is in the registry is read there; the others are appended as soon as each
    is done, so an interrupted ablation goes on where it was. All variants of
    a seed come before the next seed.
    """
    lines, code = [], commit()
    for seed in seeds:
        for variant, settings in variants.items():
            line = experiment.line(variant, settings, seed)
            known = registry and registry.find(line["key"])
            if not known:
                start = time.monotonic()
                metrics = run(variant, seed)
                known = line | code | {
                    "metrics": {name: _number(value)
                                for name, value in metrics.items()},
                    "device": device_name(experiment.device),
                    "torch": torch.__version__,
                    "threads": torch.get_num_threads(),
                    "minutes": round((time.monotonic() - start) / 60, 3)}
                if registry:
                    registry.append(known)
            lines.append(known | {"stale": False})
    return lines


def _number(value: Any) -> float | None:
    """JSON knows no NaN: a metric without a value is null."""
    value = float(value)
    return value if math.isfinite(value) else None


def summarise(lines: Iterable[Mapping], metric: str,
              baseline: str) -> pd.DataFrame:
    """One row per variant: mean over seeds and difference to the baseline.

    Columns: n (seeds), mean, interval (half the width of its 95 % interval,
    Student's t over seeds), difference (to the baseline, paired by seed),
    difference_interval and pairs (the seeds that both have). What has no
    value, as the interval of one seed, is NaN; so is every difference while
    the baseline has no line, as in an ablation that was interrupted. Stale
    lines have rows of their own, and a baseline of their own.
    """
    rows, lines = {}, list(lines)
    for stale in (False, True):
        runs = _by_variant(lines, metric, stale)
        for variant, values in runs.items():
            mean, interval = _mean_interval(list(values.values()))
            base = {} if variant == baseline else runs.get(baseline, {})
            paired = [values[seed] - base[seed]
                      for seed in values if seed in base]
            difference, width = _mean_interval(paired)
            rows[variant + " (stale)" * stale] = {
                "n": len(values), "mean": mean, "interval": interval,
                "difference": difference, "difference_interval": width,
                "pairs": len(paired)}
    return pd.DataFrame.from_dict(rows, orient="index")


def _by_variant(lines: Iterable[Mapping], metric: str,
                stale: bool) -> dict[str, dict[int, float]]:
    runs: dict[str, dict[int, float]] = {}
    for line in lines:
        if line.get("stale", False) != stale:
            continue
        if metric not in line["metrics"]:
            raise KeyError(f"no metric {metric!r} in {line['variant']}, seed "
                           f"{line['seed']}: {sorted(line['metrics'])}")
        values = runs.setdefault(line["variant"], {})
        if line["seed"] in values:
            raise ValueError(f"two lines of {line['variant']}, seed "
                             f"{line['seed']}: ask Registry.recorded")
        if (value := line["metrics"][metric]) is not None:
            values[line["seed"]] = value
    return runs


def over_splits(lines: Iterable[Mapping], metric: str,
                splits: Iterable[str] = ("1", "2", "3")) -> list[dict]:
    """Average each variant and seed over the official splits.

    The mean of the splits' values, as the papers take it, and not of all
    test videos. A variant and seed that lacks a split is left out. Of
    several lines of a split the last counts; runs of different settings
    (`params`) are never mixed. Returns lines for `summarise`.
    """
    runs: dict[tuple, dict[str, Mapping]] = {}
    for line in lines:
        if line["metrics"].get(metric) is not None:
            same = (line["variant"], line["seed"],
                    line.get("stale", False), repr(line["params"]))
            runs.setdefault(same, {})[line["split"]] = line
    splits, found = list(splits), {}
    for (variant, seed, stale, _), own in runs.items():
        if set(splits) <= set(own):
            value = np.mean([own[k]["metrics"][metric] for k in splits])
            found[variant, seed, stale] = {
                "variant": variant, "seed": seed, "stale": stale,
                "split": "+".join(splits), "metrics": {metric: float(value)}}
    return list(found.values())


def _mean_interval(values: list[float]) -> tuple[float, float]:
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return (values[0] if values else math.nan), math.nan
    width = t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n)
    return float(np.mean(values)), float(width)


def accuracy_interval(correct: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of the share `correct / n` of one run."""
    if not 0 <= correct <= n or n == 0:
        raise ValueError(f"{correct} of {n} is no share")
    z = 1.959964
    share, more = correct / n, z * z / n
    middle = (share + more / 2) / (1 + more)
    half = math.sqrt(share * (1 - share) * more + more * more / 4) / (1 + more)
    return max(0.0, middle - half), min(1.0, middle + half)


def paper(name: str, table: str) -> pd.DataFrame:
    """A paper's table as typed in papers.yaml, in the file's order.

    Values are floats, or "not given" or "damaged" as text.
    """
    import yaml

    entries = yaml.safe_load((ROOT / PAPERS).read_text(encoding="utf-8"))
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


def compare(summary: pd.DataFrame, table: pd.DataFrame, column: str,
            rows: Mapping[str, str], *, baseline: str) -> pd.DataFrame:
    """Ours beside the paper's, in per cent, as text.

    rows: our variant -> the paper's row; `baseline` is one of ours. Our
    metrics are shares in [0, 1]. `sign` compares the differences to the
    baseline: "same sign", "opposite", "undecided" where our 95 % interval
    includes zero or does not exist, "not given" by the paper.
    """
    base = table.loc[rows[baseline], column]
    lines = {}
    for variant, row in rows.items():
        value = table.loc[row, column]
        gain = (value - base if not {value, base} & set(NO_FIGURE)
                else math.nan)
        name = next((n for n in (variant, f"{variant} (stale)")
                     if n in summary.index), None)
        ours = (100 * summary.loc[name] if name else
                pd.Series(math.nan, index=summary.columns))
        is_base = variant == baseline
        lines[name or variant] = {
            "paper": value if isinstance(value, str) else f"{value:g}",
            "its difference": "–" if is_base else as_text(gain, "+.2f"),
            "ours": as_text(ours["mean"], ".1f", ours["interval"]),
            "our difference": as_text(ours["difference"], "+.1f",
                                      ours["difference_interval"]),
            "n": str(int(summary.loc[name, "n"])) if name else "0",
            "sign": "–" if is_base else _sign(gain, ours)}
    return pd.DataFrame.from_dict(lines, orient="index")


def gains(lines: Iterable[Mapping], table: pd.DataFrame,
          pairs: Iterable[tuple[str, str, str, str, str]],
          metric: str = "top-1") -> pd.DataFrame:
    """Each variant's gain on its own rival, beside the paper's gains.

    pairs: ours, its rival, the paper's rows of both in `table`, and the
        column that `sign` compares with, as `compare` does. A pair of which
        a part was not recorded is left out. `n` counts the seeds of both.
    """
    lines, found = list(lines), {}
    there = {line["variant"] for line in lines}
    for ours, rival, their, their_rival, beside in pairs:
        if not {ours, rival} <= there:
            continue
        both = summarise(lines, metric, rival)
        rows = {rival: their_rival, ours: their}
        parts = {column: compare(both, table, column, rows, baseline=rival)
                 for column in table.columns}
        base, last = (parts[beside].iloc[i] for i in (0, 1))
        found[f"{last.name} against {base.name}"] = {
            f"paper, {column}": part["its difference"].iloc[1]
            for column, part in parts.items()} | {
            "our gain": last["our difference"], "ours": last["ours"],
            "rival": base["ours"], "n": str(both.loc[last.name, "pairs"]),
            "beside": beside,
            "sign": last["sign"]}
    return pd.DataFrame.from_dict(found, orient="index")


def overview(lines: Iterable[Mapping], variants: Iterable[str],
             metrics: Iterable[str],
             rival: str | None = None) -> pd.DataFrame:
    """Mean ± 95 % interval of several metrics in per cent, as text.

    `n` counts the seeds of the first metric. With `rival`, a column after
    that metric holds the gain on it, paired by seed. A variant that lacks a
    metric has "–" there.
    """
    found, variants = {}, [*variants]
    names = [name for variant in variants
             for name in (variant, f"{variant} (stale)")]
    for metric in metrics:
        usable = [line for line in lines if line["variant"] in variants
                  and metric in line["metrics"]]
        table = summarise(usable, metric, rival or "").reindex(columns=[
            "n", "mean", "interval", "difference", "difference_interval"])
        table = table.loc[[n for n in names if n in table.index]]
        if not found:
            found["n"] = {name: str(n) for name, n in table["n"].items()}
        table = 100 * table
        found[metric] = {
            name: as_text(row["mean"], ".1f", row["interval"])
            for name, row in table.iterrows()}
        if rival and len(found) == 2:  # n, and the first metric
            found[f"gain on {rival}"] = {
                name: as_text(row["difference"], "+.1f",
                              row["difference_interval"])
                for name, row in table.iterrows()}
    return pd.DataFrame(found, dtype=object).fillna("–")


def _sign(gain: float, ours: pd.Series) -> str:
    if math.isnan(gain):
        return NO_FIGURE[0]
    difference, width = ours["difference"], ours["difference_interval"]
    if gain == 0 or not abs(difference) > width:
        return "undecided"
    return "same sign" if (gain > 0) == (difference > 0) else "opposite"


def as_text(value: float, form: str, width: float = math.nan) -> str:
    """A number, with its interval if it has one; "–" where there is none."""
    if math.isnan(value):
        return "–"
    number = f"{value:{form}}"
    return number if math.isnan(width) else f"{number} ± {width:.1f}"
