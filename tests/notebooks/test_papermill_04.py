"""STA-CNN runs by papermill at the tiny scale, whatever the registry holds.

And from files: puppets written as HMDB51 and FlyingChairs publish themselves
go through their scripts and readers into the notebook.
"""

import flying_chairs
import hmdb51
import puppets as writer
from papermill_run import check_tables, papermill
from refresh import ROOT


def test_tiny_preset_and_its_tables(tmp_path):
    check_tables("04", tmp_path)


def test_files_to_metrics_with_an_attention_network_of_flying_chairs(tmp_path):
    root = tmp_path / "root"
    for script, options in (
            (hmdb51, {"n_train": 42, "n_test": 28}),
            (flying_chairs, {"n_train": 6, "n_test": 4})):
        name = script.__name__
        writer.main(tmp_path / name, format=name, **options)
        script.run("x", script.RECIPE, ["--root", str(root), "--from",
                                        str(tmp_path / name)])
    done = papermill(
        ROOT / "notebooks/04_sta_cnn.ipynb", tmp_path / "out.ipynb",
        "-f", str(ROOT / "notebooks/presets/04/tiny.yaml"),
        "-p", "dataset", "hmdb51", "-p", "data_root", str(root),
        "-p", "san_target", "flying_chairs",
        "-y", "{classes: [], variants: [baseline, 'STA-TS(3x3, 3x1)']}")
    said = [line for cell in done.cells for output in cell.get("outputs", ())
            for line in output.get("text", "").splitlines()]
    assert "the flow to learn is FlyingChairs'" in said
    assert any(line.startswith("STA-TS(3x3, 3x1)") and " of 28 right" in line
               for line in said)
