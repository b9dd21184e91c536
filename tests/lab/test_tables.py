"""Tables: intervals, paired gains, verdicts, and the papers' figures."""

import math

import numpy as np
import pytest
import three_splits
import yaml

from lib import ROOT
from lib.lab import tables
from lib.lab.registry import FIELDS, Registry


def lines(metric="top-1", **rows):
    return [{"variant": row, "seed": seed, "metrics": {metric: value}}
            for row, values in rows.items()
            for seed, value in enumerate(values)]


FIVE = {"base": [0.50, 0.52, 0.51, 0.49, 0.53],
        "full": [0.55, 0.56, 0.57, 0.54, 0.58]}


def test_an_interval_by_hand_and_none_from_fewer_than_five_seeds():
    middle, half = tables.mean([1.0, 2.0, 3.0, 4.0, 5.0])
    # t(0.975, 4) = 2.776, standard deviation sqrt(2.5)
    assert (middle, half) == pytest.approx((3.0, 2.776 * math.sqrt(2.5 / 5)),
                                           abs=2e-3)
    assert tables.mean([1.0, 3.0])[0] == 2.0
    assert math.isnan(tables.mean([1.0, 3.0, 2.0, 2.0])[1])
    assert all(map(math.isnan, tables.mean([])))


def test_gains_are_paired_by_seed_whatever_the_order():
    runs = tables.values(lines(base=[0.1, 0.2], full=[0.4, 0.6])[::-1],
                         "top-1")
    assert sorted(tables.gains(runs, "full", "base")) == pytest.approx(
        [0.3, 0.4])
    del runs["base"][0]
    assert tables.gains(runs, "full", "base") == pytest.approx([0.4])
    assert tables.gains(runs, "full", "nobody") == []


def test_a_value_that_lacks_is_no_zero_and_a_run_counts_once():
    some = [*lines(full=[0.4]), {"variant": "full", "seed": 1,
                                 "metrics": {"top-1": None}}]
    assert tables.values(some, "top-1") == {"full": {0: 0.4}}
    with pytest.raises(ValueError, match="two lines of full, seed 0"):
        tables.values([*some, *lines(full=[0.5])], "top-1")


PAPER = tables.frame({"Ours": {"A": 60.0, "B": 40.0, "C": "not given"},
                      "Base": {"A": 55.0, "B": 45.0, "C": 1.0}})


@pytest.mark.parametrize("column, verdict", [
    ("A", "confirmed"), ("B", "contradicted"),
    ("C", "no figure in the paper")])
def test_against_the_paper(column, verdict):
    table = tables.against(lines(**FIVE), PAPER, column,
                           [("full", "base", "Ours", "Base"),
                            ("other", "base", "Ours", "Base")])
    assert list(table.index) == ["full – base"]
    (row,) = table.to_dict("records")
    assert row["verdict"] == verdict and row["n"] == 5
    assert row["ours"].startswith("56.0 ±")
    assert row["our gain"].startswith("+5.0 ±")
    half = float(row["our gain"].split("± ")[1])
    assert float(row["visible"]) == pytest.approx(1.34 * half, abs=0.1)


def test_no_verdict_from_a_wide_interval_or_few_seeds():
    wide = {"base": [0.5] * 5, "full": [0.3, 0.7, 0.5, 0.6, 0.45]}
    few = {name: values[:4] for name, values in FIVE.items()}
    for runs in (wide, few):
        table = tables.against(lines(**runs), PAPER, "A",
                               [("full", "base", "Ours", "Base")])
        assert list(table["verdict"]) == ["undecided"]


def test_an_overview_of_several_metrics():
    some = lines(**FIVE) + [{"variant": "when", "seed": 0,
                             "metrics": {"top-1": 0.5, "when": 0.8}}]
    table = tables.overview(some, ["base", "full", "when", "nobody"],
                            ["top-1", "when"], "base")
    assert list(table.index) == ["base", "full", "when"]
    assert list(table["n"]) == [5, 5, 1]
    assert table.loc["when", "when"] == "80.0"
    assert table.loc["base", "when"] == "–"
    assert table.loc["full", "gain over base"].startswith("+5.0 ±")
    assert table.loc["base", "gain over base"] == "–"


def head(row="full", seed=0, key="new", **params):
    return {"notebook": "03", "dataset": "puppets", "split": "1",
            "variant": row, "seed": seed, "key": key,
            "params": {"steps": 5, "lr": 0.1} | params}


def line(data="here", **changes):
    return head(**changes) | {"data": data, "metrics": {"top-1": 0.5}}


def test_recorded_lines_are_fresh_stale_or_missing():
    lines = [line(key="old"), line(row="w/o", key="old", steps=6),
             line(row="base", key="old"), line(row="base")]
    wanted = [head(row) for row in ("full", "w/o", "base")]
    found = tables.Records.of(lines, wanted)
    assert [(x["variant"], x["stale"]) for x in found.lines] == [
        ("full", True), ("base", False)]
    assert found.missing == [wanted[1]]  # other settings are another run
    assert found.fresh == [found.lines[1]]
    assert str(found) == (
        "2 recorded runs, 1 not yet trained; 1 of them by earlier code "
        "(train them: python -m lib.lab.run)")


def test_a_line_of_other_data_does_not_count_where_the_data_is_at_hand():
    lines, wanted = [line(data="there")], [head()]
    assert tables.Records.of(lines, wanted, "here").missing == wanted
    assert not tables.Records.of(lines, wanted, "there").missing
    assert not tables.Records.of(lines, wanted).missing  # data not at hand


def test_every_typed_figure_has_the_schema():
    entries = yaml.safe_load((ROOT / tables.PAPERS).read_text("utf-8"))
    for entry in entries:
        assert list(entry) == ["paper", "table", "row", "column", "value"]
        *names, value = entry.values()
        assert all(isinstance(name, str) and name for name in names)
        assert isinstance(value, float) or value in tables.NO_FIGURE, entry
    places = [tuple(entry.values())[:4] for entry in entries]
    assert len(set(places)) == len(places)


def test_where_and_when_s_figures_where_its_text_repeats_them():
    one, text, six = (tables.paper("where_and_when", n)
                      for n in ("1", "4.2.2", 6))
    assert one.shape == (10, 2) and list(one.columns) == ["HMDB51", "UCF101"]
    assert one.iloc[2, 1] == "not given"
    # "all the sub-components contribute": each is below the whole model
    assert (one.loc[one.index.str.startswith("Ours w/o")]
            < one.loc["Ours"]).all(axis=None)
    difference = text["THUMOS14"]["Ours"] - text["THUMOS14"][
        "Without attention"]
    assert difference == pytest.approx(3.88)
    # Table 6 rounds Table 1's full model
    assert (six.iloc[1] > six.iloc[0]).all()
    assert six.iloc[1, 1] == round(one.loc["Ours", "HMDB51"], 1)
    for table, last in (("3", 17.7), ("4", 17.9)):
        ours = tables.paper("where_and_when", table).loc["Ours"]
        assert ours.iloc[-1] == last and ours.is_monotonic_decreasing
    with pytest.raises(KeyError, match="where_and_when 1"):
        tables.paper("where_and_when", "9")


def test_jsta_s_figures_where_its_text_repeats_them():
    one, two, three = (tables.paper("jsta", n) for n in "123")
    assert (one == "damaged").sum().sum() == 2
    # "can boost the testing accuracy at about 2 percents"
    for head in ("FC", "MoE", "LSTM"):
        assert (two.loc[f"{head}, wiTA"] > two.loc[f"{head}, woTA"]).all()
    assert (two.loc["FC, wiTA"] == three.loc["JSTA"]).all()
    assert three.loc["Single Frame", "UCF101"] == one.loc["SpatialNet",
                                                          "UCF101"]


def test_sta_s_figures_where_its_text_repeats_them():
    one, two, size, five, six = (tables.paper("sta_networks", n)
                                 for n in ("I", "II", "III", "V", "VI"))
    # "averaged over the three splits", to one decimal
    for row in ("ResNeXt-101(64f) [7]", "STA-ResNeXt-101(64f)",
                "STA-MARS+RGB+Flow"):
        name = row.partition("(")[0]
        mean = two[[row.endswith(f", {name}") for row in two.index]].mean()
        assert (one.loc[row] - mean).abs().max() < 0.06
    # split 1 of Table II is the base and the whole of every ablation
    for number in ("VII", "VIII", "IX", "X"):
        ablation = tables.paper("sta_networks", number)
        assert (ablation.iloc[-1] == two.loc["split 1, STA-ResNeXt-101"]).all()
        if number in ("VII", "VIII"):
            assert (ablation.iloc[0] == two.loc["split 1, ResNeXt-101"]).all()
    # "a slight increase (5.2%) in model size"
    grown = size["SIZE (MB)"].iloc[1] / size["SIZE (MB)"].iloc[0]
    assert round(100 * grown - 100, 1) == 5.2
    assert (six.iloc[[1, 3]].values > six.iloc[[0, 2]].values).all()
    assert (five.iloc[[0, 2]].values
            == one.loc[["C3D [1]", "P3D-199 [18]"]].values).all()


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
    figures = text.stack()
    assert (figures[figures != "not given"] > 0).all()


def splits_of(variant, seed, values, **more):
    return [{"variant": variant, "seed": seed, "split": split, "params": {},
             "dataset": "ucf101", "metrics": {"top-1": value}} | more
            for split, value in zip("123", values, strict=False)]


def test_three_splits_are_averaged(tmp_path, capsys):
    path = tmp_path / "01.jsonl"
    assert three_splits.main([str(path), "ucf101"]) == 1
    lines = [*splits_of("baseline", 0, (0.5, 0.6, 0.7)),
             *splits_of("full", 0, (0.8, 0.6, 1.0)),
             *splits_of("full", 1, (0.9, 0.9)),  # a split is lacking
             *splits_of("full", 0, (0.7,)),  # run again: the last counts
             *splits_of("other", 0, (0.1,), params={"steps": 5}),
             *splits_of("other", 0, (0.2, 0.3, 0.4))[1:]]
    means = tables.over_splits(lines, "top-1")
    assert [(x["variant"], x["seed"]) for x in means] == [
        ("baseline", 0), ("full", 0)]
    for line in lines:
        Registry(path).append(dict.fromkeys(FIELDS) | line)
    capsys.readouterr()
    assert three_splits.main([str(path), "ucf101"]) == 0
    shown = capsys.readouterr().out
    assert "60.0" in shown and "76.7" in shown and "+16.7" in shown


def test_claims_of_differences_stand_beside_ours():
    said = tables.frame({"full over base": {"A": 2.0},
                         "full over other": {"A": "not given"},
                         "new over base": {"A": 1.0}})
    runs = {"flow: base": FIVE["base"], "flow: whole": FIVE["full"],
            "flow: other": [0.6] * 5}
    table = tables.claims(lines(**runs), said, "A", said.index,
                          names={"full": "whole"}, stream="flow: ")
    assert list(table.index) == ["flow: whole – flow: base",
                                 "flow: whole – flow: other"]
    assert list(table["paper's gain"]) == ["+2.0", "better"]
    assert list(table["top-1, verdict"]) == ["confirmed", "contradicted"]
    assert table["top-1, gain"].iloc[0].startswith("+5.0 ±")


def test_visible_is_found_in_four_of_five_cases():
    """Draw pairs of five seeds whose true gain is what is called visible."""
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(4000, 5))
    gain = np.mean([tables.visible(one) for one in spread])
    found = [mean - half > 0 for mean, half in
             (tables.mean(one + gain) for one in spread)]
    assert 0.75 < np.mean(found) < 0.85
    assert math.isnan(tables.visible([0.1, 0.2]))
