"""THUMOS14: segments as .json and as text, and what is wrong in them."""

import json
import os

import pytest

from lib import ROOT
from lib.data.sets import thumos14

DATA_ROOT = ROOT / (os.environ.get("DATA_ROOT") or "data")


def official():
    folder = DATA_ROOT / "annotations/thumos14"
    if not folder.is_dir():
        pytest.skip("no annotations/thumos14 below DATA_ROOT")
    return folder


def test_official():
    official()
    found = thumos14.read(DATA_ROOT, lists_only=True)
    assert {r.label for r in found.train} == {*range(20)}
    assert not {r.name for r in found.test} & {*thumos14.FAULTY}
    # named, and left out
    assert {*thumos14.FAULTY} <= {*thumos14.instances(DATA_ROOT, "test")}
    assert all(r.segments for r in found.train + found.test)
    assert any(r.ambiguous for r in found.test)
    # the train list comes from the official validation videos alone
    assert all(r.name.startswith("video_validation") for r in found.train)
    assert all(r.name.startswith("video_test") for r in found.test)


def test_txt_and_json_agree(tmp_path):
    folder = official()
    sheet = folder / "gt.json"
    if not sheet.is_file() or not (folder / "annotation_val").is_dir():
        pytest.skip("needs both forms of THUMOS14's segments")
    (tmp_path / "thumos14").mkdir()
    (tmp_path / "thumos14/gt.json").write_text(sheet.read_text())
    for part in ("val", "test"):
        text = thumos14.instances(DATA_ROOT, part)
        other = thumos14.instances(tmp_path, part)
        assert {*text} - {*other} == ({*thumos14.FAULTY} if part == "test"
                                      else set())
        for name, some in other.items():
            assert {*some} == {one for one in text[name]
                               if one.action != thumos14.AMBIGUOUS}, name


def thumos_json(root, videos):
    (root / "thumos14").mkdir(exist_ok=True)
    (root / "thumos14/gt.json").write_text(json.dumps({"database": {
        name: {"subset": subset, "annotations": [
            {"label": label, "segment": [start, end]}
            for label, start, end in some]}
        for name, (subset, some) in videos.items()}}))


def test_classes_of_a_video(tmp_path):
    thumos_json(tmp_path, {
        # annotated twice: CliffDiving alone
        "a": ("train", [("CliffDiving", "1.0", "2.5"),
                        ("Diving", "1.0", "2.5")]),
        "b": ("train", [("Diving", 1, 2), ("Shotput", 3, 4)]),
        "c": ("test", [("Diving", 1, 2), ("Shotput", 3, 5)]),
        "video_test_0000270": ("test", [("Shotput", 1, 2)])})
    train, test, classes = thumos14.read(tmp_path, lists_only=True)
    assert classes == ["CliffDiving", "Diving", "Shotput"]
    assert [(r.name, r.label, r.segments) for r in train] == [
        ("a", 0, ((1.0, 2.5),))]
    assert [(r.name, r.label, r.segments) for r in test] == [
        ("c", 2, ((3.0, 5.0),))]
    both = thumos14.instances(tmp_path, "test")["c"]
    assert [one.action for one in both] == ["Diving", "Shotput"]
    for times in (("x", "1"), ("2", "1"), ("-1", "1"), ("0", "inf")):
        thumos_json(tmp_path, {"a": ("train", [("Diving", *times)])})
        with pytest.raises(ValueError, match="gt.json: a"):
            thumos14.read(tmp_path, lists_only=True)

DEEP = "[" * 100_000 + "]" * 100_000

GOOD = {"subset": "train", "annotations": [
    {"label": "Diving", "segment": [1, 2]}]}


@pytest.mark.parametrize("text", [
    "", "[]", "{}", "null", DEEP, '{"database": []}', '{"database": {',
    json.dumps({"database": {"v": GOOD, "w": GOOD}}).replace('"w"', '"v"')],
    ids=lambda text: text[:20])
def test_names_a_wrong_json(tmp_path, text):
    (tmp_path / "thumos14").mkdir()
    path = tmp_path / "thumos14/gt.json"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        thumos14.read(tmp_path, lists_only=True)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("entry", [
    None, [], "x", {}, GOOD | {"subset": "tests"}, GOOD | {"annotations": 3},
    GOOD | {"annotations": [{"label": "Diving"}]},
    GOOD | {"annotations": ["x"]}, GOOD | {"annotations": {"a": 1}},
    *(GOOD | {"annotations": [{"label": "Diving", "segment": segment}]}
      for segment in (None, [], [1], [1, 2, 3], "now", [None, None], [1, None],
                      [[], {}], ["one", "two"], [2, 1], [1, "inf"], [-1, 1],
                      [float("nan"), 1])),
    GOOD | {"annotations": [{"label": None, "segment": [1, 2]}]},
    GOOD | {"annotations": 2 * GOOD["annotations"]}], ids=str)
def test_names_the_wrong_video(tmp_path, entry):
    (tmp_path / "thumos14").mkdir()
    path = tmp_path / "thumos14/gt.json"
    path.write_text(json.dumps({"database": {"good": GOOD, "bad": entry}}))
    with pytest.raises(ValueError) as caught:
        thumos14.read(tmp_path, lists_only=True)
    assert str(caught.value).startswith(f"{path}: bad: ")


def test_times_of_many_digits(tmp_path):
    (tmp_path / "thumos14").mkdir()
    path = tmp_path / "thumos14/gt.json"
    path.write_text(json.dumps({"database": {"v": GOOD}}).replace(
        "2]", "9" * 5000 + "]"))
    with pytest.raises(ValueError, match="gt.json: v: no segment"):
        thumos14.read(tmp_path, lists_only=True)


@pytest.mark.parametrize("name, reason", [
    ("../x", "leads out"), ("/etc/x", "leads out"), ("a/../../x", "leads out"),
    ("a\0", "leads out")])
def test_names_stay_in_the_folder(tmp_path, name, reason):
    thumos_json(tmp_path, {name: ("train", [("Diving", 1, 2)]),
                           "t": ("test", [("Diving", 1, 2)])})
    with pytest.raises(ValueError, match=reason) as caught:
        thumos14.read(tmp_path, lists_only=True)
    assert f"gt.json: {name}" in str(caught.value)
    thumos_json(tmp_path, {"a": ("train", [("../x", 1, 2)]),
                           "t": ("test", [("../x", 1, 2)])})
    with pytest.raises(ValueError, match="'../x' is no name of a class"):
        thumos14.read(tmp_path, lists_only=True)


def test_as_text(tmp_path):
    folders = [tmp_path / f"thumos14/annotation_{part}"
               for part in ("val", "test")]
    for folder in folders:
        folder.mkdir(parents=True)
    with pytest.raises(ValueError, match="thumos14 lists no training videos"):
        thumos14.read(tmp_path, lists_only=True)
    val, test = (folders[0] / "Diving_val.txt", folders[1] / "Diving_test.txt")
    val.write_text("v  1.0 2.0\n")
    test.write_text("t  1.0 2.0\n")
    assert thumos14.read(tmp_path, lists_only=True).classes == ["Diving"]
    for line in ("v  1.0 2.0", "v 2", "v 2 1", "v two three", "v 1 2 3"):
        val.write_text(f"v  1.0 2.0\n{line}\n")
        with pytest.raises(ValueError, match="Diving_val.txt:2: "):
            thumos14.read(tmp_path, lists_only=True)
    val.write_text("v  1.0 2.0\nt 1 2\n")
    with pytest.raises(ValueError, match="annotation_test: t: 't' stands at "
                                         ".*annotation_val: t already"):
        thumos14.read(tmp_path, lists_only=True)
