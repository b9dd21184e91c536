"""Runs count as the same where every bit of every row is."""

import pytest
import same


def told(source, **rows):
    return {"source": source, "rows": rows}


def test_only_rows_without_any_difference_share_a_source():
    whole = {"a": ["[1.0]", "{}", "x"], "b": "ValueError: no weights"}
    line = same.compare(told("old", **whole), told("new", **whole), "03")
    assert line == {"notebook": "03", "was": "old", "now": "new",
                    "trained": ["a"]}
    for other in (whole | {"a": ["[1.0000001]", "{}", "x"]},
                  whole | {"a": ["[1.0]", "{}", "y"]}, {"b": whole["b"]},
                  whole | {"b": "KeyError: 'mask'"}):
        with pytest.raises(SystemExit, match="03: [ab] is not as it was"):
            same.compare(told("old", **other), told("new", **whole), "03")
    some = told("old", b=whole["b"])
    with pytest.raises(SystemExit, match="no row could be trained"):
        same.compare(some, some, "03")
