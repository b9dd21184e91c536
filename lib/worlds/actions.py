"""The actions of the built-in videos, as tables of joint angles.

A pose is a row of twelve numbers. Angles are absolute, in degrees: 0 is
a limb hanging straight down (a trunk or head upright), positive turns it
forward, the way the actor faces. Limbs come in pairs: `arm` is the one
near the camera, `arm2` the far one. An action is a short table of key
poses over a phase u in [0, 1]; between the keys the angles are eased by a
half cosine, so a pose that is written twice is held.

Nothing here knows pixels: lengths are in heights of the standing actor,
x forward, y down, the floor at y = 0.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

FPS = 8.0
"""Frames per second of all built-in videos."""

COLUMNS = ("lean", "head", "arm", "fore", "arm2", "fore2",
           "thigh", "shin", "thigh2", "shin2", "lift", "tilt")
"""What the numbers of a pose mean: ten angles, the height of the feet
above the floor, and the angle of the thing in the near hand."""

IDLE = (0, 0, 7, 14, -6, 6, 3, -3, -4, -6, 0, 0)
"""How an actor stands in the frames in which nothing happens."""

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Action:
    """A joint-angle program.

    rows: key poses, the phase u first and then COLUMNS, u rising 0 to 1.
    rate: cycles per second; 0 for an action that happens once and fills
        its segment.
    travel: heights per second that the body moves forward.
    prop: what the near hand holds: "cup", "phone", "brush" or nothing.
    grip: phases [from, to) in which the box is held instead of lying
        on the floor.
    """

    rows: Rows
    rate: float = 0.0
    travel: float = 0.0
    prop: str = ""
    grip: tuple[float, float] = (2.0, 2.0)

    def reversed(self) -> "Action":
        """The same poses in the opposite order."""
        rows = tuple((1 - u, *pose) for u, *pose in reversed(self.rows))
        first, last = self.grip
        return Action(rows, self.rate, self.travel, self.prop,
                      (1 - last, 1 - first))


def alternate(half: Rows) -> Rows:
    """A full cycle of a gait from its first half: then the sides swap."""
    swap = [0, 1, 4, 5, 2, 3, 8, 9, 6, 7, 10, 11]
    other = [(0.5 + u, *(pose[i] for i in swap)) for u, *pose in half]
    return (*half, *other, (1.0, *half[0][1:]))


#    u    lean head   arm fore arm2 fore2  thigh shin thigh2 shin2 lift tilt
SIT = (
    (0.00,   0,   0,    7,  14,  -6,   6,     3,  -3,    -4,  -6,   0,   0),
    (0.12,   4,   4,    9,  18,   2,  10,     6,  -6,     2,  -8,   0,   0),
    (0.45,  42,  18,   38,  52,  30,  46,    55, -30,    52, -32,   0,   0),
    (0.72,   8,   2,   32,  66,  26,  60,    86,  -2,    80,  -6,   0,   0),
    (1.00,  -4,   0,   24,  64,  18,  58,    87,   0,    81,  -4,   0,   0),
)
PICK = (
    (0.00,   0,   0,    7,  14,  -6,   6,     3,  -3,    -4,  -6,   0,   0),
    (0.42,  68,  42,   10,  20,   4,  14,    74, -52,    66, -56,   0,   0),
    (0.52,  68,  42,   10,  20,   4,  14,    74, -52,    66, -56,   0,   0),
    (0.88,  -4,   6,   10,  82,   4,  76,     3,  -3,    -4,  -6,   0,   0),
    (1.00,  -5,   4,   10,  84,   4,  78,     3,  -3,    -4,  -6,   0,   0),
)
DRINK = (
    (0.00,   0,   2,   48, 150,  -6,   6,     3,  -3,    -4,  -6,   0,   0),
    (0.35,  -2, -10,   68, 186,  -6,   6,     3,  -3,    -4,  -6,   0,  45),
    (0.50,  -6, -26,   80, 194,  -6,   6,     3,  -3,    -4,  -6,   0, 100),
    (0.70,  -6, -26,   80, 194,  -6,   6,     3,  -3,    -4,  -6,   0, 100),
    (1.00,   0,   2,   48, 150,  -6,   6,     3,  -3,    -4,  -6,   0,   0),
)
PHONE = (
    (0.00,   0,   8,   84, 232,  -6,   6,     3,  -3,    -4,  -6,   0, 205),
    (0.50,   2,   0,   78, 228,  16,  50,     3,  -3,    -4,  -6,   0, 200),
    (1.00,   0,   8,   84, 232,  -6,   6,     3,  -3,    -4,  -6,   0, 205),
)
BRUSH = (
    (0.00,   0,   6,  118, 200,  -6,   6,     3,  -3,    -4,  -6,   0, 230),
    (0.30,   0,   8,  140, 229,  -6,   6,     3,  -3,    -4,  -6,   0, 265),
    (0.60,   2,  10,  152, 262,  -6,   6,     3,  -3,    -4,  -6,   0, 320),
    (0.80,   2,   8,  142, 214,  -6,   6,     3,  -3,    -4,  -6,   0, 260),
    (1.00,   0,   6,  118, 200,  -6,   6,     3,  -3,    -4,  -6,   0, 230),
)
WALK = alternate((
    (0.00,   4,   0,  -30, -14,  26,  48,    30,  22,   -22, -36,   0,   0),
    (0.25,   3,   0,   -4,   8,   4,  22,     2,  -6,    22, -38,   0,   0),
))
RUN = alternate((
    (0.00,  18,   6,  -62,  20,  48, 130,    66,   0,   -32, -70, .05,   0),
    (0.25,  16,   4,  -18,  70,  10, 100,     6, -22,    24, -98,   0,   0),
))
JUMP = (
    (0.00,  36,  10,  -58, -40, -64, -46,    62, -48,    56, -52,   0,   0),
    (0.28,   2,  -8,  150, 164, 156, 170,     2,  -4,    -4,  -8, .10,   0),
    (0.48,   4,   0,  150, 168, 158, 174,    44, -40,    34, -48, .24,   0),
    (0.72,   8,   4,   70,  90,  64,  84,    12,  -8,     6, -12, .03,   0),
    (1.00,  36,  10,  -58, -40, -64, -46,    62, -48,    56, -52,   0,   0),
)
WAVE = (
    (0.00,  -2,   0,  142, 208,  -6,   6,     3,  -3,    -4,  -6,   0,   0),
    (0.50,   0,   4,  132, 128,  -6,   6,     3,  -3,    -4,  -6,   0,   0),
    (1.00,  -2,   0,  142, 208,  -6,   6,     3,  -3,    -4,  -6,   0,   0),
)
CLAP = (
    (0.00,  -2,   0,  106, 152,  18,  46,     3,  -3,    -4,  -6,   0,   0),
    (0.40,   2,   2,   62, 104,  58, 104,     3,  -3,    -4,  -6,   0,   0),
    (0.60,   2,   2,   62, 104,  58, 104,     3,  -3,    -4,  -6,   0,   0),
    (1.00,  -2,   0,  106, 152,  18,  46,     3,  -3,    -4,  -6,   0,   0),
)
PUNCH = alternate((
    (0.00,   4,   4,   20, 146,  34, 150,    22,   4,   -20, -26,   0,   0),
    (0.14,  14,   6,   92,  92,  18, 146,    28,   2,   -24, -32,   0,   0),
    (0.34,  14,   6,   92,  92,  18, 146,    28,   2,   -24, -32,   0,   0),
))
KICK = (
    (0.00,   6,   4,   26, 118,  20, 110,   -16, -34,     6,  -6,   0,   0),
    (0.25,  -6,   0,   10,  96,  34, 120,    84, -18,     2,  -8,   0,   0),
    (0.42, -26, -10,  -34, -10,  46, 110,    96,  94,     0, -10,   0,   0),
    (0.58, -26, -10,  -34, -10,  46, 110,    96,  94,     0, -10,   0,   0),
    (0.78,  -4,   0,   10,  96,  34, 120,    76, -26,     2,  -8,   0,   0),
    (1.00,   6,   4,   26, 118,  20, 110,   -16, -34,     6,  -6,   0,   0),
)

ACTIONS = {
    "sit_down": Action(SIT),
    "stand_up": Action(SIT).reversed(),
    "pick_up": Action(PICK, grip=(0.5, 2.0)),
    "put_down": Action(PICK, grip=(0.5, 2.0)).reversed(),
    "drink": Action(DRINK, rate=0.9, prop="cup"),
    "phone": Action(PHONE, rate=0.7, prop="phone"),
    "brush_hair": Action(BRUSH, rate=1.1, prop="brush"),
    "walk": Action(WALK, rate=1.0, travel=0.55),
    "run": Action(RUN, rate=1.5, travel=0.90),
    "jump": Action(JUMP, rate=1.0),
    "wave": Action(WAVE, rate=1.4),
    "clap": Action(CLAP, rate=1.8),
    "punch": Action(PUNCH, rate=0.9),
    "kick": Action(KICK, rate=1.0),
}
CLASSES = tuple(ACTIONS)
PAIRS = (("sit_down", "stand_up"), ("pick_up", "put_down"))
"""Classes with the same poses in opposite order."""


def poses(action: Action, u: np.ndarray) -> np.ndarray:
    """The poses (T, 12) of an action at phases `u` (T,) in [0, 1]."""
    table = np.array(action.rows, dtype=float)
    phase, keys = table[:, 0], table[:, 1:]
    right = np.searchsorted(phase[1:-1], u, side="right") + 1
    left = right - 1
    share = (u - phase[left]) / (phase[right] - phase[left])
    ease = (1 - np.cos(np.pi * share))[:, None] / 2
    return keys[left] + ease * (keys[right] - keys[left])


class Body(NamedTuple):
    """Lengths of an actor, in heights of the standing actor."""

    thigh: float = 0.23
    shin: float = 0.22
    torso: float = 0.31
    upper: float = 0.16
    fore: float = 0.15
    neck: float = 0.105  # top of the trunk to the middle of the head
    head: float = 0.090  # radius
    sole: float = 0.03  # ankle to floor
    girth: float = 1.0  # widths of all limbs relative to the slim ones


JOINTS = ("hip", "neck", "head", "shoulder", "elbow", "hand", "shoulder2",
          "elbow2", "hand2", "knee", "ankle", "knee2", "ankle2")


class Skeleton(NamedTuple):
    """Where a body is, for T frames.

    bones: name -> (origin (T, 2), angle (T,) in radians): the frames that
        limbs are drawn in; a limb points to +y of its frame.
    joints: (T, 13, 2), in the order of JOINTS.
    """

    bones: dict[str, tuple[np.ndarray, np.ndarray]]
    joints: np.ndarray


def skeleton(pose: np.ndarray, body: Body,
             path: np.ndarray | None = None) -> Skeleton:
    """Forward kinematics: poses (T, 12) to bones and joints.

    The lower foot stands on the floor, `lift` above it. Sideways the far
    foot stays at x = 0, or, with a `path` (T,), the hip follows the path
    where it is not NaN.
    """
    angles = np.radians(pose[:, :10]).T.copy()
    angles[:2] *= -1  # trunk and head point up
    # Along each limb, and both sides in one go: small arrays are slow.
    ways = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    arm, fore = body.upper * ways[2:6:2], body.fore * ways[3:6:2]
    thigh, shin = body.thigh * ways[6::2], body.shin * ways[7::2]
    leg, leg2 = thigh + shin
    height = np.maximum(leg[:, 1], leg2[:, 1]) + body.sole + pose[:, 10]
    place = -leg2[:, 0]
    if path is not None:
        place = np.where(np.isnan(path), place, path)
    hip = np.stack([place, -height], axis=-1)
    neck = hip - body.torso * ways[0]
    skull = neck - body.neck * ways[1]
    across = ways[0][:, ::-1] * [1, -1]
    top = neck + 0.035 * ways[0]
    bones = {"torso": (hip, angles[0]), "head": (skull, angles[1])}
    at = {"hip": hip, "neck": neck, "head": skull}
    near = np.array([-1, 1])[:, None, None]
    shoulder = top + near * 0.025 * across
    elbow = shoulder + arm
    hand = elbow + fore
    socket = hip + near * [0.012, 0]
    knee = socket + thigh
    ankle = knee + shin
    # A standing foot is flat, a lifted one turns with its shin.
    lifted = ((-ankle[..., 1] - body.sole) / 0.12).clip(0, 1)
    for i, side in enumerate(("", "2")):
        (a, f), (th, sh) = angles[2 + 2 * i:][:2], angles[6 + 2 * i:][:2]
        bones |= {"arm" + side: (shoulder[i], a), "fore" + side: (elbow[i], f),
                  "thigh" + side: (socket[i], th),
                  "shin" + side: (knee[i], sh),
                  "foot" + side: (ankle[i], sh * lifted[i])}
        at |= {"shoulder" + side: shoulder[i], "elbow" + side: elbow[i],
               "hand" + side: hand[i], "knee" + side: knee[i],
               "ankle" + side: ankle[i]}
    bones["prop"] = (at["hand"], np.radians(pose[:, 11]))
    joints = np.stack([at[name] for name in JOINTS], axis=1)
    return Skeleton(bones, joints)
