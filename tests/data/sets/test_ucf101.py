"""UCF101: classes, lists, and the line that is wrong."""

import re

import pytest

from lib.data.sets import ucf101
from lib.data.sets.records import Record


def write(root, train, test, classes=("Archery", "HandstandPushups")):
    folder = root / "ucfTrainTestlist"
    folder.mkdir(parents=True)
    numbered = [f"{i} {name}" for i, name in enumerate(classes, start=1)]
    # As published: lines end with carriage return and newline.
    for name, lines in (("classInd", numbered), ("trainlist01", train),
                        ("testlist01", test)):
        (folder / f"{name}.txt").write_text("\r\n".join([*lines, ""]))
    return folder


TRAIN = [
    "Archery/v_Archery_g08_c01.avi 1",
    "HandstandPushups/v_HandStandPushups_g09_c02.avi 2",
]
TEST = ["HandstandPushups/v_HandStandPushups_g01_c01.avi"]


def test_lists(tmp_path):
    write(tmp_path, TRAIN, TEST)
    train, test, classes = ucf101.read(tmp_path, 1, lists_only=True)
    assert classes == ["Archery", "HandstandPushups"]
    path = tmp_path / "UCF-101" / TEST[0]
    assert test == [Record(path, 1, "v_HandStandPushups_g01_c01", "g01")]
    assert [(r.label, r.group) for r in train] == [(0, "g08"), (1, "g09")]


def wrong(tmp_path, train=TRAIN, test=TEST, classes=None):
    folder = write(tmp_path, train, test)
    if classes:
        (folder / "classInd.txt").write_text("\n".join(classes))
    with pytest.raises(ValueError) as caught:
        ucf101.read(tmp_path, lists_only=True)
    assert str(folder) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("line, reason", [
    ("Archery/v_Archery_g08_c01.avi 2", "label 2"),
    ("Archery/v_Archery_g08_c02.avi one", "label one"),
    ("Archery/v_Archery_g08_c02.avi 1 1", "label 1 1"),
    ("Fencing/v_Fencing_g08_c01.avi 3", "class of classInd"),
    ("../v_Archery_g08_c01.avi 1", "class of classInd"),
    ("Archery/../../x/v_Archery_g08_c01.avi 1", "class of classInd"),
    ("v_Archery_g08_c01.avi 1", "class of classInd"), (TRAIN[0], "already")])
def test_names_the_wrong_line(tmp_path, line, reason):
    said = wrong(tmp_path, [TRAIN[0], line])
    assert "trainlist01.txt:2: " in said and reason in said


@pytest.mark.parametrize("train, more, reason", [
    (TRAIN, [TRAIN[0][:-2]], "testlist01.txt:2: .* already"),
    # another video of the group: actors and scene are those of training
    (TRAIN, ["Archery/v_Archery_g09_c07.avi"], "testlist01.txt:2: the group "
     "'g09' of the test list is in the training list too.*list01.txt:2"),
    ([], [], "lists no training videos"),
    (TRAIN, None, "lists no test videos")])
def test_videos_and_groups_stand_on_one_side(tmp_path, train, more, reason):
    said = wrong(tmp_path, train, [] if more is None else TEST + more)
    assert re.search(reason, said)


@pytest.mark.parametrize("lines, place", [
    (["1 Archery", "3 HandstandPushups"], "classInd.txt: "),
    (["0 Archery", "1 HandstandPushups"], "classInd.txt: "),
    (["-1 Archery", "1 HandstandPushups"], "classInd.txt:1: "),
    (["1 Archery", "1 HandstandPushups"], "classInd.txt:2: "),
    (["1 Archery", "2 HandstandPushups", "3 Archery"], "classInd.txt:3: "),
    (["1 Archery", "2 HandstandPushups", "two Cut"], "classInd.txt:3: "),
    (["1 Archery", "2 HandstandPushups", "3"], "classInd.txt:3: "),
    (["1 Archery", "2 HandstandPushups", "9" * 5000], "classInd.txt:3: "),
    (["1 Archery", "2 HandstandPushups", "3 .."], "ucfTrainTestlist: '..'"),
    (["1 Archery", "2 HandstandPushups", "3 /a"], "ucfTrainTestlist: '/a'")],
    ids=str)
def test_classes_are_numbered_without_a_gap(tmp_path, lines, place):
    assert place in wrong(tmp_path, classes=lines)


@pytest.mark.parametrize("data, line", [
    ("1 Archery\n".encode("utf-16"), 1), ("1 A\n".encode("utf-16-le"), 1),
    ("1 A\n2 B\n3 Fußball\n".encode("latin-1"), 3)])
def test_what_is_no_text_is_named_with_its_line(tmp_path, data, line):
    path = write(tmp_path, TRAIN, TEST) / "classInd.txt"
    path.write_bytes(data)
    with pytest.raises(ValueError) as caught:
        ucf101.read(tmp_path, lists_only=True)
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_what_is_missing_is_named_with_the_mend(tmp_path):
    def lacks(name, split="1", **options):
        with pytest.raises(FileNotFoundError, match=f"{name}.*DATA_ROOT"):
            ucf101.read(tmp_path, split, **options)

    lacks("UCF-101")
    lacks("ucfTrainTestlist", lists_only=True)
    folder = write(tmp_path, TRAIN, TEST)
    lacks("trainlist02", "2", lists_only=True)
    (folder / "classInd.txt").unlink()
    lacks("classInd", lists_only=True)


def test_restrict_orders_the_labels(tmp_path):
    write(tmp_path, TRAIN, TEST)
    lists = ucf101.read(tmp_path, lists_only=True)
    turned = lists.restrict(["HandstandPushups", "Archery"])
    assert [r.label for r in turned.train] == [1, 0]
    one = lists.restrict(["HandstandPushups"])
    assert [r.group for r in one.train] == ["g09"]
    assert one.classes == ["HandstandPushups"] and one.test[0].label == 0
    for classes in (["Fencing"], []):
        with pytest.raises(ValueError, match="choose from"):
            lists.restrict(classes)
