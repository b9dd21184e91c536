"""Broken files give an error that names them, never a made-up frame."""

import os
import shutil

import av
import numpy as np
import pytest
import torch
from PIL import Image
from video_files import (
    FORMATS,
    coded,
    cut,
    noisy,
    numbers,
    pictures,
    real_samples,
    write,
)

from lib.data import decode

pytestmark = pytest.mark.timeout(120)


def broken_files(folder):
    """Files without a single frame, and what the error says of each."""
    sound = folder / "sound.mp4"
    with av.open(str(sound), "w") as file:
        stream = file.add_stream("aac", rate=8000)
        noise = np.zeros((1, 4000), np.float32)
        frame = av.AudioFrame.from_ndarray(noise, "fltp", "mono")
        frame.rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    files = {"empty.mp4": b"", "text.txt": b"hello\n" * 200,
             "text.avi": b"hello\n" * 200, "noise.mkv": os.urandom(5000)}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    target = write(folder / "real.avi", coded(4))
    (folder / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\n{target}\n")
    whole = write(folder / "whole.mp4", coded(40), "libx264").read_bytes()
    (folder / "headless.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "folder.avi").mkdir()
    os.mkfifo(folder / "pipe.avi")
    return {
        "sound.mp4": "no video stream", "empty.mp4": "empty",
        "text.txt": "not a video", "text.avi": "not a video",
        "noise.mkv": "not a video", "list.m3u8": "not a video",
        "headless.mp4": "not a video", "folder.avi": "not a file",
        "missing.avi": "no such file", "pipe.avi": "not a file",
        "x" * 252 + ".avi": "name too long", "y/" * 2500: "name too long",
        "nul\0.avi": "null", "real.avi/x.avi": "not a directory",
    }


def test_broken_files_are_named_with_the_reason(tmp_path):
    for name, reason in broken_files(tmp_path).items():
        for call in (decode.probe, decode.read):
            with pytest.raises(decode.VideoError, match=reason) as caught:
                call(tmp_path / name)
            assert str(tmp_path / name) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_a_folder_without_rights(tmp_path):
    path = write(tmp_path / "shut" / "a.avi", coded(4))
    path.parent.chmod(0)
    try:
        with pytest.raises(decode.VideoError, match="permission denied"):
            decode.probe(path)
    finally:
        path.parent.chmod(0o700)


def test_no_right_to_look_is_a_video_error(tmp_path, monkeypatch):
    """As above, for those who test as root."""
    def refused(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    path = write(tmp_path / "a.avi", coded(4))
    monkeypatch.setattr(decode.Path, "stat", refused)
    for call in (decode.probe, decode.read):
        with pytest.raises(decode.VideoError, match="a.avi: permission den"):
            call(path)


def broken_folders(folder):
    """Folders of frames that are no video, and what the error says."""
    for name in ("text", "short", "gap", "two", "size", "bare", "twice"):
        pictures(folder / name, coded(12))
    (folder / "text" / "img_00005.png").write_text("hello")
    short = folder / "short" / "img_00007.png"
    short.write_bytes(short.read_bytes()[:200])
    (folder / "gap" / "img_00009.png").unlink()
    (folder / "two" / "img_00012.png").rename(
        folder / "two" / "frame_00012.png")
    with Image.open(folder / "size" / "img_00004.png") as image:
        image.resize((32, 24)).save(folder / "size" / "img_00004.png")
    (folder / "bare" / "img_00012.png").rename(folder / "bare" / "last.png")
    shutil.copy(folder / "twice" / "img_00003.png",
                folder / "twice" / "img_3.png")
    (folder / "empty").mkdir()
    return {
        "text": r"img_00005.png.*claims 12 frames, 4 decode",
        "short": r"img_00007.png.*claims 12 frames, 6 decode",
        "gap": "img_00008.png: the next frame is missing, img_00010.png",
        "two": "several videos: .'frame_', 'img_'.",
        "size": "size changes at frame 3: the folder claims 12 frames, 3",
        "bare": "last.png: .*end in a number",
        "twice": "img_3.png: .*each in its own", "empty": "without frames",
    }


def test_broken_folders_of_images_are_named(tmp_path):
    for name, reason in broken_folders(tmp_path).items():
        for path in (tmp_path / name, tmp_path / f"{name}.avi"):
            with pytest.raises(decode.VideoError, match=reason) as caught:
                decode.read(path)
            assert str(tmp_path / name) in str(caught.value)
    assert len(decode.read(tmp_path / "text", partial=True)) == 4


def test_an_image_that_is_a_bomb_is_refused(tmp_path):
    folder = pictures(tmp_path / "a", coded(3))
    Image.new("1", (20_000, 10_000)).save(folder / "img_00002.png")
    with pytest.raises(decode.VideoError, match="img_00002.png: .*bomb"):
        decode.read(folder)


def test_a_rotation_that_changes_is_named(tmp_path):
    """As a phone writes it that is turned while it films."""
    path = tmp_path / "clip.mp4"
    whole = write(tmp_path / "whole.mp4", coded(30), "libx264", b_frames=0)
    turn = "h264_metadata=display_orientation=insert:rotate=90"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        out = target.add_stream_from_template(stream)
        turned = av.BitStreamFilterContext(turn, stream)
        for t, packet in enumerate(p for p in source.demux() if p.size):
            for part in turned.filter(packet) if t > 8 else [packet]:
                part.stream = out
                target.mux(part)
    info = decode.probe(path)
    assert info.flaw.startswith("the rotation changes at frame 9")
    with pytest.raises(decode.VideoError, match="clip.mp4: the rotation"):
        decode.read(path)
    part = decode.read(path, partial=True)
    assert numbers(part) == list(range(9))


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [form for form in FORMATS if form[0] != "clip.mp4"],
)
def test_truncated(tmp_path, name, codec, pix_fmt):
    path = write(tmp_path / name, coded(60, 96, 128), codec, pix_fmt)
    whole = decode.read(path)
    info = decode.probe(cut(path, 0.6))
    assert 0 < info.frames < 57
    complaint = f"claims 60 frames, {info.frames} decode"
    if not info.claimed:
        complaint = f"claims 2.4 s, {info.frames} frames decode"
    with pytest.raises(decode.VideoError, match=complaint):
        decode.read(path)
    assert torch.equal(
        decode.read(path, partial=True), whole[: info.frames]
    )
    last = info.frames - 1
    assert torch.equal(decode.read(path, [last]), whole[[last]])
    with pytest.raises(decode.VideoError, match="no frame 59"):
        decode.read(path, [0, 59])


def test_fast_start_mp4_cut_short(tmp_path):
    path = write(tmp_path / "clip.mp4", coded(60), "libx264",
                 options={"movflags": "faststart"})
    whole = decode.read(path)
    with pytest.raises(decode.VideoError, match="claims 60 frames"):
        decode.read(cut(path, 0.9))
    part = decode.read(path, partial=True)
    assert 0 < len(part) < 57 and torch.equal(part, whole[: len(part)])


@pytest.mark.parametrize("b_frames", [0, 2])
def test_cut_anywhere_what_is_left_is_exact(tmp_path, b_frames):
    """FFmpeg would fill the lost part of the last frame by guessing."""
    path = write(tmp_path / "clip.avi", noisy(60), b_frames=b_frames)
    whole, data = decode.read(path), path.read_bytes()
    for share in np.linspace(0.4, 0.9, 40):
        path.write_bytes(data[: int(share * len(data))])
        part = decode.read(path, partial=True)
        assert 0 < len(part) < 60
        assert torch.equal(part, whole[: len(part)])


def test_damage_is_not_painted_over(tmp_path):
    path = write(tmp_path / "clip.avi", noisy(40))
    whole, data = decode.read(path), bytearray(path.read_bytes())
    for share in np.linspace(0.3, 0.7, 20):
        bad, at = data.copy(), int(share * len(data))
        bad[at : at + 30] = bytes(30)
        path.write_bytes(bad)
        assert decode.probe(path).flaw
        part = decode.read(path, partial=True)
        assert torch.equal(part, whole[: len(part)])


def test_a_damaged_frame_ends_the_video(tmp_path):
    path = write(tmp_path / "clip.avi", coded(40), "mjpeg", "yuvj420p")
    whole = decode.read(path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    path.write_bytes(data)
    with pytest.raises(decode.VideoError, match=r"frame \d+ is damaged"):
        decode.read(path)
    part = decode.read(path, partial=True)
    assert 10 < len(part) < 30 and torch.equal(part, whole[: len(part)])


def test_dropped_frames_are_no_flaw(tmp_path):
    """An avi counts frames that were left out; the file is sound."""
    times = [t for t in range(48) if t % 6 != 3]
    path = write(tmp_path / "clip.avi", coded(40), times=times)
    info = decode.probe(path)
    assert (info.claimed, info.frames, info.flaw) == (48, 40, None)
    assert numbers(decode.read(path)) == list(range(40))


@pytest.mark.parametrize("name", ["clip.mkv", "clip.mp4", "clip.avi"])
def test_longer_sound_is_no_flaw(tmp_path, name):
    path = tmp_path / name
    with av.open(str(path), "w") as file:
        picture = file.add_stream("mpeg4", rate=25)
        picture.height, picture.width, picture.pix_fmt = 48, 64, "yuv420p"
        sound = file.add_stream("mp2", rate=16000)
        for pixels in coded(20):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            file.mux(picture.encode(frame))
        silence = np.zeros((1, 4 * 16000), np.int16)
        frame = av.AudioFrame.from_ndarray(silence, "s16", "mono")
        frame.rate = 16000
        file.mux(sound.encode(frame))
        file.mux([*picture.encode(), *sound.encode()])
    assert decode.probe(path).flaw is None
    assert numbers(decode.read(path)) == list(range(20))


def test_any_damage_ends_in_frames_or_an_error(tmp_path):
    rng = np.random.default_rng(0)
    for name, codec, pix_fmt in FORMATS:
        path = write(tmp_path / name, coded(10), codec, pix_fmt)
        data = path.read_bytes()
        for _ in range(15):
            bad = bytearray(data)
            for at in rng.integers(0, len(bad), 20):
                bad[at] = rng.integers(256)
            path.write_bytes(bad)
            try:
                clip = decode.read(path)
            except decode.VideoError as error:
                assert str(path) in str(error)
            else:
                assert clip.shape[1] == 3 and len(clip) > 0


def test_real_samples_cut_short(tmp_path):
    """As written by XviD, whose packets may hold two frames."""
    small = [path for path in real_samples()
             if path.suffix == ".avi" and path.stat().st_size < 400_000]
    for path in small:
        whole, data = decode.read(path), path.read_bytes()
        short = tmp_path / path.name
        for share in np.linspace(0.2, 0.9, 15):
            short.write_bytes(data[: int(share * len(data))])
            assert decode.probe(short).flaw
            part = decode.read(short, partial=True)
            assert torch.equal(part, whole[: len(part)])
