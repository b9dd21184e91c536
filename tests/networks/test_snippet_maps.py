"""Snippets and their maps in memory: what the networks give, in order."""

import pytest
import torch
from torch.testing import assert_close

from lib.data import datasets
from lib.data.batches import Columns, in_memory
from lib.data.snippets import Snippets, Streams, Whole
from lib.lab import training
from lib.networks import cnn2d, snippet_maps
from lib.networks.snippet_maps import Segments, SnippetMaps
from lib.scores import metrics


@pytest.fixture(scope="module")
def splits():
    return datasets.load("lights", size=32, n_train=5, n_val=3, n_test=3)


def bank(splits, folder=None):
    torch.manual_seed(0)
    nets = {"RGB": cnn2d.frame_cnn("small_narrow"),
            "flow": cnn2d.frame_cnn("small_narrow", channels=4)}
    return SnippetMaps(nets, splits.train, 6, 4, size=32, fields=2,
                       folder=folder)


@pytest.mark.parametrize("stream", ["RGB", "flow"])
def test_maps_are_the_networks_of_each_snippet_scaled(
        splits, stream, monkeypatch):
    monkeypatch.setattr(snippet_maps, "AT_ONCE", 2)  # three parts, shuffled
    maps = bank(splits)
    key = {"RGB": "video", "flow": "motion"}[stream]
    snippets = in_memory(Snippets(
        Whole(splits.train, (32, 32)), 6, fields=2, keys=(key, "label"),
        sampling="uniform")).columns
    x = training.to_device(snippets, "cpu")[key]
    x = x[:, :, 0] if stream == "RGB" else x
    with torch.no_grad():
        raw = maps.networks[stream](x)
        again = maps.network(stream).eval()(x)
    std, mean = torch.std_mean(raw[:2].half().float(), (0, 1, 3, 4),
                               keepdim=True)
    found = maps(splits.train, stream)
    assert torch.equal(found["label"], snippets["label"])
    assert not found["maps"].is_inference(), "a layer behind could not train"
    assert_close(found["maps"].float(), (raw - mean) / std.clamp(min=1e-3),
                 rtol=0.01, atol=0.02)
    assert_close(again, found["maps"].float(), rtol=0.01, atol=0.02)
    assert maps(splits.test, stream)["maps"].shape[:2] == (3, 4)


def test_the_truth_is_that_of_the_first_frames(splits):
    maps = bank(splits)
    found = maps(splits.test, "flow", video=True)
    truth = maps.truth(splits.test)
    assert found["video"].shape == (3, 4, 2, 3, 32, 32)
    for i in range(3):
        whole = splits.test.data[i]
        at = [next(t for t in range(16) if torch.equal(
            whole["video"][t], frame)) for frame in found["video"][i, :, 0]]
        for key in ("relevant", "mask"):
            assert torch.equal(truth[key][i], whole[key][at])
        shares = metrics.cell_shares(whole["mask"][at], (4, 4)).flatten(1)
        total = shares.sum(1, keepdim=True)
        assert (total > 0).any()
        assert_close(found["map"][i].float().flatten(1), torch.where(
            total > 0, shares / total, 1 / 16).float(), atol=1e-3, rtol=0)
    assert torch.equal(found["relevant"], truth["relevant"])


def test_pooled_maps_are_means_over_places(splits):
    maps = bank(splits)
    assert_close(maps(splits.test, pooled=True)["maps"][..., 0, 0],
                 maps(splits.test)["maps"].mean((3, 4)))


def test_a_folder_gives_the_same_and_is_not_computed_again(
        splits, tmp_path, monkeypatch):
    first = bank(splits, tmp_path)(splits.test, "RGB")
    monkeypatch.setattr(SnippetMaps, "_made", None)  # would fail
    again = bank(splits, tmp_path)(splits.test, "RGB")
    assert all(torch.equal(again[key], first[key]) for key in first)
    monkeypatch.undo()
    other = bank(splits, tmp_path)
    with torch.no_grad():
        next(other.networks["RGB"].parameters()).add_(1)
    assert not torch.equal(other(splits.test, "RGB")["maps"], first["maps"])


def test_segments_take_one_of_each_in_all_columns():
    step = torch.arange(12).expand(5, 12)
    data = Segments({"a": step, "b": step[:, :, None] * 2,
                     "label": torch.arange(5)}, 3)
    assert isinstance(data, Columns) and len(data) == 5
    seen = set()
    for _ in range(60):
        batch = data.__getitems__([4, 1])
        assert batch["label"].tolist() == [4, 1]
        assert (batch["a"] // 4).tolist() == 2 * [[0, 1, 2]]
        assert torch.equal(batch["b"][..., 0], 2 * batch["a"])
        seen |= {*batch["a"].flatten().tolist()}
    assert seen == {*range(12)}


@pytest.mark.parametrize(("own", "inputs"), [
    ({"stream": "RGB"}, ("maps", "maps")),
    ({"stream": "RGB", "frozen": False}, ("video", "video")),
    ({"stream": "RGB", "attend": True}, ("maps", "video")),
    ({"stream": "flow", "attend": True}, ("maps", "maps")),
    ({"stream": "RGB", "where": "true"}, ("maps", "maps", "map"))])
def test_a_row_gets_what_its_model_reads(splits, own, inputs):
    streams = Streams((32, 32), 32, 2)
    feed = snippet_maps.Feed(splits.train, streams, 4, "small_narrow",
                             "none", frozen=True, kept=True)
    assert feed.inputs(own) == inputs
    train, test = feed(splits.train, own, 3), feed(splits.test, own)
    batch = train.__getitems__([1, 3])
    assert batch[inputs[0]].shape[:2] == (2, 3)
    assert {*inputs} <= {*batch} and len(test) == 3
    x = training.to_device(test.__getitems__([0, 2]), "cpu")
    x = x[inputs[0]][:, :, 0] if inputs[0] == "video" else x["maps"]
    maps = feed.backbone(own)(x)
    side = 1 if own == {"stream": "RGB"} else 4
    assert maps.shape == (2, 4, 48, side, side)
    assert feed.truth(splits.test)["relevant"].shape == (3, 4)


def test_without_memory_snippets_are_read_in_crops(splits):
    feed = snippet_maps.Feed(splits.train, Streams((32, 32), 32, 2), 4,
                             "small_narrow", "none", frozen=True, kept=False)
    own = {"stream": "RGB", "attend": True}
    assert feed.inputs(own) == ("video", "video")
    assert feed(splits.train, own, 3)[0]["video"].shape == (3, 2, 3, 32, 32)
    assert feed(splits.test, own)[0]["video"].shape == (4, 2, 3, 32, 32)
    assert feed.backbone(own)(torch.rand(1, 2, 3, 32, 32)).shape[2] == 48
    assert feed.truth(splits.test)["mask"].shape == (3, 4, 32, 32)
