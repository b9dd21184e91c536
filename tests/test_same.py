"""Runs count as the same where every bit of every row is."""

import pytest
import same

from lib.lab.study import Study

ROW = ["[1.0]", {"top-1": "0.5"}, "x"]


def told(source, **rows):
    return {"source": source, "rows": rows}


def a_line(row, source):
    """As a `Study` records it."""
    study = Study("03", {row: {}}, told, told, told, data=None, parameters={
        "dataset": "stage", "split": "1", "device": "cpu"})
    study.source = source
    return study.head(row, 0)


def test_only_rows_without_any_difference_share_a_source():
    whole = {"a": ROW, "b": "ValueError: no weights"}
    lines = [a_line(row, "old") for row in "ab"]
    line = same.compare(told("old", **whole), told("new", **whole), "03",
                        lines)
    assert line == {"notebook": "03", "was": "old", "now": "new",
                    "trained": ["a"]}
    for other in (whole | {"a": ["[1.0000001]", *ROW[1:]]},
                  whole | {"a": [*ROW[:2], "y"]},
                  whole | {"a": ["[1.0]", {"top-1": "0.6"}, "x"]},
                  whole | {"a": ["[1.0]", {"when": "0.5"}, "x"]},
                  {"b": whole["b"]},
                  whole | {"b": "KeyError: 'mask'"}):
        with pytest.raises(SystemExit, match="03: [ab] is not as it was"):
            same.compare(told("old", **other), told("new", **whole), "03",
                         lines)
    some = told("old", b=whole["b"])
    with pytest.raises(SystemExit, match="no row could be trained"):
        same.compare(some, some, "03", lines)


def test_a_row_without_a_run_by_the_old_code_may_differ():
    was = told("old", a=ROW, c=ROW)
    now = told("new", a=ROW, c=["[2.0]", *ROW[1:]])
    lines = [a_line("a", "old"), a_line("c", "older")]
    assert same.compare(was, now, "03", lines)["trained"] == ["a"]
    with pytest.raises(SystemExit, match="03: c is not as it was"):
        same.compare(was, now, "03", [*lines, a_line("c", "old")])


def test_a_score_that_one_code_alone_measures_is_not_compared():
    was = told("old", a=["[1.0]", {"top-1": "0.5", "wrong": "0.1"}, "x"])
    now = told("new", a=["[1.0]", {"top-1": "0.5", "right": "0.2"}, "x"])
    lines = [a_line("a", "old")]
    assert same.compare(was, now, "03", lines)["trained"] == ["a"]
