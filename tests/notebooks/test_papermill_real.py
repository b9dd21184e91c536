"""A real data set's format, from files to metrics, in a finished notebook.

Puppets are written as UCF101-24 publishes itself, taken by its script, and
notebook 03 runs on them with the tiny preset. A spy in it keeps what training
and selection see of all videos.
"""

import json

import nbformat
import puppets as writer
import ucf101_24 as script
from papermill_run import papermill
from refresh import ROOT

from lib.data.sets.ucf101_24 import read

SPY = """
import json

from lib.lab import training as spied

SEEN, fit = set(), spied.fit


def prints(data):
    return [hash(cube.numpy().tobytes()) for cube in
            data.columns["video_cube"]]


def watched(model, train, step, **options):
    SEEN.update(prints(train), prints(options["val"]))
    return fit(model, train, step, **options)


spied.fit = watched
"""


def test_ucf101_24_to_metrics_without_a_leak(tmp_path):
    given, root = tmp_path / "given", tmp_path / "root"
    writer.main(given, format="ucf101_24", n_train=42, n_test=28)
    script.main("x", script.RECIPE,
               ["--root", str(root), "--from", str(given)])
    notebook = nbformat.read(ROOT / "notebooks/03_where_and_when.ipynb", 4)
    place = next(i for i, cell in enumerate(notebook.cells)
                 if cell.cell_type == "code" and "sys.path" in cell.source)
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(SPY))
    notebook.cells.append(nbformat.v4.new_code_cell(
        "known = {at: name for part in splits[:3] for data in"
        " [features(backbone, part)] for at, name in"
        " zip(prints(data), data.columns['name'])}\n"
        "print(json.dumps([sorted(known[at] for at in SEEN),"
        " run.outputs['logits'].shape[0], sorted(lines[1]['metrics'])]))"))
    copy = tmp_path / "03_where_and_when.ipynb"
    nbformat.write(notebook, copy)
    done = papermill(
        copy, tmp_path / "out.ipynb",
        "-f", str(ROOT / "notebooks/presets/03/tiny.yaml"),
        "-p", "dataset", "ucf101_24", "-p", "data_root", str(root))
    seen, tested, scores = json.loads(done.cells[-1].outputs[0].text)
    lists = read(root)
    assert {*seen} == {r.name for r in lists.train}
    assert not {*seen} & {r.name for r in lists.test}
    assert tested == len(lists.test)
    assert {"top-1", "box@0.2", "centre box@0.2"} <= {*scores}
