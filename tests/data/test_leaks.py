"""No group in two lists, in any data set or preset; and how lists weigh."""

import importlib
import time
import tracemalloc
import zipfile

import pytest
import yaml
from video_files import real

from lib import ROOT
from lib.data import datasets
from lib.data.sets import SETS, ucf101
from lib.data.sets.records import Lists, Record, split_by_group

SPLITS = {"ucf101": "123", "hmdb51": "123", "jhmdb": "123",
          "ucf101_24": "1", "thumos14": "1"}
PRESETS = sorted((ROOT / "notebooks/presets").glob("*/*.yaml"))


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    root = tmp_path_factory.mktemp("lists")
    own = real("annotations") / "annotations"
    (root / "annotations").symlink_to(own.resolve())
    if (own / "jhmdb/splits.zip").is_file():
        with zipfile.ZipFile(own / "jhmdb/splits.zip") as file:
            file.extractall(root / "jhmdb")
    return root


def lists_of(name, root, split):
    reader = importlib.import_module(f"lib.data.sets.{name}")
    try:
        return reader.read(root, split, lists_only=True), reader.VAL_SHARE
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name, split", [
    (name, split) for name, all_ in SPLITS.items() for split in all_])
def test_no_group_lies_in_two_of_three(official, name, split):
    lists, share = lists_of(name, official, split)
    for seed in (0, 1):
        train, val = split_by_group(lists.train, share, seed)
        parts = train, val, lists.test
        groups = [{r.group for r in part} for part in parts]
        paths = [{r.path for r in part} for part in parts]
        for some in (groups, paths):
            for a, b in ((0, 1), (0, 2), (1, 2)):
                assert not some[a] & some[b]
        assert [len(p) for p in paths] == [len(p) for p in parts]
        assert {r.label for r in train} == {r.label for r in lists.test}
        assert 0.5 * share < len(val) / len(lists.train) < 2 * share
        # the test list plays no part in the cut
        again = split_by_group(lists.train, share, seed)
        assert again == (train, val)


@pytest.mark.parametrize("path", PRESETS, ids=lambda p: f"{p.parent.name}-"
                                                       f"{p.stem}")
def test_every_preset_names_a_data_set_with_its_splits(path):
    chosen = yaml.safe_load(path.read_text())
    name = chosen.get("dataset", "puppets")
    assert name in {*datasets.PUPPETS, *SETS}
    if path.stem in SETS:
        assert name == path.stem
    split = chosen.get("split", "1")
    assert split in SPLITS.get(name, "12")
    other = chosen.get("other", "puppets")
    assert other in {*datasets.PUPPETS, *SETS}


def test_load_hands_the_test_list_to_the_test_alone(monkeypatch):
    def record(i, part):
        return Record(ROOT / "README.md", i % 2, f"{part}{i}",
                      f"{part}{i // 4}")

    lists = Lists([record(i, "train") for i in range(40)],
                  [record(i, "test") for i in range(8)], ["a", "b"])
    monkeypatch.setattr(ucf101, "read", lambda root, split: lists)
    monkeypatch.setattr(ucf101, "VAL_SHARE", 0.2)
    splits = datasets.load("ucf101")
    names = [[r.name for r in part.records] for part in splits[:3]]
    assert sorted(names[0] + names[1]) == sorted(r.name for r in lists.train)
    assert names[2] == [r.name for r in lists.test]


def test_indexing_ucf101_is_quick_and_small(official):
    """13,320 names: under a second and under 50 MB; nothing is decoded."""
    real("annotations/ucf101_splits")
    spent = []
    for _ in range(3):  # the machine may be busy: the best of three
        start = time.perf_counter()
        lists = ucf101.read(official, "1", lists_only=True)
        split_by_group(lists.train, 0.1)
        spent.append(time.perf_counter() - start)
    assert min(spent) < 1
    del lists
    tracemalloc.start()
    lists = ucf101.read(official, "1", lists_only=True)
    split_by_group(lists.train, 0.1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(lists.train) + len(lists.test) == 13320
    assert peak < 50e6


def test_a_hundred_thousand_groups_are_cut_in_seconds():
    """Moments in Time gives no groups: each of 800,000 videos is its own."""
    records = [Record(ROOT, i % 339, str(i), str(i)) for i in range(100_000)]
    start = time.perf_counter()
    val = split_by_group(records, 0.02)[1]
    assert time.perf_counter() - start < 10
    assert abs(len(val) - 2000) <= 1
