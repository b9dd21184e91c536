"""Execute the committed notebooks anew: `python tests/refresh.py [FILES]`.

On the CPU, with one thread, in the notebook's own folder, from the first cell
to the last; without timings or widget state, so that a second run changes no
byte but those of outputs that changed. A notebook whose cell fails is left
as it was, and the cell is named.

`python tests/refresh.py --processors [FILES]` writes nothing. It executes
every notebook as this processor is, and as if it had fewer instructions
(`PROCESSORS`), and lists each cell whose text is not the stored one, as nbval
would find it on another machine.
"""

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
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
KEPT = ("tags", "jupyter")
# What torch's own kernels and oneDNN may use, where the processor has it.
PROCESSORS = {
    "native": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "sse41": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}
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
    notebook = execute(path, timeout=timeout)
    clean(notebook)
    beside = path.with_suffix(".ipynb.part")
    nbformat.write(notebook, beside)
    os.replace(beside, path)


def execute(path: Path, *, timeout: int = 600,
            **environment: str) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    at = [0]
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=timeout, record_timing=False,
        store_widget_state=False, coalesce_streams=True,
        resources={"metadata": {"path": str(path.resolve().parent)}},
        on_cell_start=lambda cell, cell_index: at.__setitem__(0, cell_index))
    try:
        client.execute(env=os.environ | environment)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        first = notebook.cells[at[0]].source.strip().split("\n")[0]
        raise RuntimeError(
            f"{path.name}, cell {at[0]} ({first!r}): {error}"
        ) from None
    return notebook


def differences(stored: nbformat.NotebookNode,
                found: nbformat.NotebookNode) -> list[int]:
    """Numbers of the code cells whose text nbval would find different."""
    pairs = zip(*([c for c in notebook.cells if c.cell_type == "code"]
                  for notebook in (stored, found)), strict=True)
    return [number for number, (before, after) in enumerate(pairs)
            if text(before) != text(after)]


def text(cell: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """What nbval compares of a cell's outputs: all but pictures, widgets."""
    found = []
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            found.append((output.name, output.text))
        found += [(kind, str(data))
                  for kind, data in sorted(output.get("data", {}).items())
                  if not kind.startswith("image/") and kind != WIDGET]
    return found


def clean(notebook: nbformat.NotebookNode) -> None:
    """Leave out what would differ at the next run or on another machine.

    That includes the handles of live widgets: without its kernel a page can
    only show the picture beside them.
    """
    notebook.metadata = nbformat.from_dict({
        "kernelspec": {
            "name": "python3", "display_name": "Python 3",
            "language": "python"},
        "language_info": {"name": "python"}})
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(
            {key: cell.metadata[key] for key in KEPT if key in cell.metadata})
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET, None)


def compare(job: tuple[Path, str]) -> str:
    """Run a notebook on a processor of `PROCESSORS`; say what differs."""
    path, processor = job
    try:
        found = execute(path, **PROCESSORS[processor])
    except RuntimeError as error:
        return f"{path.name}, {processor}: {error}"
    cells = differences(nbformat.read(path, as_version=4), found)
    return f"{path.name}, {processor}: {cells or 'none'}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--processors", action="store_true",
                        help="list the cells whose text a processor changes")
    chosen = parser.parse_args(arguments)
    os.environ.update(CALM)
    paths = chosen.files or sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    if chosen.processors:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            lines = []
            for line in pool.map(compare, product(paths, PROCESSORS)):
                print(line, flush=True)
                lines.append(line)
        return int(not all(line.endswith(": none") for line in lines))
    failed = 0
    for path in paths:
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
