"""Frames are read exactly, upright, and the same by each backend."""

import os
import struct

import numpy as np
import pytest
import torch
from video_files import FORMATS, coded, numbers, real_samples, write

from lib import video

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), FORMATS)
def test_frames_are_exact(tmp_path, name, codec, pix_fmt):
    path = write(tmp_path / name, coded(40), codec, pix_fmt)
    info = video.probe(path)
    claimed = 0 if "matroska" in info.container else 40
    assert (info.frames, info.claimed, info.fps) == (40, claimed, 25)
    assert (info.width, info.height, info.rotation) == (64, 48, 0)
    assert info.flaw is None
    whole = video.read(path)
    assert whole.dtype == torch.uint8 and whole.shape == (40, 3, 48, 64)
    assert numbers(whole) == list(range(40))
    indices = [39, 0, 17, 17, 3]
    assert torch.equal(video.read(path, indices), whole[indices])


def test_colours_are_red_green_blue(tmp_path):
    frames = np.zeros((3, 32, 32, 3), np.uint8)
    for t in range(3):
        frames[t, ..., t] = 200
    clip = video.read(write(tmp_path / "clip.avi", frames)).float()
    assert clip.mean((2, 3)).argmax(1).tolist() == [0, 1, 2]


def test_the_last_index_decides_how_far_is_decoded(tmp_path, monkeypatch):
    path = write(tmp_path / "clip.avi", coded(40))
    seen = []
    scan = video._scan

    def counting(path, visit):
        return scan(path, lambda i, f: seen.append(i) or visit(i, f))

    monkeypatch.setattr(video, "_scan", counting)
    video.read(path, [5, 2], backend="pyav")
    assert max(seen) == 5


def test_one_frame(tmp_path):
    path = write(tmp_path / "clip.mp4", coded(1), "libx264")
    assert video.probe(path).frames == 1
    assert numbers(video.read(path)) == [0]


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg", "ffv1"])
def test_odd_sizes(tmp_path, codec):
    ramp = np.linspace(20, 230, 65).astype(np.uint8)
    frames = np.broadcast_to(ramp[:, None], (4, 47, 65, 3)).copy()
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write(tmp_path / "clip.avi", frames, codec, pix_fmt)
    clip = video.read(path)
    assert clip.shape == (4, 3, 47, 65)
    want = torch.from_numpy(frames).permute(0, 3, 1, 2)
    assert (clip.int() - want.int()).abs().max() < 16


def test_grey(tmp_path):
    frames = coded(5)
    path = write(tmp_path / "clip.mkv", frames, "ffv1", "gray")
    clip = video.read(path)
    assert numbers(clip) == list(range(5))
    assert (clip == clip[:, :1]).all() and clip.float().std() > 10


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [
        ((0, 1, -1, 0), -1),  # as phones held upright write it: clockwise
        ((-1, 0, 0, -1), 2),
        ((0, -1, 1, 0), 1),
    ],
)
def test_rotation_is_applied(tmp_path, matrix, turns):
    path = write(tmp_path / "clip.mp4", coded(12), "libx264")
    stored = video.read(path)
    data = bytearray(path.read_bytes())
    # In a track header: a b u, c d v, x y w; u v w in another fixed point.
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    at = data.index(identity, data.index(b"tkhd"))
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)

    info = video.probe(path)
    clip = video.read(path, backend="pyav")
    assert torch.equal(clip, torch.rot90(stored, turns, (2, 3)))
    assert torch.equal(video.read(path, [7]), clip[[7]])
    assert clip.shape[-2:] == (info.height, info.width)
    assert info.rotation == turns * 90 % 360


def test_a_changed_file_is_counted_again(tmp_path):
    path = write(tmp_path / "clip.avi", coded(40))
    assert video.probe(path).frames == 40
    old = path.stat()
    data = write(path, coded(20)).read_bytes()
    path.write_bytes(data.ljust(old.st_size, b"\0"))
    os.utime(path, ns=(0, old.st_mtime_ns + 1))
    assert path.stat().st_size == old.st_size
    assert video.probe(path).frames == 20


def test_bad_arguments(tmp_path):
    path = write(tmp_path / "clip.avi", coded(4))
    with pytest.raises(ValueError, match="backend 'cv2'"):
        video.read(path, [0], backend="cv2")
    for indices in ([], [-1]):
        with pytest.raises(ValueError, match="from 0 on"):
            video.read(path, indices)
    with pytest.raises(ValueError, match="TorchCodec cannot"):
        video.read(path, [0], backend="torchcodec")


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), FORMATS)
def test_torchcodec_gives_the_same_frames(tmp_path, name, codec, pix_fmt):
    if video._torchcodec() is None:
        pytest.skip("torchcodec is not installed or does not load")
    path = write(tmp_path / name, coded(40), codec, pix_fmt)
    indices = [39, 0, 17, 17, 3]
    want = video.read(path, indices, backend="pyav")
    assert torch.equal(video.read(path, indices), want)
    if not name.endswith("avi"):
        got = video.read(path, indices, backend="torchcodec")
        assert torch.equal(got, want)


def test_real_samples():
    videos = 0
    for path in real_samples():
        if path.suffix not in (".avi", ".mp4", ".mkv"):
            with pytest.raises(video.VideoError, match="not a video"):
                video.read(path)
            continue
        videos += 1
        info = video.probe(path)
        indices = [0, info.frames // 2, info.frames - 1]
        clip = video.read(path, indices)
        assert clip.shape == (3, 3, info.height, info.width)
        assert clip.float().std() > 5
        if info.height < 500:
            assert torch.equal(clip, video.read(path)[indices])
    assert videos > 0


@pytest.mark.parametrize("name, codec, pix_fmt", FORMATS)
def test_sampled_is_probed_and_read(tmp_path, name, codec, pix_fmt):
    path = write(tmp_path / name, coded(30), codec, pix_fmt)
    info, frames = video.sampled(path, lambda n: torch.tensor([0, n - 1]))
    assert info == video.probe(path)
    assert torch.equal(frames, video.read(path, [0, 29]))


def test_sampled_takes_one_pass_over_a_short_file(tmp_path, monkeypatch):
    if video._torchcodec():
        pytest.skip("TorchCodec seeks instead")
    path = write(tmp_path / "a.avi", coded(30))
    passes, scan = [], video._scan
    monkeypatch.setattr(video, "_scan", lambda *options: (
        passes.append(1), scan(*options))[1])

    def middle(total):
        return torch.tensor([total // 2, total - 1])

    assert numbers(video.sampled(path, middle)[1]) == [15, 29]
    assert len(passes) == 1
    monkeypatch.setattr(video, "KEPT", 100_000)  # too long to be kept
    assert numbers(video.sampled(path, middle)[1]) == [15, 29]
    assert len(passes) == 3
