"""Frames are read exactly, upright, of files and of folders of images."""

import os
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from video_files import (
    FORMATS,
    UNEVEN,
    coded,
    numbers,
    pictures,
    real_samples,
    uneven,
    write,
)

from lib.data import decode

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), FORMATS)
def test_frames_are_exact(tmp_path, name, codec, pix_fmt):
    path = write(tmp_path / name, coded(40), codec, pix_fmt)
    info = decode.probe(path)
    claimed = 0 if "matroska" in info.container else 40
    assert (info.frames, info.claimed, info.fps) == (40, claimed, 25)
    assert (info.width, info.height, info.rotation) == (64, 48, 0)
    assert info.flaw is None
    whole = decode.read(path)
    assert whole.dtype == torch.uint8 and whole.shape == (40, 3, 48, 64)
    assert numbers(whole) == list(range(40))
    indices = [39, 0, 17, 17, 3]
    assert torch.equal(decode.read(path, indices), whole[indices])


def test_colours_are_red_green_blue(tmp_path):
    frames = np.zeros((3, 32, 32, 3), np.uint8)
    for t in range(3):
        frames[t, ..., t] = 200
    clip = decode.read(write(tmp_path / "clip.avi", frames)).float()
    assert clip.mean((2, 3)).argmax(1).tolist() == [0, 1, 2]


def test_the_last_index_decides_how_far_is_decoded(tmp_path, monkeypatch):
    path = write(tmp_path / "clip.avi", coded(40))
    seen = []
    scan = decode._scan

    def counting(path, visit):
        return scan(path, lambda i, f: seen.append(i) or visit(i, f))

    monkeypatch.setattr(decode, "_scan", counting)
    decode.read(path, [5, 2])
    assert max(seen) == 5


def test_one_frame(tmp_path):
    path = write(tmp_path / "clip.mp4", coded(1), "libx264")
    assert decode.probe(path).frames == 1
    assert numbers(decode.read(path)) == [0]


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg", "ffv1"])
def test_odd_sizes(tmp_path, codec):
    ramp = np.linspace(20, 230, 65).astype(np.uint8)
    frames = np.broadcast_to(ramp[:, None], (4, 47, 65, 3)).copy()
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write(tmp_path / "clip.avi", frames, codec, pix_fmt)
    clip = decode.read(path)
    assert clip.shape == (4, 3, 47, 65)
    want = torch.from_numpy(frames).permute(0, 3, 1, 2)
    assert (clip.int() - want.int()).abs().max() < 16


def test_grey(tmp_path):
    frames = coded(5)
    path = write(tmp_path / "clip.mkv", frames, "ffv1", "gray")
    clip = decode.read(path)
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
    stored = decode.read(path)
    data = bytearray(path.read_bytes())
    # In a track header: a b u, c d v, x y w; u v w in another fixed point.
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    at = data.index(identity, data.index(b"tkhd"))
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)

    info = decode.probe(path)
    clip = decode.read(path)
    assert torch.equal(clip, torch.rot90(stored, turns, (2, 3)))
    assert torch.equal(decode.read(path, [7]), clip[[7]])
    assert clip.shape[-2:] == (info.height, info.width)
    assert info.rotation == turns * 90 % 360


def test_a_changed_file_is_counted_again(tmp_path):
    path = write(tmp_path / "clip.avi", coded(40))
    assert decode.probe(path).frames == 40
    old = path.stat()
    data = write(path, coded(20)).read_bytes()
    path.write_bytes(data.ljust(old.st_size, b"\0"))
    os.utime(path, ns=(0, old.st_mtime_ns + 1))
    assert path.stat().st_size == old.st_size
    assert decode.probe(path).frames == 20


def test_bad_arguments(tmp_path):
    path = write(tmp_path / "clip.avi", coded(4))
    for indices in ([], [-1]):
        with pytest.raises(ValueError, match="from 0 on"):
            decode.read(path, indices)


def test_real_samples():
    videos = 0
    for path in real_samples():
        if path.suffix not in (".avi", ".mp4", ".mkv"):
            with pytest.raises(decode.VideoError, match="not a video"):
                decode.read(path)
            continue
        videos += 1
        info = decode.probe(path)
        indices = [0, info.frames // 2, info.frames - 1]
        clip = decode.read(path, indices)
        assert clip.shape == (3, 3, info.height, info.width)
        assert clip.float().std() > 5
        if info.height < 500:
            assert torch.equal(clip, decode.read(path)[indices])
    assert videos > 0


@pytest.mark.parametrize("name, codec, pix_fmt", FORMATS)
def test_sampled_is_probed_and_read(tmp_path, name, codec, pix_fmt):
    path = write(tmp_path / name, coded(30), codec, pix_fmt)
    info, frames = decode.sampled(path, lambda n: torch.tensor([0, n - 1]))
    assert info == decode.probe(path)
    assert torch.equal(frames, decode.read(path, [0, 29]))


def test_sampled_takes_one_pass_over_a_short_file(tmp_path, monkeypatch):
    path = write(tmp_path / "a.avi", coded(30))
    passes, scan = [], decode._scan
    monkeypatch.setattr(decode, "_scan", lambda *options: (
        passes.append(1), scan(*options))[1])

    def middle(total):
        return torch.tensor([total // 2, total - 1])

    assert numbers(decode.sampled(path, middle)[1]) == [15, 29]
    assert len(passes) == 1
    monkeypatch.setattr(decode, "KEPT", 100_000)  # too long to be kept
    assert numbers(decode.sampled(path, middle)[1]) == [15, 29]
    assert len(passes) == 3


@pytest.mark.parametrize("name", ["clip.mkv", "clip.mp4"])
def test_times_of_a_variable_rate(tmp_path, name):
    info = decode.probe(uneven(tmp_path / name))
    # the last frame is shown as long as the one before
    assert info.times == pytest.approx([t / 1000 for t in (*UNEVEN, 4000)])
    assert info.fps == pytest.approx(10) and info.flaw is None


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), FORMATS)
def test_a_constant_rate_needs_no_times(tmp_path, name, codec, pix_fmt):
    for frames in (1, 40):
        info = decode.probe(write(tmp_path / name, coded(frames), codec,
                                 pix_fmt))
        assert info.times is None and info.fps == 25


def test_frames_that_an_avi_leaves_out_take_their_time(tmp_path):
    times = [t for t in range(48) if t % 6 != 3]
    info = decode.probe(write(tmp_path / "clip.avi", coded(40), times=times))
    assert info.times == pytest.approx([t / 25 for t in (*times, 48)])
    assert info.fps == pytest.approx(40 * 25 / 48)


def test_an_avi_that_reorders_frames_has_no_times(tmp_path):
    path = write(tmp_path / "clip.avi", coded(40), b_frames=2)
    info = decode.probe(path)
    assert info.times is None and info.fps == 25


@pytest.mark.parametrize("name", [
    "12:30 clip.mp4", "http:clip.mp4", "file:clip.mp4", "concat:a.mp4|b.mp4",
    "pipe:0", "-i.mp4", "100%.mp4", "img_%03d.mp4", "a*?[b].mp4",
    "g\u00fc \u65e5.mp4", "\udcff.mp4"])
def test_any_name_is_a_file(tmp_path, monkeypatch, name):
    """Relative too, where FFmpeg would read a protocol."""
    target = write(tmp_path / "clip.mp4", coded(4), "libx264")
    target.rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert decode.probe(name).frames == 4
    assert numbers(decode.read(name)) == [0, 1, 2, 3]


@pytest.mark.parametrize(("name", "start"), [
    ("img_{:05d}.jpg", 1), ("frame{:06d}.jpg", 1), ("image_{:05d}.jpg", 1),
    ("{:04d}.jpg", 0), ("{}.JPEG", 1), ("v_1_f{}.png", 8), ("{}.bmp", 97)])
def test_a_folder_of_images_is_a_video(tmp_path, name, start):
    """Also with another's ending: ten comes after nine."""
    frames = coded(14)
    folder = pictures(tmp_path / "v_1.5_g01", frames, name, start)
    for path in (folder, tmp_path / "v_1.5_g01.avi", str(folder)):
        info = decode.probe(path)
        assert info.path == folder and info.container == "images"
        assert (info.frames, info.claimed, info.fps) == (14, 14, 25)
        assert (info.width, info.height, info.rotation) == (64, 48, 0)
        assert info.flaw is None and info.times is None
        whole = decode.read(path)
        assert whole.shape == (14, 3, 48, 64)
        assert numbers(whole) == list(range(14))
        if not name.lower().endswith(("jpg", "jpeg")):
            want = torch.from_numpy(frames).permute(0, 3, 1, 2)
            assert torch.equal(whole, want)
        assert torch.equal(decode.read(path, [9, 3, 9]), whole[[9, 3, 9]])
        same, two = decode.sampled(path, lambda n: torch.tensor([0, n - 1]))
        assert same == info and torch.equal(two, whole[[0, 13]])


def test_the_file_comes_before_the_folder(tmp_path):
    path = write(tmp_path / "a.avi", coded(4))
    pictures(tmp_path / "a", coded(9))
    assert decode.probe(path).frames == 4


def test_what_lies_beside_the_frames_is_left_out(tmp_path):
    """As the extracted frames of temporal segment networks have it."""
    folder = pictures(tmp_path / "a", coded(5))
    for name in ("flow_x_00001.png", "flow_y_00001.png", "._img_00001.png",
                 "notes.txt", "n_frames"):
        (folder / name).write_bytes(b"no image of the video")
    assert numbers(decode.read(folder)) == [0, 1, 2, 3, 4]


def test_images_of_every_kind_become_red_green_blue(tmp_path):
    pictures(tmp_path / "a", coded(1))
    with Image.open(tmp_path / "a" / "img_00001.png") as image:
        for i, mode in enumerate(("L", "RGBA", "P", "CMYK", "LA", "1"), 2):
            ending = "jpg" if mode == "CMYK" else "png"
            image.convert(mode).save(tmp_path / "a" / f"img_{i}.{ending}")
    assert decode.read(tmp_path / "a").shape == (7, 3, 48, 64)


def test_a_changed_image_is_read_again(tmp_path):
    folder = pictures(tmp_path / "a", coded(5))
    assert decode.probe(folder).frames == 5
    pictures(tmp_path / "b", coded(6))
    (tmp_path / "b" / "img_00006.png").rename(folder / "img_00006.png")
    assert decode.probe(folder).frames == 6
