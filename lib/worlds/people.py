"""The people of the built-in videos: how each looks, and how one moves.

An actor's number fixes body, colours, hair and tempo for good. A `Person`
is one actor in one video: acting, idling, placed in the frame.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from lib.worlds import scene
from lib.worlds.actions import (
    ACTIONS,
    FPS,
    IDLE,
    JOINTS,
    Action,
    Body,
    poses,
    skeleton,
)
from lib.worlds.scene import Colour, Layer, Part, box, capsule, shade

HAIR = ((38, 30, 30), (74, 46, 32), (120, 70, 36), (186, 128, 58),
        (226, 190, 112), (150, 60, 34), (176, 174, 176))
TROUSERS = ((44, 58, 92), (66, 66, 76), (110, 86, 66), (62, 88, 80),
            (92, 64, 88), (150, 136, 112))
PROPS = ("cup", "phone", "brush")
SHOES = ((40, 36, 38), (238, 234, 228), (150, 62, 52), (92, 66, 48))


class Look(NamedTuple):
    """What stays the same in all videos of one actor."""

    body: Body
    skin: Colour
    hair: Colour
    shirt: Colour
    trousers: Colour
    shoes: Colour
    sleeves: bool  # long
    shorts: bool
    cut: str  # of the hair
    tempo: float  # speed of all actions relative to the tables


@cache
def look(actor: int) -> Look:
    """The looks of actor number `actor`; the same in every data set."""
    rng = np.random.default_rng([20, 24, actor])
    grow = rng.uniform(0.93, 1.07, size=8).tolist()
    body = Body(*(length * g for length, g in zip(Body(), grow, strict=False)),
                girth=rng.uniform(0.9, 1.2))

    def one(colours: tuple[Colour, ...]) -> Colour:
        return colours[rng.integers(len(colours))]

    return Look(body, one(scene.SKIN), one(HAIR), one(scene.CLOTHES),
                one(TROUSERS), one(SHOES), bool(rng.random() < 0.5),
                bool(rng.random() < 0.3),
                ("short", "bun", "long", "crop")[rng.integers(4)],
                rng.uniform(0.85, 1.15))


def dressed(look: Look, yellow: bool | None) -> Look:
    """The look with a yellow shirt, or with one that is not yellow."""
    if yellow:
        return look._replace(shirt=scene.YELLOW)
    if yellow is False and look.shirt == scene.MUSTARD:
        return look._replace(shirt=scene.CLOTHES[0])
    return look


Script = list[tuple[str, int, int]]
Limb = tuple[str, tuple[float, float, float], Colour]


@cache
def limbs(look: Look, side: str) -> tuple[list[Limb], list[Limb]]:
    """Leg and arm of one side, in heights: bone, two radii and a length."""
    body, g = look.body, look.body.girth
    shin = look.skin if look.shorts else look.trousers
    fore = look.shirt if look.sleeves else look.skin
    leg = [("thigh", (0.060 * g, 0.048 * g, body.thigh), look.trousers),
           ("shin", (0.045 * g, 0.035 * g, body.shin), shin),
           ("foot", (0.034, 0.027, 0.090), look.shoes)]
    arm = [("arm", (0.047 * g, 0.040 * g, body.upper), look.shirt),
           ("fore", (0.040 * g, 0.034 * g, body.fore), fore),
           ("fore", (0.045, 0.045, body.fore), look.skin)]
    dark = 0.74 if side else 1.0  # the far side lies in shadow
    return tuple([(bone + side, size, shade(colour, dark))
                  for bone, size, colour in limb] for limb in (leg, arm))


def costume(look: Look, height: float, floor: Colour,
            props: set[str]) -> list[Part]:
    """The parts of an actor of that height in pixels, back to front.

    They face right. `props` are what the near hand holds by and by, in bones
    of their own names; the bones "box" and "shadow" stand for the box on the
    floor and the shadow on it.
    """
    body, g, r = look.body, look.body.girth, look.body.head

    def bar(bone: str, size: tuple, colour: Colour) -> Part:
        shape = capsule(*[height * length for length in size])
        if bone == "torso":
            shape = -shape
        elif bone.startswith("foot"):
            shape = shape[:, ::-1] + (-0.015 * height, 0.006 * height)
        return Part(bone, shape, colour)

    def ball(x: float, y: float, radius: float, colour: Colour) -> Part:
        h = height * r
        return Part("head", capsule(h * radius, h * radius, 0)
                    + (h * x, h * y), colour)

    def slab(bone: str, corners: tuple, colour: Colour) -> Part:
        return Part(bone, box(*[height * c for c in corners]), colour)

    back = {"bun": [ball(-0.95, -0.75, 0.48, look.hair)],
            "long": [slab("head", (-1.12 * r, -0.2 * r, -0.1 * r, 1.5 * r),
                          look.hair)]}
    fringe = [ball(-0.30, -0.28, 0.62, look.hair)]
    held = {
        "cup": [(slab, (-0.03, -0.12, 0.11, 0.06), scene.PAPER),
                (slab, (-0.03, -0.06, 0.11, 0.01), scene.RED)],
        "phone": [(slab, (-0.05, -0.09, 0.05, 0.14), scene.BLACK),
                  (slab, (-0.027, -0.06, 0.027, 0.10), scene.SKY)],
        "brush": [(bar, (0.024, 0.024, 0.09), scene.WOOD),
                  (slab, (-0.055, 0.05, 0.055, 0.20), scene.PINK)]}
    leg, arm = limbs(look, "")
    leg2, arm2 = limbs(look, "2")
    shadow = capsule(0.16 * height, 0.16 * height, 0) * (1, 0.22)
    return [
        Part("shadow", shadow, shade(floor, 0.72)),
        *(bar(*limb) for limb in arm2 + leg2),
        bar("head", (0.4 * r, 0.4 * r, body.neck), look.skin),
        *back.get(look.cut, []),
        bar("torso", (0.066 * g, 0.068 * g, 0.06), look.trousers),
        *(bar(*limb) for limb in leg),
        bar("torso", (0.068 * g, 0.080 * g, body.torso - 0.065), look.shirt),
        ball(-0.12, -0.18, 0.99, look.hair),
        ball(0.16, 0.12, 0.86, look.skin),
        ball(1.0, 0.18, 0.17, look.skin),  # nose
        ball(0.56, 0.0, 0.13, scene.BLACK),  # eye
        *(fringe if look.cut != "crop" else []),
        slab("box", (-0.085, -0.085, 0.085, 0.085), scene.CARDBOARD),
        slab("box", (-0.085, -0.03, 0.085, 0.015), scene.TAPE),
        *(kind(name, *rest) for name in PROPS if name in props
          for kind, *rest in held[name]),
        *(bar(*limb) for limb in arm),
    ]


class Furniture(NamedTuple):
    """Where an actor's things are, in heights from the standing foot."""

    home: float  # x of the hip when idle
    seat: tuple[float, float]  # x and height of the stool
    box: float  # x of the box on the floor


@cache
def furniture(body: Body) -> Furniture:
    """The stool to sit down on and the box within reach of this body."""
    sit, pick = ACTIONS["sit_down"], ACTIONS["pick_up"]
    pose = np.stack([IDLE, poses(sit, np.ones(1))[0],
                     poses(pick, np.array([pick.grip[0]]))[0]])
    joints = skeleton(pose, body).joints
    idle, seat = joints[:2, JOINTS.index("hip")]
    return Furniture(idle[0], (seat[0], -seat[1] - 0.05 * body.girth),
                     carry(joints)[2, 0])


def carry(joints: np.ndarray) -> np.ndarray:
    """The middle (T, 2) of a box between the two hands."""
    hands = [JOINTS.index("hand"), JOINTS.index("hand2")]
    return joints[:, hands].mean(axis=1) + [0.05, 0]


def sway(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Small changes (T, 12) of a pose: nobody stands quite still."""
    time = np.arange(frames) / FPS
    reach = np.array([1.5, 4, 4, 5, 4, 5, 0, 0, 0, 0, 0, 0])
    phase = rng.uniform(0, 2 * np.pi, size=12)
    return reach * np.sin(2 * np.pi * 0.4 * time[:, None] + phase)


class Person:
    """An actor in one video; lengths are in heights until `layer`.

    script: the actions in turn, with their first and past-the-last frames;
        none idles.
    size: of the frame in pixels. tall: range of the height as its share.
    room: pixels to walk in. yellow: whether the shirt is yellow, in the
        worlds where that tells who counts; None takes it as it is.
    """

    def __init__(self, actor: int, script: Script, rng: np.random.Generator,
                 *, frames: int, size: int, tall: tuple[float, float],
                 room: float, yellow: bool | None = None):
        self.look = dressed(look(actor), yellow)
        self.flip = -1 if rng.random() < 0.5 else 1
        self.height = size * rng.uniform(*tall)
        self.spot, phase = rng.uniform(size=2), rng.random()
        self.holds = np.zeros(frames, dtype=bool)
        self.props = np.full(frames, "", dtype="<U5")
        things = furniture(self.look.body)
        pose = np.full((frames, len(IDLE)), IDLE, dtype=float)
        walks = sum(end - start for name, start, end in script
                    if ACTIONS[name].travel)
        path = np.full(frames, things.home) if walks else None
        # A long walk is slowed down to end inside the frame.
        fits = max(0.9 * room / self.height - 0.6, 0)
        for name, start, end in script:
            action, now = ACTIONS[name], slice(start, end)
            u, weight = self.phases(action, end - start, phase)
            pose[now] += weight * (poses(action, u) - pose[now])
            self.holds[now] = (action.grip[0] <= u) & (u < action.grip[1])
            self.props[now] = action.prop
            if action.travel:
                step = min(action.travel / FPS, fits / walks)
                path[now] += step * np.arange(1, end - start + 1)
                path[end:] = path[end - 1]
            elif walks:  # the film is cut: back to the stool and the box
                path[now], path[end:] = np.nan, things.home
        self.bones, self.joints = skeleton(
            pose + sway(rng, frames), self.look.body, path)
        floor = np.array([things.box, -0.085])
        self.bones["box"] = (
            np.where(self.holds[:, None], carry(self.joints), floor),
            np.zeros(frames))

    def visible(self, parts: list[Part]) -> tuple[np.ndarray, np.ndarray]:
        """Which parts are to be seen, and belong to the person: (T, K) each.

        The thing in the hand is there while it is used, the box belongs to
        the room until it is picked up.
        """
        shown, owned = np.ones((2, len(self.props), len(parts)), dtype=bool)
        for k, (bone, *_) in enumerate(parts):
            if bone in PROPS:
                shown[:, k] = owned[:, k] = self.props == bone
            elif bone == "box":
                owned[:, k] = self.holds
        return shown, owned

    def phases(self, action: Action, n: int,
               phase: float) -> tuple[np.ndarray, np.ndarray]:
        """Phase (n,) and weight against idling (n, 1) of an instance."""
        step = np.arange(n)
        if not action.rate:
            return (step + 0.5) / n, np.ones((n, 1))
        u = phase + step * action.rate * self.look.tempo / FPS
        ends = (step == 0) | (step == n - 1)
        return u % 1, np.where(ends, 0.6, 1.0)[:, None]

    def reach(self, camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The corners (2,), (2,) in pixels of all that the person needs
        around the standing foot."""
        way = self.joints * self.height * [self.flip, 1] + camera[:, None]
        room = 0.10 * self.height
        return way.min(axis=(0, 1)) - room, way.max(axis=(0, 1)) + room

    def stand(self, camera: np.ndarray, x: tuple[float, float],
              y: tuple[float, float]) -> None:
        """Choose a place for the foot that keeps the person within x; the
        foot is within y unless the head would leave the frame."""
        (left, top), (right, _) = self.reach(camera)
        low, high = x[0] - left, x[1] - right
        if low > high:
            low = high = (low + high) / 2
        self.foot = np.array([
            low + self.spot[0] * (high - low),
            max(y[0] + self.spot[1] * (y[1] - y[0]), -top)])

    def layer(self, camera: np.ndarray, floor: Colour) -> Layer:
        """The person and the shadow as they are drawn."""
        hip = self.joints[:, JOINTS.index("hip")] * [1, 0]
        bones = self.bones | {"shadow": (hip, np.zeros(len(hip)))}
        bones |= dict.fromkeys(PROPS, bones["prop"])
        parts = costume(self.look, self.height, floor, {*self.props.tolist()})
        mirror = np.array([self.flip, 1])
        origins, angles = zip(*(bones[part.bone] for part in parts),
                              strict=True)
        return Layer(
            [Part(bone, shape * mirror, tint) for bone, shape, tint in parts],
            np.array(origins).swapaxes(0, 1) * self.height * mirror
            + (self.foot + camera)[:, None],
            np.array(angles).T * self.flip)
