"""What all readers share: text, records that can be, and fair splits."""

import importlib
from collections import Counter
from pathlib import Path

import pytest
from checks import refused

from lib.data.sets import SETS, records
from lib.data.sets.records import Record, split_by_group


@pytest.mark.parametrize("ending", ["\r\n", "\r", "\n\n\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_text_with_and_without_a_mark(tmp_path, mark, ending):
    path = tmp_path / "list.txt"
    path.write_bytes(mark + ending.join(["ä b", " c\u2028d ", ""]).encode())
    found = [*records.lines(path)]
    assert [line for _, line in found] == ["ä b", "c\u2028d"]
    assert found[0][0] == f"{path}:1"


@pytest.mark.parametrize("changes", [
    {"path": Path("/data/../x.avi")}, {"path": Path("/x.avi")},
    {"name": "a\nb"}, {"label": 2}, {"label": -1}, {"spans": ((3, 3),)},
    {"spans": ((-1, 3),)}, {"spans": ((0, 3), (9, 4))},
    {"segments": ((0.0, float("inf")),)}, {"segments": ((0.0, float("nan")),)},
    {"ambiguous": ((2.0, 1.0),)}, {"name": "other"}, {"group": "g0"}], ids=str)
def test_no_reader_gives_a_record_that_cannot_be(changes):
    good = Record(Path("/data/x.avi"), 0, "x", "g1", spans=((0, 9), (4, 6)))
    other = good._replace(name="other", group="g0")

    def checked(one):
        return records.checked(Path("/data"), Path("lists"),
                               [("a:1", other)], [("b:7", one)], ["k", "l"])

    assert checked(good) == ([other], [good], ["k", "l"])
    refused("^b:7: ", checked, good._replace(**changes))


@pytest.mark.parametrize("name", sorted({*SETS} - {"folder"}))
def test_unknown_splits_and_missing_files_are_named(tmp_path, name):
    reader = importlib.import_module(f"lib.data.sets.{name}")
    with pytest.raises(ValueError, match="has the splits .*not '7'"):
        reader.read(tmp_path, "7", lists_only=True)
    refused(rf"data_scripts/{name}\w*\.py .*DATA_ROOT",
            reader.read, tmp_path, error=FileNotFoundError)
    assert 0 < reader.VAL_SHARE < 0.5 and reader.FPS in (25, 30)


def of_groups(groups, classes=3, copies=2):
    return [
        Record(Path(f"{g}_{c}_{k}"), c, f"{g}_{c}_{k}", f"g{g:02d}")
        for g in range(groups) for c in range(classes) for k in range(copies)]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_groups_never_cross(share):
    given = of_groups(20)
    train, val = split_by_group(given, share)
    assert not {r.group for r in train} & {r.group for r in val}
    assert sorted(train + val) == sorted(given)
    assert [r for r in given if r in train] == train
    assert len(val) == round(share * len(given))
    assert {r.label for r in train} == {r.label for r in val} == {0, 1, 2}


def test_the_split_depends_on_groups_and_seed_only():
    given = of_groups(20)
    val = split_by_group(given, 0.2, seed=1)[1]
    again = split_by_group(given[::-1], 0.2, seed=1)[1]
    assert set(again) == set(val)
    others = [split_by_group(given, 0.2, seed=s)[1] for s in range(5)]
    assert len({frozenset(r.group for r in val) for val in others}) > 1


def test_each_class_is_on_both_sides_where_groups_allow():
    # One class to a group: a tenth of 40 would be four, of ten classes.
    given = [Record(Path(str(i)), i % 10, str(i), f"g{i}") for i in range(40)]
    train, val = split_by_group(given, 0.1)
    assert Counter(r.label for r in val) == dict.fromkeys(range(10), 1)
    lonely = Record(Path("x"), 10, "x", "only")
    for seed in range(10):
        train, val = split_by_group([*given, lonely], 0.1, seed)
        assert lonely in train
        assert {r.label for r in val} == set(range(10))


def test_one_group_cannot_be_split():
    refused("two groups", split_by_group, of_groups(1), 0.2)
