"""RSTAN runs by papermill at the tiny scale, whatever the registry holds."""

import nbformat
from papermill_run import papermill
from refresh import ROOT

# Appended to the notebook: its tables again, from registries made up here.
AGAIN = """
import random
METRICS = ("top-1", "top-5", "order", "where", "own", "where chance", "point",
           "when", "when chance", "sum α", "sum β", "top-1 of 22")
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


def test_tiny_preset(tmp_path):
    """Every cell runs; the tables of whole, partial, stale, no records."""
    notebook = nbformat.read(ROOT / "notebooks/01_rstan.ipynb", 4)
    sources = [c.source for c in notebook.cells if c.cell_type == "code"]
    first = next(i for i, s in enumerate(sources) if "def recorded" in s)
    last = next(i for i, s in enumerate(sources) if "Explorer(" in s)
    chosen = [f"SOURCES = {sources[first:last]!r}", AGAIN]
    notebook.cells.append(nbformat.v4.new_code_cell("\n".join(chosen)))
    copy = tmp_path / "01_rstan.ipynb"
    nbformat.write(notebook, copy)
    done = papermill(
        copy, tmp_path / "out.ipynb", "-f",
        str(ROOT / "notebooks/presets/01/tiny.yaml"))
    counts = [cell.get("execution_count") for cell in done.cells
              if cell.cell_type == "code"]
    assert None not in counts
    text = "".join(output.get("text", "") for output
                   in done.cells[-1].outputs)
    whole, half, stale, empty = text.split("case ")[1:]
    assert "full against S-T" in whole and "(stale)" not in whole
    assert "nothing recorded yet" not in whole
    assert "full (stale) against S-T (stale)" in stale
    assert "nothing recorded yet" in empty and "full against" in half
