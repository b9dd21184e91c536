"""Penn Action: 2,326 clips of 15 actions with boxes and joints. 3 GB.

Licence: none is stated; research use.
Cite: Weiyu Zhang, Menglong Zhu, Konstantinos G. Derpanis: From Actemes to
Action: A Strongly-supervised Representation for Detailed Action
Understanding, ICCV 2013.

The frames are published as JPEG files. They are packed, byte by byte as
they are, into one Motion-JPEG file per clip, so that whatever reads videos
reads them. Nobody says how many there are in a second: the files claim 25.

    python data_scripts/penn_action.py --root data
"""

import shutil
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image
from prepare import Part, Recipe, main

from lib.data.sets import penn_action

FPS = int(penn_action.FPS)


def pack(frames: list[Path], target: Path) -> None:
    """Write JPEG files of one size as an .avi, without encoding them anew."""
    with Image.open(frames[0]) as first:
        width, height = first.size
    with av.open(str(target), "w", format="avi") as out:
        stream = out.add_stream("mjpeg", rate=FPS)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p"
        stream.time_base = Fraction(1, FPS)
        for t, frame in enumerate(frames):
            packet = av.Packet(frame.read_bytes())
            packet.stream, packet.time_base = stream, Fraction(1, FPS)
            packet.pts = packet.dts = t
            packet.is_keyframe = True
            out.mux(packet)


def pack_all(folder: Path, root: Path) -> None:
    """Turn the folder frames/ into one of videos, a file per clip."""
    for clip in sorted(p for p in folder.iterdir() if p.is_dir()):
        frames = sorted(clip.glob("*.jpg"))
        if frames:
            pack(frames, folder / f"{clip.name}.avi")
        shutil.rmtree(clip)


RECIPE = Recipe("Penn Action", penn_action, (
    Part("penn_action/labels", penn_action.ALL, lists=True),
    Part("penn_action/videos", penn_action.ALL, inside="frames",
         finish=pack_all),
))

if __name__ == "__main__":
    raise SystemExit(main(__doc__, RECIPE))
