"""Frames are read exactly, upright, of files and of folders of images.

Broken files give an error that names them, never a made-up frame.
"""

import os
import shutil
import struct

import av
import numpy as np
import pytest
import torch
from checks import refused
from PIL import Image
from video_files import (
    FORMATS,
    UNEVEN,
    coded,
    cut,
    noisy,
    numbers,
    pictures,
    real_samples,
    uneven,
    write,
)

from lib.data import decode

pytestmark = pytest.mark.timeout(120)


every_format = pytest.mark.parametrize("name, codec, pix_fmt", FORMATS)


def reads_exactly(path, count):
    """All frames, by their numbers; some of them; and some by a sampler."""
    whole = decode.read(path)
    assert whole.dtype == torch.uint8 and whole.shape == (count, 3, 48, 64)
    assert numbers(whole) == list(range(count))
    indices = [count - 1, 0, 3, 9, 9, 3]
    assert torch.equal(decode.read(path, indices), whole[indices])
    info, two = decode.sampled(path, lambda n: torch.tensor([0, n - 1]))
    assert info == decode.probe(path)
    assert torch.equal(two, whole[[0, count - 1]])
    return info, whole


@every_format
def test_frames_are_exact(tmp_path, name, codec, pix_fmt):
    path = write(tmp_path / name, coded(40), codec, pix_fmt)
    info, _ = reads_exactly(path, 40)
    assert info == (path, 40, 25, 64, 48, None, None)


def test_colours_are_red_green_blue(tmp_path):
    frames = np.zeros((3, 32, 32, 3), np.uint8)
    for t in range(3):
        frames[t, ..., t] = 200
    clip = decode.read(write(tmp_path / "clip.avi", frames)).float()
    assert clip.mean((2, 3)).argmax(1).tolist() == [0, 1, 2]


def test_no_more_is_decoded_than_needed(tmp_path, monkeypatch):
    path = write(tmp_path / "clip.avi", coded(30))
    passes, scan = [], decode._scan

    def counting(path, visit):
        passes.append(0)

        def count(index, frame):
            passes[-1] += 1
            return visit(index, frame)
        return scan(path, count)

    def middle(total):
        return torch.tensor([total // 2, total - 1])

    monkeypatch.setattr(decode, "_scan", counting)
    decode.read(path, [5, 2])
    assert numbers(decode.sampled(path, middle)[1]) == [15, 29]
    assert passes == [6, 30]  # a short file is kept in one pass
    monkeypatch.setattr(decode, "KEPT", 100_000)
    assert numbers(decode.sampled(path, middle)[1]) == [15, 29]
    assert passes == [6, 30, 30, 30]


def test_one_frame(tmp_path):
    path = write(tmp_path / "clip.mp4", coded(1), "libx264")
    assert decode.probe(path) == (path, 1, 25, 64, 48, None, None)
    assert numbers(decode.read(path)) == [0]


@pytest.mark.parametrize("codec, pix_fmt", [
    ("mpeg4", "yuv420p"), ("mjpeg", "yuvj420p"), ("ffv1", "yuv420p"),
    ("ffv1", "gray")])
def test_odd_sizes(tmp_path, codec, pix_fmt):
    ramp = np.linspace(20, 230, 65).astype(np.uint8)
    frames = np.broadcast_to(ramp[:, None], (4, 47, 65, 3)).copy()
    clip = decode.read(write(tmp_path / "clip.avi", frames, codec, pix_fmt))
    assert clip.shape == (4, 3, 47, 65)
    want = torch.from_numpy(frames).permute(0, 3, 1, 2)
    assert (clip.int() - want.int()).abs().max() < 16


@pytest.mark.parametrize("matrix, turns", [
    ((0, 1, -1, 0), -1),  # as phones held upright write it: clockwise
    ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
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
        refused("from 0 on", decode.read, path, indices)


def test_real_samples():
    videos = 0
    for path in real_samples():
        if path.suffix not in (".avi", ".mp4", ".mkv"):
            refused("not a video", decode.read, path, error=decode.VideoError)
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


@pytest.mark.parametrize("name", ["clip.mkv", "clip.mp4"])
def test_times_of_a_variable_rate(tmp_path, name):
    info = decode.probe(uneven(tmp_path / name))
    # the last frame is shown as long as the one before
    assert info.times == pytest.approx([t / 1000 for t in (*UNEVEN, 4000)])
    assert info.fps == pytest.approx(10) and info.flaw is None


def test_frames_that_an_avi_leaves_out_take_their_time(tmp_path):
    """Its header counts them; the file is sound."""
    times = [t for t in range(48) if t % 6 != 3]
    path = write(tmp_path / "clip.avi", coded(40), times=times)
    info = decode.probe(path)
    assert info.times == pytest.approx([t / 25 for t in (*times, 48)])
    assert info.fps == pytest.approx(40 * 25 / 48) and info.flaw is None
    assert numbers(decode.read(path)) == list(range(40))


def test_an_avi_that_reorders_frames_has_no_times(tmp_path):
    path = write(tmp_path / "clip.avi", coded(40), b_frames=2)
    info = decode.probe(path)
    assert info.times is None and info.fps == 25


@pytest.mark.parametrize("name", [
    "12:30 clip.mp4", "http:clip.mp4", "concat:a.mp4|b.mp4", "pipe:0",
    "-i.mp4", "img_%03d.mp4", "a*?[b].mp4", "g\u00fc \u65e5.mp4",
    "\udcff.mp4"])
def test_any_name_is_a_file(tmp_path, monkeypatch, name):
    """Relative too, where FFmpeg would read a protocol."""
    target = write(tmp_path / "clip.mp4", coded(4), "libx264")
    target.rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert decode.probe(name).frames == 4
    assert numbers(decode.read(name)) == [0, 1, 2, 3]


@pytest.mark.parametrize(("name", "start"), [
    ("img_{:05d}.jpg", 1), ("{:04d}.jpg", 0), ("{}.JPEG", 1),
    ("v_1_f{}.png", 8), ("{}.bmp", 97)])
def test_a_folder_of_images_is_a_video(tmp_path, name, start):
    """Also with another's ending: ten comes after nine."""
    frames = coded(14)
    folder = pictures(tmp_path / "v_1.5_g01", frames, name, start)
    for path in (folder, tmp_path / "v_1.5_g01.avi", str(folder)):
        info, whole = reads_exactly(path, 14)
        assert info == (folder, 14, 25, 64, 48, None, None)
        if not name.lower().endswith(("jpg", "jpeg")):
            want = torch.from_numpy(frames).permute(0, 3, 1, 2)
            assert torch.equal(whole, want)


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


def test_a_video_is_stamped_by_its_files(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"1")
    stamps = {decode.stamp(tmp_path), decode.stamp(tmp_path / "1.jpg")}
    (tmp_path / "2.jpg").write_bytes(b"")
    stamps.add(decode.stamp(tmp_path))
    os.utime(tmp_path / "1.jpg", ns=(0, 1))
    stamps.add(decode.stamp(tmp_path))
    assert len(stamps) == 3 and all(size == 1 for _, size, _ in stamps)


def before_the_flaw(path):
    return decode.read(path, range(decode.probe(path).frames))


def broken_files(folder):
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
        "nul\0.avi": "null", "real.avi/x.avi": "not a directory"}


def test_no_right_to_look_is_a_video_error(tmp_path, monkeypatch):
    def denied(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    path = write(tmp_path / "a.avi", coded(4))
    monkeypatch.setattr(decode.Path, "stat", denied)
    for call in (decode.probe, decode.read):
        refused("a.avi: permission den", call, path, error=decode.VideoError)


def broken_folders(folder):
    for name in ("text", "short", "gap", "two", "size", "bare", "twice",
                 "bomb"):
        pictures(folder / name, coded(12))
    Image.new("1", (20_000, 10_000)).save(folder / "bomb" / "img_00002.png")
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
        "text": r"img_00005.png.*claims 12 frames, 4",
        "short": r"img_00007.png.*claims 12 frames, 6",
        "gap": "img_00008.png: the next frame is missing, img_00010.png",
        "two": "several videos: .'frame_', 'img_'.",
        "size": "height changes at frame 3: the folder claims 12 frames, 3",
        "bare": "last.png: .*end in a number", "bomb": "_00002.png: .*bomb",
        "twice": "img_3.png: .*each in its own", "empty": "without frames"}


def test_what_is_broken_is_named_with_the_reason(tmp_path):
    (tmp_path / "files").mkdir()
    wrong = [(tmp_path / "files" / name, reason, "", call)
             for name, reason in broken_files(tmp_path / "files").items()
             for call in (decode.probe, decode.read)]
    wrong += [(tmp_path / "folders" / name, reason, end, decode.read)
              for name, reason in broken_folders(tmp_path / "folders").items()
              for end in ("", ".avi")]
    for path, reason, end, call in wrong:
        with pytest.raises(decode.VideoError, match=reason) as caught:
            call(f"{path}{end}")
        assert str(path) in str(caught.value)
    assert len(before_the_flaw(tmp_path / "folders" / "text")) == 4


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
    part = before_the_flaw(path)
    assert numbers(part) == list(range(9))


@every_format
def test_truncated(tmp_path, name, codec, pix_fmt):
    more = {"options": {"movflags": "faststart"}} if "mp4" in name else {}
    path = write(tmp_path / name, coded(60, 96, 128), codec, pix_fmt, **more)
    whole = decode.read(path)
    info = decode.probe(cut(path, 0.6))
    assert 0 < info.frames < 57
    claim = "2.4 s" if path.suffix in (".mkv", ".webm") else "60 frames"
    complaint = f"claims {claim}, {info.frames} frames decode"
    refused(complaint, decode.read, path, error=decode.VideoError)
    assert torch.equal(before_the_flaw(path), whole[: info.frames])
    last = info.frames - 1
    assert torch.equal(decode.read(path, [last]), whole[[last]])
    refused("no frame 59", decode.read, path, [0, 59], error=decode.VideoError)


def parts(path, whole, changed):
    """What is read of a file in front of each damage, all of it exactly."""
    for content in changed:
        path.write_bytes(content)
        part = before_the_flaw(path)
        assert torch.equal(part, whole[: len(part)])
        yield part


def shortened(data, low, high, count):
    for share in np.linspace(low, high, count):
        yield data[: int(share * len(data))]


@pytest.mark.parametrize("b_frames", [0, 2])
def test_cut_anywhere_what_is_left_is_exact(tmp_path, b_frames):
    """FFmpeg would fill the lost part of the last frame by guessing."""
    path = write(tmp_path / "clip.avi", noisy(60), b_frames=b_frames)
    short = shortened(path.read_bytes(), 0.4, 0.9, 20)
    for part in parts(path, decode.read(path), short):
        assert 0 < len(part) < 60


@pytest.mark.parametrize("frames, codec, pix_fmt, lost, shares", [
    (noisy, "mpeg4", "yuv420p", 30, np.linspace(0.3, 0.7, 20)),
    (coded, "mjpeg", "yuvj420p", 3000, [0.5])])
def test_damage_is_not_painted_over(tmp_path, frames, codec, pix_fmt, lost,
                                    shares):
    path = write(tmp_path / "clip.avi", frames(40), codec, pix_fmt)
    data = path.read_bytes()
    places = [int(share * len(data)) for share in shares]
    damaged = [data[:at] + bytes(lost) + data[at + lost:] for at in places]
    for _ in parts(path, decode.read(path), damaged):
        refused(r"frame \d+ is damaged", decode.read, path,
                error=decode.VideoError)


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
        copy, short = tmp_path / path.name, shortened(
            path.read_bytes(), 0.2, 0.9, 15)
        for _ in parts(copy, decode.read(path), short):
            assert decode.probe(copy).flaw
