"""Side by side runs by papermill at the tiny scale; the map as recorded."""

import nbformat
from papermill_run import papermill
from refresh import ROOT

CHECK = """
made = {line["variant"]: line["metrics"] for line in study.lines}
for paper in PAPERS:  # each looks, and loses cells by its own look
    assert {"when", "remove own", "keep true"} <= {*made[paper]}, paper
    assert all(0 <= x <= 1 for x in made[paper].values()), paper

run = study.trained("RSTAN", 0)
known = features("frames", splits.test)
ranks = rankings(run, known, known["frames"])
own = run.outputs["where"] * run.outputs["when"][..., None, None]
assert (own.flatten(1).gather(1, ranks["own"].flatten(1).argmax(
    1, keepdim=True))[:, 0] > 0.99 * own.flatten(1).amax(1)).all()
idle = ~known["relevant"].unflatten(1, (sampled, -1)).any(2)
assert (ranks["true"][idle] < 1e-5).all()  # noise alone

for paper in PAPERS:  # a pair starts from the same last layer, RSTAN from all
    pair = [dict(network(Run(row, 0, ROWS[row], None, study), data_of(
        Run(row, 0, ROWS[row], None, study), splits.train).columns)
        .named_parameters()) for row in (paper, f"{paper}, even")]
    same = [name for name in pair[0].keys() & pair[1] if paper == "RSTAN"
            or "classify" in name and "spatial" not in name]
    assert same, paper
    assert all(torch.equal(pair[0][n], pair[1][n]) for n in same), paper
"""


def test_tiny_preset_trains_and_scores_all_five_papers(tmp_path):
    (path,) = (ROOT / "notebooks").glob("06_*.ipynb")
    notebook = nbformat.read(path, 4)
    notebook.cells.append(nbformat.v4.new_code_cell(
        "from lib.lab.study import Run\n" + CHECK))
    nbformat.write(notebook, tmp_path / path.name)
    done = papermill(
        tmp_path / path.name, tmp_path / "out.ipynb",
        "-f", str(ROOT / "notebooks/presets/06/tiny.yaml"),
        "-y", "{dials: {rivals: [1, 1]}}")
    counts = [cell.get("execution_count") for cell in done.cells
              if cell.cell_type == "code"]
    assert None not in counts
