"""RSTAN runs by papermill at the tiny scale, whatever the registry holds."""

from papermill_run import tables_again

METRICS = ("top-1", "top-5", "order", "where", "own", "where chance", "point",
           "when", "when chance", "sum α", "sum β", "top-1 of 22")


def test_tiny_preset_and_its_tables(tmp_path):
    """Every cell runs; the tables of whole, partial, stale, no records."""
    said = tables_again("01", METRICS, tmp_path)
    assert "full against S-T" in said["whole"]
    assert "(stale)" not in said["whole"]
    assert "nothing recorded yet" not in said["whole"]
    assert "full against" in said["half"]
    assert "full (stale) against S-T (stale)" in said["stale"]
    assert "nothing recorded yet" in said["empty"]
