"""JSTA runs by papermill at the tiny scale, whatever the registry holds."""

from papermill_run import tables_again

METRICS = ("top-1", "top-5", "order", "val", "where", "where chance", "point",
           "when", "when chance")


def test_tiny_preset_and_its_tables(tmp_path):
    """Every cell runs; the tables of whole, partial, stale, no records."""
    said = tables_again("02", METRICS, tmp_path)
    assert "ResNet3D + SA against ResNet3D:" in said["whole"]
    assert "FC, wiTA: " in said["whole"] and "at most" in said["whole"]
    assert "nothing recorded yet" not in said["whole"]
    assert "against" in said["half"]
    assert "ResNet3D + SA (stale) against ResNet3D (stale)" in said["stale"]
    assert "nothing recorded yet" in said["empty"]
