"""A study trains each run once, records it, and mixes nothing."""

import json
from types import SimpleNamespace

import pytest
import torch
import yaml
from checks import refused
from IPython.display import Image

from lib.lab import study as module
from lib.lab.registry import FIELDS, Registry
from lib.lab.study import Study, remembered

ROWS = {"base": {"gain": 0}, "full": {"gain": 1}}
trained: list = []


def train(run):
    trained.append((run.row, run.seed, run.study.settings["steps"]))
    torch.manual_seed(run.seed)
    return torch.nn.Linear(1, 2), [{"step": 1, "loss": 1.0, "score": 0.5}]


def predict(run, videos):
    return {"logits": torch.zeros(len(videos), 2),
            "label": torch.zeros(len(videos), dtype=torch.long)}


def scores(run):
    return {"top-1": 0.5 + 0.1 * run.options["gain"] + 0.01 * run.seed,
            "undefined": float("nan")}


def start(row, settings):
    return f"weights {settings['weights']}"


def parameters(**changes):
    values = {"dataset": "puppets", "split": 1, "n_test": 4, "frames": 4,
              "size": 32, "steps": 5, "weights": "a", "device": "cpu",
              "seeds": [0], "variants": ["base"], "results": "",
              "data_root": "", "video": ""} | changes
    return values | {"__annotations__": {name: type(v) for name, v in
                                         values.items()}}


def study_of(digest="data", train=train, **changes):
    samples = [{"video": torch.zeros(4, 3, 32, 32, dtype=torch.uint8),
                "label": 0, "name": str(i)} for i in range(8)]
    data = SimpleNamespace(test=samples, classes=["a", "b"], digest=digest)
    return Study("03", ROWS, train, predict, scores, start=start,
                 parameters=parameters(**changes), data=data)


@pytest.fixture(autouse=True)
def nothing_trained():
    trained.clear()


def test_every_row_is_trained_once_per_seed_and_recorded(tmp_path):
    path = str(tmp_path / "03.jsonl")
    study = study_of(results=path)
    lines = study.run(ROWS, [0, 1])
    assert [x[:2] for x in trained] == [
        ("base", 0), ("full", 0), ("base", 1), ("full", 1)]
    kept = Registry(path).lines()
    assert [set(line) for line in kept] == [set(FIELDS)] * 4
    assert [line | {"stale": False} for line in kept] == lines
    one = lines[3]
    assert one["metrics"] == {"top-1": pytest.approx(0.61), "undefined": None}
    assert one["params"] == {
        "dataset": "puppets", "split": "1", "n_test": 4, "frames": 4,
        "size": 32, "steps": 5, "weights": "a", "row": {"gain": 1},
        "start": "weights a"}
    assert one["data"] == "data" and one["n_test"] == 8
    assert one["threads"] == torch.get_num_threads()
    trained.clear()
    assert study_of(results=path).run(ROWS, [0, 1]) == lines
    assert trained == []


@pytest.mark.parametrize("changes, more", [
    ({"steps": 6}, 1), ({"weights": "b"}, 1), ({"digest": "other"}, 1),
    ({"split": 2}, 1), ({"seeds": [0, 1]}, 0), ({"variants": ["full"]}, 0),
    ({"device": "auto"}, 0), ({"data_root": "elsewhere"}, 0),
    ({"video": "my.mp4"}, 0)])
def test_what_matters_and_nothing_else_means_another_run(
        tmp_path, changes, more):
    """In the same session too: nothing is taken from memory."""
    path = str(tmp_path / "03.jsonl")
    study = study_of(results=path)
    study.run(["full"], [0])
    study_of(results=path, **changes).run(["full"], [0])
    assert len(trained) == 1 + more
    study.settings["steps"] = 40
    (line,) = study.run(["full"], [0])
    assert trained[-1] == ("full", 0, 40) and line["params"]["steps"] == 40


def test_other_data_do_not_go_on_from_the_checkpoints(tmp_path):
    """The key is the same, and so were the folder and its finished run."""
    path = str(tmp_path / "03.jsonl")
    studies = [study_of(results=path, digest=name) for name in "ab"]
    assert len({study.head("full", 0)["key"] for study in studies}) == 1
    assert len({study.trained("full", 0).folder for study in studies}) == 2


def test_a_run_that_was_interrupted_is_not_recorded(tmp_path):
    def stops(run):
        if trained:
            raise KeyboardInterrupt
        return train(run)

    path = tmp_path / "03.jsonl"
    study = study_of(results=str(path))
    study._train = stops
    with pytest.raises(KeyboardInterrupt):
        study.run(ROWS, [0])
    assert len(Registry(path).lines()) == 1
    study._train = train
    study.run(ROWS, [0])
    assert [x[:2] for x in trained] == [("base", 0), ("full", 0)]


def test_a_file_that_is_no_registry_stops_before_training(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes")
    refused("no registry", study_of(results=str(path)).run, ROWS, [0])
    assert trained == [] and path.read_text() == "my notes"


def test_pictures_show_the_model_that_was_scored():
    study = study_of()
    study.run(ROWS, [0, 1])
    count = len(trained)
    assert study.trained("full", 1).of("base") is study.trained("base", 1)
    assert study.trained("full", 0).folder is None
    for image in (study.curves("loss", ROWS, title="t"),
                  study.accuracies("base")):
        assert isinstance(image, Image)
    assert study.explorer("full", 2).video.options[0] == ("0: a", 0)
    assert study.own_video("", "full") is None
    assert len(trained) == count


def test_errors_name_the_row():
    study = study_of()
    refused("no row 'fall'.*full", study.run, ["fall"], [0])
    study.rows["full"] = {"net": torch.nn.ReLU()}
    refused("options of 'full'", study.run, ["full"], [0], error=TypeError)


def test_a_row_that_asks_for_what_the_videos_do_not_tell_is_named():
    def asks(name):
        def train(run):
            return run.study.data.test[0][name]
        return study_of(train=train)

    refused("'full'.*'mask'.*puppets.*variants",
            asks("mask").run, ["full"], [0])
    with pytest.raises(KeyError, match="typo"):  # a fault of the code
        asks("typo").run(["full"], [0])


def test_recorded_runs_of_a_preset(tmp_path, monkeypatch):
    """Fresh, stale by code, missing; the default fills what it omits."""
    monkeypatch.setattr("lib.lab.registry.ROOT", tmp_path)
    monkeypatch.setattr("lib.lab.parameters.ROOT", tmp_path)
    monkeypatch.setattr(module, "NOTEBOOKS", tmp_path / "notebooks")
    presets = tmp_path / "notebooks/presets/03"
    presets.mkdir(parents=True)
    text = "\n".join(
        f"{name}: {type(value).__name__} = {value!r}  # what"
        for name, value in parameters().items() if name[0] != "_")
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]},
            "source": text.replace("int = 1 ", "str = '1' ")}
    (tmp_path / "notebooks/03_x.ipynb").write_text(
        json.dumps({"cells": [cell]}))
    (presets / "lab.yaml").write_text(yaml.safe_dump(
        {"steps": 7, "variants": [*ROWS], "seeds": [0, 1]}))
    study = study_of(steps=7, results="notebooks/results/03.jsonl")
    study.run(["base"], [0, 1])
    found = study.recorded("lab")
    assert [line["variant"] for line in found.fresh] == ["base"] * 2
    assert [head["variant"] for head in found.missing] == ["full"] * 2
    study.source = "other code"
    assert not study.recorded("lab").fresh
    assert len(study.recorded("lab").lines) == 2
    assert not study_of(digest="new", steps=7).recorded("lab").lines
    # where the preset's data are not at hand, its lines are shown
    assert len(study_of(digest="x", n_test=9).recorded("lab").fresh) == 2


def test_what_is_remembered_is_known_by_the_parameters():
    values, made = parameters(), []

    @remembered(values)
    def features(net):
        """Features."""
        made.append(net)
        return len(made)

    assert features("a") == features("a") == 1 and features("b") == 2
    values["size"] = 64
    assert features("a") == 3 and made == ["a", "b", "a"]
    assert features.__doc__ == "Features."
