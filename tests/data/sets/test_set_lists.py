"""HMDB51, KTH, Moments and THUMOS14: official files, and wrong ones."""

import json
import os
from collections import Counter

import pytest

from lib import ROOT
from lib.data.sets import kth, moments, thumos14
from lib.data.sets.records import split_by_group

DATA_ROOT = ROOT / (os.environ.get("DATA_ROOT") or "data")


def official(folder, own):
    """Skip unless the official lists are below DATA_ROOT."""
    if not any((DATA_ROOT / name).exists()
               for name in (f"annotations/{folder}", own)):
        pytest.skip(f"no lists {own} below DATA_ROOT")


# ------------------------------------------------------------- official


@pytest.mark.parametrize("split", ["1", "2", "3"])
def test_hmdb51_official(split):
    official("hmdb51_splits", "hmdb51/testTrainMulti_7030_splits")
    train, test, classes = lists.hmdb51(DATA_ROOT, split, lists_only=True)
    assert (len(train), len(test), len(classes)) == (3570, 1530, 51)
    for part, each in ((train, 70), (test, 30)):
        assert set(Counter(r.label for r in part).values()) == {each}
    assert not {r.group for r in train} & {r.group for r in test}
    assert not {r.path for r in train} & {r.path for r in test}
    kept, val = split_by_group(train, 0.1)
    assert not {r.group for r in kept} & {r.group for r in val}
    assert {r.label for r in kept} == {r.label for r in val}


def test_kth_official():
    official("kth", "kth/00sequences.txt")
    train, test, classes = kth.read(DATA_ROOT, lists_only=True)
    assert (len(train), len(test), len(classes)) == (383, 216, 6)
    assert len({r.group for r in train}) == 16
    assert not {r.group for r in train} & {r.group for r in test}
    first = next(r for r in train if r.name == "person01_boxing_d1")
    assert first.spans == ((0, 95), (95, 185), (185, 245), (245, 360))
    assert "person13_handclapping_d3" not in {r.name for r in train}
    # 2,391 repetitions, says the data set's page
    assert sum(len(r.spans) for r in train + test) == 2391


def test_moments_official():
    official("moments", "moments/moments_categories.txt")
    folder = DATA_ROOT / "moments"
    if not folder.is_dir():
        folder = DATA_ROOT / "annotations" / "moments"
    names = moments.moments_classes(folder)
    assert len(set(names)) == 339 and names[0] == "clapping"


def thumos_folder():
    official("thumos14", "thumos14")
    return DATA_ROOT / "annotations" / "thumos14"


def test_thumos14_official():
    thumos_folder()
    val, test = (thumos14.thumos14_instances(DATA_ROOT, part)
                 for part in ("val", "test"))
    assert (len(val), len(test)) == (200, 213)
    sure = [sum(one.action != thumos14.AMBIGUOUS for some in part.values()
                for one in some) for part in (val, test)]
    assert sure == [3007, 3358]
    found = thumos14.read(DATA_ROOT, lists_only=True)
    assert [len(part) for part in found] == [183, 210, 20]
    assert {r.label for r in found.train} == {*range(20)}
    assert not {r.name for r in found.test} & {*thumos14.FAULTY}
    assert {*thumos14.FAULTY} <= {*test}  # named, and left out
    assert all(r.segments for r in found.train + found.test)
    assert any(r.ambiguous for r in found.test)
    # the train list comes from the official validation videos alone
    assert all(r.name.startswith("video_validation") for r in found.train)
    assert all(r.name.startswith("video_test") for r in found.test)


def test_thumos14_txt_and_json_agree(tmp_path):
    folder = thumos_folder()
    sheet = folder / "gt.json"
    if not sheet.is_file() or not (folder / "annotation_val").is_dir():
        pytest.skip("needs both forms of THUMOS14's segments")
    (tmp_path / "thumos14").mkdir()
    (tmp_path / "thumos14/gt.json").write_text(sheet.read_text())
    for part in ("val", "test"):
        text = thumos14.thumos14_instances(DATA_ROOT, part)
        other = thumos14.thumos14_instances(tmp_path, part)
        assert {*text} - {*other} == ({*thumos14.FAULTY} if part == "test"
                                      else set())
        for name, some in other.items():
            assert {*some} == {one for one in text[name]
                               if one.action != thumos14.AMBIGUOUS}, name


# ------------------------------------------------------------- made here


def flag_file(root, lines, action="climb", split=1):
    folder = root / "hmdb51" / "testTrainMulti_7030_splits"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{action}_test_split{split}.txt"
    path.write_text("\r\n".join([*lines, ""]))
    return path


def test_hmdb51_flags_and_groups(tmp_path):
    name = "Some_film{1}_climb_f_cm_np10_ba_med_{0}.avi {1} "
    flag_file(tmp_path, [name.format(i, i % 3) for i in range(6)])
    flag_file(tmp_path, ["x_climb_stairs_u_nm_np2_fr_goo_0.avi 2"],
              "climb_stairs")
    train, test, classes = lists.hmdb51(tmp_path, lists_only=True)
    assert classes == ["climb", "climb_stairs"]
    assert [r.name[-1] for r in train] == ["1", "4"]
    assert [(r.name[-1], r.label) for r in test] == [
        ("2", 0), ("5", 0), ("0", 1)]
    assert {r.group for r in train} == {"Some_film1_climb"}
    assert train[0].path == (tmp_path / "hmdb51/hmdb51_org/climb" /
                             "Some_film1_climb_f_cm_np10_ba_med_1.avi")
    with pytest.raises(FileNotFoundError, match="videos.*hmdb51.py"):
        lists.hmdb51(tmp_path)
    with pytest.raises(ValueError, match="not '4'"):
        lists.hmdb51(tmp_path, "4", lists_only=True)
    with pytest.raises(FileNotFoundError, match="test_split2"):
        lists.hmdb51(tmp_path, "2", lists_only=True)


def one_file(name, flag):
    return f"{name}_climb_f_cm_np1_fr_med_0.avi {flag}"


@pytest.mark.parametrize("more, reason", [
    (one_file("a", 1), "already"), (one_file("a", 2), "already"),
    (one_file("a", 0), "already"),  # both flags, or a line twice
    (one_file("a", 2).replace("_0.", "_1."), "group 'a_climb' of the test")])
def test_hmdb51_clips_stand_once_and_on_one_side(tmp_path, more, reason):
    path = flag_file(tmp_path, [one_file("a", 1), one_file("b", 2)])
    assert len(lists.hmdb51(tmp_path, lists_only=True).train) == 1
    flag_file(tmp_path, [one_file("a", 1), one_file("b", 2), more])
    with pytest.raises(ValueError, match=reason) as caught:
        lists.hmdb51(tmp_path, lists_only=True)
    assert f"{path}:3: " in str(caught.value)
    assert f"{path}:1" in str(caught.value)


@pytest.mark.parametrize("action, lines, reason", [
    ("dive", [], "no clip has the flag"),
    ("dive", ["x_dive_f_cm_np1_fr_med_0.avi 0"], "no clip has the flag"),
    ("..", ["x_.._f_cm_np1_fr_med_0.avi 1"], "'..' is no name of a class")])
def test_hmdb51_classes_have_clips_and_names(tmp_path, action, lines, reason):
    flag_file(tmp_path, [one_file("a", 1), one_file("b", 2)])
    flag_file(tmp_path, lines, action)
    with pytest.raises(ValueError, match=reason) as caught:
        lists.hmdb51(tmp_path, lists_only=True)
    assert "testTrainMulti_7030_splits" in str(caught.value)


def test_a_list_of_training_videos_alone(tmp_path):
    path = flag_file(tmp_path, [one_file("a", 1)])
    with pytest.raises(ValueError, match="lists no test videos") as caught:
        lists.hmdb51(tmp_path, lists_only=True)
    assert str(path.parent) in str(caught.value)


@pytest.mark.parametrize("line", [
    "a_climb_f_cm_np1_fr_med_0.avi 3", "a_climb_f_cm_np1_fr_med_0.avi",
    "a_dive_f_cm_np1_fr_med_0.avi 1", "../a_climb_f_cm_np1_fr_med_0.avi 1",
    "climb.avi 1"])
def test_hmdb51_names_the_wrong_line(tmp_path, line):
    path = flag_file(tmp_path, ["a_climb_f_cm_np1_fr_med_1.avi 1", line])
    with pytest.raises(ValueError) as caught:
        lists.hmdb51(tmp_path, lists_only=True)
    assert f"{path}:2" in str(caught.value)


KTH = ("prose: frames\n\nperson01_boxing_d1  frames 1-95, 96-185\n"
       "person22_boxing_d1\tframes\t1-3\nperson22_walking_d2\t*missing*\n")


def test_kth(tmp_path):
    (tmp_path / "kth").mkdir()
    (tmp_path / "kth/00sequences.txt").write_text(KTH)
    found = kth.read(tmp_path, lists_only=True)
    assert [r.spans for r in found.train] == [((0, 95), (95, 185))]
    assert [r.name for r in found.test] == ["person22_boxing_d1"]


@pytest.mark.parametrize("line", [
    "person01_flying_d1 frames 1-5", "person01_boxing_d2 none",
    "person01_boxing_d2 frames 95-1", "person01_boxing_d2 frames 0-0",
    "person01_boxing_d2 frames 1-5, 6", "person01_boxing_d2 frames 1-5 6-7",
    "person01_boxing_d2 frames 1-99999999999", "person01_boxing_d5 frames 1-5",
    "person00_boxing_d2 frames 1-5", "person99_boxing_d2 frames 1-5",
    "person01_boxing_d1 frames 1-95, 96-185", "persn01_boxing_d2 frames 1-5",
    "person01_boxing_d2 missing", "person01 boxing d2 frames 1-5"])
def test_kth_names_the_wrong_line(tmp_path, line):
    (tmp_path / "kth").mkdir()
    path = tmp_path / "kth/00sequences.txt"
    path.write_text(f"{KTH}{line}\n")
    with pytest.raises(ValueError, match="00sequences.txt:6: "):
        kth.read(tmp_path, lists_only=True)
    if line.startswith("persn"):  # first, it is not taken for prose either
        path.write_text(f"{line}\n{KTH}")
        with pytest.raises(ValueError, match="00sequences.txt:1: "):
            kth.read(tmp_path, lists_only=True)


def test_moments(tmp_path):
    folder = tmp_path / "moments"
    folder.mkdir()
    (folder / "moments_categories.txt").write_text("b,1\na c,0\n")
    (folder / "trainingSet.csv").write_text("b/x.y.mp4,b,3,0\n")
    (folder / "validationSet.csv").write_text("a c/z.mp4,a c,5,1\n")
    train, test, classes = moments.read(tmp_path, lists_only=True)
    assert classes == ["a c", "b"] and train[0].name == "b/x.y"
    assert test[0].path == folder / "validation/a c/z.mp4"
    for row in ("d/x.mp4,d", "b/../../x.mp4,b", "b/x.mp4,a c", "b,b",
                "b/..,b", "/etc/passwd,b", '"b/x.mp4,b', "b", ",", "b/1.mp4,b",
                "b/1.avi,b", 'b/2.mp4,b,"3'):
        (folder / "trainingSet.csv").write_text(f"b/1.mp4,b\n{row}\n")
        with pytest.raises(ValueError, match="trainingSet.csv:2"):
            moments.read(tmp_path, lists_only=True)
    # a video for training that is in the test list, too
    (folder / "trainingSet.csv").write_text("b/1.mp4,b\na c/z.mp4,a c\n")
    with pytest.raises(ValueError, match="validationSet.csv:1.*Set.csv:2 al"):
        moments.read(tmp_path, lists_only=True)
    for line in ("b", "1,b", "a,1", "c,1", "c,-1", "c,x", ",1"):
        (folder / "moments_categories.txt").write_text(f"a,0\nb,1\n{line}\n")
        with pytest.raises(ValueError, match="categories.txt:3"):
            moments.moments_classes(folder)
    for text in ("a,0\nb,2\n", "a,1\nb,2\n"):
        (folder / "moments_categories.txt").write_text(text)
        with pytest.raises(ValueError, match="categories.*not numbered"):
            moments.moments_classes(folder)
    (folder / "moments_categories.txt").write_text("..,0\n")
    (folder / "trainingSet.csv").write_text("../x.mp4,..\n")
    (folder / "validationSet.csv").write_text("../y.mp4,..\n")
    with pytest.raises(ValueError, match="moments: '..' is no name"):
        moments.read(tmp_path, lists_only=True)


def thumos_json(root, videos):
    (root / "thumos14").mkdir(exist_ok=True)
    (root / "thumos14/gt.json").write_text(json.dumps({"database": {
        name: {"subset": subset, "annotations": [
            {"label": label, "segment": [start, end]}
            for label, start, end in some]}
        for name, (subset, some) in videos.items()}}))


def test_thumos14_classes_of_a_video(tmp_path):
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
    both = thumos14.thumos14_instances(tmp_path, "test")["c"]
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
def test_thumos14_names_a_wrong_json(tmp_path, text):
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
def test_thumos14_names_the_wrong_video(tmp_path, entry):
    (tmp_path / "thumos14").mkdir()
    path = tmp_path / "thumos14/gt.json"
    path.write_text(json.dumps({"database": {"good": GOOD, "bad": entry}}))
    with pytest.raises(ValueError) as caught:
        thumos14.read(tmp_path, lists_only=True)
    assert str(caught.value).startswith(f"{path}: bad: ")


def test_thumos14_times_of_many_digits(tmp_path):
    (tmp_path / "thumos14").mkdir()
    path = tmp_path / "thumos14/gt.json"
    path.write_text(json.dumps({"database": {"v": GOOD}}).replace(
        "2]", "9" * 5000 + "]"))
    with pytest.raises(ValueError, match="gt.json: v: no segment"):
        thumos14.read(tmp_path, lists_only=True)


@pytest.mark.parametrize("name, reason", [
    ("../x", "leads out"), ("/etc/x", "leads out"), ("a/../../x", "leads out"),
    ("a\0", "leads out")])
def test_thumos14_names_stay_in_the_folder(tmp_path, name, reason):
    thumos_json(tmp_path, {name: ("train", [("Diving", 1, 2)]),
                           "t": ("test", [("Diving", 1, 2)])})
    with pytest.raises(ValueError, match=reason) as caught:
        thumos14.read(tmp_path, lists_only=True)
    assert f"gt.json: {name}" in str(caught.value)
    thumos_json(tmp_path, {"a": ("train", [("../x", 1, 2)]),
                           "t": ("test", [("../x", 1, 2)])})
    with pytest.raises(ValueError, match="'../x' is no name of a class"):
        thumos14.read(tmp_path, lists_only=True)


def test_thumos14_as_text(tmp_path):
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


@pytest.mark.parametrize("reader", [
    kth.read, moments.read, thumos14.read])
def test_one_split_and_what_is_missing(tmp_path, reader):
    with pytest.raises(ValueError, match="not '2'"):
        reader(tmp_path, "2")
    with pytest.raises(FileNotFoundError, match=r"data_scripts/\w+\.py"):
        reader(tmp_path)
