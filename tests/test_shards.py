"""Shards: what was added is there, whole, whatever happened."""

import json
import os
import pickle
import random
import subprocess
import sys

import pytest
import torch
from test_columns import same

from lib import ROOT, datasets, shards
from lib.shards import Sharded, Shards, Writer

SETTINGS = {"bound": 20.0, "method": "dis"}


def sample(i):
    generator = torch.Generator().manual_seed(i)
    return {
        "flow": torch.randint(-9, 9, (i + 1, 2, 4, 5), dtype=torch.int8,
                              generator=generator),
        "cube": torch.rand(3, 2, generator=generator).half(),
        "empty": torch.empty(0, 2), "label": i, "name": f"v{i}", "fps": 2.5}


def fill(folder, numbers, **options):
    with Writer(folder, SETTINGS, **options) as out:
        for i in numbers:
            if f"v{i}" not in out.names:
                out.add(f"v{i}", sample(i))


@pytest.mark.parametrize("packed", [False, True])
def test_written_is_read(tmp_path, packed, monkeypatch):
    monkeypatch.setattr(shards, "LARGEST", 300)
    fill(tmp_path, range(9), packed=packed)
    found = Shards(tmp_path)
    assert len(found) == 9 and found.settings == SETTINGS
    assert len([*tmp_path.glob("*.bin")]) > 1
    for i in random.Random(0).sample(range(9), 9):
        same(found[f"v{i}"], sample(i))
    same(pickle.loads(pickle.dumps(found))["v3"], sample(3))
    with pytest.raises(KeyError):
        found["v9"]


def test_a_dataset_of_shards(tmp_path):
    fill(tmp_path, range(4))
    data = Sharded(tmp_path, ["v2", "v0"], classes=["a"])
    assert len(data) == 2 and data.classes == ["a"]
    same(data[0], sample(2))
    batch = datasets.collate([{k: v for k, v in data[i].items()
                               if k != "flow"} for i in range(2)])
    assert batch["cube"].shape == (2, 3, 2)
    with pytest.raises(KeyError, match="lacks 1 of 2 samples, as v9"):
        Sharded(tmp_path, ["v0", "v9"])


@pytest.mark.parametrize("seed", range(8))
def test_cut_anywhere_goes_on(tmp_path, seed):
    """Any shorter version of either file is what a crash can leave."""
    fill(tmp_path, range(5))
    draw = random.Random(seed)
    for name in ("index.jsonl", "00000.bin"):
        path = tmp_path / name
        if draw.random() < 0.7:
            os.truncate(path, draw.randrange(path.stat().st_size))
    before = dict(Shards(tmp_path))
    for name, kept in before.items():
        same(kept, sample(int(name[1:])))
    fill(tmp_path, range(7))
    found = Shards(tmp_path)
    assert sorted(found) == [f"v{i}" for i in range(7)]
    for i in range(7):
        same(found[f"v{i}"], sample(i))


def test_altered_data_are_named(tmp_path):
    fill(tmp_path, range(3))
    path = tmp_path / "00000.bin"
    data = bytearray(path.read_bytes())
    data[Shards(tmp_path).entries["v1"]["start"] + 5] ^= 1
    path.write_bytes(data)
    found = Shards(tmp_path)
    same(found["v0"], sample(0))
    with pytest.raises(OSError, match="v1 .* altered"):
        found["v1"]


def test_other_settings_need_another_folder(tmp_path):
    fill(tmp_path, range(1))
    with pytest.raises(ValueError, match="choose another folder"):
        Writer(tmp_path, SETTINGS | {"bound": 5.0})
    with pytest.raises(FileNotFoundError, match="extract"):
        Shards(tmp_path / "nothing")
    with Writer(tmp_path, SETTINGS) as out, pytest.raises(
            ValueError, match="v0 is in"):
        out.add("v0", sample(0))


def test_one_writer_at_a_time(tmp_path):
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from lib.shards import Writer
try:
    Writer({str(tmp_path)!r}, {SETTINGS!r})
except RuntimeError as error:
    print(error)
"""
    with Writer(tmp_path, SETTINGS):
        done = subprocess.run([sys.executable, "-c", code], text=True,
                              capture_output=True, timeout=60)
    assert "another process writes" in done.stdout, done.stderr
    Writer(tmp_path, SETTINGS).close()  # free again


def test_a_killed_writer_loses_nothing_that_it_said(tmp_path):
    code = f"""
import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]
import os, signal
from test_shards import SETTINGS, Writer, sample
out = Writer({str(tmp_path)!r}, SETTINGS)
for i in range(3):
    out.add(f"v{{i}}", sample(i))
    print(i, flush=True)
out._data.write(b"half of the next")
out._data.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], text=True,
                          capture_output=True, timeout=60)
    assert done.stdout.split() == ["0", "1", "2"], done.stderr
    fill(tmp_path, range(5))
    for i in range(5):
        same(Shards(tmp_path)[f"v{i}"], sample(i))
    lines = (tmp_path / "index.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == [
        f"v{i}" for i in range(5)]
