"""Run a notebook by papermill as a user does, but with hard limits.

A notebook's first code cell makes `lib` importable by

    import sys
    sys.path[:0] = [".", ".."]

which finds the project from its root (papermill's habit is to stay in the
caller's folder) as from notebooks/ (JupyterLab, nbval, papermill --cwd). The
"." comes first, since from the root ".." may hold another package `lib`.
Files are then found from `lib.ROOT`, never from the working directory.

One test file per notebook, so that `--dist loadfile` spreads them.
"""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
from refresh import CALM, ROOT

from data_scripts.puppet_files import write_video
from lib.worlds.worlds import WORLDS, Puppets


def papermill(
    notebook: Path, output: Path, *arguments: str, cwd: Path = ROOT,
    seconds: int = 180,
) -> nbformat.NotebookNode:
    """Run `papermill notebook output arguments...` and return the output.

    `seconds` limit each cell; the whole process gets 30 more, so that a
    cell that hangs is named. Fails on an error, and on a parameter that the
    notebook does not have: papermill itself only warns of it.
    """
    command = [
        sys.executable, "-m", "papermill", str(notebook), str(output),
        "--kernel", "python3", "--no-progress-bar", "--execution-timeout",
        str(seconds), *arguments]
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | CALM, capture_output=True,
        text=True, timeout=seconds + 30)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "unknown parameter" not in done.stderr, done.stderr[-4000:]
    return nbformat.read(output, as_version=4)


# Appended to a notebook: its tables again, from registries made up here.
AGAIN = """
import random

from lib.lab.tables import Records

CASES = {"whole": (1.0, False), "half": (0.4, False), "stale": (1.0, True),
         "empty": (0.0, False)}


class Some(dict):
    def __missing__(self, name):
        return random.Random(name + str(self["seed"])).random()

    def get(self, name, default=None):
        return self[name]


def made_up(self, preset):
    rows, seeds, _ = self.preset(preset)
    draw = random.Random(0)
    return Records([
        {"variant": row, "seed": seed, "stale": stale,
         "metrics": Some(seed=seed)}
        for seed in seeds for row in rows if draw.random() < share], [])


Study.recorded = made_up
for case, (share, stale) in CASES.items():
    print("case", case)
    for source in SOURCES:
        exec(source)
"""


# Appended as well: the model that was kept tells what the notebook tells.
KEPT = """
def check_kept(clip):
    from pathlib import Path

    from lib.data.datasets import Videos
    from lib.data.sets.records import Record
    from lib.lab import kept as models

    model = models.load(keep_model)
    settings = {key: study.settings[key] for key in (
        "frames", "size", "fields") if key in study.settings}
    told = predict(study.trained(model.card["row"], seeds[0]), Videos(
        [Record(Path(clip), 0, "clip", "clip")], classes=splits.classes,
        **settings))
    found = model(clip)
    torch.testing.assert_close(
        torch.tensor([found.probabilities[name] for name in splits.classes]),
        told["logits"][0].softmax(0))
    spans, total = told["spans"], len(found.video)
    for name in {"where", "when"} & {*told}:
        torch.testing.assert_close(getattr(found, name), metrics.expand(
            told[name], spans * (total // int(spans.max())), total)[0])
"""


def check_tables(number: str, folder: Path, more: str = "") -> None:
    """Run notebook `number` at the tiny scale, then its tables four times.

    What it keeps, if it does, must tell what it tells. The tables are drawn
    again from made-up registries, in which runs have all metrics: a whole
    one, one with holes, a stale and an empty one; and say what the records
    are.
    more: source that runs before, with the notebook's names.
    """
    (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    notebook = nbformat.read(path, 4)
    titles = [c.source for c in notebook.cells]
    first, last = (next(i for i, s in enumerate(titles) if word in s)
                   for word in ("## The paper's tables", "## Why"))
    # a count of operations reads no registry, and takes seconds
    sources = [c.source for c in notebook.cells[first:last]
               if c.cell_type == "code" and "flops" not in c.source]
    notebook.cells.append(nbformat.v4.new_code_cell(
        f"{more}\nSOURCES = {sources!r}\n{AGAIN}"))
    keep = []
    for start in [i for i, s in enumerate(titles) if "save_run(" in s]:
        clip = folder / "clip.avi"
        drawn = Puppets("test", 1, dials=WORLDS["stage_long"])[0]["video"]
        write_video(clip, drawn.permute(0, 2, 3, 1).numpy())
        notebook.cells.insert(start + 1, nbformat.v4.new_code_cell(
            f"{KEPT}\ncheck_kept({str(clip)!r})"))
        keep = ["-p", "keep_model", str(folder / "kept")]
    nbformat.write(notebook, folder / path.name)
    done = papermill(
        folder / path.name, folder / "out.ipynb", *keep, "-f",
        str(ROOT / "notebooks" / "presets" / number / "tiny.yaml"))
    assert None not in [cell.get("execution_count") for cell in done.cells
                        if cell.cell_type == "code"]
    text = "".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "")
        for output in done.cells[-1].outputs)
    said = {part.split("\n")[0]: part for part in text.split("case ")[1:]}
    assert set(said) == {"whole", "half", "stale", "empty"}
    assert "recorded runs" in said["whole"]
    for case in ("whole", "stale"):
        assert "nan" not in said[case].lower(), said[case]
    assert "by earlier code" in said["stale"]
    assert "by earlier code" not in said["whole"]
    assert "0 recorded runs" in said["empty"]
