"""Measure the optical flow of a data set's videos once, and keep it.

    python data_scripts/extract_flow.py --dataset ucf101 --root data \
        --out cache/ucf101_dis --workers 8

DIS by default; --method tvl1 needs opencv-contrib-python-headless, --method
raft a GPU and, the first time, torchvision's weights from the network.
--warped takes away the motion of the camera. Each field is kept as int8:
clipped to --bound pixels per frame, with an error of at most bound / 254,
and deflated; a 320 x 240 field takes about 7 kB. Stop it when you like: the
next call goes on. Read with

    lib.shards.Shards(out)[path]["flow"]  # (T-1, 2, H, W) int8
    lib.flow.dequantise(..., bound)       # pixels per frame
"""

import argparse
import functools
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import extraction  # puts the project's root on the path
import torch

from lib import flow, video

METHODS = ("dis", "tvl1", "raft")
CHUNK = 16  # frames measured at once


def measure(path: Path, method: str = "dis", short: int = 0,
            warped: bool = False, bound: float = 20.0) -> dict:
    """The quantised flow (T-1, 2, H, W) of a whole video, and its `fps`.

    short: resize the frames so that their shorter side has this length
        first; 0 keeps them. Raises VideoError for a broken file.
    """
    from torchvision.transforms import v2

    of = getattr(flow, method)
    kept, ahead = [], []

    def finish() -> None:
        if len(ahead) > 1:
            fields = of(torch.stack(ahead))
            fields = flow.without_camera(fields) if warped else fields
            kept.append(flow.quantise(fields, bound))
            del ahead[:-1]

    def visit(frame: torch.Tensor) -> None:
        if short:
            frame = v2.functional.resize(frame, [short], antialias=True)
        ahead.append(frame)
        if len(ahead) > CHUNK:
            finish()

    info = video.each(path, visit)
    info.require_whole()
    finish()
    fields = (torch.cat(kept) if kept else
              torch.empty(0, 2, *ahead[0].shape[1:], dtype=torch.int8))
    return {"flow": fields, "fps": info.fps}


def attempt(path: Path, **settings) -> dict | str:
    """`measure`, or why it cannot."""
    try:
        return measure(path, **settings)
    except (video.VideoError, OSError) as error:
        return str(error)


def quiet() -> None:
    """One thread in each process: many of them share the cores."""
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def results(names: Sequence[str], *, root: Path, workers: int,
            settings: dict) -> Iterator[extraction.Result]:
    """The flow of each video, as it is ready."""
    one = functools.partial(attempt, **settings)
    if workers < 2 or settings["method"] == "raft":
        for name in names:
            yield name, one(root / name)
        return
    ahead = iter(names)
    # not forked: OpenCV's and PyTorch's threads do not survive a fork
    with ProcessPoolExecutor(workers, get_context("spawn"), quiet) as pool:
        running = {pool.submit(one, root / name): name
                   for name in islice(ahead, 2 * workers)}
        while running:
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(done), done.result()
                for name in islice(ahead, 1):
                    running[pool.submit(one, root / name)] = name


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 if some videos could not be read."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", choices=METHODS, default="dis")
    parser.add_argument("--short", type=int, default=0,
                        help="resize to this shorter side first; 0: do not")
    parser.add_argument("--warped", action="store_true")
    parser.add_argument("--bound", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args(arguments)
    settings = {key: getattr(options, key)
                for key in ("method", "short", "warped", "bound")}
    records, _ = extraction.all_records(options.dataset, options.root)
    sizes = {name: record.path.stat().st_size
             for name, record in records.items() if record.path.is_file()}
    work = functools.partial(results, root=options.root,
                             workers=options.workers, settings=settings)
    return int(bool(extraction.run(
        options.out.absolute(), settings, sorted(records), work, sizes,
        packed=True)))


if __name__ == "__main__":
    sys.exit(main())
