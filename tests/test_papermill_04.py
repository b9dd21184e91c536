"""STA-CNN runs by papermill at the tiny scale, whatever the registry holds."""

from papermill_run import tables_again

METRICS = ("top-1", "plain", "dcw", "val", "wrong", "when", "when chance",
           "where", "where chance", "point")


def test_tiny_preset_and_its_tables(tmp_path):
    """Every cell runs; the tables of whole, partial, stale, no records."""
    said = tables_again("04", METRICS, tmp_path)
    assert "SAM-CNN3 over baseline:" in said["whole"]
    assert "(paper: +2.3)" in said["whole"] and "better" in said["whole"]
    assert "TAM-TS(9, 1) + DCW over TAM-TS(9, 1):" in said["whole"]
    assert "nothing recorded yet" not in said["whole"]
    assert " over " in said["half"]
    assert "SAM-CNN3 (stale) over baseline" in said["stale"]
    assert "nothing recorded yet" in said["empty"]
