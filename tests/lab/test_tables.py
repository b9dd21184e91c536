"""Ablations, intervals, comparisons, and the papers' typed figures."""

import errno
import math

import pandas as pd
import pytest
import three_splits
import torch
import yaml

from lib import ROOT
from lib.lab import tables
from lib.lab.registry import FIELDS, Experiment, Registry

VARIANTS = {"pooling": {"where": False}, "full": {"where": True}}


def experiment(**changes):
    return Experiment(**{
        "notebook": "03", "dataset": "puppets", "split": "test", "n_test": 9,
        "params": {"steps": 5}, "data": {"size": 32}, "device": "cpu",
        "files": ("lib/lab/tables.py",)} | changes)


def lines(metric="accuracy", stale=False, **variants):
    return [{"variant": variant, "seed": seed, "metrics": {metric: value},
             "stale": stale}
            for variant, values in variants.items()
            for seed, value in enumerate(values)]


class Runs:
    """Counts what was run; stops like an interrupted notebook if asked."""

    def __init__(self, stop=99):
        self.seen, self.stop = [], stop

    def __call__(self, variant, seed):
        if len(self.seen) == self.stop:
            raise KeyboardInterrupt
        self.seen.append((variant, seed))
        return {"accuracy": torch.tensor(0.5 + 0.1 * (variant == "full")),
                "undefined": math.nan}


def test_ablate_runs_each_once_and_goes_on_after_an_interruption(tmp_path):
    registry, first, then, again = (
        Registry(tmp_path / "03.jsonl"), Runs(stop=3), Runs(), Runs())
    seeds = [0, 1]
    with pytest.raises(KeyboardInterrupt):
        tables.ablate(VARIANTS, seeds, first, experiment=experiment(),
                       registry=registry)
    assert first.seen == [("pooling", 0), ("full", 0), ("pooling", 1)]
    found = tables.ablate(VARIANTS, seeds, then, experiment=experiment(),
                           registry=registry)
    assert then.seen == [("full", 1)] and len(found) == 4
    tables.ablate(VARIANTS, seeds, again, experiment=experiment(),
                   registry=registry)
    assert again.seen == []
    assert all(set(line) == set(FIELDS) for line in registry.lines())
    assert [(x["variant"], x["seed"]) for x in found] == [
        (variant, seed) for seed in seeds for variant in VARIANTS]
    assert found[1]["metrics"]["accuracy"] == pytest.approx(0.6)
    # a metric without a value is kept as such, in words JSON knows
    assert found[1]["metrics"]["undefined"] is None
    assert found[1]["params"] == {"steps": 5, "where": True}


def test_a_line_tells_the_number_of_threads(tmp_path):
    (found,) = tables.ablate({"full": {}}, [0], Runs(),
                              experiment=experiment())
    assert found["threads"] == torch.get_num_threads()


def test_ablate_stops_where_a_line_is_not_written(tmp_path, monkeypatch):
    registry, runs = Registry(tmp_path / "03.jsonl"), Runs()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lib.lab.registry.os.fsync", full)
    with pytest.raises(OSError, match="could not be written"):
        tables.ablate(VARIANTS, [0], runs, experiment=experiment(),
                       registry=registry)
    assert len(runs.seen) == 1 and registry.lines() == []


def test_ablate_trains_nothing_for_a_file_that_is_no_registry(tmp_path):
    registry, runs = Registry(tmp_path / "notes.txt"), Runs()
    registry.path.write_text("my notes")
    with pytest.raises(ValueError, match="is no registry"):
        tables.ablate(VARIANTS, [0], runs, experiment=experiment(),
                       registry=registry)
    assert not runs.seen and registry.path.read_text() == "my notes"


def test_ablate_without_a_registry_gives_the_same_lines(tmp_path):
    kept, loose = (
        tables.ablate(VARIANTS, [0], Runs(), experiment=experiment(),
                       registry=registry)
        for registry in (Registry(tmp_path / "03.jsonl"), None))
    for line in kept + loose:
        assert line.pop("minutes") >= 0
    assert kept == loose


@pytest.mark.parametrize("change", [
    {"params": {"steps": 6}}, {"data": {"size": 48}}, {"split": "2"},
    {"dataset": "ucf101"}, {"files": ("lib/lab/registry.py",)}])
def test_any_setting_that_matters_means_another_run(tmp_path, change):
    registry, runs = Registry(tmp_path / "03.jsonl"), Runs()
    for about in (experiment(), experiment(**change)):
        tables.ablate(VARIANTS, [0], runs, experiment=about,
                       registry=registry)
    assert len(runs.seen) == 4


def test_stale_lines_are_shown_and_never_mixed(tmp_path):
    registry, runs = Registry(tmp_path / "03.jsonl"), Runs()
    tables.ablate(VARIANTS, [0, 1], runs, experiment=experiment(),
                   registry=registry)
    now = experiment(params={"steps": 7})
    tables.ablate({"full": VARIANTS["full"]}, [0], runs, experiment=now,
                   registry=registry)
    found = registry.recorded(VARIANTS, [0, 1, 2], now)
    assert [(x["variant"], x["seed"], x["stale"]) for x in found] == [
        ("pooling", 0, True), ("full", 0, False), ("pooling", 1, True),
        ("full", 1, True)]
    summary = tables.summarise(found, "accuracy", "full")
    assert list(summary.index) == ["full", "pooling (stale)", "full (stale)"]
    assert list(summary["n"]) == [1, 2, 1]
    # paired with the stale baseline, which has seed 1 only
    assert summary.loc["pooling (stale)", "difference"] == pytest.approx(-0.1)


def test_intervals_against_numbers_worked_out_by_hand():
    summary = tables.summarise(
        lines(base=[0.7, 0.85, 0.8], full=[0.8, 0.9, 1.0]), "accuracy",
        "base")
    full = summary.loc["full"]
    # s = 0.1, t(0.975, 2) = 4.302653: 4.302653 * 0.1 / sqrt(3)
    assert full["mean"] == pytest.approx(0.9)
    assert full["interval"] == pytest.approx(0.248414, abs=1e-6)
    # differences 0.1, 0.05, 0.2: mean 0.116667, s 0.0763763
    assert full["difference"] == pytest.approx(0.116667, abs=1e-6)
    assert full["difference_interval"] == pytest.approx(0.189729, abs=1e-6)
    assert math.isnan(summary.loc["base", "difference"])
    assert list(summary["n"]) == [3, 3]


def test_differences_are_paired_by_seed_whatever_the_order():
    # the seeds differ a lot, the gain within each hardly
    few = lines(base=[0.1, 0.5, 0.9], full=[0.21, 0.6, 0.99])
    for order in (few, few[::-1]):
        full = tables.summarise(order, "accuracy", "base").loc["full"]
        assert full["interval"] > 0.9
        assert full["difference"] == pytest.approx(0.1)
        assert full["difference_interval"] < 0.03
    # only seeds that both have count for the difference
    full = tables.summarise(few[:2] + few[3:], "accuracy", "base").loc["full"]
    assert full["difference"] == pytest.approx(0.105) and full["n"] == 3


def test_one_seed_has_no_interval_and_no_value_is_no_zero():
    summary = tables.summarise(lines(base=[0.5], full=[0.7, None]),
                                "accuracy", "base")
    assert summary.loc["full", "n"] == 1
    assert math.isnan(summary.loc["full", "interval"])
    assert tables.as_text(math.nan, ".1f") == "–"
    assert tables.as_text(1.25, ".2f") == "1.25"
    assert tables.as_text(1.25, "+.2f", 0.5) == "+1.25 ± 0.5"


def test_summarise_names_what_is_wrong():
    few = lines(base=[0.1], full=[0.2])
    alone = tables.summarise(few, "accuracy", "not yet run")
    assert alone["difference"].isna().all() and not alone["mean"].isna().any()
    with pytest.raises(KeyError, match="accuracy"):
        tables.summarise(few, "top5", "base")
    with pytest.raises(ValueError, match="two lines of base"):
        tables.summarise(few + few[:1], "accuracy", "base")


@pytest.mark.parametrize("correct, n, low, high", [
    (81, 263, 0.2553, 0.3662),  # Newcombe (1998), table I
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0, 0.1611),
    (1, 29, 0.0061, 0.1718)])
def test_the_wilson_interval_against_published_values(correct, n, low, high):
    got = tables.accuracy_interval(correct, n)
    assert got == pytest.approx((low, high), abs=1e-4)
    mirrored = tables.accuracy_interval(n - correct, n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-4)


def test_an_impossible_share_is_refused():
    for correct, n in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match=f"{correct} of {n}"):
            tables.accuracy_interval(correct, n)


def test_every_typed_figure_has_the_schema():
    entries = yaml.safe_load((ROOT / tables.PAPERS).read_text("utf-8"))
    for entry in entries:
        assert list(entry) == ["paper", "table", "row", "column", "value"]
        *names, value = entry.values()
        assert all(isinstance(name, str) and name for name in names)
        assert isinstance(value, float) or value in tables.NO_FIGURE, entry
    places = [tuple(entry.values())[:4] for entry in entries]
    assert len(set(places)) == len(places)


def test_the_papers_figures_where_its_text_repeats_them():
    one = tables.paper("where_and_when", "1")
    assert one.shape == (10, 2) and list(one.columns) == ["HMDB51", "UCF101"]
    assert one.loc["Ours", "UCF101"] == 87.11
    assert one.iloc[2, 1] == "not given"
    # "all the sub-components contribute": each is below the whole model
    assert (one.loc[one.index.str.startswith("Ours w/o")]
            < one.loc["Ours"]).all(axis=None)
    text = tables.paper("where_and_when", "4.2.2")["THUMOS14"]
    assert text["Ours"] - text["Without attention"] == pytest.approx(3.88)
    six = tables.paper("where_and_when", 6)
    assert (six.iloc[1] > six.iloc[0]).all()
    # Table 6 rounds Table 1's full model
    assert six.iloc[1, 1] == round(one.loc["Ours", "HMDB51"], 1)
    assert tables.paper("where_and_when", "2").shape == (9, 2)
    for table, last in (("3", 17.7), ("4", 17.9)):
        ours = tables.paper("where_and_when", table).loc["Ours"]
        assert ours.iloc[-1] == last and ours.is_monotonic_decreasing
    with pytest.raises(KeyError, match="where_and_when 1"):
        tables.paper("where_and_when", "9")


def test_compare_says_whether_the_signs_agree():
    table = pd.DataFrame({"HMDB51": {
        "Base": 50.0, "Up": 53.0, "Down": 48.0, "Unsure": 51.0, "Once": 52.0,
        "None": "not given", "Bad": "damaged"}}, dtype=object)
    same = [0.50, 0.52, 0.51]
    summary = tables.summarise(lines(
        base=same, up=[0.60, 0.61, 0.62], down=[0.58, 0.60, 0.60],
        unsure=[0.50, 0.53, 0.52], once=[0.9], none=same, bad=same),
        "accuracy", "base")
    rows = {name.lower(): name for name in table.index} | {"lost": "Up"}
    got = tables.compare(summary, table, "HMDB51", rows, baseline="base")
    assert dict(got["sign"]) == {
        "base": "–", "up": "same sign", "down": "opposite",
        "unsure": "undecided", "once": "undecided", "none": "not given",
        "bad": "not given", "lost": "undecided"}
    assert dict(got.loc["up"]) == {
        "paper": "53", "its difference": "+3.00", "ours": "61.0 ± 2.5",
        "our difference": "+10.0 ± 2.5", "n": "3", "sign": "same sign"}
    assert dict(got.loc["bad"])["paper"] == "damaged"
    assert got.loc["once", "ours"] == "90.0" and got.loc["lost", "n"] == "0"
    assert got.map(lambda value: isinstance(value, str)).all(axis=None)


def test_compare_marks_stale_runs():
    table = pd.DataFrame({"HMDB51": {"Base": 50.0, "Up": 53.0}}, dtype=object)
    summary = tables.summarise(
        lines(base=[0.5, 0.5]) + lines(stale=True, up=[0.6, 0.6]),
        "accuracy", "base")
    got = tables.compare(summary, table, "HMDB51",
                          {"base": "Base", "up": "Up"}, baseline="base")
    assert list(got.index) == ["base", "up (stale)"]
    # its baseline is fresh, and is not compared with it
    assert got.loc["up (stale)", "our difference"] == "–"


def two_rivals():
    return lines("top-1", a=[0.5, 0.6], b=[0.6, 0.7], c=[0.4, 0.4])


def test_gains_set_each_row_beside_its_own_rival():
    table = pd.DataFrame(
        {"X": {"A": 50.0, "B": 53.0, "C": 60.0},
         "Y": {"A": 1.0, "B": "damaged", "C": 3.0}}, dtype=object)
    got = tables.gains(
        two_rivals(), table, [("b", "a", "B", "A", "X"),
                              ("c", "b", "C", "B", "X"),
                              ("lost", "a", "B", "A", "X")])
    assert list(got.index) == ["b against a", "c against b"]
    assert list(got["paper, X"]) == ["+3.00", "+7.00"]
    assert list(got["paper, Y"]) == ["–", "–"]  # the cell is damaged
    assert got.loc["b against a", "our gain"] == "+10.0 ± 0.0"
    assert list(got["sign"]) == ["same sign", "undecided"]
    assert list(got["rival"]) == ["55.0 ± 63.5", "65.0 ± 63.5"]
    assert not len(tables.gains([], table, [("b", "a", "B", "A", "X")]))
    # a gain over one seed says so, however many seeds the variant has
    few = [x for x in two_rivals() if x["variant"] != "a" or x["seed"] == 0]
    got = tables.gains(few, table, [("b", "a", "B", "A", "X")])
    assert got.loc["b against a", "n"] == "1"


def test_an_overview_of_several_metrics():
    runs = two_rivals()
    for run in runs:
        if run["variant"] == "a":
            run["metrics"]["where"] = 0.25
    got = tables.overview(runs, ("b", "a"), ("top-1", "where"), "a")
    assert list(got.index) == ["b", "a"]
    assert list(got) == ["n", "top-1", "gain on a", "where"]
    assert list(got["n"]) == ["2", "2"]
    assert list(got["gain on a"]) == ["+10.0 ± 0.0", "–"]
    assert list(got["where"]) == ["–", "25.0 ± 0.0"]
    for run in runs:
        run["stale"] = True
    assert list(tables.overview(runs, ("a",), ("top-1",)).index) == [
        "a (stale)"]


def test_jsta_s_figures_where_its_text_repeats_them():
    one, two, three = (tables.paper("jsta", n) for n in "123")
    assert one.shape == (8, 2) and (one == "damaged").sum().sum() == 2
    # "can boost the testing accuracy at about 2 percents", and FC is best
    for head in ("FC", "MoE", "LSTM"):
        assert (two.loc[f"{head}, wiTA"] > two.loc[f"{head}, woTA"]).all()
    assert (two.loc["FC, wiTA"] == three.loc["JSTA"]).all()
    assert three.loc["Single Frame", "UCF101"] == one.loc["SpatialNet",
                                                          "UCF101"]


def splits_of(variant, seed, values, **more):
    return [{"variant": variant, "seed": seed, "split": split, "params": {},
             "dataset": "ucf101", "metrics": {"top-1": value}} | more
            for split, value in zip("123", values, strict=False)]


def test_three_splits_are_averaged():
    lines = [*splits_of("baseline", 0, (0.5, 0.6, 0.7)),
             *splits_of("full", 0, (0.8, 0.6, 1.0)),
             *splits_of("full", 1, (0.9, 0.9)),  # a split is lacking
             *splits_of("full", 0, (0.7,)),  # run again: the last counts
             *splits_of("other", 0, (0.1,), params={"steps": 5}),
             *splits_of("other", 0, (0.2, 0.3, 0.4))[1:]]
    means = tables.over_splits(lines, "top-1")
    assert [(x["variant"], x["seed"]) for x in means] == [
        ("baseline", 0), ("full", 0)]
    table = tables.summarise(means, "top-1", "baseline")
    assert table.loc["baseline", "mean"] == pytest.approx(0.6)
    assert table.loc["full", "mean"] == pytest.approx(2.3 / 3)
    assert table.loc["full", "difference"] == pytest.approx(0.5 / 3)


def test_three_splits_from_a_registry(tmp_path, capsys):


    registry = Registry(tmp_path / "r.jsonl")
    common = dict.fromkeys(FIELDS)
    for line in splits_of("baseline", 0, (0.5, 0.6, 0.7)):
        registry.append(common | line)
    command = [str(tmp_path / "r.jsonl"), "ucf101"]
    assert three_splits.main(command) == 0
    assert "0.6" in capsys.readouterr().out
    assert three_splits.main([*command[:1], "hmdb51"]) == 1
    assert "no variant of hmdb51" in capsys.readouterr().out


def test_sta_s_figures_where_its_text_repeats_them():
    def table(number):
        return tables.paper("sta_networks", number)

    one, two, seven, eight, nine, ten = map(
        table, ("I", "II", "VII", "VIII", "IX", "X"))
    assert one.shape == (29, 2) and two.shape == (12, 2)
    # "averaged over the three splits", to one decimal
    for row, name in {"ResNeXt-101(64f) [7]": "ResNeXt-101",
                      "STA-ResNeXt-101(64f)": "STA-ResNeXt-101",
                      "STA-MARS+RGB+Flow": "STA-MARS+RGB+Flow"}.items():
        mean = two[[row.endswith(f", {name}") for row in two.index]].mean()
        assert (one.loc[row] - mean).abs().max() < 0.06
    # split 1 of Table II is the base and the whole of every ablation
    for row, ours in (("ResNeXt-101", seven.iloc[0]),
                      ("ResNeXt-101", eight.iloc[0]),
                      ("STA-ResNeXt-101", seven.iloc[-1]),
                      ("STA-ResNeXt-101", eight.iloc[-1]),
                      ("STA-ResNeXt-101", nine.iloc[-1]),
                      ("STA-ResNeXt-101", ten.iloc[-1])):
        assert (two.loc[f"split 1, {row}"] == ours).all()
    size = table("III")
    # "a slight increase (5.2%) in model size"
    grown = size["SIZE (MB)"].iloc[1] / size["SIZE (MB)"].iloc[0]
    assert round(100 * grown - 100, 1) == 5.2
    assert (table("VI").iloc[[1, 3]].values
            > table("VI").iloc[[0, 2]].values).all()
    assert (table("V").iloc[[0, 2]].values
            == one.loc[["C3D [1]", "P3D-199 [18]"]].values).all()
    assert (table("Fig. 7") == "not given").all(axis=None)


def test_sta_cnn_s_figures_are_those_of_its_text():
    """Two cells and the differences; no other figure is there."""
    four, text = (tables.paper("sta_cnn", n) for n in ("IV", "text"))
    for n in ("I", "II", "III"):
        assert (tables.paper("sta_cnn", n) == "not given").all(axis=None)
    assert dict(four.loc["STA-CNN, three streams"]) == {
        "UCF101": 95.8, "HMDB51": 71.5}
    assert (four.drop("STA-CNN, three streams") == "not given").all(axis=None)
    best = text.loc["STA-TS(3x3, 3x1) over BN-Inception"]
    # "over 2% fed with RGB and flow frames respectively", fused "by 2.5%"
    assert best["fusion"] > best["RGB"] == best["flow"] == 2
    # older rivals are further behind
    behind = text[["UCF101", "HMDB51"]].loc[[
        "STA-CNN over TSN", "STA-CNN over Two-stream",
        "STA-CNN over the spatial-temporal attention of [16]"]]
    assert behind.astype(float).diff().iloc[1:].gt(0).all(axis=None)
    figures = text.stack()
    assert (figures[figures != "not given"] > 0).all()
