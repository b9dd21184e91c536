"""Kept models: what is saved comes back, answers alike, and is exported."""

import hashlib
from types import SimpleNamespace

import onnxruntime
import pytest
import torch
from torch.testing import assert_close

from data_scripts.puppet_files import write_video
from lib.data import decode
from lib.lab import kept
from lib.lab.whole import PAPERS
from lib.worlds import worlds

SIZE, CLASSES = 32, ["jump", "walk", "wave"]
SMALL = {"backbone": "small_narrow", "weights": "none"}
CLIPS = {"backbone": "resnet3d_small", "weights": "none"}
NETWORKS = {
    "01": SMALL | {"fields": 2, "hidden": 8, "units": 4, "gamma": [1.0, 1.0],
                   "window": 0},
    "02": CLIPS | {"frozen": True, "hidden": 8},
    "02 trained": CLIPS | {"frozen": False, "hidden": 8},
    "03": SMALL | {"hidden": 8, "mask_channels": [8, 4]},
    "04": SMALL | {"top": 2, "side": 4, "looks": [[8] * 6, 3], "kept": True},
    "04 trained": SMALL | {"top": 2, "side": 4, "looks": [[8] * 6, 3],
                           "kept": False},
    "05": CLIPS | {"files": {}, "window": 16, "module": "sta",
                   "frozen": False},
    "05 frozen": CLIPS | {"files": {}, "window": 16, "module": "ta",
                          "options": {"start": "half", "norm": True},
                          "frozen": True}}


def study(number, row="full"):
    """As a notebook leaves it, after one run of one row."""
    frames = 16 if number in ("02", "05") else 3
    params = {"frames": frames, "size": SIZE, "crop": SIZE, "fields": 2,
              "row": {}}
    line = {"variant": row, "seed": 0, "params": params, "n_test": 28,
            "dataset": "alone", "metrics": {"top-1": 0.5}}
    return SimpleNamespace(notebook=number, lines=[line],
                           data=SimpleNamespace(classes=CLASSES))


def made(name, folder):
    """A model of a notebook with random weights, kept."""
    torch.manual_seed(0)
    own = NETWORKS[name] | {"frames": 16, "size": SIZE}
    accepted = PAPERS[name[:2]].__code__.co_varnames
    head = PAPERS[name[:2]](3, **{
        key: value for key, value in own.items() if key in accepted}).head
    for module in head.modules():  # no two snippets are equally sure
        if isinstance(module, torch.nn.Linear):
            module.weight.data *= 20
    model = kept.save_run(folder, study(name[:2]), "full", {"head": head},
                          **own)
    for left, right in zip(head.parameters(), model.model.head.parameters(),
                           strict=True):
        assert torch.equal(left, right)
    return model


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "a clip.avi"
    video = worlds.Puppets("test", 1)[0]["video"]
    write_video(path, video.permute(0, 2, 3, 1).numpy())
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_a_kept_model_answers_alike_when_it_is_loaded(name, tmp_path, clip):
    model = made(name, tmp_path / "kept")
    first, again = model(clip), kept.load(tmp_path / "kept")(clip)
    assert first.probabilities == again.probabilities
    assert [*first.probabilities] == sorted(
        CLASSES, key=first.probabilities.get, reverse=True)
    assert sum(first.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert torch.equal(first.when, again.when)
    assert len(first.when) == len(first.video) == len(first.seconds)
    seconds = decode.probe(clip).frames / float(decode.probe(clip).fps)
    assert float(first.seconds[-1, 1]) == pytest.approx(seconds)
    if name[:2] != "05":  # whose gates know no place
        assert first.where.shape[0] == len(first.video)
    assert str(clip) not in (tmp_path / "kept" / kept.CARD).read_text()


@pytest.mark.filterwarnings("ignore")  # of torch's exporters
@pytest.mark.parametrize("name", ["01", "02", "03", "04", "05 frozen"])
def test_the_exported_model_is_equal_for_any_number_of_videos(name, tmp_path):
    model = made(name, tmp_path / "kept")
    program = model.export()
    file = tmp_path / "model.onnx"
    torch.onnx.export(program, dynamo=True, verbose=False).save(file)
    session = onnxruntime.InferenceSession(file)
    shapes = [spec.shape[1:] for spec in session.get_inputs()]
    for videos in (1, 3):
        inputs = tuple(torch.rand(videos, *shape) for shape in shapes)
        with torch.no_grad():
            expected = model.model(*inputs)
            assert_close(program.module()(*inputs), expected)
        found = session.run(None, {
            spec.name: x.numpy() for spec, x in zip(
                session.get_inputs(), inputs, strict=True)})
        for one, other in zip(found, expected, strict=True):
            assert_close(torch.from_numpy(one), other, atol=1e-5, rtol=1e-4)


def test_the_command_tells_classes_and_writes_what_it_saw(
        tmp_path, clip, capsys):
    made("03", tmp_path / "kept")
    out = tmp_path / "seen.mp4"
    assert kept.main([str(tmp_path / "kept"), str(clip), "--out",
                      str(out)]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in CLASSES) and "seconds" in said
    assert decode.probe(out).frames == 3
    picture = decode.read(out, torch.tensor([0]))[0].float()
    colour = (picture[0] - picture[2])[:300].abs().mean()  # of the heat map
    assert colour > 5 and picture[:, -80:].mean() > 150


def test_a_notebook_shows_what_a_kept_model_says(tmp_path, clip):
    made("03", tmp_path / "kept")
    assert kept.ask("", str(clip)) is None
    assert kept.ask(str(tmp_path / "kept"), str(clip)).data
    with pytest.raises(ValueError, match="needs a video"):
        kept.ask(str(tmp_path / "kept"), "")


def test_nothing_is_kept_without_a_folder_or_over_other_files(tmp_path):
    assert kept.save_run("", study("03"), "full", {}) is None
    with pytest.raises(ValueError, match="'other'"):
        kept.save_run(tmp_path / "kept", study("03"), "other", {})
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(FileExistsError, match="folder of its own"):
        made("03", tmp_path)


def test_what_was_changed_is_refused_with_its_name(tmp_path, clip):
    folder = tmp_path / "kept"
    with pytest.raises(FileNotFoundError, match="README.md"):
        kept.load(folder)
    made("03", folder)
    card, weights = folder / kept.CARD, folder / kept.WEIGHTS
    text, content = card.read_text(), weights.read_bytes()
    weights.write_bytes(content[:-8])
    with pytest.raises(ValueError, match="not the file of the card"):
        kept.load(folder)
    cut = content[:-8]
    card.write_text(text.replace(hashlib.sha256(content).hexdigest(),
                                 hashlib.sha256(cut).hexdigest()))
    with pytest.raises(ValueError, match="cannot be loaded"):
        kept.load(folder)
    weights.write_bytes(content)
    for wrong in (text.replace("hidden: 8", "hidden: 16"), "no card",
                  text.replace("'03'", "'99'"), text.replace("---", "")):
        card.write_text(wrong)
        with pytest.raises(ValueError, match="cannot be loaded"):
            kept.load(folder)
    assert kept.main([str(folder), str(clip)]) == 1


def test_a_file_that_cannot_be_written_is_an_error_and_no_traceback(
        tmp_path, clip, capsys):
    made("03", tmp_path / "kept")
    for out in ("seen.xyz", "seen", "none/seen/"):
        given = [str(tmp_path / "kept"), str(clip), "--out"]
        assert kept.main([*given, str(tmp_path / out)]) == 1
        assert capsys.readouterr().err


def test_the_card_says_how_a_video_is_seen(tmp_path):
    for name, words in (("03", "with grey bars"), ("04", "stretched")):
        made(name, tmp_path / name)
        assert words in (tmp_path / name / kept.CARD).read_text()
