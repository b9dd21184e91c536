"""UT-Interaction: clips, the derived sheet, and what does not fit."""

from collections import Counter

import pytest
from checks import refused
from video_files import real

from lib.data.sets import ut_interaction
from lib.data.sets.records import split_by_group


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


def test_both_sets(tmp_path):
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


def test_without_its_sheet(tmp_path):
    ut_clips(tmp_path, sheet=False)
    train = ut_interaction.read(tmp_path).train
    assert {(r.spans, r.main_actor) for r in train} == {(None, None)}


def test_names_what_is_missing(tmp_path):
    (tmp_path / "ut_interaction" / "clips_set1").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no .avi clips.*DATA_ROOT"):
        ut_interaction.read(tmp_path)


def test_names_what_does_not_fit(tmp_path):
    sheet = ut_clips(tmp_path)
    extra = tmp_path / "ut_interaction" / "clips_set1" / "3_1_2.avi"
    extra.touch()
    refused("no row 'clips_set1/3_1_2.avi'", ut_interaction.read, tmp_path)
    sheet.unlink()
    extra.rename(extra.with_name("3_1_9.avi"))
    refused("3_1_9.avi: expected", ut_interaction.read, tmp_path)

HEAD = "clip,n_frames,main_actor(0=left;1=right;-1=both)"


@pytest.mark.parametrize("text, reason", [
    ("", ":1: no columns"), (HEAD, "has no row 'clips_set1/0_1_4.avi'"),
    (HEAD.replace("n_frames", "frames"), r":1: no columns \['n_frames'\]"),
    *((f"{HEAD}\nclips_set1/0_1_4.avi,{cells}", ":2: ") for cells in (
        "20,0", "28,0", "-5,0", "many,0", "1e2,0", "100,2", "100,", "100",
        "100,0,1", "9999999999,0", '"100,0', f"{'9' * 200_000},0")),
    (f"{HEAD}\nclips_set1/0_1_4.avi,100,0\n\nclips_set1/0_1_4.avi,101,1",
     ":4: .*csv:2 already")], ids=lambda text: text[-30:])
def test_names_the_wrong_row(tmp_path, text, reason):
    sheet = ut_clips(tmp_path)
    have = [line for line in sheet.read_text().splitlines()[1:]
            if "0_1_4" not in line]
    more = "\n".join(have) if text not in ("", HEAD) else ""
    sheet.write_text(f"{text}\n{more}\n\n")
    with pytest.raises(ValueError, match=reason) as caught:
        ut_interaction.read(tmp_path)
    assert str(sheet) in str(caught.value)


def test_real():
    train, test, _ = ut_interaction.read(real("ut_interaction"), "set1")
    for part in (train, test):
        assert len(part) == 60 and len({r.group for r in part}) == 10
        counts = Counter(r.label for r in part)
        assert set(counts) == set(range(6)) and min(counts.values()) >= 9
        for record in part:
            (start, end), = record.spans
            assert 0 < start < end
    kept, val = split_by_group(train, 0.2)
    assert {r.label for r in kept} == {r.label for r in val}
