"""Puppets as each data set publishes itself: script, reader, samples.

The real videos are not at hand; their formats are. Each set is written as
its archives hold it, taken by its script, and loaded by its name.
"""

import importlib
import shutil

import av
import numpy as np
import puppets as writer
import pytest
import torch

from lib.data import batches, datasets, flow, transforms
from lib.data.sets import SETS
from lib.data.sets.flying_chairs import FlyingChairs
from lib.scores.localisation import box_iou
from lib.worlds.actions import CLASSES
from lib.worlds.worlds import ALONE, WORLDS, Puppets

SCRIPTS = {name: name for name in writer.FORMATS} | {
    "moments": "moments_in_time"}
ANSWERS = {"jhmdb": {"mask", "boxes", "joints"},
           "penn_action": {"boxes", "joints"},
           "ucf101_24": {"boxes", "segments", "relevant"},
           "thumos14": {"segments", "relevant", "ambiguous"}}
COMMON = {"video", "label", "name", "group", "fps"}
FEW = {"n_train": 28, "n_test": 14}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            given = tmp_path_factory.mktemp(f"given_{name}")
            root = tmp_path_factory.mktemp(name)
            writer.main(given, format=name, **FEW)
            script = importlib.import_module(SCRIPTS[name])
            script.main(script.__doc__, script.RECIPE,
                       ["--root", str(root), "--from", str(given)])
            made[name] = root
        return made[name]
    return get


def load(root, name, **options):
    return datasets.load(name, data_root=root, frames=4, size=64, **options)


@pytest.mark.parametrize("name", [name for name in SETS if name in SCRIPTS])
def test_script_reader_samples(prepared, name):
    root = prepared(name)
    answers = ANSWERS.get(name, set())
    extras = ("joints",) if "joints" in answers else ()
    splits = load(root, name, extras=extras)
    sizes = [len(part) for part in splits[:3]]
    half = name == "ucf101_24"  # boxes for half of the classes
    assert sizes[0] + sizes[1] == 28 // (1 + half)
    assert sizes[2] == 14 // (1 + half) and min(sizes) > 0
    groups = [{r.group for r in part.records} for part in splits[:3]]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not groups[a] & groups[b]
    for part in splits[:3]:
        one = part[0]
        assert set(one) == COMMON | answers
        assert one["video"].shape == (4, 3, 64, 64)
        assert one["video"].float().std() > 5
    batches.collate([splits.train[i] for i in range(3)])


@pytest.mark.parametrize("name", [*SCRIPTS])
def test_scripts_count_and_leave_what_is_there(prepared, name, capsys):
    root = prepared(name)
    script = importlib.import_module(SCRIPTS[name])
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")
              if p.is_file() and p.name != ".lock"}
    # nothing is fetched: every part is there
    assert script.main(script.__doc__, script.RECIPE,
                      ["--root", str(root)]) == 1
    said = capsys.readouterr().out
    assert "DIFFERS" in said and "part of it" in said
    assert "Cite" in said and "Licence" in said
    after = {p: p.stat().st_mtime_ns for p in root.rglob("*")
             if p.is_file() and p.name != ".lock"}
    assert after == before
    assert not [p for p in root.iterdir() if p.name.startswith(".prep")]


def puppet(part, i, extras=(), dials=ALONE):
    return Puppets(part, FEW[f"n_{part}"], extras=extras, dials=dials)[i]


def test_jhmdb_answers_are_the_puppets(prepared):
    splits = load(prepared("jhmdb"), "jhmdb", extras=("joints",))
    for one in splits.test:
        i = int(one["name"].rpartition("_")[2])
        want = puppet("test", i, extras=("joints",))
        kept = torch.arange(4) * 4 + 2
        assert CLASSES[i % 14] == splits.classes[one["label"]]
        assert torch.equal(one["mask"], want["mask"][kept])
        for key in ("boxes", "joints"):
            assert torch.allclose(one[key], want[key][kept], atol=1e-4,
                                  equal_nan=True), key
    # masks and boxes follow a look; joints cannot
    plain = load(prepared("jhmdb"), "jhmdb").test
    look = transforms.through(plain, transforms.View(mirror=True))
    assert torch.equal(look[0]["mask"], plain[0]["mask"].flip(-1))


def test_answers_are_letterboxed_with_the_frames(prepared):
    root = prepared("jhmdb")
    large = load(root, "jhmdb", extras=("joints",)).test[0]
    small = datasets.load("jhmdb", data_root=root, frames=4, size=32,
                          extras=("joints",), fields=2).test[0]
    assert small["mask"].shape == (4, 32, 32)
    assert small["motion"].shape == (4, 4, 32, 32)
    assert torch.allclose(small["boxes"], large["boxes"] / 2)
    assert torch.allclose((small["joints"] + 0.5) * 2,
                          large["joints"] + 0.5, atol=1e-4)


def test_penn_frames_are_the_published_bytes(prepared, tmp_path):
    root = prepared("penn_action")
    given = tmp_path / "given"
    writer.main(given, format="penn_action", **FEW)
    jpeg = (given / "Penn_Action/frames/0003/000005.jpg").read_bytes()
    with av.open(str(root / "penn_action/videos/0003.avi")) as file:
        packets = [bytes(p) for p in file.demux(video=0) if p.size]
    assert packets[4] == jpeg and len(packets) == 16
    splits = load(root, "penn_action", extras=("joints",))
    one = next(x for part in (splits.train, splits.val) for x in part
               if x["name"] == "0003")
    want = puppet("train", 2, extras=("joints",))
    kept = torch.arange(4) * 4 + 2
    for key in ("boxes", "joints"):
        assert torch.allclose(one[key], want[key][kept], atol=1e-3), key
    error = (one["video"].float() - want["video"][kept].float()).abs()
    assert error.mean() < 6


def test_ucf101_24_boxes_lie_on_the_actor(prepared):
    test = load(prepared("ucf101_24"), "ucf101_24").test
    for one in test:
        i = int(one["name"].rpartition("_c")[2]) - 1
        want = puppet("test", i)
        kept = torch.arange(4) * 4 + 2
        shown = one["relevant"]
        assert torch.equal(shown, want["relevant"][kept])
        assert torch.equal(~one["boxes"].isnan().any(1), shown)
        iou = box_iou(one["boxes"][shown], want["boxes"][kept][shown])
        assert (iou == 1).all()
        assert torch.allclose(one["segments"], want["segments"], atol=0.01)


def test_thumos14_seconds_are_the_puppets(prepared):
    test = load(prepared("thumos14"), "thumos14").test
    for one in test:
        want = puppet("test", int(one["name"].rpartition("_")[2]),
                      dials=WORLDS["alone_long"])
        assert torch.allclose(one["segments"], want["segments"], atol=0.01)
        kept = torch.arange(4) * 16 + 8
        assert torch.equal(one["relevant"], want["relevant"][kept])
    assert any(one["ambiguous"] for one in test)


def test_flying_chairs(prepared):
    data = FlyingChairs(prepared("flying_chairs"), "val")
    assert len(data) == 14
    still = moved = 0.0
    for i in range(6):
        one = data[i]
        want = puppet("test", i, extras=("flow",))
        assert torch.equal(one["video"], want["video"][:2])
        assert torch.equal(one["flow"], want["flow"][:1])
        error = (flow.dis(one["video"]) - one["flow"]).norm(dim=1)
        moved += error.mean().item()
        still += one["flow"].norm(dim=1).mean().item()
    assert moved < 0.9 * still  # the metric: end-point error of DIS


def test_archives_and_folders_give_the_same(tmp_path):
    """UCF101 as a zip, HMDB51 as archives in an archive."""
    given = tmp_path / "given"
    writer.main(given, format="hmdb51", n_train=14, n_test=14, size=32,
                frames=10)
    inner = tmp_path / "inner"
    inner.mkdir()
    for folder in (given / "hmdb51_org").iterdir():
        shutil.make_archive(str(inner / folder.name), "zip",
                            folder.parent, folder.name)
    packed = tmp_path / "packed"
    shutil.make_archive(str(packed / "hmdb51_org"), "zip", inner)
    shutil.make_archive(str(packed / "test_train_splits"), "gztar", given,
                        "testTrainMulti_7030_splits")
    script = importlib.import_module("hmdb51")
    roots = {}
    for name, place in (("folders", given), ("archives", packed)):
        root = tmp_path / name
        script.main("x", script.RECIPE,
                   ["--root", str(root), "--from", str(place)])
        roots[name] = {
            p.relative_to(root): p.read_bytes() for p in root.rglob("*")
            if p.is_file() and p.name != ".lock"}
    assert roots["folders"] == roots["archives"] and len(
        roots["folders"]) == 28 + 3 * 14


def test_only_annotated_videos_of_thumos14_are_kept(tmp_path):
    given = tmp_path / "given"
    writer.main(given, format="thumos14", n_train=14, n_test=14, size=32)
    spare = given / "TH14_Test_set_mp4" / "video_test_9999999.mp4"
    spare.write_bytes(b"not annotated")
    script = importlib.import_module("thumos14")
    script.main("x", script.RECIPE, ["--root", str(tmp_path / "root"),
                                    "--from", str(given)])
    kept = [*(tmp_path / "root/thumos14/videos/test").iterdir()]
    assert len(kept) == 14 and spare.exists()


def test_the_cache_knows_the_answers(prepared, tmp_path):
    root = prepared("ucf101_24")
    options = {"cache": tmp_path, "classes": ["Phone", "Drink"]}
    plain = load(root, "ucf101", **options).test
    boxed = load(root, "ucf101_24", **options).test
    assert plain.records[0].path == boxed.records[0].path
    assert "boxes" not in plain[0] and "boxes" in boxed[0]
    again = load(root, "ucf101_24", **options).test
    assert np.array_equal(again[0]["boxes"], boxed[0]["boxes"], equal_nan=True)
    assert "boxes" not in load(root, "ucf101", **options).test[0]
