"""What extract_flow.py and extract_features.py share.

Both write to `lib.shards`: a run that is stopped goes on at the next video,
videos that cannot be read are listed at the end and tried again by the next
run.
"""

import random
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm  # noqa: E402

from lib.annotations import Lists, Record  # noqa: E402
from lib.datasets import READERS  # noqa: E402
from lib.shards import Writer  # noqa: E402

Result = tuple[str, dict | str]
"""The name of a video, and its sample or why there is none."""


def all_records(dataset: str, root: Path) -> tuple[dict[str, Record],
                                                   list[str]]:
    """Every video of a data set's splits by its path below `root`; classes."""
    if dataset not in READERS:
        raise ValueError(f"dataset {dataset!r}: choose from {[*READERS]}")
    found, classes = {}, []
    for lists in _splits(dataset, root):
        classes = lists.classes
        found |= {record.path.relative_to(root).as_posix(): record
                  for record in lists.train + lists.test}
    return found, classes


def _splits(dataset: str, root: Path) -> Iterator[Lists]:
    reader = READERS[dataset][0]
    yield reader(root, "1")
    for split in ("2", "3"):
        try:
            yield reader(root, split)
        except (ValueError, FileNotFoundError):
            return  # the set has no more, or no more were written


def run(out: Path, settings: Mapping, names: Sequence[str],
        work: Callable[[Sequence[str]], Iterator[Result]],
        sizes: Mapping[str, int], *, packed: bool) -> dict[str, str]:
    """Write what `work` makes of the videos `names`; why some are lacking.

    sizes: of the video files, for the estimate of the space.
    """
    broken: dict[str, str] = {}
    with Writer(out, settings, packed=packed) as writer:
        ahead = [name for name in names if name not in writer.names]
        print(f"{len(names)} videos, {len(names) - len(ahead)} are done")
        # a few from everywhere first, to estimate the rest by
        some = random.Random(0).sample(ahead, min(3, len(ahead)))
        order = some + [name for name in ahead if name not in {*some}]
        before = _stored(writer.folder)
        for done, (name, sample) in enumerate(
                tqdm(work(order), total=len(order), unit="video"), start=1):
            if isinstance(sample, str):
                broken[name] = sample
            else:
                writer.add(name, sample)
            if done == len(some):
                made = _stored(writer.folder) - before
                _check_space(writer.folder, made, order, done, sizes)
    for name, why in broken.items():
        print(f"left out: {name}: {why}")
    print(f"{len(names) - len(broken)} of {len(names)} videos in {out}")
    return broken


def _stored(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.bin"))


def _check_space(folder: Path, made: int, order: Sequence[str], done: int,
                 sizes: Mapping[str, int]) -> None:
    """Print how much is to come; OSError if the disk cannot hold it."""
    # in parallel others may be done first: the measured share is a guess
    seen, ahead = (sum(sizes.get(name, 0) for name in part)
                   for part in (order[:done], order[done:]))
    if not made or not seen:
        return  # nothing measured
    need, free = int(made * ahead / seen), shutil.disk_usage(folder).free
    print(f"about {need / 1e9:.2f} GB more, {free / 1e9:.2f} GB are free")
    if need > free:
        raise OSError(f"{folder} has {free / 1e9:.2f} GB free, about "
                      f"{need / 1e9:.2f} GB are needed: choose another "
                      "folder, or smaller settings")
