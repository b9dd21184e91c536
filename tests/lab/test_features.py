"""Frozen features: in memory and on disk the same, whatever happens."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checks import refused
from torch import nn
from torch.utils.data import Dataset
from video_files import same

from lib.data import batches, transforms
from lib.data.transforms import View
from lib.lab import features, training

N = 7


class Network(nn.Module):
    """The least that has `features`; counts the videos that it saw.

    It adds whole 64ths, exactly: the same bits in batches of any size.
    """

    def __init__(self, channels=3, scale=1.0):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, 2, bias=False)
        self.conv.weight.data.mul_(64).round_().div_(64)
        self.norm = nn.BatchNorm2d(4)
        self.register_buffer("mean", torch.tensor(0.5), persistent=False)
        self.scale, self.seen = scale, 0

    def features(self, x):
        self.seen += len(x)
        x = (255 * (x - self.mean)).round()
        cube = self.norm(self.conv(x.flatten(0, 1))) * self.scale
        cube = cube.unflatten(0, x.shape[:2])
        return cube, cube.amax((3, 4))


class Filmed(Dataset):
    """Videos of noise with every kind of entry, as `load` would give."""

    classes = ["a", "b"]

    def __init__(self, n=N, seed=0, part=(0.0, 1.0)):
        self.n, self.seed, self.part = n, seed, part

    def between(self, start, end):
        return Filmed(self.n, self.seed, (start, end))

    def identity(self, i):
        return repr((self.seed, self.part, i))

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i >= self.n:
            raise IndexError
        generator = torch.Generator().manual_seed(100 * self.seed + i)
        noise = torch.randn(10, 8, 8, 8, generator=generator)
        noise = noise[round(10 * self.part[0]):][:2]
        return {
            "video": (40 * noise[:, :3] + 120).clamp(0, 255).byte(),
            "motion": noise[:, 4:].half(), "mask": noise[:, 0] > 0,
            "label": i % 2, "name": f"v{i}", "group": "g\u00fc", "fps": 8.1,
            "trimmed": i > 2, "segments": torch.ones(i % 3, 2)}


def networks(seed=1, **changes):
    torch.manual_seed(seed)
    return {"video": Network(**changes), "motion": Network(4)}


def extract(folder=None, nets=None, data=None, **changes):
    settings = {"batch": 3, "device": "cpu", "folder": folder} | changes
    data = Filmed() if data is None else data
    return features.extract(nets or networks(), data, **settings)


def equal(one, other):
    assert len(one) == len(other) == N and one.classes == other.classes
    for i in range(N):
        same(one[i], other[i])


@pytest.fixture(scope="module")
def whole():
    return extract()


def test_features_are_what_the_networks_say(whole):
    nets, data = networks(), batches.in_memory(Filmed())
    found = extract(nets=nets, data=data)
    equal(found, whole)
    assert nets["video"].norm.training
    assert nets["video"].norm.num_batches_tracked == 0
    assert set(found.columns) == {
        "video_cube", "video_vector", "motion_cube", "motion_vector", "mask",
        "label", "name", "group", "fps", "trimmed", "segments"}
    for key, network in nets.items():
        x = training.to_device(data.columns, torch.device("cpu"))[key]
        with torch.no_grad():
            direct = network.eval().features(x)
        for part, value in zip(("cube", "vector"), direct, strict=True):
            # half precision keeps eleven bits
            torch.testing.assert_close(found.columns[f"{key}_{part}"],
                                       value.half(), rtol=2e-3, atol=1e-4)
    for key in ("mask", "label", "fps", "trimmed"):
        assert torch.equal(found.columns[key], data.columns[key])
    # the features can be trained on, as ordinary tensors
    assert not any(column.is_inference() for column in found.columns.values()
                   if torch.is_tensor(column))


def test_one_network_leaves_no_pictures(whole):
    found = extract(nets={"motion": networks()["motion"]}).columns
    assert not {"video", "motion", "video_cube"} & {*found}
    assert torch.equal(found["motion_cube"], whole.columns["motion_cube"])


def test_both_doors_give_equal_samples(tmp_path, whole):
    nets = networks()
    stored = extract(tmp_path / "new" / "folder", nets)
    assert nets["video"].seen == nets["motion"].seen == N
    equal(stored, whole)
    equal(batches.in_memory(stored), whole)
    assert type(stored[0]["trimmed"]) is bool
    again = extract(tmp_path / "new" / "folder", nets)
    equal(again, whole)
    assert nets["video"].seen == N
    assert len(list(tmp_path.rglob("*.sample"))) == N
    assert not list(tmp_path.rglob("*.part"))


def test_views_come_first(tmp_path):
    view = View((0.5, 1.0), 0.25, 0.25, 0.5, True)
    plain, seen = Filmed().between(0.5, 1), extract(view=view)
    assert torch.equal(seen.columns["mask"][1],
                       transforms.through(Filmed(), view)[1]["mask"])
    assert not torch.equal(seen.columns["mask"][1], plain[1]["mask"])
    equal(extract(tmp_path, view=view), seen)


CHANGES = {
    "mode": lambda net: net.train(),
    "weight": lambda net: net.conv.weight.data[0, 0, 0].add_(1e-4),
    "statistic": lambda net: net.norm.running_var[1].add_(1e-4),
    "buffer in no state_dict": lambda net: net.mean.add_(1e-4),
    "layout": lambda net: setattr(net.norm, "eps", 1e-4)}


@pytest.mark.parametrize("change, settings, others", [
    ("mode", {}, False), ("weight", {}, True), ("statistic", {}, True),
    ("buffer in no state_dict", {}, True), ("layout", {}, True),
    ("mode", {"view": View(mirror=True)}, True),
    ("mode", {"view": View((0, 0.5))}, True),
    ("mode", {"data": Filmed(seed=1)}, True),
    ("mode", {"batch": 2}, False)])
def test_files_are_told_apart(tmp_path, change, settings, others):
    before, nets = extract(tmp_path), networks()
    CHANGES[change](nets["video"])
    after = extract(tmp_path, nets, **settings)
    assert nets["video"].seen == (N if others else 0)
    assert {*after.keys}.isdisjoint(before.keys) == others
    equal(after, extract(nets=nets, **settings))


def files(stored):
    return [stored.store.file(key) for key in stored.keys]


def test_damaged_files_are_made_again(tmp_path, whole):
    file, other = files(extract(tmp_path))[2:4]
    good = file.read_bytes()
    flipped = good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]
    for bad in (b"", good[:-1], flipped, other.read_bytes()):
        file.write_bytes(bad)
        nets = networks()
        equal(extract(tmp_path, nets), whole)
        assert nets["video"].seen == 1 and file.read_bytes() == good


def test_a_file_that_goes_later_is_named(tmp_path):
    stored = extract(tmp_path)
    files(stored)[3].write_bytes(b"")
    files(stored)[4].unlink()
    for i in (3, 4):
        with pytest.raises(OSError, match="sample .*features.extract again"):
            stored[i]


def test_overflow_is_an_error_and_leaves_no_file(tmp_path):
    for folder in (None, tmp_path):
        with pytest.raises(FloatingPointError, match="'video'.*float16"):
            extract(folder, networks(scale=1e7))
    assert not list(tmp_path.iterdir())


def test_wrong_input_is_named(tmp_path):
    with pytest.raises(KeyError, match="flow.*in samples of .*'video'"):
        extract(nets={"flow": Network()})
    with pytest.raises(TypeError, match="Columns.*leave out `folder`"):
        extract(tmp_path, data=batches.in_memory(Filmed()))
    refused("0 samples", extract, data=Filmed(0))

    class Uneven(Filmed):
        def __getitem__(self, i):
            sample = super().__getitem__(i)
            return sample | {"mask": sample["mask"][:1]} if i > 2 else sample

    refused("sample v3", extract, data=Uneven())


def die(point, count):
    """Kill this process at the count-th time it comes to the point."""
    replace, write, left = os.replace, Path.write_bytes, [count]

    def come(here):
        left[0] -= here == point
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    def renamed(beside, file):
        come("not yet renamed")
        replace(beside, file)
        come("renamed")

    def written(path, content):
        write(path, content[:len(content) // 2])
        come("half written")
        write(path, content)

    os.replace, Path.write_bytes = renamed, written


def start(folder, point, count):
    code = f"from test_features import *; die({point!r}, {count}); "
    return subprocess.Popen(
        [sys.executable, "-c", code + f"extract({str(folder)!r})"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parent), *sys.path])},
        stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("point, count, done", [
    ("half written", 1, 0), ("not yet renamed", 5, 4), ("renamed", 3, 3)])
def test_a_killed_run_goes_on_where_it_stopped(
        tmp_path, whole, point, count, done):
    child = start(tmp_path, point, count)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL, errors
    assert len(list(tmp_path.glob("*.sample"))) == done
    assert len(list(tmp_path.glob("*.part"))) == (point != "renamed")
    nets = networks()
    equal(extract(tmp_path, nets), whole)
    assert nets["video"].seen == N - done


def test_two_may_fill_one_folder(tmp_path, whole):
    children = [start(tmp_path, "never", 1) for _ in range(2)]
    for child in children:
        errors = child.communicate(timeout=60)[1]
        assert child.returncode == 0, errors
    assert len(list(tmp_path.iterdir())) == N
    nets = networks()
    equal(extract(tmp_path, nets), whole)
    assert nets["video"].seen == 0
