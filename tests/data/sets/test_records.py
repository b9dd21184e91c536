"""Lists are read as published; what is missing or wrong is named."""

import os
from collections import Counter
from pathlib import Path

import pytest

from lib import ROOT
from lib.data.sets import records, ucf101, ut_interaction
from lib.data.sets.records import Record, split_by_group

DATA_ROOT = ROOT / (os.environ.get("DATA_ROOT") or "data")


def ucf101_lists(root, train, test, classes=("Archery", "HandstandPushups")):
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


def test_ucf101(tmp_path):
    ucf101_lists(tmp_path, TRAIN, TEST)
    train, test, classes = ucf101.read(tmp_path, 1, lists_only=True)
    assert classes == ["Archery", "HandstandPushups"]
    path = tmp_path / "UCF-101" / TEST[0]
    assert test == [Record(path, 1, "v_HandStandPushups_g01_c01", "g01")]
    assert [(r.label, r.group) for r in train] == [(0, "g08"), (1, "g09")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Archery/v_Archery_g08_c01.avi 2", "label 2"),
        ("Fencing/v_Fencing_g08_c01.avi 3", "class of classInd"),
        ("../v_Archery_g08_c01.avi 1", "class of classInd"),
        ("Archery/../../x/v_Archery_g08_c01.avi 1", "class of classInd"),
        ("v_Archery_g08_c01.avi 1", "class of classInd"),
    ],
)
def test_ucf101_names_the_wrong_line(tmp_path, line, reason):
    folder = ucf101_lists(tmp_path, [TRAIN[0], line], TEST)
    with pytest.raises(ValueError, match=reason) as caught:
        ucf101.read(tmp_path, lists_only=True)
    assert f"{folder / 'trainlist01.txt'}:2" in str(caught.value)


@pytest.mark.parametrize("train, test, place, reason", [
    ([TRAIN[0], TRAIN[0]], TEST, "trainlist01.txt:2", "already"),
    (TRAIN, TEST + [TRAIN[0][:-2]], "testlist01.txt:2", "already"),
    # another video of the group: actors and scene are those of training
    (TRAIN, TEST + ["Archery/v_Archery_g09_c07.avi"], "testlist01.txt:2",
     "group 'g09' of the test list is in the training list too.*list01.txt:2"),
    ([TRAIN[0], "Archery/v_Archery_g08_c02.avi one"], TEST,
     "trainlist01.txt:2", "label one"),
    ([TRAIN[0], "Archery/v_Archery_g08_c02.avi 1 1"], TEST,
     "trainlist01.txt:2", "label 1 1"),
    ([], TEST, "ucfTrainTestlist", "lists no training videos"),
    (TRAIN, [], "ucfTrainTestlist", "lists no test videos")])
def test_ucf101_videos_and_groups_stand_on_one_side(tmp_path, train, test,
                                                    place, reason):
    folder = ucf101_lists(tmp_path, train, test)
    with pytest.raises(ValueError, match=reason) as caught:
        ucf101.read(tmp_path, lists_only=True)
    assert str(folder) in str(caught.value) and place in str(caught.value)


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
def test_ucf101_classes_are_numbered_without_a_gap(tmp_path, lines, place):
    folder = ucf101_lists(tmp_path, TRAIN, TEST)
    (folder / "classInd.txt").write_text("\n".join(lines))
    with pytest.raises(ValueError) as caught:
        ucf101.read(tmp_path, lists_only=True)
    assert place in str(caught.value)


@pytest.mark.parametrize("ending", ["\r\n", "\n", "\r", "\n\n\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_text_with_and_without_a_mark(tmp_path, mark, ending):
    path = tmp_path / "list.txt"
    path.write_bytes(mark + ending.join(["ä b", " c\u2028d ", ""]).encode())
    found = [*records.lines(path)]
    assert [line for _, line in found] == ["ä b", "c\u2028d"]
    assert found[0][0] == f"{path}:1"


@pytest.mark.parametrize("data, line", [
    ("1 Archery\n".encode("utf-16"), 1), ("1 A\n".encode("utf-16-le"), 1),
    ("1 A\n2 B\n3 Fußball\n".encode("latin-1"), 3), (b"1 A\n2 B\0\n", 2),
    (b"1 A\n2 B\x1b\n", 2), (b"1 A\n2 " + b"B" * 200_000, 2)])
def test_what_is_no_text_is_named_with_its_line(tmp_path, data, line):
    folder = ucf101_lists(tmp_path, TRAIN, TEST)
    path = folder / "classInd.txt"
    path.write_bytes(data)
    with pytest.raises(ValueError) as caught:
        ucf101.read(tmp_path, lists_only=True)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    with path.open("wb") as file:
        file.truncate(records.LARGEST + 1)  # no bytes on the disk
    with pytest.raises(ValueError, match="classInd.txt has more than"):
        ucf101.read(tmp_path, lists_only=True)


@pytest.mark.parametrize("changes", [
    {"path": Path("/data/../x.avi")}, {"path": Path("/x.avi")},
    {"name": "a\nb"}, {"label": 2}, {"label": -1}, {"spans": ((3, 3),)},
    {"spans": ((-1, 3),)}, {"spans": ((0, 3), (9, 4))},
    {"segments": ((0.0, float("inf")),)}, {"segments": ((0.0, float("nan")),)},
    {"ambiguous": ((2.0, 1.0),)}, {"name": "other"}, {"group": "g0"}],
    ids=str)
def test_no_reader_gives_a_record_that_cannot_be(changes):
    good = Record(Path("/data/x.avi"), 0, "x", "g1", spans=((0, 9), (4, 6)))
    other = good._replace(name="other", group="g0")
    source = Path("lists")
    found = records.checked(
        "/data", source, [("a:1", other)], [("b:7", good)], ["k", "l"])
    assert found == ([other], [good], ["k", "l"])
    with pytest.raises(ValueError, match="^b:7: "):
        records.checked("/data", source, [("a:1", other)],
                            [("b:7", good._replace(**changes))], ["k", "l"])


def test_what_is_missing_is_named_with_the_mend(tmp_path):
    with pytest.raises(FileNotFoundError, match="ucfTrainTestlist.*DATA_ROOT"):
        ucf101.read(tmp_path)
    folder = ucf101_lists(tmp_path, TRAIN, TEST)
    with pytest.raises(FileNotFoundError, match="trainlist02.*DATA_ROOT"):
        ucf101.read(tmp_path, "2", lists_only=True)
    with pytest.raises(FileNotFoundError, match="videos.*UCF-101.*DATA_ROOT"):
        ucf101.read(tmp_path)
    (folder / "classInd.txt").unlink()
    with pytest.raises(FileNotFoundError, match="classInd"):
        ucf101.read(tmp_path, lists_only=True)
    with pytest.raises(FileNotFoundError, match="ut_interaction.*DATA_ROOT"):
        ut_interaction.read(tmp_path)
    (tmp_path / "ut_interaction" / "clips_set1").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no .avi clips"):
        ut_interaction.read(tmp_path)


def test_unknown_splits():
    for reader in (ucf101.read, ut_interaction.read):
        with pytest.raises(ValueError, match="not '7'"):
            reader("nowhere", "7")


def ut_clips(root, sheet=True):
    rows = ["clip,n_frames,main_actor(0=left;1=right;-1=both)"]
    for part, names in (("1", ["0_1_4", "10_2_1", "2_1_1"]),
                        ("2", ["0_11_5"])):
        folder = root / "ut_interaction" / f"clips_set{part}"
        folder.mkdir(parents=True)
        for i, name in enumerate(names):
            (folder / f"{name}.avi").touch()
            actor = (0, 1, -1)[i]
            rows.append(f"clips_set{part}/{name}.avi,{100 + i},{actor}")
    if sheet:
        path = root / "ut_interaction" / "ut_clips_derived.csv"
        path.write_text("\n".join(rows) + "\n")
        return path


def test_ut_interaction(tmp_path):
    ut_clips(tmp_path)
    train, test, classes = ut_interaction.read(tmp_path, "set1")
    assert classes[4] == "punch" and len(classes) == 6
    assert [r.name for r in train] == ["set1_0_1_4", "set1_2_1_1",
                                       "set1_10_2_1"]
    assert [r.group for r in train] == ["set1_01", "set1_01", "set1_02"]
    assert [r.label for r in train] == [4, 1, 1]
    assert [r.main_actor for r in train] == ["left", "both", "right"]
    assert train[0].spans == ((14, 86),)
    other = ut_interaction.read(tmp_path, "2")
    assert (other.train, other.test) == (test, train)


def test_ut_interaction_without_its_sheet(tmp_path):
    ut_clips(tmp_path, sheet=False)
    train = ut_interaction.read(tmp_path).train
    assert {(r.spans, r.main_actor) for r in train} == {(None, None)}


def test_ut_interaction_names_what_does_not_fit(tmp_path):
    sheet = ut_clips(tmp_path)
    extra = tmp_path / "ut_interaction" / "clips_set1" / "3_1_2.avi"
    extra.touch()
    with pytest.raises(ValueError, match="no row 'clips_set1/3_1_2.avi'"):
        ut_interaction.read(tmp_path)
    sheet.unlink()
    extra.rename(extra.with_name("3_1_9.avi"))
    with pytest.raises(ValueError, match="3_1_9.avi: expected"):
        ut_interaction.read(tmp_path)


HEAD = "clip,n_frames,main_actor(0=left;1=right;-1=both)"


@pytest.mark.parametrize("text, reason", [
    ("", ":1: no columns"), (HEAD, "has no row 'clips_set1/0_1_4.avi'"),
    (HEAD.replace("n_frames", "frames"), r":1: no columns \['n_frames'\]"),
    *((f"{HEAD}\nclips_set1/0_1_4.avi,{cells}", ":2: ") for cells in (
        "20,0", "28,0", "-5,0", "many,0", "1e2,0", "100,2", "100,", "100",
        "100,0,1", "9999999999,0", '"100,0', f"{'9' * 200_000},0")),
    (f"{HEAD}\nclips_set1/0_1_4.avi,100,0\n\nclips_set1/0_1_4.avi,101,1",
     ":4: .*csv:2 already")], ids=lambda text: text[-30:])
def test_ut_interaction_names_the_wrong_row(tmp_path, text, reason):
    sheet = ut_clips(tmp_path)
    have = [line for line in sheet.read_text().splitlines()[1:]
            if "0_1_4" not in line]
    more = "\n".join(have) if text not in ("", HEAD) else ""
    sheet.write_text(f"{text}\n{more}\n\n")
    with pytest.raises(ValueError, match=reason) as caught:
        ut_interaction.read(tmp_path)
    assert str(sheet) in str(caught.value)


def test_restrict_orders_the_labels(tmp_path):
    ucf101_lists(tmp_path, TRAIN, TEST)
    lists = ucf101.read(tmp_path, lists_only=True)
    turned = lists.restrict(["HandstandPushups", "Archery"])
    assert [r.label for r in turned.train] == [1, 0]
    one = lists.restrict(["HandstandPushups"])
    assert [r.group for r in one.train] == ["g09"]
    assert one.classes == ["HandstandPushups"] and one.test[0].label == 0
    for classes in (["Fencing"], []):
        with pytest.raises(ValueError, match="choose from"):
            lists.restrict(classes)


def records(groups, classes=3, copies=2):
    """Each group has `copies` videos of every class."""
    return [
        Record(Path(f"{g}_{c}_{k}"), c, f"{g}_{c}_{k}", f"g{g:02d}")
        for g in range(groups) for c in range(classes) for k in range(copies)
    ]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_groups_never_cross(share):
    given = records(20)
    train, val = split_by_group(given, share)
    assert not {r.group for r in train} & {r.group for r in val}
    assert sorted(train + val) == sorted(given)
    assert [r for r in given if r in train] == train
    assert len(val) == round(share * len(given))
    assert {r.label for r in train} == {r.label for r in val} == {0, 1, 2}


def test_the_split_depends_on_groups_and_seed_only():
    given = records(20)
    val = split_by_group(given, 0.2, seed=1)[1]
    again = split_by_group(given[::-1], 0.2, seed=1)[1]
    assert set(again) == set(val)
    others = [split_by_group(given, 0.2, seed=s)[1] for s in range(5)]
    assert len({frozenset(r.group for r in val) for val in others}) > 1


def test_each_class_is_on_both_sides_where_groups_allow():
    # One class to a group: a tenth of 40 would be four, of ten classes.
    given = [
        Record(Path(str(i)), i % 10, str(i), f"g{i}") for i in range(40)
    ]
    train, val = split_by_group(given, 0.1)
    assert Counter(r.label for r in val) == dict.fromkeys(range(10), 1)
    lonely = Record(Path("x"), 10, "x", "only")
    for seed in range(10):
        train, val = split_by_group([*given, lonely], 0.1, seed)
        assert lonely in train
        assert {r.label for r in val} == set(range(10))


def test_one_group_cannot_be_split():
    with pytest.raises(ValueError, match="two groups"):
        split_by_group(records(1), 0.2)


@pytest.mark.parametrize(
    ("split", "counts"),
    [("1", (9537, 3783)), ("2", (9586, 3734)), ("3", (9624, 3696))],
)
def test_ucf101_official_lists(split, counts):
    folders = ("ucfTrainTestlist", "annotations/ucf101_splits")
    if not any((DATA_ROOT / folder).is_dir() for folder in folders):
        pytest.skip("no lists of UCF101 below DATA_ROOT")
    lists = ucf101.read(DATA_ROOT, split, lists_only=True)
    train, test, classes = lists
    assert (len(train), len(test)) == counts and len(classes) == 101
    assert len({r.name for r in train + test}) == 13320
    assert not {r.group for r in train} & {r.group for r in test}
    assert {r.label for r in train} == {r.label for r in test}
    kept, val = split_by_group(train, 0.1)
    assert {r.label for r in kept} == {r.label for r in val}
    assert 0.05 < len(val) / len(train) < 0.15


def test_ut_interaction_real():
    if not (DATA_ROOT / "ut_interaction").is_dir():
        pytest.skip("no ut_interaction/ below DATA_ROOT")
    train, test, classes = ut_interaction.read(DATA_ROOT, "set1")
    for part in (train, test):
        assert len(part) == 60 and len({r.group for r in part}) == 10
        counts = Counter(r.label for r in part)
        assert set(counts) == set(range(6)) and min(counts.values()) >= 9
        for record in part:
            (start, end), = record.spans
            assert 0 < start < end
    kept, val = split_by_group(train, 0.2)
    assert {r.label for r in kept} == {r.label for r in val}
