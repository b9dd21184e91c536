"""The search of a learning rate asks validation alone, and its neighbours."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import yaml

from lib.lab import rates
from lib.lab.registry import Registry
from lib.lab.study import Study

ROWS = {"base": {}, "full": {}, "both": {"of": ["full", "base"]}}
tried: list = []


def train(run):
    tried.append((run.row, run.rate))
    if "of" in run.options:
        return None, [{"score": 0.5}]  # of others: it has no rate
    best = {"base": 0.03, "full": 0.0001}[run.row]
    score = -abs(math.log10(run.rate / best))
    return torch.nn.Linear(1, 2), [{"score": score - 1}, {"score": score}, {}]


def predict(run, videos):
    raise AssertionError("the test videos choose nothing")


def scores(run):
    raise AssertionError("the test videos choose nothing")


@pytest.fixture
def study():
    tried.clear()
    given = {"dataset": "stage", "split": "1", "device": "cpu", "lr": 0.01,
             "rates": {}, "results": ""}
    data = SimpleNamespace(test=[], classes=["a"], digest="data")
    return Study("03", ROWS, train, predict, scores, parameters=given,
                 data=data)


def test_the_ladder_has_two_rates_for_each_power_of_ten():
    assert [rates.ladder(step) for step in range(-6, -1)] == [
        0.001, 0.003, 0.01, 0.03, 0.1]


def test_the_notebook_forgets_nothing_while_rates_are_tried(study, tmp_path):
    """What it remembers is known by its parameters, its `rates` among them."""
    own = study.settings["rates"]
    rates.choose(study, "base", tmp_path / "rates.jsonl")
    assert own == {} and study.settings["rates"] == {"base": 0.03}


def test_the_best_rate_is_no_edge(study, tmp_path):
    file = tmp_path / "rates.jsonl"
    assert rates.choose(study, "base", file) == {"base": 0.03}
    assert {rate for _, rate in tried} == {0.003, 0.01, 0.03, 0.1}
    assert rates.choose(study, "full", file) == {"full": 0.0001}
    assert {rate for row, rate in tried if row == "full"} == {
        0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001, 0.00003}
    lines = Registry(file).lines()
    assert len(lines) == len(tried) == 11
    assert all(line["seed"] == rates.SEED for line in lines)
    study.settings["rates"].clear()
    both = {"full": 0.0001, "base": 0.03}  # and no rate of its own
    assert rates.choose(study, "both", file) == both
    assert study.settings["rates"] == both
    assert len(tried) == 12  # what was tried is not trained again


def test_a_search_without_an_end_ends():
    assert rates.search(lambda rate: rate, 0.001) == 1.0


def test_two_searches_may_train_one_teacher_at_once(tmp_path, monkeypatch):
    """A checkpoint is locked, and the other search would end with an error."""
    def train(run):
        folders.append(run.folder)
        if run.row == "taught":
            run.of("teacher")
        return torch.nn.Linear(1, 2), [{"score": 0.5}]

    folders: list = []
    given = {"dataset": "stage", "split": "1", "device": "cpu", "lr": 0.01,
             "rates": {}, "results": str(tmp_path / "results.jsonl")}
    taught = Study("03", {"teacher": {}, "taught": {"of": ["teacher"]}}, train,
                   lambda run, videos: {}, scores, parameters=given,
                   data=SimpleNamespace(test=[], classes=["a"], digest="data"))
    monkeypatch.setattr(rates, "study_of",
                        lambda *names: (taught, ["taught"], [0]))
    monkeypatch.setattr(rates, "choose", partial(
        rates.choose, file=tmp_path / "rates.jsonl"))
    rates.main(["03", "--processes", "1", "--part", "0"])
    assert len(folders) > 3 and {*folders} == {None}


def test_rates_are_written_into_the_preset(tmp_path, monkeypatch):
    monkeypatch.setattr(rates, "NOTEBOOKS", tmp_path)
    file = tmp_path / "presets/03/lab.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# why\nlr: 0.01\nrates:\n  old: 1.0\nsteps: 5\n")
    for found in ({"w/o both": 0.03}, {"w/o both": 0.003, "a: b": 0.1}):
        rates.write("03", "lab", found)
        assert yaml.safe_load(file.read_text()) == {
            "lr": 0.01, "steps": 5, "rates": found}
    assert file.read_text().startswith("# why\n")


def test_a_rate_is_part_of_its_rows_key_alone(study):
    def keys(**rates_):
        study.settings["rates"] = rates_
        return [study.head(row, 0)["key"] for row in ROWS]

    base, full, both = keys()
    changed = keys(base=0.1)
    assert changed[0] != base
    assert changed[1] == full
    assert changed[2] != both  # it is made of the other two


def test_a_rate_of_no_row_is_refused(study):
    given = study.settings | {"rates": {"ful": 0.1}, "device": "cpu"}
    with pytest.raises(ValueError, match="no row 'ful'"):
        Study("03", ROWS, train, predict, scores, parameters=given,
              data=study.data)
