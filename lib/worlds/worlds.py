"""The built-in worlds: alone, crowd, lights and stage, short and long.

Each asks for another attention. *alone*: one actor acts and idles, none is
needed. *crowd*: rivals act too, the actor wears yellow: *where*. *lights*:
the actor does several actions in turn, the label is the one done while the
light is on: *when*. *stage* is both at once: what does the one in yellow do
while the light is on? All worlds share actors, actions and rooms. How much
true attention is worth in each is measured by `lib/lab/oracles.py`.
"""

from collections.abc import Iterable
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from lib.worlds.actions import CLASSES, FPS
from lib.worlds.film import Dials, film

ACTORS = {"train": range(1, 61), "val": range(61, 81),
          "test": range(81, 121)}
EXTRAS = ("flow", "joints", "rivals")

ALONE = Dials()
CROWD = replace(ALONE, actor=(0.42, 0.52), bystander=0.0, rivals=(1, 2))
IN_TURN = {"idle": (0.25, 0.40), "instances": (3, 3), "lit": 1}
LONG = {"frames": 64, "instances": (2, 4)}
LONG_IN_TURN = {"frames": 64, "instances": (4, 4), "lit": 1}

WORLDS = {
    "alone": ALONE,
    "crowd": CROWD,
    "lights": replace(ALONE, **IN_TURN),
    "stage": replace(CROWD, **IN_TURN),
    "alone_long": replace(ALONE, **LONG),
    "crowd_long": replace(CROWD, **LONG),
    "lights_long": replace(ALONE, **IN_TURN | LONG_IN_TURN),
    "stage_long": replace(CROWD, **IN_TURN | LONG_IN_TURN),
}
"""The dials of each world."""

ALIASES = {"puppets": "alone", "puppets_untrimmed": "alone_long"}
"""Names that recorded runs use."""


def camel(name: str) -> str:
    """A class as UCF101 writes it: sit_down is SitDown."""
    return name.title().replace("_", "")


class Puppets(Dataset):
    """Built-in videos with true answers, made when they are asked for.

    split: "train", "val" or "test"; no actor is in two of them.
    n: number of videos; the classes take turns, so they are balanced.
    classes: names from CLASSES, in the order of the labels; default all.
    dials: of one of WORLDS, or others.
    extras: any of "flow", "joints" and "rivals"; they add entries and
        change no other.

    A sample has `video` uint8 (T, 3, H, W), `label`, `name` as in UCF101,
    `group` (the actor), `fps`, `mask` bool (T, H, W), `boxes` (T, 4),
    `segments` (K, 2) in seconds, `relevant` bool (T,); with extras `flow`
    (T-1, 2, H, W) in pixels per frame, `joints` (T, 13, 2) in pixels, in
    the order of JOINTS, `rivals` (T, N, 4): the boxes of the others, NaN where
    there are fewer than N.
    Sample i depends on split, seed, i, classes and dials only.
    """

    def __init__(self, split: str, n: int, *,
                 classes: Iterable[str] | None = None, dials: Dials = ALONE,
                 seed: int = 0, extras: Iterable[str] = ()):
        if split not in ACTORS:
            raise ValueError(f"split={split!r}: use one of {list(ACTORS)}")
        self.classes = list(CLASSES if classes is None else classes)
        for word, given, known in (("classes", self.classes, CLASSES),
                                   ("extras", list(extras), EXTRAS)):
            if wrong := sorted(set(given) - set(known)):
                raise ValueError(f"{word}={wrong}: use some of {known}")
        if not self.classes:
            raise ValueError("classes is empty: name at least one")
        if len(self.classes) < 2 and (dials.lit or dials.rivals[1]):
            raise ValueError(f"classes={self.classes}: rivals and actions in "
                             "the dark are of other classes, name two or more")
        self.split, self.n, self.dials, self.seed = split, n, dials, seed
        self.extras = frozenset(extras)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict:
        if not 0 <= i < self.n:
            raise IndexError(f"video {i} of {self.n}")
        key, pool = self._key(i), ACTORS[self.split]
        who, label = self._actor(i), i % len(self.classes)
        arrays = film(label, self.classes, who,
                      [a for a in pool if a != who], key, self.dials,
                      self.extras)
        arrays["video"] = np.stack([*map(cv2.split, arrays["video"])])
        sample = {k: torch.from_numpy(v) for k, v in arrays.items()}
        return {**sample, "label": label, "name": self._name(i, who),
                "group": f"g{who:02d}", "fps": FPS}

    def name(self, i: int) -> str:
        """The name of video i, without making the video."""
        return self._name(i, self._actor(i))

    def _name(self, i: int, who: int) -> str:
        action = camel(self.classes[i % len(self.classes)])
        return f"v_{action}_g{who:02d}_c{i + 1:02d}"

    def _key(self, i: int) -> list[int]:
        return [self.seed, list(ACTORS).index(self.split), i]

    def _actor(self, i: int) -> int:
        rng = np.random.default_rng([*self._key(i), 0])
        return int(rng.choice(ACTORS[self.split]))
