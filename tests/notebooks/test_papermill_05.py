"""STA runs by papermill at the tiny scale, whatever the registry holds."""

from papermill_run import tables_again

METRICS = ("top-1", "top-5", "clip", "when", "when chance", "pairs", "clean",
           "gate", "by channel", "by step", "by video", "dead",
           *(f"top-1 at {n}" for n in (32, 48, 64, 96, 128)))


def test_tiny_preset_and_its_tables(tmp_path):
    """Every cell runs; the tables of whole, partial, stale, no records."""
    said = tables_again("05", METRICS, tmp_path)
    assert "STA against SE:" in said["whole"]
    assert "STA-MARS + RGB + flow against" in said["whole"]
    assert "nothing recorded yet" not in said["whole"]
    assert "against" in said["half"]
    assert "STA (stale) against plain (stale)" in said["stale"]
    assert "nothing recorded yet" in said["empty"]
