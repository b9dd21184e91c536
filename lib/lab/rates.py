"""Choose each row's learning rate: `python -m lib.lab.rates 03 [lab]`.

A row is trained at three rates of a ladder (0.001, 0.003, 0.01, ...) around
the preset's `lr`, and on beyond the better end, until the best rate has a
neighbour on both sides. Validation videos alone decide, with a seed that no
recorded run has. What was tried is kept in notebooks/results/rates.jsonl and
is not trained again; what was chosen becomes `rates` of the preset's file.
"""

import argparse
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import yaml

from lib import ROOT
from lib.lab.registry import Registry, commit, device_name
from lib.lab.run import study_of
from lib.lab.study import NOTEBOOKS, Run, Study

SEED = 100
FILE = "notebooks/results/rates.jsonl"
MOST = 8  # rates that a search tries


def ladder(step: int) -> float:
    """0.01 at -4, 0.03 at -3, 0.1 at -2: two rates for each power of ten."""
    return float(f"{10 ** (step / 2):.0e}")


def search(score: Callable[[float], float], rate: float) -> float:
    """The rate of the ladder with the best score, from `rate` on.

    Both its neighbours were tried, and are no better, unless MOST are.
    """
    found: dict[int, float] = {}
    best = round(2 * math.log10(rate))
    while True:
        for step in (best, best - 1, best + 1):
            if step not in found:
                found[step] = score(ladder(step))
        best = max(sorted(found), key=found.get)
        if {best - 1, best + 1} <= {*found} or len(found) >= MOST:
            return ladder(best)


def choose(study: Study, row: str, file: str = FILE) -> dict[str, float]:
    """The best rates by validation of a row and of all that it builds on.

    Each trial becomes a line of the file. A row that trains nothing of its
    own has no rate.
    """
    # a copy: the notebook's own dict is a parameter, and with another value of
    # a parameter all that it remembers would be computed anew
    study.settings["rates"] = chosen = dict(study.settings["rates"])
    trials = Registry(file)
    for name in study.built_on(row):

        def score(rate: float, name: str = name) -> float | None:
            chosen[name] = rate
            head = study.head(name, SEED)
            line = trials.find(head["key"], study.data.digest)
            return line["metrics"]["validation"] if line else _tried(
                study, name, head, trials)

        if score(study.settings["lr"]) is None:
            del chosen[name]
        else:
            chosen[name] = search(score, study.settings["lr"])
    return {name: chosen[name] for name in study.built_on(row)
            if name in chosen}


def _tried(study: Study, row: str, head: dict,
           trials: Registry) -> float | None:
    """Train a row and record its best validation score; None without one.

    A row without a model of its own, the best or the mean of others, has no
    rate, though it may have a score.
    """
    start = time.monotonic()
    model, history = study._train(Run(row, SEED, study.rows[row], None, study))
    found = [one["score"] for one in history if "score" in one]
    if model is None or not found:
        return None
    trials.append(head | commit() | {
        "data": study.data.digest, "n_test": 0,
        "metrics": {"validation": max(found)},
        "device": device_name(study.device), "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "minutes": round((time.monotonic() - start) / 60, 3)})
    return max(found)


def write(notebook: str, preset: str, rates: dict[str, float]) -> None:
    """Put `rates` at the end of a preset's file, in place of older ones."""
    path = NOTEBOOKS / "presets" / notebook / f"{preset}.yaml"
    text = re.sub(r"(?ms)^rates:.*?(?=^\S|\Z)", "", path.read_text("utf-8"))
    path.write_text(text.rstrip() + "\n" + yaml.safe_dump(
        {"rates": rates}, allow_unicode=True, sort_keys=False), "utf-8")


def main(arguments: list[str]) -> int:
    """The command line; 0 if all went well."""
    parser = argparse.ArgumentParser(prog="python -m lib.lab.rates",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("notebook", help="its number, as 03")
    parser.add_argument("preset", nargs="?", default="lab")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.part is None:
        workers = [subprocess.Popen(
            [sys.executable, "-m", "lib.lab.rates", *arguments, "--part",
             str(part)], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
            for part in range(chosen.processes)]
        if failed := max(worker.wait() for worker in workers):
            return failed
    study, rows, _ = study_of(chosen.notebook, chosen.preset)
    study.registry = None  # no checkpoints: two may train one teacher at once
    if chosen.part is not None:
        rows = rows[chosen.part::chosen.processes]
    rates = {}
    for row in rows:
        rates |= choose(study, row)
        print(f"{chosen.notebook} {chosen.preset}: {row}, "
              f"{rates.get(row, 'trains nothing')}", flush=True)
    if chosen.part is None:
        write(chosen.notebook, chosen.preset, rates)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
