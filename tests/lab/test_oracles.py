"""The oracles: pooling by even, learned and true weights."""

import pytest
import torch
from torch.nn import functional as F

from lib.data import datasets
from lib.data.batches import Columns
from lib.lab import oracles, tables
from lib.networks import cnn2d
from lib.scores import metrics
from lib.worlds.worlds import WORLDS

N, T, C, H, W, FRAMES = 6, 4, 5, 3, 3, 8


@pytest.fixture
def features():
    draw = torch.Generator().manual_seed(0)
    mask = torch.rand(N, FRAMES, 6, 6, generator=draw) < 0.2
    mask[0, :2] = False  # nobody is seen
    relevant = torch.rand(N, FRAMES, generator=draw) < 0.4
    relevant[1] = False
    return Columns({
        "cube": torch.randn(N, T, C, H, W, generator=draw).half(),
        "mask": mask, "relevant": relevant, "label": torch.arange(N) % 3},
        classes=["a", "b", "c"])


def output(model, data):
    return model(*(data.columns[name].float() if name != "spans"
                   else data.columns[name] for name in oracles.INPUTS))


@pytest.mark.parametrize("where", oracles.CHOICES)
@pytest.mark.parametrize("when", oracles.CHOICES)
def test_equals_the_loop(features, where, when):
    """Over steps and cells, one by one, with weights that sum to one."""
    torch.manual_seed(1)
    model = oracles.Pooled(C, 3, where, when)
    for name in ("where", "when"):
        if getattr(model, name) is not None:
            torch.nn.init.normal_(getattr(model, name).weight)
    layers = [x for x in model.children() if x is not None]
    for layer in layers:
        layer.mean, layer.std = torch.randn(C), torch.rand(C) + 0.5
    out = output(model, oracles.weighed(features, FRAMES, where, when))
    for i in range(N):
        cube = features.columns["cube"][i].float()
        shares = metrics.cell_shares(features.columns["mask"][i], (H, W))
        steps, levels = [], []
        for t in range(T):
            frames = slice(2 * t, 2 * t + 2)
            if where == "learned":
                weight = model.where(cube[t].flatten(1).T).squeeze(1).softmax(
                    0).view(H, W)
            elif where == "true" and shares[frames].sum():
                weight = shares[frames].sum(0) / shares[frames].sum()
            else:
                weight = torch.full((H, W), 1 / (H * W))
            steps.append((cube[t] * weight).sum((1, 2)).float())
            relevant = features.columns["relevant"][i]
            levels.append(relevant[frames].float().sum() if when == "true"
                          else torch.tensor(1.0))
        levels = torch.stack(levels)
        if when == "learned":
            levels = torch.stack([model.when(x)[0] for x in steps]).softmax(0)
        elif not levels.sum():
            levels = torch.ones(T)
        pooled = sum(x * w for x, w in zip(steps, levels / levels.sum(),
                                           strict=True))
        torch.testing.assert_close(out.logits[i], model.classify(pooled),
                                   atol=1e-4, rtol=1e-4)
    rows = out.where.flatten(2).sum(-1), out.when.sum(1)
    for total in rows:
        torch.testing.assert_close(total, torch.ones_like(total))
    ends = out.spans[-1, 1]
    assert ends == FRAMES


def test_learned_weights_start_even_and_learn(features):
    data = oracles.weighed(features, FRAMES, "learned", "learned")
    model = oracles.Pooled(C, 3, "learned", "learned")
    out = output(model, data)
    assert torch.allclose(out.where, torch.full_like(out.where, 1 / (H * W)))
    F.cross_entropy(out.logits, data.columns["label"]).backward()
    assert model.where.weight.grad.abs().max() > 0
    assert model.when.weight.grad.abs().max() > 0


@pytest.fixture(scope="module")
def study():
    data = datasets.load("stage", n_train=28, n_val=14, n_test=14, size=48)
    given = {"dataset": "stage", "split": "1", "device": "cpu",
             "backbone": "small_narrow", "clip_backbone": "resnet3d_small",
             "frames": 16, "batch": 14, "epochs": 2, "lr": 0.01,
             "rates": {"frames: even, even": 0.1},
             "results": ""}
    return oracles.study(given, data)


def test_a_row_of_each_kind_is_trained_and_scored(study):
    rows = ["frames: learned, even", "clips: even, learned",
            "frames: true, true", "end to end: even, even",
            "end to end: learned, learned"]
    lines = study.run(rows, [0])
    for line, scored in zip(lines, (
            {"where", "point"}, {"when"}, set(), set(), {"where", "when"}),
            strict=True):
        assert 0 <= line["metrics"]["top-1"] <= 1
        assert scored <= {*line["metrics"]}
        assert bool(scored) == (len(line["metrics"]) > 1)
    again = study.trained(rows[0], 0)
    assert torch.equal(study._predict(again, study.data.test)["logits"],
                       again.outputs["logits"])


def test_end_to_end_the_cnn_has_gradients():
    torch.manual_seed(0)
    cnn = cnn2d.frame_cnn("small_narrow", "puppets").train()
    model = oracles.EndToEnd(cnn, oracles.Pooled(cnn.channels, 3))
    video = torch.rand(2, 4, 3, 32, 32)
    out = model(video)
    assert torch.allclose(out.logits, model.head.classify(
        cnn(video).mean((1, 3, 4))), atol=1e-5)
    out.logits.sum().backward()
    assert all(p.grad is not None for p in cnn.parameters())


def test_the_key_knows_the_features(study):
    keys = {study.head(row, 0)["key"] for row in oracles.ROWS}
    assert len(keys) == len(oracles.ROWS) == 16


def test_the_table_shows_what_is_recorded(monkeypatch):
    """One line a world; a column without five seeds has no interval."""
    lines = [{"variant": f"frames: {row}", "seed": seed, "stale": False,
              "metrics": {"top-1": 0.5 + 0.01 * seed}}
             for row, seeds in (("even, even", 5), ("true, true", 1))
             for seed in range(seeds)]
    monkeypatch.setattr(oracles, "recorded",
                        lambda world, preset: tables.Records(lines, []))
    found = oracles.table(["stage", "crowd"])
    assert found.index.tolist() == ["stage", "crowd"]
    assert found.loc["stage"].to_dict() == dict.fromkeys(
        oracles.NAMES.values(), "–") | {
            "plain mean": "52.0 ± 2.0", "true both": "50.0"}
    assert oracles.table(["stage"], "clips").loc["stage", "plain mean"] == "–"


def test_the_table_of_networks_that_train_has_gains_and_maps(monkeypatch):
    lines = [{"variant": f"end to end: {row}", "seed": seed, "stale": False,
              "metrics": {"top-1": at + 0.01 * seed} | more}
             for row, at, more in (("even, even", 0.5, {}),
                                   ("learned, learned", 0.6, {"when": 0.9}))
             for seed in range(5)]
    monkeypatch.setattr(oracles, "recorded",
                        lambda world, preset: tables.Records(lines, []))
    found = oracles.table(["stage", "crowd"], "end to end")
    assert found.index.tolist() == [
        (world, row) for world in ("stage", "crowd")
        for row in ("plain mean", "learned both")]
    both = found.loc["stage", "learned both"]
    assert both["gain over plain mean"] == "+10.0 ± 0.0"
    assert both["when"] == "90.0 ± 0.0" and both["point"] == "–"


@pytest.mark.parametrize("world", WORLDS)
def test_a_world_has_a_preset_with_every_row(world):
    found = oracles.recorded(world)
    heads = [*found.lines, *found.missing]
    assert {(head["variant"], head["seed"]) for head in heads} == {
        (row, seed) for row in oracles.ROWS for seed in range(5)
        if "end to end" not in row}
    assert {head["dataset"] for head in heads} == {world}
    assert {head["params"]["frames"] for head in heads} == {
        WORLDS[world].frames}


@pytest.mark.parametrize("world", ["alone", "crowd", "lights", "stage"])
def test_rows_end_to_end_have_presets_of_their_own(world):
    found = oracles.recorded(world, "end")
    assert {head["dataset"] for head in found.lines} == {world}
    assert {head["variant"] for head in [*found.lines, *found.missing]} == {
        row for row in oracles.ROWS if "end to end" in row}
