"""What was made once is kept, and made again unless it is as it was put."""

import numpy as np
import pytest
import torch
from video_files import same

from lib.data import store
from lib.data.store import Store


class Maker:
    """Makes a sample with every kind of value, and counts how often."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        clip = torch.arange(2 * 3 * 8 * 8, dtype=torch.uint8)
        return {"video": clip.view(2, 8, 8, 3).movedim(-1, 1),
                "fps": torch.tensor(29.97, dtype=torch.float64),
                "cube": torch.rand(4, 2).half()[1], "mask": torch.ones(3) > 0,
                "segments": torch.zeros(0, 2), "label": 3, "share": 0.1,
                "trimmed": True, "name": "g\u00fc\n", "spans": [[1, 2.5]]}


def test_samples_are_kept_and_told_apart(tmp_path):
    one, make = Store(tmp_path / "deep" / "store"), Maker()
    assert one.find("a") is None and not one.folder.exists()
    first = one.get("a", make)
    same(first, one.get("a", make))
    same(first, Store(one.folder).find("a"))
    assert make.calls == 1
    one.get("b \udcff".__repr__(), make)
    assert make.calls == 2 and len([*one.folder.iterdir()]) == 2
    one.put("a", {"other": torch.ones(1)})
    assert one.get("a", make).keys() == {"other"}


def test_what_is_not_as_it_was_written_is_made_again(tmp_path):
    one, make = Store(tmp_path), Maker()
    want, file = one.get("a", make), one.file("a")
    good = file.read_bytes()
    one.get("b", Maker())
    rng = np.random.default_rng(0)
    damages = [b"", good[:1], good[:100], good[:-1], good + b"\0",
               b"nothing" * 50, one.file("b").read_bytes()]
    for at in {*range(40), *rng.integers(len(good), size=200).tolist()}:
        bad = bytearray(good)
        bad[at] ^= 1 << int(rng.integers(8))
        damages.append(bytes(bad))
    make.calls = 0
    for bad in damages:
        file.write_bytes(bad)
        assert one.get("a", make).keys() == want.keys()
        assert one.find("a") is not None
    assert make.calls == len(damages)
    file.unlink()
    file.mkdir()
    assert one.find("a") is None


def test_a_full_disk_ends_nothing(tmp_path):
    """The sample is given, nothing half written stays, one warning says so."""
    import resource

    one, make = Store(tmp_path / "store"), Maker()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        with pytest.warns(UserWarning, match="store takes no more") as said:
            for key in "abc":
                got = one.get(key, make)
                assert torch.equal(got["video"], make()["video"])
        with pytest.raises(OSError):
            one.put("a", make())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(said) == 1 and not list(one.folder.iterdir())


def test_an_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).get("a", Maker())
    assert not list(tmp_path.iterdir())
    file = tmp_path / "file"
    file.write_text("old")
    with pytest.raises(KeyboardInterrupt), store.replacing(file) as beside:
        beside.write_text("new")
    monkeypatch.undo()
    with pytest.raises(RuntimeError), store.replacing(file) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]
    with store.replacing(file) as beside:
        beside.write_text("new")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["new"]
