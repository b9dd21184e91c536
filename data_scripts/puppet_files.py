"""Puppets as files: what is written, and how, whatever the format."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from scipy.io import savemat

from lib.data.store import replacing
from lib.worlds.actions import CLASSES, FPS
from lib.worlds.worlds import Dials, Puppets

Counts = dict[str, int]


class Take(NamedTuple):
    """A video that may be drawn: its list, number, action and actor."""

    part: str
    number: int
    action: str
    actor: int
    data: Puppets

    def sample(self) -> dict:
        """The video with its true answers."""
        return self.data[self.number]


class Order(NamedTuple):
    """How many videos to write, and of what kind."""

    train: int
    test: int
    dials: Dials
    seed: int

    def takes(self, *extras: str, classes: int = len(CLASSES)
              ) -> Iterator[Take]:
        """The videos, of the first few classes."""
        for part, n in (("train", self.train), ("test", self.test)):
            data = Puppets(part, n, dials=self.dials, seed=self.seed,
                           extras=extras, classes=CLASSES[:classes])
            for i in range(n):
                actor = int(data.name(i).split("_g")[1].split("_")[0])
                yield Take(part, i, data.classes[i % classes], actor, data)

    def counts(self) -> Counts:
        """The lengths of the lists."""
        return {"train": self.train, "test": self.test}


def write_video(path: Path, video: np.ndarray) -> None:
    """Encode frames (T, H, W, 3), uint8 RGB, with even height and width."""
    with replacing(path) as beside, av.open(
            str(beside), "w", format=path.suffix[1:]) as out:
        stream = out.add_stream("mpeg4", rate=Fraction(FPS))
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if path.suffix == ".avi":
            stream.codec_context.codec_tag = "XVID"
        # Constant quality: 2 is the best of MPEG-4's 1 to 31 in common use.
        stream.codec_context.qscale = True
        stream.codec_context.global_quality = 2 * 118
        for frame in video:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            out.mux(stream.encode(picture))
        out.mux(stream.encode())


def write_list(path: Path, lines: list[str], end: str = "\r\n") -> None:
    """Write a list as the official ones are: one entry to a line."""
    with replacing(path) as beside:
        beside.write_bytes("".join(f"{line}{end}" for line in lines).encode())


def write_mat(path: Path, **variables: object) -> None:
    """Write a MATLAB file, version 5."""
    with replacing(path) as beside, beside.open("wb") as file:
        savemat(file, variables)


def frames_of(sample: dict) -> np.ndarray:
    """Frames (T, H, W, 3) of a sample."""
    return sample["video"].permute(0, 2, 3, 1).contiguous().numpy()


def film(take: Take, path: Path) -> None:
    """Write the video of a take, unless it is there."""
    if not path.exists():
        write_video(path, frames_of(take.sample()))
