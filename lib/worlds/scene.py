"""How the built-in videos are drawn: flat shapes, rooms and clutter.

Everything that moves is a `Part`: a convex polygon in a frame of its own,
moved by one rotation and one shift per video frame. That makes the drawing
fast and every true answer (mask, box, flow) a matter of looking up which
part is on top. What does not move is painted once on a canvas.

Coordinates are OpenCV's, in pixels: (0, 0) is the middle of the first pixel.
"""

from functools import cache
from itertools import compress
from typing import NamedTuple

import cv2
import numpy as np

from lib.worlds.actions import FPS

Colour = tuple[int, int, int]

VERTICES = 16
TURN = np.linspace(0, np.pi, VERTICES // 2)
BOW = np.stack([np.cos(TURN), np.sin(TURN)], axis=1)
CORNERS = np.repeat([[0, 1], [2, 1], [2, 3], [0, 3]], VERTICES // 4, axis=0)
SHIFT = 4  # OpenCV draws in 1/16 pixels
BRIM = 0.5  # OpenCV paints each pixel that a polygon touches: draw smaller

SKIN = ((255, 219, 189), (241, 194, 153), (224, 172, 125), (198, 134, 88),
        (141, 88, 56), (101, 64, 43))
YELLOW = (255, 222, 40)  # of the one who counts where others act too
MUSTARD = (238, 194, 84)
CLOTHES = ((214, 84, 74), (232, 148, 66), MUSTARD, (92, 160, 108),
           (52, 140, 148), (70, 118, 186), (122, 96, 170), (196, 98, 140),
           (52, 72, 122), (150, 62, 60))
WALLS = ((206, 218, 206), (226, 214, 194), (200, 214, 226), (230, 208, 200),
         (214, 208, 226), (228, 224, 208), (188, 206, 204))
FLOORS = ((178, 142, 106), (156, 120, 90), (160, 160, 164), (190, 168, 138),
          (142, 150, 146), (168, 132, 116))
WOOD = (134, 94, 62)
STOOL = (184, 156, 132)
CARDBOARD = (204, 160, 104)
TAPE = (240, 188, 122)
PAPER = (250, 248, 240)
SKY = (140, 198, 230)
RED = (204, 66, 72)
PINK = (206, 58, 152)
BLACK = (38, 36, 42)


def faded(colour: Colour) -> Colour:
    """A colour half way to the light grey of a distant wall."""
    return tuple((c + 206) // 2 for c in colour)


@cache  # only of the few colours of rooms and people
def shade(colour: Colour, by: float) -> Colour:
    """A colour made darker (by < 1) or lighter (by > 1)."""
    return tuple(int(min(255, c * by)) for c in colour)


class Part(NamedTuple):
    """A polygon (V, 2) in pixels in the frame of a bone."""

    bone: str
    shape: np.ndarray
    colour: Colour


class Layer(NamedTuple):
    """Parts and where their frames are in each video frame."""

    parts: list[Part]
    origins: np.ndarray  # (T, K, 2) in pixels
    angles: np.ndarray  # (T, K) in radians

    def take(self, some: slice) -> "Layer":
        """Some of the parts."""
        return Layer(self.parts[some], self.origins[:, some],
                     self.angles[:, some])

    def outlines(self) -> np.ndarray:
        """The x and y (2, T, K, V) of the vertices of all parts in pixels."""
        x, y = np.array([p.shape.T for p in self.parts]).swapaxes(0, 1).copy()
        angles = self.angles[..., None]
        cos, sin = np.cos(angles), np.sin(angles)
        left, top = np.moveaxis(self.origins, -1, 0)[..., None]
        return np.stack([left + (cos * x + sin * y),
                         top + (cos * y - sin * x)])


def join(layers: list[Layer]) -> Layer:
    """All parts of several layers, back to front."""
    return Layer([part for layer in layers for part in layer.parts],
                 np.concatenate([layer.origins for layer in layers], axis=1),
                 np.concatenate([layer.angles for layer in layers], axis=1))


def paint(canvas: np.ndarray, margin: int, camera: np.ndarray, layer: Layer,
          shown: np.ndarray, size: int, wanted: np.ndarray | None = None
          ) -> tuple[np.ndarray, np.ndarray]:
    """The frames (T, H, W, 3), and which part is on top (T, H, W).

    shown: (T, K). Label k + 1 is part k, 0 the canvas; shadows are part of
    the floor. wanted: (K,), for speed, parts whose labels must be right; the
    others are labelled only where they may hide these.
    """
    video = np.empty((len(camera), size, size, 3), np.uint8)
    labels = np.zeros(video.shape[:3], np.uint8)
    points = np.round(layer.outlines() * (1 << SHIFT)).astype(np.int32)
    solid = shown & [part.bone != "shadow" for part in layer.parts]
    if wanted is not None:
        first = wanted.argmax()
        mine, after = wanted[first:], points[:, :, first:]
        low, high, edge = after.min(axis=3), after.max(axis=3), 2 << SHIFT
        meets = ((low < high[:, :, mine].max(axis=2, keepdims=True) + edge)
                 & (high > low[:, :, mine].min(axis=2, keepdims=True) - edge))
        solid[:, :first] = False
        solid[:, first:] &= mine | meets.all(axis=0)
    colours = [part.colour for part in layer.parts]
    middle = (size - 1) / 2 + margin
    outlines = np.ascontiguousarray(np.moveaxis(points, 0, -1))
    for frame, label, shift, outline, seen, on_top in zip(
            video, labels, camera, map(list, outlines), shown.tolist(),
            solid.tolist(), strict=True):  # lists: faster part by part
        cv2.getRectSubPix(canvas, (size, size), middle - shift, patch=frame)
        painted = zip(outline, colours, strict=True)
        for shape, colour in compress(painted, seen):
            cv2.fillConvexPoly(frame, shape, colour, cv2.LINE_AA, SHIFT)
        for k, shape in compress(enumerate(outline, 1), on_top):
            cv2.fillConvexPoly(label, shape, k, cv2.LINE_8, SHIFT)
    return video, labels


def pan(rng: np.random.Generator, frames: int, size: int,
        sway: tuple[float, float]) -> np.ndarray:
    """Shifts (T, 2) of the picture by a camera in the hand.

    sway: how far at most, as a share of the frame, a range to draw from.
    """
    time = np.arange(frames)[:, None] / FPS
    far = size * rng.uniform(*sway) * np.array([1, 0.35])
    rate, phase = rng.uniform([[0.2], [0]], [[0.6], [1]], size=(2, 2))
    return far * np.sin(2 * np.pi * (rate * time + phase))


def dim(video: np.ndarray, when: np.ndarray, light: float) -> None:
    """Turn the light of the frames `when` (T,) down, in place."""
    table = np.round(np.arange(256) * light).astype(np.uint8)
    for t in np.flatnonzero(when):
        cv2.LUT(video[t], table, dst=video[t])


def capsule(r0: float, r1: float, length: float) -> np.ndarray:
    """A limb (V, 2) with round ends, from (0, 0) to (0, length).

    A disc where `length` is 0.
    """
    shape = np.concatenate([-max(r0 - BRIM, 0.2) * BOW,
                            max(r1 - BRIM, 0.2) * BOW])
    shape[len(BOW):, 1] += length
    return shape


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """A rectangle (V, 2); corners are repeated to make up V vertices."""
    x0, y0 = x0 + BRIM, y0 + BRIM
    x1, y1 = max(x1 - BRIM, x0 + 0.4), max(y1 - BRIM, y0 + 0.4)
    return np.array([x0, y0, x1, y1])[CORNERS]


def draw(image: np.ndarray, shape: np.ndarray, colour: Colour) -> None:
    """Paint one polygon (V, 2) in pixels, smoothly."""
    points = np.round(shape * (1 << SHIFT)).astype(np.int32)
    cv2.fillConvexPoly(image, points, colour, cv2.LINE_AA, SHIFT)


def stool(canvas: np.ndarray, foot: np.ndarray, h: float,
          seat: float) -> None:
    """Paint a stool: seat `seat` heights `h` above the floor point."""
    x, y = foot
    for leg, colour in ((-0.07, shade(STOOL, 0.8)), (0.07, shade(STOOL, 0.9))):
        draw(canvas, box(x + (leg - 0.018) * h, y - seat * h,
                         x + (leg + 0.018) * h, y), colour)
    draw(canvas, box(x - 0.115 * h, y - seat * h,
                     x + 0.115 * h, y - (seat - 0.05) * h),
         STOOL)


def room(rng: np.random.Generator, size: int, margin: int,
         horizon: float) -> tuple[np.ndarray, Colour]:
    """A wall with pictures and a floor: RGB (size + 2 margin, same, 3).

    `horizon` is the row, in frame pixels, where the floor begins. Returns
    the colour of the floor, too.
    """
    side, s = size + 2 * margin, size
    canvas = np.empty((side, side, 3), np.uint8)
    edge = int(round(horizon)) + margin
    wall = WALLS[rng.integers(len(WALLS))]
    floor = FLOORS[rng.integers(len(FLOORS))]
    canvas[0], canvas[-1] = wall, floor
    canvas[:edge], canvas[edge:] = canvas[0], canvas[-1]  # fast row by row
    kind, pitch = rng.integers(4), int(s * rng.uniform(0.10, 0.16))
    band = max(1, s // 40)
    if kind == 0:  # wallpaper stripes
        for x in range(0, side, 2 * pitch):
            canvas[:edge, x:x + pitch] = shade(wall, 0.955)
    elif kind == 1:  # panels below a rail
        rail = edge - int(0.30 * s)
        canvas[rail:edge] = shade(wall, 0.9)
        for x in range(pitch // 2, side, 2 * pitch):
            canvas[rail:edge, x:x + band] = shade(wall, 0.82)
        canvas[rail - band:rail] = shade(wall, 1.08)
    elif kind == 2:  # bricks
        for row, y in enumerate(range(edge % pitch, edge, pitch // 2 + 1)):
            canvas[y:y + 1] = shade(wall, 0.93)
            for x in range(pitch * (row % 2) // 2, side, pitch):
                canvas[y:min(y + pitch // 2 + 1, edge), x:x + 1] = (
                    shade(wall, 0.93))
    for y in np.geomspace(0.05, 1, 4) * (side - edge):  # floor boards
        canvas[edge + int(y) - 1:edge + int(y)] = shade(floor, 0.88)
    hang(rng, canvas, s, edge)
    canvas[edge - 2 * band:edge] = shade(wall, 1.12)
    canvas[edge:edge + 1] = shade(floor, 0.75)
    light = cv2.resize(rng.normal(0, 7, (6, 6)).astype(np.float32),
                       (side, side), interpolation=cv2.INTER_CUBIC)
    grain = rng.integers(-3, 4, (side, side)).astype(np.float32)
    lit = canvas + cv2.merge([light + grain] * 3)
    return np.clip(lit, 0, 255).astype(np.uint8), floor


def hang(rng: np.random.Generator, canvas: np.ndarray, s: int,
         edge: int) -> None:
    """Hang pictures and a window on the wall, and put up a plant."""
    side = canvas.shape[1]
    kinds = rng.permutation(5)  # the fifth is an empty place
    for slot in range(3):
        x = side * (slot + rng.uniform(0.15, 0.5)) / 3
        y, w, h = s * rng.uniform([0.08, 0.14, 0.12], [0.3, 0.24, 0.26])
        y = min(y, edge - 0.4 * s)
        kind = kinds[slot]
        inner = CLOTHES[rng.integers(len(CLOTHES))]
        if kind == 0:  # window
            draw(canvas, box(x, y, x + w, y + 1.2 * h), PAPER)
            draw(canvas, box(x + 2, y + 2, x + w - 2, y + 1.2 * h - 2),
                 SKY)
            draw(canvas, box(x + w / 2 - 1, y, x + w / 2 + 1, y + 1.2 * h),
                 PAPER)
        elif kind == 1:  # picture
            draw(canvas, box(x, y, x + w, y + h), faded(WOOD))
            draw(canvas, box(x + 1.5, y + 1.5, x + w - 1.5, y + h - 1.5),
                 faded(inner))
        elif kind == 2:  # plant on the floor
            pot = np.array([x, edge])
            for lean in (-0.6, 0.0, 0.6):
                leaf = capsule(0.025 * s, 0.035 * s, 0.16 * s)
                c, d = np.cos(lean), np.sin(lean)
                draw(canvas, pot - [0, 0.08 * s]
                     - leaf @ np.array([[c, d], [-d, c]]), (128, 166, 122))
            draw(canvas, box(x - 0.05 * s, edge - 0.1 * s,
                             x + 0.05 * s, edge + 0.02 * s), (200, 150, 124))
        elif kind == 3:  # shelf
            draw(canvas, box(x, y + h, x + w, y + h + 0.03 * s),
                 faded(WOOD))
            for book in range(3):
                left = x + w * (0.08 + 0.28 * book)
                draw(canvas, box(left, y + 0.3 * h, left + 0.22 * w, y + h),
                     faded(CLOTHES[rng.integers(len(CLOTHES))]))


def clutter(rng: np.random.Generator, size: int, count: int,
            camera: np.ndarray) -> Layer:
    """Things that swing and drift: bars like limbs, balls and boxes."""
    time = np.arange(len(camera))[:, None] / FPS
    draws = rng.uniform(size=(count, 10))
    parts = []
    for d in draws:
        long, wide = size * (0.12 + 0.16 * d[0]), size * (0.02 + 0.025 * d[1])
        kind, *sizes = ((capsule, wide, wide, long),
                        (capsule, wide * 2, wide * 2, 0),
                        (box, -2 * wide, -wide, 2 * wide, wide),
                        (capsule, wide, wide, long))[int(4 * d[2])]
        colours = CLOTHES + SKIN
        parts.append(Part("clutter", kind(*sizes),
                          faded(colours[int(len(colours) * d[3])])))
    x, y, drift, reach, swing, phase = draws[:, 4:].T
    cycle = 2 * np.pi * ((0.4 + 1.2 * drift) * time + phase)
    origins = size * np.stack([
        x + (drift - 0.5) * 0.16 * time + 0.10 * reach * np.sin(cycle),
        0.85 * y + 0.06 * swing * np.cos(cycle)], axis=-1)
    angles = 6 * (phase - 0.5) + (0.3 + 0.9 * swing) * np.sin(cycle)
    return Layer(parts, origins + camera[:, None], angles)
