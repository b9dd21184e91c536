"""Snippets: one short piece of each of a video's equal segments.

As temporal segment networks sample them (TSN, Wang et al., ECCV 2016): for an
RGB stream two neighbouring frames, for a flow stream L fields of flow.

    train = keep(Whole(splits.train), ("motion",))
    fit(model, Crops(Snippets(train, 9, fields=2), 64), step, ...)

`Streams` does this for all streams of a network, and keeps what it read.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lib.data import decode, flow, sampling, transforms
from lib.data.batches import collate
from lib.data.datasets import Thinned, Videos
from lib.data.transforms import FLOWS, SCALES, Crops

SAMPLING = {"segments": sampling.sample_segments,
            "uniform": sampling.sample_uniform}
MEASURED = ("motion", "warped")
KNOWN = ("label", "name", "relevant", "mask", "main_actor")
KEPT = 2e9  # bytes of videos that are kept in memory
Measure = Callable[[Tensor], Tensor]  # as flow.dis and flow.raft


@dataclass(frozen=True)
class Film:
    """A file's frames, decoded when asked for: film[index], its len.

    size: height and width to which frames are stretched, as the papers do.
    """

    path: Path
    size: tuple[int, int]

    def __len__(self) -> int:
        return decode.probe(self.path).frames

    def __getitem__(self, index: Tensor) -> Tensor:
        wanted, place = index.unique(return_inverse=True)
        frames = {"video": decode.read(self.path, wanted)}
        return transforms.resize(frames, *self.size)["video"][place]


class Whole(Dataset):
    """Every frame of the videos of `datasets.load`, whatever it would keep.

    A sample has `video` (T, 3, H, W), or for a file a `Film`; `label`,
    `name`, `group`; `relevant` (T,) and `mask` where they are known, and the
    exact `flow` of puppets that were asked for it.

    size: height and width of files' frames; puppets have their own.
    """

    def __init__(self, data: Thinned | Videos, size: tuple[int, int]):
        self.data, self.size, self.classes = data, size, data.classes

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> dict[str, Any]:
        if isinstance(self.data, Thinned):
            return self.data.data[i]
        record = self.data.records[i]
        decode.probe(record.path).require_whole()
        film = Film(record.path, self.size)
        sample = {"video": film, "label": record.label, "name": record.name,
                  "group": record.group}
        if record.spans is not None:
            sample["relevant"] = torch.zeros(len(film), dtype=torch.bool)
            for start, end in record.spans:
                sample["relevant"][start:end] = True
        if record.main_actor is not None:
            sample["main_actor"] = record.main_actor
        return sample


class Kept(list):
    """Whole samples in memory."""

    classes: list[str]


def keep(data: Whole | Kept, flows: Sequence[str] = (),
         measure: Measure = flow.dis) -> Kept:
    """Read every video once and measure its flow, instead of at each access.

    flows: of "motion", the flow by `measure`, and "warped", without the
        camera's motion. It is kept as float16 (T-1, 2, H, W).
    """
    kept = Kept()
    kept.classes = data.classes
    for i in range(len(data)):
        sample = dict(data[i])
        if isinstance(film := sample["video"], Film):
            sample["video"] = film[torch.arange(len(film))]
        for key in flows:
            sample[key] = _measured(key, sample["video"], measure)
        if "flow" in sample:
            sample["flow"] = sample["flow"].half()
        kept.append(sample)
    return kept


def _measured(key: str, frames: Tensor, measure: Measure) -> Tensor:
    fields = measure(frames)
    if key == "warped":
        fields = flow.without_camera(fields)
    return fields.half()


class Snippets(Dataset):
    """n snippets of each video, of `fields` flow fields or two frames.

    A sample has of `keys`: `video` uint8 (n, 2, 3, H, W), the first two
    frames of each snippet; `motion` and `warped` float16 (n, 2L, H, W), flow
    in pixels per frame by `measure`, x and y in turn; `flow`, the same of
    the exact flow; of entries with a value for each frame, as `mask` or
    `relevant`, those of the snippets' first frames; all else as it is. Of a
    video shorter than a snippet the last frame repeats, and nothing moves.

    data: a `Whole`, or what `keep` made of it, whose flow is then taken.
    n: snippets; "uniform" sampling takes the middle of each n-th part of
        the video, "segments" a random place of it, anew at every access
        (torch's global RNG). More snippets than frames repeat frames.
    """

    def __init__(self, data: Whole | Kept, n: int, *, fields: int = 1,
                 keys: Sequence[str] = ("video", "label"),
                 sampling: str = "segments", measure: Measure = flow.dis):
        if sampling not in SAMPLING or n < 1 or fields < 1:
            raise ValueError(f"n={n}, fields={fields}, sampling={sampling!r}:"
                             f" at least one, and one of {list(SAMPLING)}")
        self.data, self.n, self.fields = data, n, fields
        self.keys, self.sampling = tuple(keys), sampling
        self.measure = measure
        self.classes = data.classes

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> dict[str, Any]:
        whole = self.data[i]
        total = len(whole["video"])
        index = SAMPLING[self.sampling](total, self.n)
        runs = sampling.flow_runs(index, total, self.fields)
        sample = {}
        for key in self.keys:
            if key == "video":
                sample[key] = whole[key][runs[:, :2]]
            elif key in whole and key in FLOWS:
                sample[key] = _stack(whole[key], runs)
            elif key in MEASURED:
                sample[key] = torch.stack([
                    _measured(key, frames, self.measure).flatten(0, 1)
                    for frames in whole["video"][runs]])
            elif key not in whole:
                raise KeyError(f"no {key!r} in whole samples of {[*whole]}")
            elif isinstance(whole[key], Tensor):
                sample[key] = whole[key][runs[:, 0]]
            else:
                sample[key] = whole[key]
        return sample


def _stack(fields: Tensor, runs: Tensor) -> Tensor:
    """Fields (T-1, 2, H, W) to (n, 2L, H, W) along runs (n, L+1) of frames."""
    start = runs[:, :-1]
    moves = runs[:, 1:] > start  # else the last frame repeats
    stack = fields.new_zeros(*start.shape, *fields.shape[1:])
    stack[moves] = fields[start[moves]]
    return stack.flatten(1, 2).half()


class Streams:
    """What each stream of a network sees of videos: snippets in crops.

        streams = Streams((256, 340), 224, fields=5)
        train = streams(splits.train, "flow", 9)  # anew at every access
        test = streams(splits.test, "flow", 25, which=4)  # in the centre

    size: height and width of files' frames. crop: the side of what is seen.
    Videos that take less than two gigabytes are read once and kept; so is
    their flow, when a stream first asks for it.
    """

    KEYS = {"RGB": "video", "flow": "motion", "warped": "warped"}

    def __init__(self, size: tuple[int, int], crop: int, fields: int):
        self.size, self.crop, self.fields = size, crop, fields
        self._whole: dict[tuple[int, str], tuple] = {}

    def whole(self, videos: Thinned | Videos,
              stream: str = "RGB") -> Whole | Kept:
        """Every frame of the videos, with the flow of `stream` if kept.

        Stream "exact" has the exact flow, which puppets alone know.
        """
        key = id(videos), stream
        if key not in self._whole:
            if stream in ("RGB", "exact"):
                data = Whole(videos if stream == "RGB" else _with_flow(videos),
                             self.size)
                height, width = self.size
                one = 3 * height * width * len(data[0]["video"])
                data = keep(data) if len(data) * one < KEPT else data
            else:
                data = self.whole(videos)
                if isinstance(data, Kept):
                    data = keep(data, [self.KEYS[stream]])
            # with the videos themselves, whose id stays theirs
            self._whole[key] = videos, data
        return self._whole[key][1]

    def __call__(self, videos: Thinned | Videos, stream: str, n: int,
                 which: int | None = None,
                 keys: Sequence[str] = ("label",)) -> Crops:
        """n snippets of each video; `which` as in `Crops`.

        They are random, or uniform where `which` is told.
        """
        data = Snippets(
            self.whole(videos, stream), n, fields=self.fields,
            keys=[*dict.fromkeys(("video", self.KEYS[stream], *keys))],
            sampling="segments" if which is None else "uniform")
        return Crops(data, self.crop, which,
                     SCALES if stream == "RGB" else SCALES[:3])

    def pairs(self, videos: Thinned | Videos | Dataset, target: str,
              which: int | None = None) -> Crops:
        """One pair of frames of each video, with the flow to learn.

        target: "exact", the `flow` of puppets; "dis" or "raft", which
            measure `motion`; "flying_chairs", the `flow` of that set:
            `videos` is a `FlyingChairs`.
        """
        measured = target in ("dis", "raft")
        data = videos if target == "flying_chairs" else self.whole(
            videos, "exact" if target == "exact" else "RGB")
        crops = Crops(Snippets(
            data, 1, keys=("video", "motion" if measured else "flow"),
            measure=flow.raft if target == "raft" else flow.dis,
            sampling="segments" if which is None else "uniform"),
            self.crop, which)
        crops.needs_gpu = target == "raft"
        return crops

    def sample(self, videos: Thinned | Videos, i: int,
               n: int) -> dict[str, Any]:
        """The first frames of n snippets, in the centre, and what is known.

        As a sample of `datasets.load`: video (n, 3, H, W), mask, ....
        """
        keys = [key for key in KNOWN if key in self.whole(videos)[0]]
        one = self(videos, "RGB", n, 4, keys)[i]
        return one | {"video": one["video"][:, 0]}

    def truth(self, videos: Thinned | Videos, n: int) -> dict[str, Any]:
        """What is known of all of `sample`, in columns; kept."""
        key = id(videos), f"truth of {n}"
        if key not in self._whole:
            samples = (self.sample(videos, i, n) for i in range(len(videos)))
            self._whole[key] = videos, collate(
                [{key: one[key] for key in KNOWN if key in one}
                 for one in samples])
        return self._whole[key][1]


def _with_flow(videos: Thinned) -> Thinned:
    """The same puppets, with their exact flow."""
    videos = copy.copy(videos)
    videos.data = copy.copy(videos.data)
    videos.data.extras = frozenset({*videos.data.extras, "flow"})
    return videos
