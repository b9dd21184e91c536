"""HMDB51: flags, groups, and the line that is wrong."""


import pytest
from checks import refused

from lib.data.sets import hmdb51


def flag_file(root, lines, action="climb", split=1):
    folder = root / "hmdb51" / "testTrainMulti_7030_splits"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{action}_test_split{split}.txt"
    path.write_text("\r\n".join([*lines, ""]))
    return path


def test_flags_and_groups(tmp_path):
    name = "Some_film{1}_climb_f_cm_np10_ba_med_{0}.avi {1} "
    flag_file(tmp_path, [name.format(i, i % 3) for i in range(6)])
    flag_file(tmp_path, ["x_climb_stairs_u_nm_np2_fr_goo_0.avi 2"],
              "climb_stairs")
    train, test, classes = hmdb51.read(tmp_path, lists_only=True)
    assert classes == ["climb", "climb_stairs"]
    assert [r.name[-1] for r in train] == ["1", "4"]
    assert [(r.name[-1], r.label) for r in test] == [
        ("2", 0), ("5", 0), ("0", 1)]
    assert {r.group for r in train} == {"Some_film1_climb"}
    assert train[0].path == (tmp_path / "hmdb51/hmdb51_org/climb" /
                             "Some_film1_climb_f_cm_np10_ba_med_1.avi")
    with pytest.raises(FileNotFoundError, match="hmdb51_org.*hmdb51.py"):
        hmdb51.read(tmp_path)
    refused("not '4'", hmdb51.read, tmp_path, "4", lists_only=True)
    with pytest.raises(FileNotFoundError, match="test_split2"):
        hmdb51.read(tmp_path, "2", lists_only=True)


def one_file(name, flag):
    return f"{name}_climb_f_cm_np1_fr_med_0.avi {flag}"


@pytest.mark.parametrize("more, reason", [
    (one_file("a", 1), ".*:1 already$"), (one_file("a", 2), ".*already"),
    (one_file("a", 0), ".*already"),  # both flags, or a line twice
    (one_file("a", 2).replace("_0.", "_1."), "the group 'a_climb' of the "
     "test list is in the training list too, at .*:1$"),
    (one_file("a", 3), ".*a flag"), (one_file("a", ""), ".*a flag"),
    (one_file("a", 1).replace("climb", "dive"), ".*_climb_"),
    (one_file("../a", 1), ".*_climb_"), ("climb.avi 1", ".*_climb_")])
def test_names_the_wrong_line(tmp_path, more, reason):
    path = flag_file(tmp_path, [one_file("a", 1), one_file("b", 2)])
    assert len(hmdb51.read(tmp_path, lists_only=True).train) == 1
    flag_file(tmp_path, [one_file("a", 1), one_file("b", 2), more])
    refused(f"^{path}:3: {reason}", hmdb51.read, tmp_path, lists_only=True)


@pytest.mark.parametrize("action, lines, reason", [
    ("dive", [], "no clip has the flag"),
    ("dive", ["x_dive_f_cm_np1_fr_med_0.avi 0"], "no clip has the flag"),
    ("..", ["x_.._f_cm_np1_fr_med_0.avi 1"], "'..' is no name of a class"),
    ("climb", [one_file("a", 1)], "lists no test videos")])
def test_classes_have_clips_and_names(tmp_path, action, lines, reason):
    flag_file(tmp_path, [one_file("a", 1), one_file("b", 2)])
    flag_file(tmp_path, lines, action)
    refused(f"testTrainMulti_7030_splits.*{reason}",
            hmdb51.read, tmp_path, lists_only=True)
