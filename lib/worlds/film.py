"""One built-in video: people of flat shapes act, and every answer is known.

The one who counts, the *actor*, does actions in a room; clutter moves behind,
the camera sways. As the `Dials` say, others stand by or act too, and the light
is on for a part of the time only. Each video comes with the true mask, box,
segments and relevance, and on request the flow, the joints and the boxes of
all others.

What the answers mean:

- The *label* is the actor's action; where the light goes out, the one that
  the actor does while it is on. Where others act, the actor wears yellow.
- The *mask* is what is seen of the actor and of the thing in the actor's
  hands. The box on the floor and the stool belong to the room, until the
  box is picked up. Whoever stands nearer to the camera hides the actor, and
  some clutter may pass in front.
- *Relevant* are the frames in which the labelled action happens; the
  *segments* are the same in seconds. In all others the actor idles in the
  same way whatever the class, or does another action in the dark. Idle
  frames tell nothing of the class but for the place in the frame, where the
  action must fit: everyone has a stool and a box, a cup is in the hand only
  while drinking, and where an action does not begin or end in the idle
  stance the film is cut (after sitting down the actor stands again in the
  next frame).
- The *flow* is where the surface point at a pixel of frame t is in frame
  t + 1, by the rigid motion of the limb, the clutter or the camera.
- The random streams do not depend on the label: two data sets that differ
  in the order of `classes` only show the same scenes with other actions.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from lib.worlds import scene
from lib.worlds.actions import FPS
from lib.worlds.people import Person, Script, furniture

SHORTEST = 3  # frames of an instance
PAUSE = 2  # idle frames between two instances
LANE = 1.2  # width to act in, of an equal share of the frame
DARK = 0.75  # of the brightness while the light is off


@dataclass(frozen=True)
class Dials:
    """What makes the videos easy or hard; pairs are ranges to draw from.

    size: height and width of a frame in pixels.
    frames: number of frames, at FPS.
    actor: height of a standing person as a share of the frame.
    clutter: number of moving things.
    front: probability of each of them to pass in front of the people.
    camera: sway of the camera as a share of the frame.
    bystander: probability of a second, idle person.
    rivals: number of others who act, in their own time and other classes;
        the actor wears yellow where there may be any.
    idle: share of the frames in which the actor idles.
    instances: number of actions in turn, of the actor and of each rival.
    lit: number of the instances for which the light is on: they are of the
        labelled class, the others of any other. 0: it is always on, and all
        are of one class.
    """

    size: int = 64
    frames: int = 16
    actor: tuple[float, float] = (0.50, 0.65)
    clutter: tuple[int, int] = (2, 5)
    front: float = 0.05
    camera: tuple[float, float] = (0.00, 0.04)
    bystander: float = 0.5
    rivals: tuple[int, int] = (0, 0)
    idle: tuple[float, float] = (0.50, 0.70)
    instances: tuple[int, int] = (1, 1)
    lit: int = 0

    def __post_init__(self):
        def check(good: bool, name: str, mend: str) -> None:
            if not good:
                raise ValueError(
                    f"Dials: {name}={getattr(self, name)!r}: {mend}")

        check(32 <= self.size <= 512, "size", "use 32 to 512 pixels")
        check(2 <= self.frames, "frames", "use at least 2")
        for name, low, high in (
                ("actor", 0.2, 0.75), ("clutter", 0, 40), ("camera", 0, 0.2),
                ("idle", 0, 0.95), ("instances", 1, 100), ("rivals", 0, 3)):
            pair = getattr(self, name)
            good = (isinstance(pair, tuple) and len(pair) == 2
                    and low <= pair[0] <= pair[1] <= high)
            check(good, name, f"use (from, to) within {low} to {high}")
        for name in ("front", "bystander"):
            check(0 <= getattr(self, name) <= 1, name, "use 0 to 1")
        check(0 <= self.lit <= self.instances[0], "lit",
              "use 0 to the smallest number of instances")
        most = self.instances[1]
        busy = self.frames * (1 - self.idle[1])
        idle = self.frames * self.idle[0]
        check(round(busy) >= SHORTEST * most, "idle",
              f"leaves less than {SHORTEST} frames for each of {most} "
              f"instances in {self.frames} frames; lower it")
        check(int(idle) >= PAUSE * (most - 1), "idle",
              f"leaves less than {PAUSE} idle frames between {most} "
              "instances; raise it")

    @property
    def others(self) -> int:
        """The most people beside the actor."""
        return max(self.rivals[1], int(self.bystander > 0))


def timeline(rng: np.random.Generator, dials: Dials) -> np.ndarray:
    """Where the instances are: (K, 2), first and past-the-last frame."""
    count = int(rng.integers(dials.instances[0], dials.instances[1] + 1))
    busy = round(dials.frames * (1 - rng.uniform(*dials.idle)))
    idle = dials.frames - busy - PAUSE * (count - 1)
    cuts = np.sort(rng.integers(0, idle + 1, size=count))
    number = np.arange(count + 1)
    done = number * busy // count  # busy frames before each instance
    before = cuts + PAUSE * number[:-1]  # idle frames before each
    return np.stack([before + done[:-1], before + done[1:]], axis=1)


def script(label: int, classes: list[str], rng: np.random.Generator,
           dials: Dials, rival: bool = False) -> tuple[Script, np.ndarray]:
    """What a person does in turn, and which of it (K,) is of the label.

    A rival never does the labelled action.
    """
    spans = timeline(rng, dials)
    counts = np.full(len(spans), not rival)
    away = np.zeros(len(spans), dtype=int)
    if dials.lit:
        lit = rng.permutation(len(spans))[:dials.lit]
        counts &= np.bincount(lit, minlength=len(spans)) > 0
    if dials.lit or rival:
        away = rng.integers(1, len(classes), size=len(spans))
        away[counts] = 0
    if not dials.lit:
        away[:] = away[0]
    return [(classes[(label + by) % len(classes)], *map(int, span))
            for by, span in zip(away, spans, strict=True)], counts


def film(label: int, classes: list[str], who: int, others: list[int],
         key: list[int], dials: Dials,
         extras: frozenset[str]) -> dict[str, np.ndarray]:
    """One video of the action `classes[label]` with its answers.

    who: the actor. others: who may be beside. key: seeds the streams.
    """
    rng, rng_room, rng_clutter, rng_by = (
        np.random.default_rng([*key, stream]) for stream in range(1, 5))
    acts, counts = script(label, classes, rng, dials)
    camera = scene.pan(rng, dials.frames, dials.size, dials.camera)
    size, margin = dials.size, int(np.ceil(np.abs(camera).max())) + 1
    horizon = size * rng.uniform(0.70, 0.80)
    crowded, number = dials.rivals[1] > 0, 0
    if crowded:
        number = rng_by.integers(dials.rivals[0], dials.rivals[1] + 1)
    common = {"frames": dials.frames, "size": size, "tall": dials.actor,
              "room": LANE * size / (number + 1) if crowded else size}
    actor = Person(who, acts, rng, yellow=crowded or None, **common)
    canvas, floor = scene.room(rng_room, size, margin, horizon)
    people = [actor]
    if crowded:
        for other in rng_by.choice(others, size=number, replace=False):
            theirs, _ = script(label, classes, rng_by, dials, rival=True)
            people.append(Person(int(other), theirs, rng_by, yellow=False,
                                 **common))
    elif rng_by.random() < dials.bystander:
        people.insert(0, Person(int(rng_by.choice(others)), [], rng_by,
                                **common))
    place(people, actor, camera, horizon, size, crowded, rng_by)
    for one in people:
        seat, height = furniture(one.look.body).seat
        spot = one.foot + [one.flip * seat * one.height, 0] + margin
        scene.stool(canvas, spot, one.height, height)
    count = int(rng_clutter.integers(dials.clutter[0], dials.clutter[1] + 1))
    behind = count - rng_clutter.binomial(count, dials.front)
    things = scene.clutter(rng_clutter, size, count, camera)
    cast = [one.layer(camera, floor) for one in people]
    layer = scene.join([things.take(slice(behind)), *cast,
                        things.take(slice(behind, None))])
    # what is shown of each part (T, K), and whose it is (K,): -1 is clutter
    shown = np.ones((dials.frames, len(layer.parts)), dtype=bool)
    owner = np.full(len(layer.parts), -1)
    owned = np.zeros_like(shown)
    first = behind
    for i, (one, parts) in enumerate(zip(people, cast, strict=True)):
        now = slice(first, first + len(parts.parts))
        shown[:, now], owned[:, now] = one.visible(parts.parts)
        owner[now], first = i, now.stop
    mine = owner == people.index(actor)
    video, labels = scene.paint(canvas, margin, camera, layer, shown, size,
                                None if extras else mine)
    relevant = np.zeros(dials.frames, dtype=bool)
    spans = np.array([span for _, *span in acts])[counts]
    for start, end in spans:
        relevant[start:end] = True
    if dials.lit:
        scene.dim(video, ~relevant, DARK)
    mask = look_up(owned & mine, labels)
    answers = {
        "video": video, "mask": mask, "boxes": boxes_of(mask),
        "segments": (spans / FPS).astype(np.float32),
        "relevant": relevant}
    if "joints" in extras:
        joints = actor.joints * actor.height * [actor.flip, 1] + 0.5
        answers["joints"] = np.float32(
            joints + (actor.foot + camera)[:, None])
    if "flow" in extras:
        answers["flow"] = flow(layer, camera, labels)
    if "rivals" in extras:
        boxes = np.full((dials.frames, dials.others, 4), np.nan, np.float32)
        theirs = [i for i, one in enumerate(people) if one is not actor]
        for n, i in enumerate(theirs):
            boxes[:, n] = boxes_of(look_up(owned & (owner == i), labels))
        answers["rivals"] = boxes
    return answers


def place(people: list[Person], actor: Person, camera: np.ndarray,
          horizon: float, size: int, crowded: bool,
          rng: np.random.Generator) -> None:
    """Give each a place to stand, and sort them: the farthest come first.

    Two people who act stand abreast. A bystander stands behind the actor, on
    the side where there is more room.
    """
    floor = (horizon + 0.05 * size, 0.96 * size)
    if crowded:
        lanes = rng.permutation(len(people))
        for one, lane in zip(people, lanes, strict=True):
            middle, half = lane + 0.5, LANE / 2
            low, high = size * np.array([middle - half, middle + half]
                                        ) / len(people)
            one.stand(camera, (low, high), floor)
            (left, _), (right, _) = one.reach(camera)
            one.foot[0] = np.clip(one.foot[0], -left, max(size - right, -left))
        people.sort(key=lambda one: one.foot[1])
        return
    actor.stand(camera, (0, size), floor)
    for other in people[:-1]:
        x, gap = actor.foot[0], 0.16 * actor.height
        side = (0, x - gap) if 2 * x > size else (x + gap, size)
        other.stand(camera, side, (horizon + 0.02 * size, actor.foot[1]))


def boxes_of(mask: np.ndarray) -> np.ndarray:
    """Boxes (T, 4) around what masks (T, H, W) show; NaN where nothing."""
    # As `tight_boxes` has them; OpenCV is faster on small masks.
    boxes = np.float32([cv2.boundingRect(m) for m in mask.view(np.uint8)])
    boxes[boxes[:, 2] == 0] = np.nan
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def look_up(owned: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The pixels (T, H, W) whose part is owned (T, K); label 0 is none."""
    table = np.zeros((len(owned), 256), np.uint8)
    table[:, 1:owned.shape[1] + 1] = owned
    return np.stack([cv2.LUT(label, row) for row, label in
                     zip(table, labels, strict=True)]).view(bool)


def flow(layer: scene.Layer, camera: np.ndarray,
         labels: np.ndarray) -> np.ndarray:
    """Exact motion (T-1, 2, H, W) of the surface seen at each pixel."""
    origins = np.concatenate([camera[:, None], layer.origins], axis=1)
    turns = np.pad(np.diff(layer.angles, axis=0), ((0, 0), (1, 0)))
    height, width = labels.shape[1:]
    pixel = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    out = np.empty((len(labels) - 1, 2, height, width), np.float32)
    for t, label in enumerate(labels[:-1]):
        x, y = np.moveaxis(pixel - origins[t][label], -1, 0)
        cos, sin = np.cos(turns[t])[label], np.sin(turns[t])[label]
        now = np.stack([cos * x + sin * y, cos * y - sin * x], -1)
        out[t] = np.moveaxis(origins[t + 1][label] + now - pixel, -1, 0)
    return out
