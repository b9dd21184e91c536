"""Lists that cannot be are refused by one check, with file and line."""

import json

import numpy as np
import pytest
import torch
from scipy.io import savemat
from test_annotations import TEST, TRAIN, ucf101_lists
from test_annotations_lists import flag_file

from lib import annotations, localisation
from lib import annotations_boxes as boxes
from lib import annotations_lists as lists

UCF = "HandstandPushups/v_HandStandPushups_g{}_c01.avi"


@pytest.mark.parametrize("train, test, where", [
    ([*TRAIN, TRAIN[0]], TEST, "trainlist01.txt:3"),  # a line twice
    (TRAIN, [*TEST, UCF.format("08")], "testlist01.txt:2"),  # a group twice
    (TRAIN, [*TEST, UCF.format("09")], "testlist01.txt:2"),
    (TRAIN, [], "no test videos"), ([], TEST, "no training videos")])
def test_videos_and_groups_stand_on_one_side(tmp_path, train, test, where):
    ucf101_lists(tmp_path, train, test)
    with pytest.raises(ValueError, match=where):
        annotations.ucf101(tmp_path, lists_only=True)


@pytest.mark.parametrize("classes", [
    "1 Archery\n3 HandstandPushups", "0 Archery\n1 HandstandPushups",
    "-1 Archery\n1 HandstandPushups", "1 Archery\n1 HandstandPushups",
    "1 Archery\n2 Archery", "1 Archery\n2 ..", "one Archery", "1",
    "1 Archery\n2 a/b"])
def test_classes_are_numbered_without_a_gap(tmp_path, classes):
    folder = ucf101_lists(tmp_path, TRAIN, TEST)
    (folder / "classInd.txt").write_text(classes)
    with pytest.raises(ValueError, match="classInd|ucfTrainTestlist"):
        annotations.ucf101(tmp_path, lists_only=True)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf8_is_read_with_or_without_its_mark(tmp_path, encoding):
    folder = ucf101_lists(tmp_path, TRAIN, TEST)
    for path in folder.iterdir():
        path.write_text(path.read_text() + "\n\n", encoding=encoding)
    assert len(annotations.ucf101(tmp_path, lists_only=True).train) == 2


@pytest.mark.parametrize("data", [
    "1 Archery\n2 HandstandPushups".encode("utf-16"),
    "1 Archery\n2 Über".encode("latin-1"), b"1 Archery\n2 Hand\0stand",
    b"1 Archery\n2 " + b"x" * 200_000])
def test_other_text_is_named_with_its_line(tmp_path, data):
    folder = ucf101_lists(tmp_path, TRAIN, TEST)
    (folder / "classInd.txt").write_bytes(data)
    with pytest.raises(ValueError, match=r"classInd.txt:[12]: "):
        annotations.ucf101(tmp_path, lists_only=True)


@pytest.mark.parametrize("more", [
    ["a_climb_f_cm_np1_fr_med_0.avi 2"],  # both flags
    ["a_climb_f_cm_np1_fr_med_3.avi 2"]])  # its film is on both sides
def test_a_clip_of_hmdb51_has_one_flag(tmp_path, more):
    path = flag_file(tmp_path, [
        "a_climb_f_cm_np1_fr_med_0.avi 1", "b_climb_f_cm_np1_fr_med_0.avi 2",
        *more])
    with pytest.raises(ValueError, match=f"{path.name}:3"):
        lists.hmdb51(tmp_path, lists_only=True)


@pytest.mark.parametrize("row", ["20", "-5", "x", "1" * 12])
def test_a_clip_of_ut_interaction_lasts(tmp_path, row):
    root = tmp_path / "ut_interaction"
    clips = [f"clips_set{part}/0_1_4.avi" for part in (1, 2)]
    for clip in clips:
        (root / clip).parent.mkdir(parents=True)
        (root / clip).touch()
    sheet = root / "ut_clips_derived.csv"
    head = "clip,n_frames,main_actor(0=left)\n"
    good = "".join(f"{clip},60,0\n" for clip in clips)
    sheet.write_text(head + good)
    assert annotations.ut_interaction(tmp_path).train[0].spans == ((14, 46),)
    for text, where in (
            (head + good.replace("60", row, 1), "csv:2"),
            (head + good + good.replace("60", "70"), "csv:4"),
            (good, "csv:1"), (head, "no row"), ("", "csv:1")):
        sheet.write_text(text)
        with pytest.raises(ValueError, match=where):
            annotations.ut_interaction(tmp_path)


DATABASE = {"video_test_0000004": {
    "subset": "test", "annotations": [
        {"label": "Diving", "segment": ["1.5", 4]}]}}


@pytest.mark.parametrize("text", [
    "", "[]", "{}", "[" * 100_000, '{"database": []}',
    json.dumps({"database": {"v": {"subset": "test"}}}),
    *(json.dumps({"database": DATABASE}).replace('"1.5", 4', times)
      for times in ("null, 4", "4, 1", "-1, 4", "NaN, 4", "1" * 5000 + ", 4",
                    '"x", 4', "1"))])
def test_a_json_of_thumos14_is_named(tmp_path, text):
    sheet = tmp_path / "thumos14/gt.json"
    sheet.parent.mkdir()
    sheet.write_text(json.dumps({"database": DATABASE}))
    (found,) = lists.thumos14_instances(tmp_path, "test").values()
    assert found == [("Diving", 1.5, 4.0)]
    sheet.write_text(text)
    with pytest.raises(ValueError, match="gt.json"):
        lists.thumos14_instances(tmp_path, "test")


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x"])
def test_no_path_leaves_the_folder(tmp_path, name):
    def record(name, group):
        return "list:1", annotations.Record(tmp_path / name, 0, group, group)
    with pytest.raises(ValueError, match="list:1.*leads out"):
        annotations.checked(tmp_path, tmp_path, [record(name, "a")],
                            [record("y.avi", "b")], ["run"])


def labels(folder, **changes):
    held = {"action": "run", "train": 1, "bbox": np.tile(
        [3.0, 4, 20, 30], (5, 1)), "x": np.full((5, 13), 6.0),
        "y": np.full((5, 13), 7.0), "visibility": np.ones((5, 13))}
    savemat(folder / "0001.mat", held | changes)
    return boxes.Labelled(folder / "0001.mat")


@pytest.mark.parametrize("wrong", [
    [np.nan, 4, 20, 30], [3, 4, np.inf, 30], [3, 4, 2, 30], [20, 4, 3, 30]])
def test_half_a_box_is_no_box_and_no_score_is_nan(tmp_path, wrong):
    box = np.tile([3.0, 4, 20, 30], (5, 1))
    box[1] = wrong
    true = labels(tmp_path, bbox=box)(torch.arange(5))["boxes"]
    assert true[1].isnan().all() and not true[[0, 2, 3, 4]].isnan().any()
    found = true.nan_to_num(5.0)[None]
    share = localisation.frame_localisation_accuracy(found, true[None], 0.5)
    assert share == 1.0
    ap = localisation.frame_map(found, torch.ones(1, 1), true[None],
                                torch.zeros(1, dtype=torch.long), 0.5)
    assert ap.value == ap.value


@pytest.mark.parametrize("changes", [
    {"bbox": np.ones((4, 5))}, {"bbox": "text"}, {"x": np.ones((4, 13))},
    {"y": np.ones((5, 13)) * 1j}, {"action": 3.0}, {"train": np.ones((2, 2))},
    {"visibility": np.array([[{}]], object)}])
def test_labels_of_other_shapes_are_named(tmp_path, changes):
    with pytest.raises(ValueError, match="0001.mat"):
        labels(tmp_path, **changes)(torch.arange(5))
