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
