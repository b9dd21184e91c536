"""Execute the committed notebooks anew: `python tests/refresh.py [FILES]`.

On the CPU, with one thread, in the notebook's own folder, from the first cell
to the last; without timings or widget state, so that a second run changes no
byte but those of outputs that changed. A notebook whose cell fails is left
as it was, and the cell is named.
"""

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import (
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
)

ROOT = Path(__file__).resolve().parents[1]
WIDGET = "application/vnd.jupyter.widget-view+json"
KEPT = ("tags", "reason", "jupyter")
CALM = {
    "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
    # this environment's kernel, whatever the user has registered elsewhere
    "JUPYTER_PREFER_ENV_PATH": "1", "JUPYTER_PLATFORM_DIRS": "1",
}


def refresh(path: Path, *, timeout: int = 600) -> None:
    """Execute one notebook and put it in its old place when all went well.

    timeout: seconds allowed to each cell. Raises RuntimeError naming the cell
    that failed, was too slow, or killed its kernel.
    """
    notebook = nbformat.read(path, as_version=4)
    at = [0]
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=timeout, record_timing=False,
        store_widget_state=False, coalesce_streams=True,
        resources={"metadata": {"path": str(path.resolve().parent)}},
        on_cell_start=lambda cell, cell_index: at.__setitem__(0, cell_index),
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        first = notebook.cells[at[0]].source.strip().split("\n")[0]
        raise RuntimeError(
            f"{path.name}, cell {at[0]} ({first!r}): {error}"
        ) from None
    clean(notebook)
    beside = path.with_suffix(".ipynb.part")
    nbformat.write(notebook, beside)
    os.replace(beside, path)


def clean(notebook: nbformat.NotebookNode) -> None:
    """Leave out what would differ at the next run or on another machine.

    That includes the handles of live widgets: without its kernel a page can
    only show the picture beside them.
    """
    notebook.metadata = nbformat.from_dict({
        "kernelspec": {
            "name": "python3", "display_name": "Python 3",
            "language": "python",
        },
        "language_info": {"name": "python"},
    })
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(
            {key: cell.metadata[key] for key in KEPT if key in cell.metadata}
        )
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET, None)


def main(names: list[str]) -> int:
    """Refresh the named notebooks, or all; the exit code is 1 if one fails."""
    os.environ.update(CALM)
    paths = [Path(name) for name in names]
    failed = 0
    for path in paths or sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        start = time.monotonic()
        try:
            refresh(path)
        except RuntimeError as error:
            failed = 1
            print(f"{error}\n{path.name}: left as it was", file=sys.stderr)
            continue
        print(f"{path.name}: {time.monotonic() - start:.0f} s, "
              f"{path.stat().st_size / 1000:.0f} kB")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
