"""Puppets and real files give the same samples; nothing broken slips in."""

import os
import pickle
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import video_files
from video_files import coded, numbers, pictures, real, same, uneven

from lib import ROOT
from lib.data import batches, datasets, decode, flow, sampling
from lib.data.sets.records import Record
from lib.worlds import actions, worlds

pytestmark = pytest.mark.timeout(120)


def write(path, count=20, colour=0):
    """A video that brightens from frame to frame, at 10 per second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.zeros((count, 48, 64, 3), np.uint8)
    frames[..., colour] = 40 + 10 * np.arange(count)[:, None, None]
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p"
        for pixels in frames:
            file.mux(stream.encode(
                av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return path


def record(path, label=0, **more):
    return Record(path, label, path.stem, "g01", **more)


def test_videos(tmp_path):
    path = write(tmp_path / "a.avi")
    spans = ((5, 15),)
    item = record(path, 1, spans=spans, main_actor="left")
    one = datasets.Videos([item], classes=["x", "y"], frames=4, size=32)[0]
    assert one["video"].shape == (4, 3, 32, 32)
    assert one["video"].dtype == torch.uint8
    # Frames 2, 7, 12, 17 of a video that brightens by 10 a frame.
    red = one["video"][:, 0, 16, 16].float()
    want = torch.tensor([60.0, 110, 160, 210])
    assert (red - want).abs().max() < 5
    assert (one["label"], one["name"], one["group"]) == (1, "a", "g01")
    # Four frames stand for two seconds.
    assert one["fps"] == pytest.approx(2.0)
    assert torch.allclose(one["segments"], torch.tensor([[0.5, 1.5]]))
    assert one["relevant"].tolist() == [False, True, True, False]
    assert one["main_actor"] == "left"
    plain = datasets.Videos([record(path)], classes=["x"])[0]
    assert set(plain) == {"video", "label", "name", "group", "fps"}


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("seconds, spans", [
    ((0.0, 0.2), (0, 20)), ((0.2, 4.0), (20, 40)), ((0.05, 0.77), (5, 23))])
def test_marks_go_by_the_times_of_a_variable_rate(tmp_path, cached, seconds,
                                                  spans):
    """20 frames in 0.2 s, then 20 in 3.8: a constant rate marks 2 of 20."""
    path = uneven(tmp_path / "a.mkv")
    options = {"classes": ["x"], "size": 64,
               "cache": tmp_path / "cache" if cached else None}
    true = (torch.arange(40) >= spans[0]) & (torch.arange(40) < spans[1])
    for marks in ({"segments": (seconds,)}, {"spans": (spans,)}):
        data = datasets.Videos([record(path, **marks)], frames=40, **options)
        for one in (data[0], data[0]):
            assert numbers(one["video"][:, :, 8:56]) == list(range(40))
            assert torch.equal(one["relevant"], true)
            assert torch.allclose(one["segments"], torch.tensor([seconds]),
                                  atol=1e-3)
            assert one["fps"] == pytest.approx(10)
        few = datasets.Videos([record(path, **marks)], frames=10, **options)
        assert torch.equal(few[0]["relevant"], true[2::4])
        part = few.between(0.5, 1)[0]["relevant"]
        assert torch.equal(part, true[21::2])


def test_cache_decodes_once(tmp_path, monkeypatch):
    items = [record(write(tmp_path / "a.avi"), spans=((5, 15),))]
    options = {"classes": ["x"], "frames": 4, "size": 32}
    plain = datasets.Videos(items, **options)[0]
    folder = tmp_path / "deep" / "cache"
    same(datasets.Videos(items, cache=folder, **options)[0], plain)

    def never(*_, **__):
        raise AssertionError("decoded again")

    monkeypatch.setattr(decode, "sampled", never)
    cached = datasets.Videos(items, cache=folder, **options)
    same(cached[0], plain)
    next(folder.iterdir()).write_bytes(b"rubbish")
    with pytest.raises(AssertionError, match="decoded again"):
        cached[0]


def broken_set(folder):
    """Two sound videos, and six that are not."""
    items = [
        record(write(folder / f"{name}.avi", colour=label), label)
        for label, name in enumerate(["good", "cut", "other"])
    ]
    video_files.cut(folder / "cut.avi", 0.6)
    (folder / "text.avi").write_text("hello")
    items.insert(1, record(folder / "text.avi"))
    pictures(folder / "shot", coded(4))
    (folder / "shot" / "img_00002.png").write_text("hello")
    items[2:2] = [record(folder / "shot.avi")]
    return [*items, record(folder / ("x" * 300 + ".avi")),
            record(folder.joinpath(*["deep"] * 1000, "deep.avi")),
            record(folder / "missing.avi")]


@pytest.mark.parametrize("cached", [False, True])
def test_skip_lists_the_broken(tmp_path, cached):
    items = broken_set(tmp_path)
    cache = tmp_path / "cache" if cached else None
    data = datasets.Videos(items, classes=["x", "y", "z"], frames=4, size=32,
                           on_error="skip", cache=cache)
    assert len(data) == 2 and [s["name"] for s in data] == ["good", "other"]
    said = [reason for _, reason in data.skipped]
    for item, reason in data.skipped:
        assert str(item.path) in reason
    for words, reason in zip((
            "not a video", "img_00002.png", "claims 20 frames",
            "name too long", "name too long", "no such file"), said,
            strict=True):
        assert words in reason


def test_raise_names_the_broken(tmp_path):
    items = broken_set(tmp_path)
    with pytest.raises(decode.VideoError, match="3 of 8 .*xxx.avi"):
        datasets.Videos(items, classes=["x"])
    with pytest.raises(decode.VideoError, match="1 of 6 .*missing.avi"):
        datasets.Videos([*items[:5], items[-1]], classes=["x"])
    data = datasets.Videos(items[:5], classes=["x"], frames=4, size=32)
    assert len(data) == 5 and data[4]["name"] == "other"
    for i, reason in ((1, "text.avi"), (2, "shot.*img_00002.png"),
                      (3, "cut.avi.*claims 20 frames")):
        with pytest.raises(decode.VideoError, match=reason):
            data[i]


@pytest.mark.parametrize("cached", [False, True])
def test_a_folder_of_images_is_as_good_as_the_file(tmp_path, cached):
    """That the list names; what is cached goes by the images."""
    frames = coded(20)
    pictures(tmp_path / "a", frames)
    options = {"classes": ["x"], "frames": 10, "size": 64,
               "cache": tmp_path / "cache" if cached else None}
    for marks in ({"spans": ((5, 15),)}, {"segments": ((0.2, 0.6),)}):
        item = record(tmp_path / "a.avi", **marks)
        data = datasets.Videos([item], **options)
        for one in (data[0], data[0]):
            picture = one["video"][:, :, 8:56]
            assert numbers(picture) == list(range(1, 21, 2))
            assert one["fps"] == pytest.approx(12.5)
            assert one["relevant"].tolist() == [2 <= i < 7 for i in range(10)]
            assert torch.allclose(one["segments"], torch.tensor([0.2, 0.6]))
    other = datasets.Videos([item], image_fps=50, **options)
    assert other[0]["fps"] == pytest.approx(25)
    assert other.identity(0) != data.identity(0)
    before = data.identity(0)
    for t in (2, 4):
        (tmp_path / "a" / f"img_{t:05d}.png").write_bytes(
            (tmp_path / "a" / "img_00001.png").read_bytes())
    assert data.identity(0) != before
    assert numbers(data[0]["video"][:2, :, 8:56]) == [0, 0]


def test_images_have_the_rate_of_their_set(tmp_path):
    ucf101(tmp_path)
    for path in sorted((tmp_path / "UCF-101").glob("*/*.avi")):
        frames = decode.read(path).permute(0, 2, 3, 1).numpy()
        path.unlink()
        pictures(path.with_suffix(""), frames, "image_{:05d}.jpg")
    splits = datasets.load("ucf101", data_root=tmp_path, frames=4, size=32)
    assert len(splits.test) == 2
    assert splits.test[0]["fps"] == pytest.approx(25 / 2)


@pytest.mark.parametrize("option, value, good", [
    ("size", -8, 2), ("size", 1, 2), ("size", 32.0, 2), ("size", "x", 2),
    ("frames", 0, 1), ("frames", True, 1), ("frames", None, 1),
    ("fields", -1, 0), ("n_val", 0, 1)])
def test_numbers_that_no_sample_has_are_named(option, value, good):
    want = f"{option}={value!r}: use a whole number, at least {good}"
    for call in (lambda **one: datasets.Videos([], classes=[], **one),
                 datasets.load)[option == "n_val":]:
        with pytest.raises(ValueError) as caught:
            call(**{option: value})
        assert str(caught.value) == want


@pytest.mark.parametrize("options, needed, lower", [
    ({"frames": 10**9}, 3 * 10**9 * 64**2, "frames"),
    ({"size": 10**6}, 16 * 3 * 10**12, "size"),
    ({"fields": 10**6}, 16 * 4_000_003 * 64**2, "fields"),
    ({"frames": 64, "size": 4000}, 64 * 3 * 4000**2, "size")])
def test_a_sample_larger_than_memory_is_refused_before_it_is_made(
        options, needed, lower):
    for call in (lambda: datasets.Videos([], classes=[], **options),
                 lambda: datasets.load(**options)):
        with pytest.raises(ValueError, match=(
                f"needs {needed:,} bytes, .*lower {lower}$")):
            call()
    # the papers' largest are made
    datasets.Videos([], classes=[], frames=64, size=224, fields=10)


def test_bad_options():
    for options in ({"on_error": "x"}, {"extras": ["x"]}):
        with pytest.raises(ValueError, match=f"{[*options][0]} .*'x'"):
            datasets.Videos([], classes=[], **options)


def test_opening_a_data_set_decodes_nothing(tmp_path):
    """Empty files are opened as a data set, and missed when asked for."""
    items = [record(tmp_path / f"{i}.avi") for i in range(9)]
    for item in items:
        item.path.touch()
    data = datasets.Videos(items, classes=["x"])
    with pytest.raises(decode.VideoError, match="7.avi: the file is empty"):
        data[7]


def test_videos_travel_to_worker_processes(tmp_path):
    items = [record(write(tmp_path / f"{i}.avi"), 0) for i in range(2)]
    data = datasets.Videos(items, classes=["x"], frames=4, size=32,
                           cache=tmp_path / "cache")
    same(pickle.loads(pickle.dumps(data))[1], data[1])


def ucf101(root):
    """Two classes of four groups in UCF101's layout."""
    train, test = [], []
    for label, name in enumerate(("Archery", "HandstandPushups"), start=1):
        prefix = name.replace("stand", "Stand")
        for group in (1, 8, 9, 10):
            file = f"{name}/v_{prefix}_g{group:02d}_c01.avi"
            write(root / "UCF-101" / file, 8, colour=label - 1)
            part = test if group < 8 else train
            part.append(file if group < 8 else f"{file} {label}")
    folder = root / "ucfTrainTestlist"
    folder.mkdir()
    (folder / "classInd.txt").write_text("1 Archery\n2 HandstandPushups\n")
    (folder / "trainlist01.txt").write_text("\n".join(train))
    (folder / "testlist01.txt").write_text("\n".join(test))


def test_load_ucf101(tmp_path, monkeypatch):
    ucf101(tmp_path)
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    splits = datasets.load("ucf101", frames=4, size=32)
    train, val, test, classes = splits
    assert classes == ["Archery", "HandstandPushups"] == train.classes
    assert [len(part) for part in splits[:3]] == [4, 2, 2]
    groups = [{s["group"] for s in part} for part in splits[:3]]
    assert sorted(g for part in groups for g in part) == [
        "g01", "g08", "g09", "g10"]
    for part in splits[:3]:
        for one in part:
            channels = one["video"][:, :, 16, 16].float().mean(0)
            assert channels.argmax() == one["label"]
    turned = datasets.load("ucf101", data_root=tmp_path, frames=4, size=32,
                           classes=["HandstandPushups", "Archery"])
    assert turned.classes[0] == "HandstandPushups"
    assert {s["name"]: s["label"] for s in turned.test} == {
        s["name"]: 1 - s["label"] for s in test}


def test_load_says_what_it_lacks(tmp_path, monkeypatch):
    # relative roots count from the project
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError,
                       match=f"{ROOT}/no/such/UCF-101.*DATA_ROOT"):
        datasets.load("ucf101", data_root="no/such")
    ucf101(tmp_path)
    next((tmp_path / "UCF-101").glob("*/*g01*")).unlink()
    with pytest.raises(decode.VideoError, match="1 of 2 videos are missing"):
        datasets.load("ucf101", data_root=tmp_path)
    test = datasets.load("ucf101", data_root=tmp_path, frames=4, size=32,
                         on_error="skip").test
    assert len(test) == len(test.skipped) == 1
    with pytest.raises(ValueError, match="'kinetics'.*ut_interaction"):
        datasets.load("kinetics")


def test_load_puppets():
    names = list(actions.CLASSES[:2])
    train, val, test, classes = datasets.load(
        classes=names, frames=8, size=48, n_train=6, n_val=4, n_test=2,
        seed=3,
    )
    assert [len(part) for part in (train, val, test)] == [6, 4, 2]
    assert classes == names
    dials = worlds.Dials(size=48)
    whole = worlds.Puppets("val", 4, classes=names, dials=dials, seed=3)[3]
    kept = torch.arange(8) * 2 + 1  # centres of 8 pairs of 16 frames
    for key in ("video", "mask", "boxes", "relevant"):
        assert torch.equal(val[3][key], whole[key][kept]), key
    assert val[3]["fps"] == whole["fps"] / 2
    assert torch.equal(val[3]["segments"], whole["segments"])
    batch = batches.in_memory(test).__getitems__([1, 0])
    assert batch["mask"].shape == (2, 8, 48, 48)


def test_load_untrimmed_puppets():
    test = datasets.load("puppets_untrimmed", frames=32, n_train=1, n_val=1,
                         n_test=8).test
    samples = [test[i] for i in range(8)]
    assert max(len(sample["segments"]) for sample in samples) > 1
    for sample in samples:  # seconds fit the frames that were kept
        time = (torch.arange(32) + 0.5) / sample["fps"]
        start, end = sample["segments"].T[..., None]
        inside = ((start <= time) & (time < end)).any(0)
        assert (inside != sample["relevant"]).sum() <= len(start) * 2


def test_real_and_built_in_samples_have_the_same_types(tmp_path):
    puppet = datasets.load(n_train=1, n_val=1, n_test=1).train[0]
    item = record(write(tmp_path / "a.avi"), spans=((5, 15),))
    real = datasets.Videos([item], classes=["x"])[0]
    assert set(real) <= set(puppet)
    for key, value in real.items():
        assert type(value) is type(puppet[key]), key
        if isinstance(value, torch.Tensor):
            assert value.dtype == puppet[key].dtype
            assert value.shape == puppet[key].shape


def test_ut_interaction_real(tmp_path):
    splits = datasets.load("ut_interaction", data_root=real("ut_interaction"),
                           frames=8, size=48, cache=tmp_path, split="set1")
    assert len(splits.train) + len(splits.val) == len(splits.test) == 60
    assert not {r.group for r in splits.train.records} & {
        r.group for r in splits.val.records}
    for part in splits[:3]:
        columns = batches.in_memory(part).columns
        clips = columns["video"].float()
        assert clips.shape[1:] == (8, 3, 48, 48)
        assert clips.flatten(1).std(1).min() > 5
        assert (clips[:, 0] - clips[:, -1]).abs().mean() > 1
        assert columns["relevant"].float().mean() > 0.5
        assert set(columns["main_actor"]) <= {"left", "right", "both"}
    assert len(list(Path(tmp_path).iterdir())) == 120


# ---------------------------------------------- motion, parts, identities


@pytest.fixture
def both(tmp_path):
    """A puppet's frames, and a file that holds them without loss."""
    whole = worlds.Puppets("test", 1)[0]["video"]
    path = tmp_path / "clip.avi"
    video_files.write(path, whole.permute(0, 2, 3, 1).numpy(), "ffv1", "bgr0")
    return whole, path


def sets_of(path, fields):
    return (datasets.Videos([record(path)], classes=["x"], frames=4, size=64,
                            fields=fields),
            datasets.load(n_train=1, n_val=1, n_test=1, frames=4,
                          fields=fields).test)


def test_motion_is_the_flow_that_follows_each_frame(both):
    whole, path = both
    real, drawn = sets_of(path, 2)
    starts = torch.tensor([2, 6, 10, 13])  # frames end at 15
    by_hand = flow.stacked(whole[starts[:, None] + torch.arange(3)])
    for one in (real[0], drawn[0]):
        kept = sampling.sample_uniform(16, 4)
        assert torch.equal(one["video"], whole[kept])
        assert torch.equal(one["motion"], by_hand)
    plain = datasets.load(n_train=1, n_val=1, n_test=1, frames=4).test
    assert "motion" not in plain[0]


def test_a_part_of_each_video(both):
    whole, path = both
    real, drawn = sets_of(path, 1)
    for data in (real, drawn):
        first, last = data.between(0, 0.5)[0], data.between(0.5, 1)[0]
        assert torch.equal(first["video"], whole[[1, 3, 5, 7]])
        assert torch.equal(last["video"], whole[[9, 11, 13, 15]])
        # 4 of 8 frames at the file's rate
        assert first["fps"] == pytest.approx(2 * data[0]["fps"])
        # no frame follows the last one: its run begins a frame earlier
        assert torch.equal(last["motion"][3],
                           flow.dis(whole[[14, 15]])[0].half())
        with pytest.raises(ValueError, match="part"):
            data.between(0.5, 0.2)[0]
        names = {data.identity(0), data.between(0, 0.5).identity(0)}
        assert len(names) == 2 and data.identity(0) in names


def test_identity_tells_what_a_sample_depends_on(tmp_path):
    path = tmp_path / "clip.avi"
    video_files.write(path, video_files.noisy(10))
    names = [
        datasets.Videos([record(path)], classes=["x"], **options).identity(0)
        for options in ({}, {"frames": 8}, {"size": 32}, {"fields": 1})]
    video_files.write(path, video_files.noisy(11))
    names.append(datasets.Videos([record(path)], classes=["x"]).identity(0))
    drawn = {"n_train": 1, "n_val": 1, "n_test": 3}
    for options in ({}, {"frames": 8}, {"size": 32}, {"fields": 1},
                    {"seed": 1}, {"classes": ["walk"]}):
        test = datasets.load(**drawn, **options).test
        names += [test.identity(0), test.identity(2)]
    assert len(set(names)) == len(names) == 17
    assert datasets.load(**drawn).test.identity(2) in names


# ---------------------------------------------------------------- digests


def test_the_digest_tells_the_data_and_not_the_copy(tmp_path, monkeypatch):
    def digest(root, **options):
        return datasets.load("ucf101", data_root=root, **options).digest

    root = tmp_path / "one"
    root.mkdir()
    ucf101(root)
    first = digest(root)
    assert len(first) == 16 and int(first, 16)
    copied = tmp_path / "two"
    shutil.copytree(root, copied)
    for path in copied.rglob("*.avi"):
        os.utime(path, ns=(0, 1))
    assert digest(copied, frames=4, size=32) == first
    turned = digest(root, classes=["HandstandPushups", "Archery"])
    assert turned != first
    test = sorted((copied / "UCF-101").glob("*/*g01*"))
    write(test[0], 9)
    other = digest(copied)
    pictures(test[0].with_suffix(""), coded(3))
    test[0].unlink()
    images = digest(copied)
    (test[0].with_suffix("") / "img_00004.png").write_bytes(b"1")
    lists = root / "ucfTrainTestlist" / "testlist01.txt"
    lists.write_text(lists.read_text().splitlines()[0])
    shorter = digest(root)
    assert len({first, turned, other, images, digest(copied), shorter}) == 6
    # read in another way
    monkeypatch.setattr(datasets, "_code", lambda *files: str(files))
    assert digest(root) != shorter
    monkeypatch.undo()
    # computed once
    splits = datasets.load("ucf101", data_root=root)
    assert splits.digest == shorter and len(splits.test) == 1
    monkeypatch.setattr(decode, "stamp", None)
    assert splits.digest == shorter


def test_the_digest_of_drawn_videos_is_that_of_their_drawing():
    def digest(**options):
        few = {"n_train": 2, "n_val": 1, "n_test": 1}
        return datasets.load(**few | options).digest

    same = {digest(), digest(frames=4, fields=1, extras=["flow"])}
    others = {digest(seed=1), digest(n_val=2), digest(size=48),
              digest(classes=["walk", "run"]),
              digest(dataset="puppets_untrimmed")}
    assert len(same) == 1 and len(same | others) == 6


def test_words_about_the_drawing_draw_nothing(tmp_path, monkeypatch):
    for folder in ("worlds", "data"):
        shutil.copytree(ROOT / "lib" / folder, tmp_path / "lib" / folder,
                        ignore=shutil.ignore_patterns("sets", "*.pyc"))
    monkeypatch.setattr(datasets, "_code", datasets._code.__wrapped__)
    drawing = datasets._drawing
    before = drawing()
    monkeypatch.setattr(datasets, "ROOT", tmp_path)
    assert drawing() == before
    file = tmp_path / "lib/worlds/scene.py"
    text = file.read_text()
    file.write_text('"""Other words."""\n' + text.split('"""', 2)[2].replace(
        "SHIFT = 4", "SHIFT = 4  # of old"))
    assert drawing() == before
    file.write_text(text.replace("SHIFT = 4", "SHIFT = 3"))
    assert drawing() != before
