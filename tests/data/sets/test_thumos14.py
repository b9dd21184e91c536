"""THUMOS14: segments, the class of a video, and the line that is wrong."""


import pytest
from checks import refused
from video_files import real

from lib.data.sets import thumos14


def test_official():
    root = real("annotations/thumos14")
    found = thumos14.read(root, lists_only=True)
    assert {r.label for r in found.train} == {*range(20)}
    assert not {r.name for r in found.test} & {*thumos14.FAULTY}
    # named, and left out
    assert {*thumos14.FAULTY} <= {*thumos14.instances(root, "test")}
    assert all(r.segments for r in found.train + found.test)
    assert any(r.ambiguous for r in found.test)
    # the train list comes from the official validation videos alone
    assert all(r.name.startswith("video_validation") for r in found.train)
    assert all(r.name.startswith("video_test") for r in found.test)


@pytest.fixture
def write(tmp_path):
    def write(val, test):
        for part, some in (("val", val), ("test", test)):
            folder = tmp_path / f"thumos14/annotation_{part}"
            folder.mkdir(parents=True, exist_ok=True)
            for action, lines in some.items():
                (folder / f"{action}_{part}.txt").write_text("\n".join(lines))
        return thumos14.read(tmp_path, lists_only=True)
    return write


GOOD = {"Diving": ["v  1.0 2.0"]}, {"Diving": ["t  1.0 2.0"]}


def test_classes_of_a_video(write, tmp_path):
    train, test, classes = write(
        {"CliffDiving": ["a 1.0 2.5"],  # annotated twice: as Diving too
         "Diving": ["a 1.0 2.5", "b 1 2"], "Shotput": ["b 3 4"]},
        {"Diving": ["c 1 2"],
         "Shotput": ["c 3 5", "video_test_0000270 1 2"],
         "Ambiguous": ["c 6 7"]})
    assert classes == ["CliffDiving", "Diving", "Shotput"]
    assert [(r.name, r.label, r.segments) for r in train] == [
        ("a", 0, ((1.0, 2.5),))]
    assert [(r.name, r.label, r.segments, r.ambiguous) for r in test] == [
        ("c", 2, ((3.0, 5.0),), ((6.0, 7.0),))]
    both = thumos14.instances(tmp_path, "test")["c"]
    assert [one.action for one in both] == ["Diving", "Shotput", "Ambiguous"]


@pytest.mark.parametrize("line", [
    "v  1.0 2.0", "v 2", "v 2 1", "v two three", "v 1 2 3", "v -1 1",
    "v 1 inf", "v nan 1", f"v 1 {'9' * 5000}"], ids=lambda line: line[:12])
def test_the_wrong_line_is_named(write, line):
    assert write(*GOOD).classes == ["Diving"]
    with pytest.raises(ValueError, match="Diving_val.txt:2: "):
        write({"Diving": ["v  1.0 2.0", line]}, GOOD[1])


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x"])
def test_names_stay_in_the_folder(write, name):
    with pytest.raises(ValueError, match="annotation_val: .* leads out"):
        write({"Diving": [f"{name} 1 2"]}, GOOD[1])


def test_lists_hold_videos_on_one_side(write):
    refused("thumos14 lists no training videos", write, {}, {})
    refused("annotation_test: t: 't' stands at " ".*annotation_val: t already",
            write, {"Diving": ["t 1 2"]}, GOOD[1])
