"""Detection runs by papermill at the tiny scale, whatever is recorded."""

from papermill_run import check_tables


def test_tiny_preset_and_its_tables(tmp_path):
    check_tables("05b", tmp_path)
