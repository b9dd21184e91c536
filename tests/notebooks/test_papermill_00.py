"""Videos and attention runs by papermill at the tiny scale."""

from papermill_run import run_preset


def test_tiny_preset(tmp_path):
    notebook = run_preset("00", "tiny", tmp_path)
    counts = [cell.get("execution_count") for cell in notebook.cells
              if cell.cell_type == "code"]
    assert None not in counts
