"""Video files to frames, exact to the frame.

PyAV decodes (it brings its own FFmpeg), in order from the first frame:
headers lie, and seeking is exact in some formats only. A folder of numbered
images, as many data sets are published, is a video too: `x/` is read where
`x.avi` is asked for and not there.
"""

import functools
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch

# Playlists, images and text would be "video" to FFmpeg, and could name
# other files or hosts to open: containers of video only.
CONTAINERS = (
    "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegts,mpegvideo,"
    "flv,asf,ogg,gif"
)
OPTIONS = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
# Intact files too may end a little before the time that the header claims.
SLACK_FRAMES = 3
# By so much of a frame times may differ from a constant rate: Matroska
# rounds them to milliseconds.
JITTER = 0.1
KEPT = 2**27  # bytes: a thousand decoded frames of 320 x 240
IMAGES = (".jpg", ".jpeg", ".png", ".bmp")
# Images do not say when they are shown: 25 a second is FFmpeg's own choice
# for them, and the rate of UCF101 and KTH.
IMAGE_RATE = 25.0


class VideoError(ValueError):
    """A video file that cannot be read; the message names file and reason."""


class VideoInfo(NamedTuple):
    """What a video file, or a folder of frames, holds.

    frames: how many decode. flaw: why the video ends before the end that
        its header claims, or None for an intact file.
    fps: frames per second, where the rate varies their mean; IMAGE_RATE for
        images. times: seconds (frames + 1) at which each frame appears and
        the last one ends, counted from the first; None where frame i
        appears at i / fps.
    width, height: in pixels as displayed.
    """

    path: Path
    frames: int
    fps: float
    width: int
    height: int
    flaw: str | None
    times: tuple[float, ...] | None

    def require_whole(self) -> None:
        """Raise a VideoError if the video is truncated or damaged."""
        if self.flaw:
            raise VideoError(f"{self.path}: {self.flaw}")


def located(path: str | Path) -> Path:
    """The path, or where it is missing the folder of frames in its place."""
    path = Path(path)
    if path.suffix and not os.path.exists(path):
        folder = path.with_suffix("")
        return folder if os.path.isdir(folder) else path
    return path


def stamp(path: Path) -> tuple[int, int, int]:
    """Number, bytes and times of the files of a video: they tell a change.

    path: a video file, or a folder that holds a video's frames.
    """
    files = os.scandir(path) if path.is_dir() else [path]
    found = [file.stat() for file in files]
    return (len(found), sum(status.st_size for status in found),
            sum(status.st_mtime_ns for status in found))


def _scan(
    path: Path,
    visit: Callable[[int, av.VideoFrame], bool | None] = lambda *_: None,
) -> VideoInfo:
    """Decode in order, call `visit` with each frame until it says stop."""
    path = located(path)
    try:
        size, folder = path.stat().st_size, path.is_dir()
        files = sorted(path.iterdir()) if folder else []
    except (OSError, ValueError) as error:
        # missing, without the right to look, or a name too long
        reason = getattr(error, "strerror", None) or str(error)
        raise VideoError(f"{path}: {reason.lower()}") from error
    if folder:
        files = _numbered(path, files)
        claim = f"the folder claims {len(files)} frames"
        return _follow(path, IMAGE_RATE, claim, _pictures(files), visit)
    if not path.is_file():
        raise VideoError(f"{path}: not a file")
    if size == 0:
        raise VideoError(f"{path}: the file is empty")
    try:
        # absolute, or FFmpeg takes "12:30.mp4" for a protocol "12"
        container = av.open(str(path.absolute()), container_options=OPTIONS)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{path}: not a video file ({error})") from error
    with container:
        if not container.streams.video:
            raise VideoError(f"{path}: has no video stream, only sound")
        stream = container.streams.video[0]
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        if not fps:
            raise VideoError(f"{path}: the header gives no frame rate")
        seconds = (container.duration or 0) / av.time_base
        if container.format.name == "avi":
            # FFmpeg shortens the duration of a cut file, not the frame count.
            seconds = max(seconds, stream.frames / fps)
        claim = "the header claims " + (
            f"{stream.frames} frames" if stream.frames else f"{seconds:.1f} s")
        end = seconds - (1 + SLACK_FRAMES) / fps
        return _follow(path, fps, claim, _decode(container, stream, end),
                       visit)


def _numbered(folder: Path, files: list[Path]) -> list[Path]:
    """The images of one video in the order of their numbers.

    Flow that lies beside the frames (`flow_x_00001.jpg`) is left out.
    """
    names, found = set(), {}
    for path in files:
        if not path.name.lower().endswith(IMAGES) or (
                path.name.startswith((".", "flow"))):
            continue
        name, number = re.fullmatch(r"(.*?)(\d*)", path.stem).groups()
        if not number or int(number) in found:
            raise VideoError(f"{path}: frames have names that end in a "
                             "number, each in its own: img_00001.jpg")
        names.add(name)
        found[int(number)] = path
    if not found:
        raise VideoError(f"{folder}: not a file, and a folder without frames "
                         "as img_00001.jpg")
    if len(names) > 1:
        raise VideoError(f"{folder}: holds the frames of several videos: "
                         f"{sorted(names)}; give each its own folder")
    order = sorted(found)
    for before, after in itertools.pairwise(order):
        if after != before + 1:
            raise VideoError(f"{found[before]}: the next frame is missing, "
                             f"{found[after].name} follows")
    return [found[number] for number in order]


def _pictures(files: list[Path]) -> Iterator[av.VideoFrame]:
    """Images as frames, up to the first that does not decode."""
    from PIL import Image

    for path in files:
        try:
            with Image.open(path, formats=["JPEG", "PNG", "BMP"]) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError,
                Image.DecompressionBombError) as error:
            raise av.InvalidDataError(0, f"{path.name}: {error}") from error
        yield av.VideoFrame.from_ndarray(pixels, format="rgb24")


def _decode(container: Any, stream: Any,
            end: float) -> Iterator[av.VideoFrame]:
    """The frames up to the first flaw, which FFmpeg would paint over.

    EOFError: sound and picture stop before `end` seconds. The decoder still
    holds frames then, but those that come between are lost.
    """
    reached = 0.0
    for packet in container.demux():
        time = packet.dts if packet.pts is None else packet.pts
        if time is not None:
            reached = max(reached, float(time * packet.time_base))
        if packet.stream != stream:
            continue
        if packet.is_corrupt:
            raise av.InvalidDataError(0, "its data is incomplete")
        if not packet.size and reached < end:
            raise EOFError
        for frame in packet.decode():
            if frame.is_corrupt:
                raise av.InvalidDataError(0, "parts of it are lost")
            yield frame


def _follow(
    path: Path, fps: float, claim: str, frames: Iterator[av.VideoFrame],
    visit: Callable[[int, av.VideoFrame], bool | None],
) -> VideoInfo:
    """Visit frames until they end or change, and say what there was."""
    first, flaw, shown = None, None, []
    try:
        for frame in frames:
            first = first or frame
            for what in ("width", "height", "rotation"):
                if getattr(frame, what) != getattr(first, what):
                    flaw = f"the {what} changes at frame {len(shown)}"
            if flaw:
                break
            shown.append(frame.time)
            if visit(len(shown) - 1, frame):
                break
    except av.FFmpegError as error:
        flaw = f"frame {len(shown)} is damaged ({error.strerror})"
    except EOFError:
        flaw = "truncated"
    if first is None:
        raise VideoError(f"{path}: no frame decodes ({flaw or 'no data'})")
    if flaw:
        flaw += f": {claim}, {len(shown)} frames decode"
    width, height = first.width, first.height
    if round(first.rotation / 90) % 2:
        width, height = height, width
    if times := _times(shown, fps):
        fps = len(shown) / times[-1]
    return VideoInfo(path, len(shown), fps, width, height, flaw, times)


def _times(shown: list[float | None],
           fps: float) -> tuple[float, ...] | None:
    """When frames appear and the last ends; None if at a constant rate.

    And None if the times do not rise: an avi with frames that are stored in
    another order than they are shown does not have them.
    """
    if None in shown or len(shown) < 2:
        return None
    times = np.array(shown) - shown[0]
    at = np.arange(len(times)) / fps
    if (np.diff(times) <= 0).any() or (
            np.abs(times - at) * fps <= JITTER).all():
        return None
    # the last is shown as long as the one before
    return *times.tolist(), float(2 * times[-1] - times[-2])


def probe(path: str | Path) -> VideoInfo:
    """Decode the whole file and say what it holds; see `VideoInfo`.

    Counting takes a decoding pass; the result is kept while the file has
    the same size and time. A file without a single frame is a VideoError.
    """
    path = located(path)
    try:
        known = stamp(path)
    except (OSError, ValueError):
        return _scan(path)  # which says what is wrong
    return _probe(path, known)


@functools.cache
def _probe(path: Path, known: tuple[int, int, int]) -> VideoInfo:
    return _scan(path)


def sampled(
    path: str | Path, choose: Callable[[int], torch.Tensor]
) -> tuple[VideoInfo, torch.Tensor]:
    """Probe a file and read the frames `choose(number of frames)` (n,).

    One pass over a short file does both: its frames are kept as they were
    decoded, up to KEPT bytes, until their number is known.
    """
    kept, room = [], KEPT

    def visit(index: int, frame: av.VideoFrame) -> None:
        nonlocal room
        room -= sum(plane.buffer_size for plane in frame.planes)
        if room > 0:
            kept.append(frame)
        else:
            kept.clear()

    info = _scan(path, visit)
    wanted = choose(info.frames)
    if room <= 0:
        return info, read(path, wanted)
    return info, torch.stack([_upright(kept[i]) for i in wanted.tolist()])


def _upright(frame: av.VideoFrame) -> torch.Tensor:
    """A frame as RGB (3, H, W); FFmpeg's angle turns left, as rot90 does."""
    rgb = torch.from_numpy(frame.to_ndarray(format="rgb24"))
    turn = round(frame.rotation / 90) % 4
    return torch.rot90(rgb.permute(2, 0, 1), turn, (1, 2)).contiguous()


def read(
    path: str | Path,
    indices: Sequence[int] | torch.Tensor | None = None,
) -> torch.Tensor:
    """Read frames as uint8 RGB (T, 3, H, W), upright.

    path: a video file, or a folder of numbered images.
    indices: the frames to read, counted from 0 as they decode, in any
        order and repeated as you like, without a look at what comes after
        them. None reads all.

    Raises VideoError for a frame that is not there; with None for any flaw.
    """
    frames: dict[int, torch.Tensor] = {}
    if indices is None:
        _scan(path, lambda index, frame: frames.update(
            {index: _upright(frame)})).require_whole()
        return torch.stack([*frames.values()])
    wanted = torch.as_tensor(indices, dtype=torch.long).tolist()
    if not wanted or min(wanted) < 0:
        raise ValueError(f"indices are frames from 0 on, not {wanted}")
    needed = set(wanted)

    def visit(index: int, frame: av.VideoFrame) -> bool:
        if index in needed:
            frames[index] = _upright(frame)
        return len(frames) == len(needed)

    info = _scan(path, visit)
    if lacking := sorted(needed - frames.keys()):
        why = info.flaw or f"{info.frames} frames decode"
        raise VideoError(f"{path}: there is no frame {lacking[0]} ({why})")
    return torch.stack([frames[index] for index in wanted])
