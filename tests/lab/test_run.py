"""The lab runner trains what is left, in parallel, and can be stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from papermill_run import papermill

from lib import ROOT
from lib.lab import parameters, run, study

SET_UP = """
import sys
sys.path[:0] = [".", ".."]
from types import SimpleNamespace

import torch

from lib.data.batches import Columns
from lib.lab import training
from lib.lab.study import Study
"""
TRAIN = """
ROWS = {"base": {"lr": 0.1}, "full": {"lr": 0.2}}
videos = Columns({"x": torch.ones(8, 1),
                  "label": torch.zeros(8, dtype=torch.long)}, classes=["a"])
splits = SimpleNamespace(test=videos, classes=["a"], digest="d")


def step(model, batch):
    import time
    time.sleep(pause)
    return {"loss": model(batch["x"]).square().mean()}


def train(run):
    torch.manual_seed(run.seed)
    model = torch.nn.Linear(1, 2)
    return model, training.fit(
        model, videos, step, steps=steps, batch=4, lr=run.options["lr"],
        seed=run.seed, device="cpu", checkpoint=run.folder)


def predict(run, videos):
    return {"logits": torch.zeros(8, 2), "label": torch.zeros(8)}


def scores(run):
    return {"top-1": 0.5}
"""
STUDY = """
study = Study("07", ROWS, train, predict, scores, parameters=globals(),
              data=splits)
raise SystemExit("the runner goes no further than the study")
"""
PARAMETERS = """
dataset: str = "puppets"  # set
data_root: str = ""  # folder
split: str = "1"  # split
steps: int = 3  # steps
pause: float = 0.0  # seconds of a step
seeds: list = [0]  # seeds
variants: list = ["base"]  # rows
device: str = "cpu"  # device
results: str = ""  # file
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of lib with one small notebook and its preset; we work in it."""
    shutil.copytree(ROOT / "lib", tmp_path / "lib",
                    ignore=shutil.ignore_patterns("__pycache__",
                                                  "*.safetensors"))
    presets = tmp_path / "notebooks/presets/07"
    presets.mkdir(parents=True)
    (presets / "tiny.yaml").write_text("steps: 1\n")
    monkeypatch.setattr(run, "NOTEBOOKS", tmp_path / "notebooks")
    for module in (study, parameters):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    write(tmp_path)
    return tmp_path


def write(root, step=TRAIN, **chosen):
    cells = [{"cell_type": "code", "source": source, "metadata": {
        "tags": ["parameters"] * (source is PARAMETERS)}}
        for source in (PARAMETERS, SET_UP, step, STUDY)]
    (root / "notebooks/07_small.ipynb").write_text(
        json.dumps({"cells": cells}))
    (root / "notebooks/presets/07/lab.yaml").write_text(json.dumps(
        {"seeds": [0, 1], "variants": ["base", "full"],
         "results": str(root / "07.jsonl")} | chosen))


def lines(root):
    return [(x["variant"], x["seed"]) for x in map(
        json.loads, (root / "07.jsonl").read_text().splitlines())]


ALL = [(row, seed) for row in ("base", "full") for seed in (0, 1)]


def test_what_is_left_is_trained_once(project, capsys):
    def says(*arguments):
        assert run.main([*arguments]) == 0
        return capsys.readouterr().out

    assert says("--list") == "07 lab: 4 of 4 runs left\n"
    assert says("07", "lab", "--work").endswith(
        "07 lab: full, seed 1 done; 0 left, about 0 min\n")
    assert sorted(lines(project)) == ALL
    assert says("07", "lab", "--work") == says("03", "--list") == ""
    assert says("--list") == "07 lab: 0 of 4 runs left\n"
    # ten times the loss in the notebook: all of it is trained again
    write(project, TRAIN.replace('.square()', '.square().mul(10)'))
    assert says("--list") == "07 lab: 4 of 4 runs left\n"


def test_a_preset_without_its_data_is_named_and_left_out(
        project, capsys, monkeypatch):
    monkeypatch.delenv("DATA_ROOT", raising=False)
    (project / "notebooks/presets/07/far.yaml").write_text(json.dumps(
        {"dataset": "hmdb51", "data_root": str(project), "seeds": [0],
         "variants": ["base"], "results": "07.jsonl"}))
    assert run.main(["--list"]) == 0
    assert capsys.readouterr().out == (
        "07 far: hmdb51 is not at hand\n07 lab: 4 of 4 runs left\n")


def test_what_a_notebook_recorded_is_not_left(project, capsys):
    """A kernel and the runner give a run the same key."""
    path = project / "notebooks/07_small.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_code_cell(source, metadata={
            "tags": ["parameters"] * (source is PARAMETERS)})
        for source in (PARAMETERS, SET_UP, TRAIN, STUDY.splitlines()[1]
                       + "\n              data=splits)\n"
                       "lines = study.run(variants, seeds)")])
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)
    papermill(path, project / "out.ipynb", "-f",
              str(project / "notebooks/presets/07/lab.yaml"), cwd=project)
    assert sorted(lines(project)) == ALL
    assert run.main(["--list"]) == 0
    assert capsys.readouterr().out == "07 lab: 0 of 4 runs left\n"


def test_it_stops_with_all_that_it_started_and_goes_on(project):
    write(project, pause=0.1, steps=10)
    process = subprocess.Popen(
        [sys.executable, "-m", "lib.lab.run", "--processes", "2"],
        cwd=project, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    deadline = time.monotonic() + 120
    while not (project / "07.jsonl").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True,
                           text=True, timeout=60).stdout
    assert "lib.lab.run 07 lab --work" not in found
    before = lines(project)
    assert 1 <= len(before) <= 3
    run.work("07", "lab", 1)
    after = lines(project)
    assert after[:len(before)] == before and sorted(after) == ALL
