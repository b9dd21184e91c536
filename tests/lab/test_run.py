"""The lab runner trains what is left, in parallel, and can be stopped."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from lib import ROOT

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
split: str = "1"  # split
steps: int = 3  # steps
pause: float = 0.0  # seconds of a step
seeds: list = [0]  # seeds
variants: list = ["base"]  # rows
device: str = "cpu"  # device
results: str = ""  # file
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of lib with one small notebook and its preset."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "lib", root / "lib", ignore=shutil.ignore_patterns(
        "__pycache__", "*.safetensors"))
    presets = root / "notebooks/presets/07"
    presets.mkdir(parents=True)
    (presets / "tiny.yaml").write_text("steps: 1\n")
    return root


def write(root, step=TRAIN, **chosen):
    cells = [{"cell_type": "code", "source": source, "metadata": {
        "tags": ["parameters"] * (source is PARAMETERS)}}
        for source in (PARAMETERS, SET_UP, step, STUDY)]
    (root / "notebooks/07_small.ipynb").write_text(
        json.dumps({"cells": cells}))
    (root / "notebooks/presets/07/lab.yaml").write_text(json.dumps(
        {"seeds": [0, 1], "variants": ["base", "full"],
         "results": "notebooks/results/07.jsonl"} | chosen))


def start(root, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "lib.lab.run", *arguments], cwd=root,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(root, *arguments):
    process = start(root, *arguments)
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return out


def lines(root):
    path = root / "notebooks/results/07.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()
            ] if path.exists() else []


def test_what_is_left_is_trained_once_whoever_trains_it(project):
    write(project)
    assert run(project, "--list") == "07 lab: 4 of 4 runs left\n"
    out = run(project, "--processes", "2")
    assert sorted((x["variant"], x["seed"]) for x in lines(project)) == [
        (row, seed) for row in ("base", "full") for seed in (0, 1)]
    assert re.search(r"07 lab: \w+, seed \d done; 0 left, about 0 min", out)
    assert run(project, "07", "--processes", "2") == ""
    assert run(project, "--list") == "07 lab: 0 of 4 runs left\n"
    assert len(lines(project)) == 4
    # ten times the loss in the notebook: all of it is trained again
    write(project, TRAIN.replace('.square()', '.square().mul(10)'))
    assert run(project, "--list") == "07 lab: 4 of 4 runs left\n"


def test_it_stops_with_all_that_it_started_and_goes_on(project):
    before = len(lines(project))
    write(project, pause=0.5, steps=40)
    process = start(project, "--processes", "2")
    deadline = time.monotonic() + 120
    while not (project / "runs").exists() or len(
            [*(project / "runs").iterdir()]) < 6:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True,
                           text=True, timeout=60).stdout
    assert "lib.lab.run --work 07" not in found
    assert len(lines(project)) == before
    write(project, pause=0.0, steps=3, seeds=[5])
    run(project)
    assert len(lines(project)) == before + 2
