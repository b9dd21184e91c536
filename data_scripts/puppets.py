"""Write the built-in videos as files, in the layout of UCF101.

    python data_scripts/puppets.py --root data/puppets

makes ROOT/UCF-101/<Class>/v_<Class>_gXX_cYY.avi (MPEG-4 video, XVID) and
the lists ROOT/ucfTrainTestlist/{classInd,trainlist01,testlist01}.txt, so
that whatever reads UCF101 reads them. No group is in both lists. Run again,
it keeps the files that are there and makes those that are missing; each is
written beside its place and then renamed, so an interrupted run leaves no
broken video. ROOT/puppets.json keeps the settings: other ones need another
--root, for a list must not name videos of two kinds.
"""

import argparse
import json
import sys
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.puppets import CLASSES, DIALS, FPS, Puppets, camel  # noqa: E402


def write_video(path: Path, video: np.ndarray) -> None:
    """Encode frames (T, H, W, 3), uint8 RGB, with even height and width."""
    beside = path.with_name(path.name + ".part")
    with av.open(str(beside), "w", format="avi") as out:
        stream = out.add_stream("mpeg4", rate=Fraction(FPS))
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.codec_tag = "XVID"
        # Constant quality: 2 is the best of MPEG-4's 1 to 31 in common use.
        stream.codec_context.qscale = True
        stream.codec_context.global_quality = 2 * 118
        for frame in video:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    beside.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a small file, beside its place first."""
    beside = path.with_name(path.name + ".part")
    beside.write_bytes(text.encode())
    beside.replace(path)


def write_list(path: Path, lines: list[str]) -> None:
    """Write a list as the official ones are: one entry to a line, CRLF."""
    write_text(path, "".join(f"{line}\r\n" for line in lines))


def claim(root: Path, settings: dict) -> None:
    """Keep the settings below `root`; ValueError if others are there."""
    note, text = root / "puppets.json", json.dumps(settings, indent=1)
    if note.exists() and note.read_text() != text:
        raise ValueError(
            f"{note} tells of videos with other settings: choose another "
            "root, or remove this one first")
    root.mkdir(parents=True, exist_ok=True)
    write_text(note, text)


def main(root: Path, *, n_train: int = 280, n_test: int = 140,
         size: int = 64, frames: int = 16, seed: int = 0) -> dict[str, int]:
    """Write `n_train` + `n_test` videos below `root`; count what is there.

    Returns the number of classes, of listed train and test videos, and of
    the files written by this call. ValueError for an odd `size`, and for
    a root that holds videos of other settings.
    """
    if size % 2:
        raise ValueError(f"size={size}: the codec needs an even size")
    dials = replace(DIALS, size=size, frames=frames)
    claim(root, {"seed": seed, "dials": asdict(dials)})
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True, exist_ok=True)
    counts = {"classes": len(CLASSES)}
    written = 0
    for split, n in (("train", n_train), ("test", n_test)):
        lines = []
        puppets = Puppets(split, n, dials=dials, seed=seed)
        for i in range(n):
            name = puppets.name(i)
            folder = camel(CLASSES[i % len(CLASSES)])
            path = root / "UCF-101" / folder / f"{name}.avi"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                video = puppets[i]["video"].permute(0, 2, 3, 1)
                write_video(path, video.contiguous().numpy())
                written += 1
            lines.append(f"{folder}/{name}.avi")
        counts[split] = len(lines)
        if split == "train":
            lines = [f"{line} {i % len(CLASSES) + 1}"
                     for i, line in enumerate(lines)]
        write_list(lists / f"{split}list01.txt", sorted(lines))
    write_list(lists / "classInd.txt",
               [f"{i} {camel(name)}" for i, name in enumerate(CLASSES, 1)])
    return counts | {"written": written}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--n-train", type=int, default=280)
    parser.add_argument("--n-test", type=int, default=140)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    for what, count in main(options.pop("root"), **options).items():
        print(f"{what:8s}{count:6d}")
