"""Your own videos: layouts, lists, splits, and what is wrong said by name."""

import shutil

import pytest
import torch
from checks import refused
from video_files import coded, cut, noisy, pictures, uneven, write

from lib.data import datasets
from lib.data.sets import folder

CLASSES, PEOPLE = ("clap", "jump"), ("Anna", "Jörg", "Li Wei")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write(tmp_path_factory.mktemp("one") / "one.avi", coded(8))


@pytest.fixture
def make(tmp_path, video):
    """Files by their names, all the same short video."""
    def give(*names, root=tmp_path / "my videos"):
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(video, path)
        return root
    return give


def grouped(people=PEOPLE, classes=CLASSES, each=2):
    return [f"{name}/{who}/trial {i}.avi" for name in classes
            for who in people for i in range(1, each + 1)]


def listed(root, text, name="list.csv"):
    (root / name).write_text(text, encoding="utf-8")
    return root


def names(lists):
    return [sorted(r.name for r in part) for part in lists[:2]]


def test_a_folder_for_each_class_is_cut_by_file_into_fifths(make, capsys):
    clips = [f"{c}/clip {i}.avi" for c in CLASSES for i in range(1, 11)]
    root, tested = make(*clips), []
    for split in "12345":
        lists = folder.read(root, split)
        train, test = names(lists)
        assert sorted(train + test) == sorted(clips) and len(test) == 4
        assert lists.classes == [*CLASSES]
        tested += test
    assert sorted(tested) == sorted(clips)
    assert {*names(folder.read(root))[1]} == {  # 2 comes before 10
        f"{c}/clip {i}.avi" for c in CLASSES for i in (1, 2)}
    assert "test: 4 videos, by file; training: 16" in capsys.readouterr().out
    assert folder.find(root).rounds() == [*"12345"]


@pytest.mark.parametrize("split", [*PEOPLE, "1", 2, "3"])
def test_one_group_is_left_out(make, capsys, split):
    root = make(*grouped())
    train, test, _ = folder.read(root, split)
    (who,) = {r.group for r in test}
    assert who == split or who == PEOPLE[int(split) - 1]
    assert len(test) == 4 and not [r for r in train if f"/{who}/" in r.name]
    said = capsys.readouterr().out
    assert f"test: 4 videos of {who}; training: 8, some" in said
    assert "validation: by file, since there are too few groups" in said
    assert folder.find(root).rounds() == [*PEOPLE]


def test_with_enough_groups_validation_has_its_own(make, capsys):
    people = [f"p{i}" for i in range(1, 12)]
    root = make(*grouped(people, each=1))
    train, test, _ = folder.read(root, "1")
    assert {r.group for r in test} == {"p1", "p6", "p11"}  # every fifth
    assert {r.group for r in train} == {*people} - {r.group for r in test}
    assert "for validation: whole groups" in capsys.readouterr().out
    assert folder.find(root).rounds() == [*"12345"]
    assert {r.group for r in folder.read(root, "p7").test} == {"p7"}
    splits = datasets.load("folder", data_root=root, frames=4)
    groups = [{r.group for r in part.records} for part in splits[:3]]
    assert not groups[0] & groups[1] and all(groups)
    # groups of one class each: a fifth has some of both
    root = make(*[f"{c}/{c}{i}/a.avi" for c in CLASSES for i in range(5)],
                root=root.parent / "other")
    assert {r.label for r in folder.read(root, "4").test} == {0, 1}


def test_given_parts_hold_and_val_joins_training(make):
    parts = [f"{part}/{name}" for part in ("train", "Validation", "test")
             for name in ("clap/1.avi", "jump/1.avi", "jump/2.avi")]
    root = make(*parts)
    train, test = names(folder.read(root))
    assert train == sorted(parts[:6]) and test == sorted(parts[6:])
    assert folder.find(root).rounds() == ["1"]
    refused("^split '2': .* has the splits 1$", folder.read, root, "2")
    shutil.rmtree(root / "test")  # then val is for testing
    assert names(folder.read(root))[1] == sorted(parts[3:6])


def test_frames_and_uneven_times_are_videos(make):
    root = make("clap/1.avi", "jump/1.avi", "jump/2.avi")
    pictures(root / "clap" / "as frames", coded(6), "img_{:05d}.jpg")
    uneven(root / "clap" / "uneven.mp4")
    splits = datasets.load("folder", data_root=root, frames=4, size=48)
    found = {r.path.name for part in splits[:3] for r in part.records}
    assert found >= {"as frames", "uneven.mp4"}
    for part in splits[:3]:
        for sample in part:
            assert sample["video"].shape == (4, 3, 48, 48)
    assert torch.unique(part[0]["video"][:, 0, 24, 24]).numel()


def test_broken_files_are_left_out_by_name_and_reason(make, capsys):
    root = make(*grouped())
    cut(write(root / "clap/Anna/cut.mp4", noisy(12)), 0.5)
    cut(write(root / "clap/Anna/short.avi", noisy(30)), 0.5)
    (root / "jump/Jörg/empty.mp4").touch()
    (root / "jump/Jörg/notes.odt").write_text("x")
    (root / "jump/Jörg/.hidden").write_text("x")
    (root / "jump/Jörg/nothing").mkdir()
    train, test = names(folder.read(root))
    assert sorted(train + test) == sorted(grouped())
    said = capsys.readouterr().out
    assert "left out: clap/Anna/cut.mp4 (not a video file" in said
    assert "left out: clap/Anna/short.avi (" in said
    assert "the header claims 30 frames" in said
    assert "left out: jump/Jörg/empty.mp4 (the file is empty)" in said
    assert "left out: jump/Jörg/notes.odt (no video by its name)" in said
    assert "left out: jump/Jörg/nothing (a folder without images)" in said
    assert "hidden" not in said
    folder.read(root)
    assert not capsys.readouterr().out  # once is enough


def test_a_list_with_groups_and_spaces(make):
    root = make("a/wink ü.avi", "a/2.avi", "b/3.avi", "b/4.avi", "b/5.avi")
    rows = ["a/wink ü.avi,clap,Anna", "a/2.avi,jump,Anna", "b/5.avi,jump,Anna",
            '"b/3.avi", clap ,Jörg', "b/4.avi,jump,Jörg"]
    for data_root in (listed(root, "\n".join(["path,label,group", *rows])),
                      root / "list.csv"):
        train, test, classes = folder.read(data_root, "Jörg")
        assert classes == ["clap", "jump"]
        assert [r.label for r in test] == [0, 1]
        assert [r.label for r in train] == [0, 1, 1]
    listed(root, "\ufeffpath,label,split\n" + "\n".join(
        row.rpartition(",")[0] + f",{part}" for row, part in
        zip(rows, "train training val test val".split(), strict=True)))
    assert names(folder.read(root)) == [
        ["a/2.avi", "a/wink ü.avi", "b/4.avi", "b/5.avi"], ["b/3.avi"]]


def test_lists_of_mmaction(make):
    root = make("videos/a b.avi", "videos/2.avi", "videos/3 4.avi",
                "videos/5.avi", "videos/6.avi")
    pictures(root / "rawframes" / "x 1", coded(6), "img_{:05d}.jpg")
    listed(root, "a b.avi 0\n2.avi 1\n3 4.avi 0\nx 1 6 1\n6.avi 1",
           "train_list.txt")
    assert folder.read(root / "train_list.txt", 1).classes == ["0", "1"]
    listed(root, "5.avi 2\n", "val_list.txt")
    listed(root, "jump\nclap\nwave\n", "label_map.txt")
    refused("leaves no training videos of wave", folder.read, root)
    listed(root, "5.avi 1\n", "val_list.txt")
    train, test, classes = folder.read(root)
    assert classes == ["clap", "jump"]
    assert {r.name: classes[r.label] for r in train} == {
        "a b.avi": "jump", "2.avi": "clap", "3 4.avi": "jump",
        "x 1": "clap", "6.avi": "clap"}
    assert [(r.name, classes[r.label]) for r in test] == [("5.avi", "clap")]
    listed(root, "1 jump\n2 clap\n", "label_map.txt")
    refused("train_list.txt:1: .*label_map.txt has no name of the class 0",
            folder.read, root)


def test_the_list_of_kinetics(make, capsys):
    clips = ["abc_000010_000020", "abc_000030_000040", "-d_f_000000_000010",
             "xyz_000001_000011"]
    root = make(*(f"deep/down/{c}.avi" for c in clips))
    listed(root, "label,youtube_id,time_start,time_end,split\n"
           "clap,abc,10,20,train\njump,abc,30,40,train\nclap,-d_f,0,10,train\n"
           "jump,xyz,1,11,train\nclap,gone,5,15,train\n")
    train, test, _ = folder.read(root, "-d_f")
    assert [r.path.name for r in test] == ["-d_f_000000_000010.avi"]
    assert len(train) == 3
    assert ("left out: gone_000005_000015.mp4 (no such file or directory)"
            in capsys.readouterr().out)
    assert len(folder.find(root, lists_only=True).entries) == 5


HEAD = "path,label,group\n"


@pytest.mark.parametrize("text, words", [
    ("path,label,person\n", r":1: unknown columns \['person'\].*path,label "),
    ("path;label\n", r"missing columns \['label', 'path'\]"),
    (HEAD + "a.avi,clap\n", r":2: \['a.avi', 'clap'\] are not 3 filled cells"),
    (HEAD + "a.avi,clap,\n", "not 3 filled"),
    (HEAD + "a.avi,clap,x\na.avi,jump,y", ":3: 'a.avi' stands at .*:2 alr"),
    (HEAD + "a.avi,clap,x", "of 1 classes, and two are needed"),
    ("path,label,split\na.avi,clap,dev", "the split 'dev' is not one of tr"),
    ("path,label\na.avi,clap\nb.avi,jump",
     "no video of the class 'jump' can be read: .*\n  b.avi: no such file"),
    ("path,label,group,split\na.avi,clap,x,train\nc.avi,jump,x,test\n"
     "d.avi,jump,y,train", "x in training and test: move their"),
    ("path,label\na.avi,clap\nc.avi,jump", "no class has two training|leaves"),
    ("label,youtube_id,time_start,time_end\nclap,x,soon,3",
     ":2: times are seconds"),
], ids=lambda text: text[-20:])
def test_a_wrong_list_is_named(make, text, words):
    root = listed(make("a.avi", "c.avi", "d.avi"), text)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as found:
        folder.read(root)
    assert str(root) in str(found.value) or "training" in words


def test_a_wrong_folder_is_named(make, tmp_path):
    refused("not found: .*nowhere", folder.read, tmp_path / "nowhere",
            error=FileNotFoundError)
    root = make("clap/1.avi", "clap/2.avi")
    refused("of 1 classes, and two", folder.read, root,
            error=FileNotFoundError)
    (root / "jump").mkdir()
    refused("jump: a class without videos", folder.read, root)
    make("jump/Anna/1.avi", "jump/Anna/2.avi")
    refused("clap/1.avi: has no group, and others have", folder.read, root)
    pictures(root / "hop", coded(3))
    refused("hop/img_00001.png: an image; give", folder.read, root)
    listed(root, "hello there\n", "notes.txt")
    refused("notes.txt:1: 'hello there' is no path .* take it out",
            folder.read, root)
    listed(root, "", "more.txt")
    refused("holds the lists .*more.txt.*name one", folder.read, root)
