"""Train what the registry lacks: `python -m lib.lab.run [03 04 ...]`.

For each notebook, and each of its presets that names a registry and whose
data are at hand, every row and seed without a line of today's code and
settings is trained: in parallel processes, one thread each on a CPU, or
several on each GPU. Stop it at any time; the next call goes on from the
checkpoints. `--list` only says what is left.
"""

import argparse
import ast
import contextlib
import io
import json
import linecache
import math
import os
import signal
import subprocess
import sys
import time
import types

import torch
import yaml

from lib import ROOT
from lib.data import datasets
from lib.lab import parameters
from lib.lab.checkpoints import CheckpointError
from lib.lab.fingerprint import CELL

PER_GPU = 4
NOTEBOOKS = ROOT / "notebooks"


def study_of(notebook: str, preset: str):
    """The study of a notebook under a preset, and the preset's rows, seeds.

    Runs the notebook's cells, without a kernel, as far as `study = Study(`;
    what they print is left out.
    """
    (path,) = NOTEBOOKS.glob(f"{notebook}_*.ipynb")
    chosen = yaml.safe_load((NOTEBOOKS / "presets" / notebook
                             / f"{preset}.yaml").read_text(encoding="utf-8"))
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    linecache.clearcache()  # of the cells of another study
    names = vars(module)
    names["display"] = lambda *things: None
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        if cell["cell_type"] != "code":
            continue
        source, file = "".join(cell["source"]), f"{CELL} {number}>"
        linecache.cache[file] = (len(source), None,
                                 source.splitlines(keepends=True), file)
        for statement in ast.parse(source).body:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(ast.Module([statement], []), file, "exec"), names)
            if "study" in names:  # what follows would train
                return names["study"], chosen["variants"], chosen["seeds"]
        if "parameters" in cell["metadata"].get("tags", ()):
            names.update(chosen)
    raise ValueError(f"{path.name} makes no study")


def left_of(study, rows, seeds) -> list[dict]:
    """Heads of the runs that have no line of today's code and data."""
    heads = [study.head(row, seed) for seed in seeds for row in rows]
    done = {(line["key"], line.get("data")) for line in study.registry.lines()}
    return [head for head in heads
            if (head["key"], study.data.digest) not in done]


def work(notebook: str, preset: str, processes: int) -> None:
    """One of several processes: train what is left and nobody else trains.

    It says how long it takes as if all runs were as long as the last.
    """
    study, rows, seeds = study_of(notebook, preset)
    while left := left_of(study, rows, seeds):
        for head in left:
            if head not in left_of(study, rows, seeds):
                continue  # another process has finished it
            try:
                (line,) = study.run([head["variant"]], [head["seed"]])
                more = len(left_of(study, rows, seeds))
                minutes = math.ceil(more * line["minutes"] / processes)
                print(f"{notebook} {preset}: {head['variant']}, seed "
                      f"{head['seed']} done; {more} left, about {minutes} min",
                      flush=True)
                break
            except CheckpointError:  # another process is training it
                continue
        else:
            time.sleep(5)


def presets(notebooks: list[str]) -> list[tuple[str, str]]:
    """Notebook and name of each preset that keeps its runs in a registry.

    One whose data set is not at hand is named and left out.
    """
    found = []
    for file in sorted((NOTEBOOKS / "presets").glob("*/*.yaml")):
        chosen = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        number = file.parent.name
        if not chosen.get("results") or number not in (notebooks or [number]):
            continue
        chosen = parameters.defaults(number) | chosen
        try:
            datasets.load(chosen["dataset"], split=chosen["split"],
                          data_root=chosen["data_root"] or None)
        except FileNotFoundError:
            print(f"{number} {file.stem}: {chosen['dataset']} is not at hand")
        else:
            found.append((number, file.stem))
    return found


def train(notebook: str, preset: str, processes: int) -> int:
    """Start the processes of one preset and wait for them; 0 if all is well.

    However this ends, none of them is left behind.
    """
    gpus = torch.cuda.device_count()
    running = []
    try:
        for number in range(processes):
            own = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            if gpus:
                own["CUDA_VISIBLE_DEVICES"] = str(number % gpus)
            running.append(subprocess.Popen(
                [sys.executable, "-m", "lib.lab.run", notebook, preset,
                 "--work", "--processes", str(processes)],
                cwd=ROOT, env=os.environ | own))
        return max(process.wait() for process in running)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def main(arguments: list[str]) -> int:
    """The command line; 0 if all went well."""
    parser = argparse.ArgumentParser(prog="python -m lib.lab.run",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("notebooks", nargs="*", help="numbers, as 03; or all")
    parser.add_argument("--processes", type=int, help="at once; by default "
                        "one for each core, or four for each GPU")
    parser.add_argument("--list", action="store_true",
                        help="say what is left, and train nothing")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    processes = chosen.processes or (
        PER_GPU * torch.cuda.device_count() or os.cpu_count())
    failed = 0
    if chosen.work:
        work(*chosen.notebooks, processes)
        return failed
    for notebook, preset in presets(chosen.notebooks):
        if chosen.list:
            study, rows, seeds = study_of(notebook, preset)
            left = left_of(study, rows, seeds)
            print(f"{notebook} {preset}: {len(left)} of "
                  f"{len(rows) * len(seeds)} runs left")
        else:
            failed |= train(notebook, preset, processes)
    return failed


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(sys.argv[1:]))
