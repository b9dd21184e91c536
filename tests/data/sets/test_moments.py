"""Moments in Time: classes, both sheets, and the line that is wrong."""


import pytest
from checks import refused
from video_files import real

from lib.data.sets import moments


def test_official_classes():
    name = "annotations/moments"
    names = moments.categories(real(name) / name)
    assert len({*names}) == 339 and names[0] == "clapping"


def test_sheets_and_classes(tmp_path):
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
        refused("trainingSet.csv:2", moments.read, tmp_path, lists_only=True)
    # a video for training that is in the test list, too
    (folder / "trainingSet.csv").write_text("b/1.mp4,b\na c/z.mp4,a c\n")
    with pytest.raises(ValueError, match="validationSet.csv:1.*Set.csv:2 al"):
        moments.read(tmp_path, lists_only=True)
    for line in ("b", "1,b", "a,1", "c,1", "c,-1", "c,x", ",1"):
        (folder / "moments_categories.txt").write_text(f"a,0\nb,1\n{line}\n")
        refused("categories.txt:3", moments.categories, folder)
    for text in ("a,0\nb,2\n", "a,1\nb,2\n"):
        (folder / "moments_categories.txt").write_text(text)
        refused("categories.*not numbered", moments.categories, folder)
    (folder / "moments_categories.txt").write_text("..,0\n")
    (folder / "trainingSet.csv").write_text("../x.mp4,..\n")
    (folder / "validationSet.csv").write_text("../y.mp4,..\n")
    with pytest.raises(ValueError, match="moments: '..' is no name"):
        moments.read(tmp_path, lists_only=True)
