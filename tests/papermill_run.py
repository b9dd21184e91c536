"""Run a notebook by papermill as a user does, but with hard limits.

A notebook's first code cell makes `lib` importable by

    import sys
    sys.path[:0] = [".", ".."]

which finds the project from its root (papermill's habit is to stay in the
caller's folder) as from notebooks/ (JupyterLab, nbval, papermill --cwd). The
"." comes first, since from the root ".." may hold another package `lib`.
Files are then found from `lib.ROOT`, never from the working directory.

One test file per notebook, so that `--dist loadfile` spreads them.
"""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
from refresh import CALM, ROOT


def papermill(
    notebook: Path, output: Path, *arguments: str, cwd: Path = ROOT,
    seconds: int = 180,
) -> nbformat.NotebookNode:
    """Run `papermill notebook output arguments...` and return the output.

    `seconds` limit each cell; the whole process gets 30 more, so that a
    cell that hangs is named. Fails on an error, and on a parameter that the
    notebook does not have: papermill itself only warns of it.
    """
    command = [
        sys.executable, "-m", "papermill", str(notebook), str(output),
        "--kernel", "python3", "--no-progress-bar", "--execution-timeout",
        str(seconds), *arguments,
    ]
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | CALM, capture_output=True,
        text=True, timeout=seconds + 30,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "unknown parameter" not in done.stderr, done.stderr[-4000:]
    return nbformat.read(output, as_version=4)


def run_preset(
    number: str, preset: str, folder: Path, *, seconds: int = 180
) -> nbformat.NotebookNode:
    """Run notebook `number` ("03") with one of its presets into `folder`."""
    found = sorted((ROOT / "notebooks").glob(f"{number}_*.ipynb"))
    assert len(found) == 1, f"notebooks/{number}_*.ipynb: found {len(found)}"
    settings = ROOT / "notebooks" / "presets" / number / f"{preset}.yaml"
    return papermill(
        found[0], folder / found[0].name, "-f", str(settings),
        seconds=seconds,
    )


# Appended to a notebook: its tables again, from registries made up here.
AGAIN = """
import random
CASES = {"whole": (1.0, False), "half": (0.4, False), "stale": (1.0, True),
         "empty": (0.0, False)}


def made_up(self, variants, seeds, experiment):
    draw = random.Random(0)
    return [{"variant": variant, "seed": seed, "stale": stale,
             "metrics": {name: draw.random() for name in METRICS}}
            for seed in seeds for variant in variants
            if draw.random() < share]


Registry.recorded = made_up
for case, (share, stale) in CASES.items():
    print("case", case)
    for source in SOURCES:
        exec(source)
"""


def tables_again(number: str, metrics: tuple[str, ...],
                 folder: Path) -> dict[str, str]:
    """Run notebook `number` at the tiny scale, then its tables four times.

    They are drawn again from made-up registries, in which runs have all
    `metrics`: a whole one, one with holes, a stale and an empty one. What
    each printed is returned by name.
    """
    (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    notebook = nbformat.read(path, 4)
    sources = [c.source for c in notebook.cells if c.cell_type == "code"]
    first = next(i for i, s in enumerate(sources) if "def recorded" in s)
    last = next(i for i, s in enumerate(sources) if "Explorer(" in s)
    chosen = [f"SOURCES = {sources[first:last]!r}", f"METRICS = {metrics!r}",
              AGAIN]
    notebook.cells.append(nbformat.v4.new_code_cell("\n".join(chosen)))
    nbformat.write(notebook, folder / path.name)
    done = papermill(
        folder / path.name, folder / "out.ipynb", "-f",
        str(ROOT / "notebooks" / "presets" / number / "tiny.yaml"))
    counts = [cell.get("execution_count") for cell in done.cells
              if cell.cell_type == "code"]
    assert None not in counts
    text = "".join(output.get("text", "") for output
                   in done.cells[-1].outputs)
    parts = text.split("case ")[1:]
    return {part.split("\n")[0]: part for part in parts}
