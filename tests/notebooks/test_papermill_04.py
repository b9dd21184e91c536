"""STA-CNN runs by papermill at the tiny scale, whatever the registry holds.

And from files: puppets written as HMDB51 and FlyingChairs publish themselves
go through their scripts and readers into the notebook.
"""

import flying_chairs
import hmdb51
import nbformat
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
        script.main("x", script.RECIPE, ["--root", str(root), "--from",
                                        str(tmp_path / name)])
    notebook = nbformat.read(ROOT / "notebooks/04_sta_cnn.ipynb", 4)
    notebook.cells.append(nbformat.v4.new_code_cell(
        "print([(x['variant'], x['n_test']) for x in study.lines])"))
    nbformat.write(notebook, tmp_path / "04_sta_cnn.ipynb")
    done = papermill(
        tmp_path / "04_sta_cnn.ipynb", tmp_path / "out.ipynb",
        "-f", str(ROOT / "notebooks/presets/04/tiny.yaml"),
        "-p", "dataset", "hmdb51", "-p", "data_root", str(root),
        "-p", "san_target", "flying_chairs", "-p", "san_steps", "2",
        "-y", "{classes: [], variants: [baseline, 'STA-TS(3x3, 3x1)']}")
    assert done.cells[-1].outputs[0].text == (
        "[('baseline', 28), ('STA-TS(3x3, 3x1)', 28)]\n")
