"""Long videos for action detection: every action, its class and its seconds.

`load` gives the three splits of a built-in world or of THUMOS14. A sample is
a *buffer*, consecutive frames at a constant rate, since a detector reads long
videos piece by piece. It has `video` uint8 (T, 3, H, W), `actions` (A, 3),
rows of start, end and class, and `ambiguous` (U, 2), starts and ends, both in
seconds of the buffer and filled up with rows of NaN; `name` and `group` of
its video, `start`, when the buffer begins in it, and `fps`. A data set's
`videos` are the true answers of whole videos, by which detections are scored,
`seconds` their lengths; `film` has a whole video's frames, if they are few.

The built-in worlds tell what the label names. In *lights* and *stage* the
actor does other actions in the dark: they are actions as well, and a
detector must find them. The same script is read again here (`all_actions`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lib.data import datasets, decode, transforms
from lib.data.sampling import at_least
from lib.data.sets import thumos14
from lib.data.sets.records import data_folder, known_split
from lib.data.store import Store
from lib.worlds import film, worlds
from lib.worlds.actions import FPS

INSIDE = 0.7  # share of an action that a buffer must show, or it is unsure


class Annotated(NamedTuple):
    """A video's true answers; segments are seconds of the whole video."""

    name: str
    segments: Tensor  # (K, 2)
    labels: Tensor  # (K,)
    ambiguous: Tensor  # (A, 2), where nobody can say


def all_actions(data: worlds.Puppets, i: int) -> tuple[Tensor, Tensor]:
    """Segments (K, 2) in frames and classes (K,) of all that the actor does.

    In video i, without drawing it: `film.film` reads its script from the
    first numbers of the video's first stream. Rivals' actions do not count,
    nobody asked for them.
    """
    key = [data.seed, list(worlds.ACTORS).index(data.split), i, 1]
    acts, _ = film.script(i % len(data.classes), list(data.classes),
                          np.random.default_rng(key), data.dials)
    return (torch.tensor([span for _, *span in acts]),
            torch.tensor([data.classes.index(name) for name, *_ in acts]))


def rows_of(segments: Tensor, labels: Tensor, most: int) -> Tensor:
    """Segments (K, 2) and their labels (K,) as rows (most, 3), then NaN."""
    rows = torch.full((most, 3), torch.nan)
    rows[:len(labels), :2], rows[:len(labels), 2] = segments, labels.float()
    return rows


def answers(actions: Tensor) -> tuple[Tensor, Tensor]:
    """What `rows_of` made rows (A, 3) of: segments (K, 2), labels (K,)."""
    known = actions[~actions[:, 0].isnan()]
    return known[:, :2], known[:, 2].long()


class Drawn(Dataset):
    """Videos of a built-in world, each one buffer, with all actions."""

    def __init__(self, data: worlds.Puppets):
        self.data, self.classes = data, list(data.classes)
        self.videos = []
        for i in range(len(data)):
            segments, labels = all_actions(data, i)
            self.videos.append(Annotated(data.name(i), segments / FPS, labels,
                                         torch.empty(0, 2)))
        self.most = data.dials.instances[1]
        self.seconds = [data.dials.frames / FPS] * len(data)

    def film(self, number: int) -> Tensor:
        """All frames (T, 3, H, W) of a video."""
        return self[number]["video"]

    def contents(self) -> tuple:
        """How many videos of which settings, and the code that draws."""
        return self._whole().contents()

    def identity(self, i: int) -> str:
        """All that sample i depends on."""
        return repr(("all actions", self._whole().identity(i)))

    def _whole(self) -> datasets.Thinned:
        return datasets.Thinned(self.data, self.data.dials.frames)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> dict[str, Any]:
        drawn, known = self.data[i], self.videos[i]
        return {"video": drawn["video"], "ambiguous": known.ambiguous,
                "actions": rows_of(known.segments, known.labels, self.most),
                "name": known.name, "group": drawn["group"], "start": 0.0,
                "fps": FPS}


class Buffers(Dataset):
    """Real long videos in buffers, each sharing half with the next.

    videos: their true answers. paths: of their files. rate: frames a second
        that are sampled, `frames` of them in a buffer, letterboxed to `size`.
    cache: a folder for decoded buffers and the videos' lengths.

    An action that a buffer shows at least INSIDE of is its action, cut at
    the edges; another that it shows some of is ambiguous there. Buffers
    behind the end of a short video show its last frame.

    Raises VideoError for a file that cannot be read.
    """

    reader = ""  # as of `datasets.Videos`

    def __init__(self, videos: Sequence[Annotated], paths: Sequence, *,
                 classes: Sequence[str], frames: int, size: int, rate: float,
                 cache: str | None = None):
        datasets.check_sample(frames, size, 0)
        self.videos, self.classes = list(videos), list(classes)
        self.paths = [decode.located(path) for path in paths]
        self.frames, self.size, self.rate = frames, size, rate
        self.store = None if cache is None else Store(cache)
        self.seconds = [*map(self._seconds, range(len(self.videos)))]
        self.places = [(number, start)
                       for number, seconds in enumerate(self.seconds)
                       for start in starts(seconds, frames / rate)]
        shown = [self._shown(place) for place in range(len(self.places))]
        self.most = max((len(labels) for _, labels, _ in shown), default=0)
        self.unsure = max((len(unsure) for *_, unsure in shown), default=0)

    def _seconds(self, number: int) -> float:
        path = self.paths[number]

        def measure() -> dict[str, Tensor]:
            info = decode.probe(path)
            info.require_whole()
            return {"seconds": torch.tensor(info.frames / info.fps)}

        if self.store is None:
            return measure()["seconds"].item()
        key = repr((str(path), decode.stamp(path), "seconds"))
        return self.store.get(key, measure)["seconds"].item()

    def _shown(self, place: int) -> tuple[Tensor, Tensor, Tensor]:
        number, start = self.places[place]
        return cut(self.videos[number], start, self.frames / self.rate)

    def film(self, number: int) -> None:
        """Nothing: a whole video is too long to be drawn."""

    def contents(self) -> list[tuple]:
        """Name, number of actions, and bytes of each video; the rate."""
        return [(video.name, len(video.labels), *decode.stamp(path)[:2],
                 self.rate) for video, path in zip(
                     self.videos, self.paths, strict=True)]

    def identity(self, i: int) -> str:
        """All that sample i depends on: file, place and settings."""
        number, start = self.places[i]
        path = self.paths[number]
        return repr((str(path), decode.stamp(path), start, self.frames,
                     self.size, self.rate))

    def _decoded(self, i: int) -> dict[str, Tensor]:
        number, start = self.places[i]
        times = start + (torch.arange(self.frames) + 0.5) / self.rate
        info = decode.probe(self.paths[number])
        index = (times * info.fps).long().clamp(max=info.frames - 1)
        return transforms.letterbox(
            {"video": decode.read(self.paths[number], index)}, self.size)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> dict[str, Any]:
        number, start = self.places[i]
        segments, labels, unsure = self._shown(i)
        clip = (self._decoded(i) if self.store is None else
                self.store.get(self.identity(i), lambda: self._decoded(i)))
        name = self.videos[number].name
        return {"video": clip["video"], "name": name, "group": name,
                "actions": rows_of(segments, labels, self.most),
                "ambiguous": rows_of(unsure, torch.zeros(len(unsure)),
                                     self.unsure)[:, :2],
                "start": start, "fps": self.rate}


def starts(seconds: float, length: float) -> list[float]:
    """When the buffers of a video begin; the last one ends with it."""
    last = max(0.0, seconds - length)
    number = int(np.ceil(2 * last / length - 1e-6))
    return [*(i * length / 2 for i in range(number)), last]


def cut(video: Annotated, start: float,
        length: float) -> tuple[Tensor, Tensor, Tensor]:
    """Actions (K, 2), their labels (K,), and unsure segments (U, 2).

    In seconds of the buffer [start, start + length).
    """
    def inside(segments: Tensor) -> tuple[Tensor, Tensor]:
        seen = (segments - start).clamp(0, length)
        share = (seen[:, 1] - seen[:, 0]) / (segments[:, 1] - segments[:, 0])
        return seen, share

    seen, share = inside(video.segments.reshape(-1, 2))
    whole, part = share >= INSIDE, (share > 0) & (share < INSIDE)
    unsure, known = inside(video.ambiguous.reshape(-1, 2))
    return (seen[whole], video.labels[whole],
            torch.cat((unsure[known > 0], seen[part])))


def official(root, part: str) -> tuple[list[Annotated], list[str]]:
    """THUMOS14's annotated videos of "val" or "test", and the 20 classes.

    All instances of all classes, as its toolkit scores them: a cliff dive is
    a dive as well. Test videos whose annotation is faulty are left out.
    """
    found = thumos14.instances(root, part)
    classes = sorted({one.action for some in found.values() for one in some}
                     - {thumos14.AMBIGUOUS})
    videos = []
    for name, some in found.items():
        if name in thumos14.FAULTY:
            continue
        known = [one for one in some if one.action != thumos14.AMBIGUOUS]
        videos.append(Annotated(
            name, _pairs(known),
            torch.tensor([classes.index(one.action) for one in known]).long(),
            _pairs(one for one in some if one not in known)))
    return videos, classes


def _pairs(some) -> Tensor:
    return torch.tensor([one[1:] for one in some]).reshape(-1, 2)


def load(dataset: str, *, dials: Mapping[str, Any] | None = None,
         data_root: str | None = None, frames: int = 128, size: int = 64,
         rate: float = 10.0, n_train: int = 100, n_val: int = 20,
         n_test: int = 50, split: str = "1", seed: int = 0,
         cache: str | None = None) -> datasets.Splits:
    """The three splits of a built-in world, or of "thumos14".

    dials: of the world, others than its own. n_train, n_val, n_test: of the
    world alone. rate: of real videos alone; drawn ones have FPS. THUMOS14's
    validation videos train, every tenth of them is kept for validation, and
    its test videos test.

    Raises ValueError for another name, FileNotFoundError for missing data.
    """
    if dataset in datasets.PUPPETS:
        at_least(1, n_train=n_train, n_val=n_val, n_test=n_test)
        own = replace(datasets.turned(dataset, dials or {}), frames=frames,
                      size=size)
        parts = [Drawn(worlds.Puppets(part, n, dials=own, seed=seed))
                 for part, n in zip(datasets.PARTS, (n_train, n_val, n_test),
                                    strict=True)]
        return datasets.Splits(*parts, parts[0].classes)
    if dataset != "thumos14":
        raise ValueError(f"dataset={dataset!r}: only thumos14 and the "
                         f"built-in worlds {[*datasets.PUPPETS]} tell when "
                         "each action happens")
    known_split("THUMOS14", split, thumos14.COUNTS)
    root = data_folder(data_root)
    (known, classes), (test, _) = (official(root, part)
                                   for part in ("val", "test"))
    val = known[::10]
    train = [video for i, video in enumerate(known) if i % 10]
    return datasets.Splits(*(Buffers(
        videos, [root / "thumos14" / "videos" / folder / f"{video.name}.mp4"
                 for video in videos],
        classes=classes, frames=frames, size=size, rate=rate, cache=cache)
        for videos, folder in ((train, "validation"), (val, "validation"),
                               (test, "test"))), classes)
