"""Side by side runs by papermill at the tiny scale; the map as recorded."""

from papermill_run import papermill
from refresh import ROOT


def test_tiny_preset_trains_all_five_papers(tmp_path):
    notebook = papermill(
        ROOT / "notebooks/06_side_by_side.ipynb", tmp_path / "06.ipynb",
        "-f", str(ROOT / "notebooks/presets/06/tiny.yaml"))
    counts = [cell.get("execution_count") for cell in notebook.cells
              if cell.cell_type == "code"]
    assert None not in counts
