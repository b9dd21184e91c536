"""Videos and attention runs by papermill at the tiny scale."""

from papermill_run import papermill
from refresh import ROOT


def test_tiny_preset(tmp_path):
    notebook = papermill(
        ROOT / "notebooks/00_videos_and_attention.ipynb",
        tmp_path / "00.ipynb", "-f",
        str(ROOT / "notebooks/presets/00/tiny.yaml"))
    counts = [cell.get("execution_count") for cell in notebook.cells
              if cell.cell_type == "code"]
    assert None not in counts
