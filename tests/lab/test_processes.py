"""Several processes train as one, by torchrun and gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from checks import refused
from small_run import BATCH, net, score, step, videos

from lib import ROOT
from lib.lab import features, processes, training
from lib.networks.cnn2d import frame_cnn

STEPS, LATE = 8, 5


def model():
    """Without what sees a whole batch, or draws for each of its samples."""
    made = net()
    made.drop.p = 0.0
    training.freeze(made.norm)
    return made


def run(folder, stop=STEPS, **changes):
    """Train, predict and extract; what each process has then."""
    trained, seen = model(), []

    def until(model, batch):
        if len(seen) == stop:
            raise SystemExit(7)
        seen.append(batch["name"])
        return step(model, batch)

    settings = dict(steps=STEPS, batch=BATCH, lr=0.01, device="cpu", every=4,
                    save_every=LATE, val=videos(5), score=score) | changes
    history = training.fit(trained, videos(24), until, **settings,
                           checkpoint=f"{folder}/run")
    out = training.predict(trained, videos(11), batch=2)
    return {"history": history, "seen": seen,
            "logits": out["logits"].tolist(), "label": out["label"].tolist()}


def together(count, module, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone",
         "--nproc-per-node", str(count), *module, *map(str, arguments)],
        cwd=ROOT, timeout=200, capture_output=True, text=True,
        env=os.environ | environment | {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"})


def test_processes_train_as_one_and_another_number_goes_on(tmp_path):
    """Four stop behind the checkpoint of step 5, and two end the run."""
    alone = run(tmp_path / "alone")
    died = together(4, [__file__], tmp_path, LATE + 1)
    assert died.returncode and "exitcode" in died.stderr, died.stderr
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "lock", f"step-{LATE:08d}"}
    done = together(2, [__file__], tmp_path, STEPS)
    assert done.returncode == 0, done.stderr
    assert [p.name for p in (tmp_path / "run").glob("step-*")] == [
        f"step-{STEPS:08d}"]
    told = [json.loads((tmp_path / f"{rank}.json").read_text())
            for rank in range(2)]
    # each sees its part of every batch
    for mine, other, whole in zip(*[one.pop("seen") for one in told],
                                  alone["seen"][LATE:], strict=True):
        assert sorted(mine + other) == sorted(whole)
        assert len(mine) == len(other) == BATCH // 2
    assert told[0] == told[1]
    assert told[0]["counted"] == 2 and len(told[0]["one"]) == 1
    for ours, one in zip(told[0]["history"], alone["history"], strict=True):
        assert {*ours} == {*one}
        assert list(ours.values()) == pytest.approx([*one.values()], abs=1e-5)
    assert told[0]["label"] == alone["label"]
    assert torch.allclose(torch.tensor(told[0]["logits"]),
                          torch.tensor(alone["logits"]), atol=1e-5)


NOTEBOOK = """
import os, signal, sys
sys.path[:0] = [{root!r}, {tests!r}]
how: str = ""
results: str = ""
dataset: str = "x"
split: str = "1"
lr: float = 0.01
device: str = "cpu"
# ---
rank = os.environ["RANK"]
if how == "die" and rank == "1":
    os.kill(os.getpid(), signal.SIGKILL)
if how == "fail":
    raise KeyError("no such thing")
# ---
import small_run
from lib.data.datasets import Splits
from lib.lab import processes, training
from lib.lab.study import Study
class Told(list):
    def contents(self):
        return "some"
def train(run):
    model = small_run.net()
    return model, training.fit(
        model, small_run.videos(24), small_run.step, steps=2, batch=8,
        lr=run.rate, device="cpu", checkpoint=run.folder)
def predict(run, videos):
    return training.predict(run.model, small_run.videos(6))
def scores(run):
    return {{"top-1": run.outputs["logits"].sum().item()}}
rates: dict = {{}}
study = Study("03", {{"row": {{}}}}, train, predict, scores,
              parameters=globals(),
              data=Splits(Told(), Told(), Told(), ["a"]))
print(rank, study.run(["row"], [0])[0]["device"])
"""


def write(path):
    book = nbformat.v4.new_notebook()
    cells = NOTEBOOK.format(root=str(ROOT), tests=str(ROOT / "tests"))
    book.cells = [nbformat.v4.new_code_cell(cell)
                  for cell in cells.split("# ---\n")]
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "",
                                   "language": "python"}
    book.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(book, path)


def test_a_notebook_of_two_processes_writes_once(tmp_path):
    write(tmp_path / "in.ipynb")
    results = tmp_path / "runs.jsonl"

    def papermill(how):
        return together(2, ["-m", "lib.lab.many"], tmp_path / "in.ipynb",
                        tmp_path / f"{how}.ipynb", "-p", "how", how, "-p",
                        "results", results)

    done = papermill("well")
    assert done.returncode == 0, done.stderr
    (line,) = results.read_text().splitlines()
    assert json.loads(line)["device"] == "cpu (2 processes)"
    book = nbformat.read(tmp_path / "well.ipynb", 4)
    assert book.cells[-1].outputs[-1].text == "0 cpu (2 processes)\n"
    died = papermill("die")  # as if memory had run out
    assert died.returncode and "process 1: its kernel" in died.stderr
    failed = papermill("fail")
    assert failed.returncode and "no such thing" in failed.stderr
    assert {p.name for p in tmp_path.iterdir()} == {
        "in.ipynb", "runs.jsonl", "well.ipynb", "fail.ipynb"}


def test_batches_that_cannot_be_shared_out_are_named(monkeypatch):
    monkeypatch.setattr(processes, "ranks", lambda: (0, 3))
    refused("8 samples in 3 processes: give a multiple of 3", run, "unused")


def test_processes_make_their_parts_of_a_store(monkeypatch, tmp_path):
    """As the first of two, then as the second; both find all."""
    class Named(torch.utils.data.Dataset):
        def __len__(self):
            return 5

        def __getitem__(self, i):
            return {"video": torch.full((4, 3, 32, 32), i / 5)}

        def identity(self, i):
            return ("some", i)

    made, cnn = [], frame_cnn("small_narrow", None)
    compute = features._computed
    monkeypatch.setattr(features, "_computed", lambda bank, data, *more: (
        made.append(list(data.indices)), compute(bank, data, *more))[1])
    monkeypatch.setattr(processes, "wait", lambda: None)
    monkeypatch.setattr(processes, "first", lambda value: [0, 1, 2, 3, 4])
    for rank in range(2):
        monkeypatch.setattr(processes, "ranks", lambda rank=rank: (rank, 2))
        found = features.extract({"video": cnn}, Named(), folder=tmp_path,
                                 device="cpu")
    assert made == [[0, 2, 4], [1, 3]]
    assert len(found) == 5 and "video_cube" in found[4]


def own():
    """What is asked of all processes alike: norms that train, one sample."""
    trained = net(seed=processes.ranks()[0])  # and each starts elsewhere
    training.fit(trained, videos(24), step, steps=2, batch=BATCH, lr=0.01,
                 device="cpu")
    one = training.predict(trained, videos(1), batch=2)
    return {"weights": [p.tolist() for p in trained.parameters()],
            "norm": trained.norm.running_mean.tolist(),
            "counted": int(trained.norm.num_batches_tracked),
            "one": one["logits"].tolist(), "spans": one["spans"].tolist()}


if __name__ == "__main__":
    place = Path(sys.argv[1])
    told = run(place, int(sys.argv[2])) | own()
    (place / f"{processes.ranks()[0]}.json").write_text(json.dumps(told))
