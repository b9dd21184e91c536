"""Video files to frames, exact to the frame.

PyAV decodes (it brings its own FFmpeg), in order from the first frame:
headers lie, and seeking is exact in some formats only. TorchCodec takes over
where it works and gives the same frames.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import torch

# One name for all that turns a file into a clip: `video.letterbox`, ...
from lib.clips import centre_crop as centre_crop
from lib.clips import flip as flip
from lib.clips import letterbox as letterbox
from lib.clips import resize as resize
from lib.clips import sample_clips as sample_clips
from lib.clips import sample_segments as sample_segments
from lib.clips import sample_uniform as sample_uniform
from lib.clips import sample_windows as sample_windows

# Playlists, images and text would be "video" to FFmpeg, and could name
# other files or hosts to open: containers of video only.
CONTAINERS = (
    "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegts,mpegvideo,"
    "flv,asf,ogg,gif"
)
OPTIONS = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
# These store when each frame is shown. Without (avi, mpegts) TorchCodec
# sorts by the order of storage and gives other frames, without a word.
EXACT_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
# Intact files too may end a little before the time that the header claims.
SLACK_FRAMES = 3
KEPT = 2**27  # bytes: a thousand decoded frames of 320 x 240


class VideoError(ValueError):
    """A video file that cannot be read; the message names file and reason."""


class VideoInfo(NamedTuple):
    """What a video file holds.

    frames: how many decode. claimed: how many the header claims (0: it
        does not say); more than decode in intact files too, as avi counts
        dropped frames. flaw: why the video ends before its claimed end, or
        None for an intact file.
    width, height: in pixels as displayed. rotation: degrees to the left
        that turn the stored frames upright (done by `read`).
    """

    path: Path
    frames: int
    claimed: int
    fps: float
    width: int
    height: int
    rotation: int
    container: str
    flaw: str | None

    def require_whole(self) -> None:
        """Raise a VideoError if the video is truncated or damaged."""
        if self.flaw:
            raise VideoError(f"{self.path}: {self.flaw}")


def _scan(
    path: Path, visit: Callable[[int, av.VideoFrame], bool | None]
) -> VideoInfo:
    """Decode in order, call `visit` with each frame until it says stop."""
    if not path.exists():
        raise VideoError(f"{path}: no such file")
    if not path.is_file():
        raise VideoError(f"{path}: not a file")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty")
    try:
        container = av.open(str(path), container_options=OPTIONS)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{path}: not a video file ({error})") from error
    with container:
        if not container.streams.video:
            raise VideoError(f"{path}: has no video stream, only sound")
        stream = container.streams.video[0]
        return _scan_stream(path, container, stream, visit)


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


def _scan_stream(
    path: Path, container: Any, stream: Any,
    visit: Callable[[int, av.VideoFrame], bool | None],
) -> VideoInfo:
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    if not fps:
        raise VideoError(f"{path}: the header gives no frame rate")
    seconds = (container.duration or 0) / av.time_base
    if container.format.name == "avi":
        # FFmpeg shortens the duration of a cut file, not the frame count.
        seconds = max(seconds, stream.frames / fps)
    end = seconds - (1 + SLACK_FRAMES) / fps
    frames, first, flaw = 0, None, None
    try:
        for frame in _decode(container, stream, end):
            first = first or frame
            if (frame.width, frame.height) != (first.width, first.height):
                flaw = f"the frame size changes at frame {frames}"
                break
            frames += 1
            if visit(frames - 1, frame):
                break
    except av.FFmpegError as error:
        flaw = f"frame {frames} is damaged ({error.strerror})"
    except EOFError:
        flaw = "truncated"
    if first is None:
        raise VideoError(f"{path}: no frame decodes ({flaw or 'no data'})")
    if flaw:
        said = (f"{stream.frames} frames, {frames}" if stream.frames else
                f"{seconds:.1f} s, {frames} frames")
        flaw += f": the header claims {said} decode"
    rotation = round(first.rotation / 90) * 90 % 360
    width, height = first.width, first.height
    if rotation % 180:
        width, height = height, width
    return VideoInfo(path, frames, stream.frames, fps, width, height,
                     rotation, container.format.name, flaw)


def probe(path: str | Path) -> VideoInfo:
    """Decode the whole file and say what it holds; see `VideoInfo`.

    Counting takes a decoding pass; the result is kept while the file has
    the same size and time. A file without a single frame is a VideoError.
    """
    path = Path(path)
    if not path.is_file():
        return _scan(path, _skim)
    status = path.stat()
    return _probe(path, status.st_size, status.st_mtime_ns)


def sampled(
    path: str | Path, choose: Callable[[int], torch.Tensor]
) -> tuple[VideoInfo, torch.Tensor]:
    """Probe a file and read the frames `choose(number of frames)` (n,).

    One pass over a short file does both: its frames are kept as they were
    decoded, up to KEPT bytes, until their number is known.
    """
    path, kept, room = Path(path), [], KEPT

    def visit(index: int, frame: av.VideoFrame) -> None:
        nonlocal room
        room -= sum(plane.buffer_size for plane in frame.planes)
        if room > 0:
            kept.append(frame)
        else:
            kept.clear()

    if _torchcodec():  # reads a few frames faster than PyAV all of them
        info, room = probe(path), 0
    else:
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


def _skim(index: int, frame: av.VideoFrame) -> bool:
    return False


@functools.cache
def _probe(path: Path, size: int, mtime: int) -> VideoInfo:
    return _scan(path, _skim)


def read(
    path: str | Path,
    indices: Sequence[int] | torch.Tensor | None = None,
    *,
    partial: bool = False,
    backend: str = "auto",
) -> torch.Tensor:
    """Read frames as uint8 RGB (T, 3, H, W), upright.

    indices: the frames to read, counted from 0 as they decode, in any
        order and repeated as you like; None reads all.
    partial: a truncated or damaged file gives the frames before the flaw
        instead of a VideoError. With `indices` the file's end is looked at
        only as far as they go.
    backend: "pyav", "torchcodec", or "auto": TorchCodec where it works and
        gives the same frames, for `indices` of an intact mp4, mkv, webm.
    """
    path = Path(path)
    wanted = None
    if indices is not None:
        wanted = torch.as_tensor(indices, dtype=torch.long).tolist()
        if not wanted or min(wanted) < 0:
            raise ValueError(f"indices are frames from 0 on, not {wanted}")
    if _use_torchcodec(path, wanted, backend):
        return _torchcodec()(str(path)).get_frames_at(wanted).data
    needed = None if wanted is None else set(wanted)
    frames: dict[int, torch.Tensor] = {}

    def visit(index: int, frame: av.VideoFrame) -> bool:
        if needed is None or index in needed:
            frames[index] = _upright(frame)
        return needed is not None and len(frames) == len(needed)

    info = _scan(path, visit)
    if wanted is None:
        if not partial:
            info.require_whole()
        wanted = range(info.frames)
    elif lacking := sorted(needed - frames.keys()):
        why = info.flaw or f"{info.frames} frames decode"
        raise VideoError(f"{path}: there is no frame {lacking[0]} ({why})")
    return torch.stack([frames[index] for index in wanted])


@functools.cache
def _torchcodec() -> Any:
    """TorchCodec's decoder, or None where it is absent or does not load."""
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError):
        return None
    return VideoDecoder


def _use_torchcodec(path: Path, wanted: list[int] | None,
                    backend: str) -> bool:
    if backend not in ("auto", "pyav", "torchcodec"):
        raise ValueError(
            f"backend {backend!r}: choose 'auto', 'pyav' or 'torchcodec'"
        )
    if backend == "pyav":
        return False
    fits = False
    if _torchcodec() and wanted is not None:
        info = probe(path)
        exact = info.container in EXACT_CONTAINERS and not info.flaw
        fits = exact and max(wanted) < info.frames
    if backend == "torchcodec" and not fits:
        raise ValueError(
            f"{path}: TorchCodec cannot read this exactly here (it must be "
            "installed with FFmpeg, and read `indices` of an intact mp4, mkv "
            "or webm); use backend='auto'"
        )
    return fits
