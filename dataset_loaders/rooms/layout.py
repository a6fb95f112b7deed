"""Draws a whole random scene: room, things on walls, people, furniture, things on furniture, lights. Metres, radians.

The camera is drawn first, so that furniture can be put where it will be seen and never around the lens; then standing
people, before the furniture could hide them.
"""

import math
from collections.abc import Iterable, Iterator
from random import Random

import numpy as np

from dataset_loaders.rooms.furniture import bed, cabinet, chair, crate, lamp, small_object, sofa, table
from dataset_loaders.rooms.materials import Vector
from dataset_loaders.rooms.people import person
from dataset_loaders.rooms.scene import BOX, CYLINDER, ELLIPSOID, PRIMITIVE, Camera, Place, Scene, SceneBuilder

MAX_LIGHTS = 4
_WIDTHS = {"door": (0.75, 1.0), "window": (0.7, 1.8), "picture": (0.3, 1.2)}
# what, its widths, depths and heights in metres, the probability that it stands at a wall, its weight in the draw
_PIECES = (
    (table, ((0.7, 1.8), (0.5, 0.95), (0.38, 0.78)), 0.3, 1.6),
    (chair, ((0.4, 0.55), (0.4, 0.52), (0.8, 1.05)), 0.25, 1.0),
    (cabinet, ((0.5, 1.7), (0.3, 0.6), (0.45, 2.1)), 0.95, 1.5),
    (bed, ((0.9, 1.8), (1.9, 2.1), (0.6, 1.1)), 0.9, 1.5),
    (sofa, ((0.85, 2.2), (0.8, 0.95), (0.72, 0.92)), 0.6, 1.4),
    (lamp, ((0.25, 0.45), (0.25, 0.45), (1.2, 1.8)), 0.6, 0.6),
    (crate, ((0.25, 0.6), (0.25, 0.5), (0.15, 0.5)), 0.4, 0.7),
)


class FloorPlan:
    """The floor of a room of this size; the camera stands at `eye` and sees `half_angle` to both sides of its yaw."""

    def __init__(self, size: Vector, eye: Place, half_angle: float) -> None:
        self.size, self.eye, self.half_angle = size, eye, half_angle
        self._taken: list[tuple[float, float, float, float]] = []

    def sees(self, place: Place, nearest: float, farthest: float = math.inf, share: float = 2.0) -> bool:
        """Whether the middle of a place is between two distances and within a share of the half field of view."""
        x, z = place.x - self.eye.x, place.z - self.eye.z
        angle = math.remainder(math.atan2(x, z) - self.eye.yaw, math.tau)
        return nearest < math.hypot(x, z) < farthest and abs(angle) < share * self.half_angle

    def ahead(self, dice: Random, distance: tuple[float, float], share: float, size: float) -> Iterator[Place]:
        """Random square places at a distance from the camera and within a share of the half field of view."""
        for _ in range(14):
            angle, far = self.eye.yaw + dice.uniform(-share, share) * self.half_angle, dice.uniform(*distance)
            x, z = self.eye.x + far * math.sin(angle), self.eye.z + far * math.cos(angle)
            yield Place(x, 0.0, z, 0.0, size, size)

    def at_wall(self, wall: int, share: float, gap: float = 0.0) -> Place:
        """A place at a share (0 to 1) of one of the four walls, `gap` before it, facing the room."""
        (x, _, z), yaw = self.size, wall * math.pi / 2
        if wall % 2 == 0:
            return Place(share * x, 0.0, gap if wall == 0 else z - gap, yaw)
        return Place(gap if wall == 1 else x - gap, 0.0, share * z, yaw)

    def take(self, place: Place) -> None:
        """Mark a place as occupied."""
        self._taken.append(_bounds(place))

    def claim(self, places: Iterable[Place], clear: float) -> Place | None:
        """Take the first of some places that is free, in the room, in view and `clear` from the camera."""
        for place in places:
            left, near, right, far = _bounds(place, 0.04)
            x, z = self.eye.x, self.eye.z
            inside = min(left, near) >= 0 and right <= self.size[0] and far <= self.size[2]
            apart = math.hypot(max(left - x, x - right, 0), max(near - z, z - far, 0)) >= clear
            rest = (right <= a or c <= left or far <= b or d <= near for a, b, c, d in self._taken)
            if inside and apart and self.sees(place, clear, share=1.1) and all(rest):
                self.take(place)
                return place
        return None


def _bounds(place: Place, gap: float = 0.0) -> tuple[float, float, float, float]:
    """The axis-aligned rectangle around a place: lowest x and z, highest x and z."""
    sine, cosine = abs(math.sin(place.yaw)) / 2, abs(math.cos(place.yaw)) / 2
    half_x, half_z = place.width * cosine + place.depth * sine + gap, place.width * sine + place.depth * cosine + gap
    return (place.x - half_x, place.z - half_z, place.x + half_x, place.z + half_z)


def random_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene; all randomness comes from `rng`."""
    dice = Random(int.from_bytes(rng.bytes(16), "little"))  # scalars from a Generator cost ten times as much
    size = (dice.uniform(3.2, 7.0), dice.uniform(2.4, 3.1), dice.uniform(3.8, 8.5))
    camera, plan = _random_camera(dice, size)
    b = SceneBuilder(dice)
    _build_room(b, size)
    _add_ceiling_light(b, plan)
    _furnish_walls(b, plan)
    for _ in range(dice.choice((0, 0, 1, 1, 1, 1, 1, 1, 2, 2))):
        if place := plan.claim(plan.ahead(dice, (1.8, 4.0), 0.75, 0.6), 1.4):
            person(b, place._replace(yaw=dice.uniform(0, math.tau)))
    _furnish_floor(b, plan)
    seats = [seat for seat in b.seats if plan.sees(seat, 1.6, 4.5, 0.8)]
    for seat in dice.sample(seats, min(len(seats), dice.choice((0, 1, 1, 2)))):
        person(b, seat.inner(0, 0, -0.05, turn=dice.uniform(-0.3, 0.3)), sitting=True)
    _add_small_objects(b, plan)
    dim = dice.uniform(0.12, 0.3)
    ambient = (dim * dice.uniform(0.9, 1.1), dim, dim * dice.uniform(0.9, 1.15))
    return Scene(size, np.array(b.primitives, PRIMITIVE), camera, b.lights[:MAX_LIGHTS], ambient)


def _random_camera(dice: Random, size: Vector) -> tuple[Camera, FloorPlan]:
    """A camera near the walls that looks across the room."""
    x, z = dice.uniform(0.35, size[0] - 0.35), dice.uniform(0.35, 0.35 * size[2])
    z = dice.choice((z, size[2] - z))
    target_x, target_z = size[0] * dice.uniform(0.25, 0.75), size[2] * dice.uniform(0.4, 0.6)
    yaw = math.atan2(target_x - x, target_z - z) + dice.uniform(-0.25, 0.25)
    pitch, half_angle = math.radians(dice.uniform(-22.0, 2.0)), math.radians(dice.uniform(55.0, 75.0)) / 2
    forward = np.array([math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch)])
    right = np.array([-math.cos(yaw), 0.0, math.sin(yaw)])
    rotation = np.stack([right, np.cross(right, forward), -forward])
    position = np.array([x, min(dice.uniform(1.1, 1.8), size[1] - 0.5), z])
    return Camera(position, rotation, math.tan(half_angle)), FloorPlan(size, Place(x, 0.0, z, yaw), half_angle)


def _build_room(b: SceneBuilder, size: Vector) -> None:
    """Six slabs around the room, and perhaps a rug: an instance of its own, of class floor."""
    dice, (x, y, z), t = b.dice, size, 0.2
    wall = b.paint.material(0.6)
    for name, low, high, material in (
        ("wall", (-t, -t, -t), (x + t, y + t, 0), wall),
        ("wall", (-t, -t, z), (x + t, y + t, z + t), dice.choice((wall, b.paint.material(0.3)))),
        ("wall", (-t, -t, -t), (0, y + t, z + t), wall),
        ("wall", (x, -t, -t), (x + t, y + t, z + t), wall),
        ("floor", (-t, -t, -t), (x + t, 0, z + t), b.paint.material(0.15)),
        ("ceiling", (-t, y, -t), (x + t, y + t, z + t), b.paint.material(0.8)),
    ):
        b.begin(name, Place(0, 0, 0))
        b.box(low, high, material)
    if dice.random() < 0.35:
        half_x, half_z, kind = dice.uniform(0.5, 0.35 * x), dice.uniform(0.5, 0.25 * z), dice.choice((BOX, CYLINDER))
        b.begin("floor", Place(dice.uniform(0.4, 0.6) * x, 0.0, dice.uniform(0.35, 0.65) * z))
        b.box((-half_x, 0, -half_z), (half_x, 0.012, half_z), b.paint.material(0.2), kind)


def _add_ceiling_light(b: SceneBuilder, plan: FloorPlan) -> None:
    """The light that casts shadows, and its lamp unless that is right above the camera."""
    dice, (x, y, z) = b.dice, plan.size
    drop = dice.choice((dice.uniform(0.05, 0.15), dice.uniform(0.35, 0.75)))
    place = Place(x * dice.uniform(0.3, 0.7), y, z * dice.uniform(0.3, 0.7), 0.0, dice.uniform(0.25, 0.55), 0.0, -drop)
    strength, warmth = dice.uniform(1.2, 3.5), dice.uniform(0.6, 1.0)
    colour = (strength, strength * (0.5 + 0.5 * warmth), strength * warmth)
    b.lights.append((place.point(0, -drop - 0.02, 0), colour))
    if plan.sees(place, 1.2):
        lamp(b, place)


def _furnish_walls(b: SceneBuilder, plan: FloorPlan) -> None:
    """Hang doors, windows (which are lights) and pictures; the floor before a door is taken."""
    dice, doors = b.dice, 0
    for wall in range(4):
        length = plan.size[wall % 2 * 2]
        start = dice.uniform(0.15, 0.5)
        while True:
            choice = dice.random()
            kind = "door" if choice < 0.25 and doors < 2 else "window" if choice < 0.55 else "picture"
            width = dice.uniform(*_WIDTHS[kind])
            if start + width > length - 0.15:
                break
            place = plan.at_wall(wall, (start + width / 2) / length)
            _hang(b, kind, place, width / 2, plan.size[1] - 0.1)
            if kind == "door":
                doors += 1
                plan.take(place.inner(0, 0, 0.45, 0.9, 0.9))
            start += width + dice.uniform(0.25, 1.2)


def _hang(b: SceneBuilder, kind: str, place: Place, x: float, top: float) -> None:
    """One thing of half width x below `top`: a frame, what it holds a little before it, and details."""
    dice, frame, inside = b.dice, b.paint.material(0.6), b.paint.material(0.2)
    low, high, border = 0.0, min(dice.uniform(1.95, 2.15), top), dice.uniform(0.03, 0.08)
    if kind == "window":
        low, high = dice.uniform(0.7, 1.1), min(dice.uniform(1.8, 2.3), top)
        inside = inside._replace(glow=dice.choice((0.02, 0.15, 0.5, 1.0)), period=4.0)
        light = dice.uniform(0.5, 2.5)
        b.lights.append((place.point(0, (low + high) / 2, 0.3), (0.85 * light, 0.95 * light, 1.1 * light)))
    elif kind == "picture":
        low = dice.uniform(0.9, 1.3)
        high = min(low + x * dice.uniform(1.2, 2.8), top)
    b.begin(kind, place)
    b.box((-x, low, 0), (x, high, 0.03), frame)
    b.box((border - x, low + min(low, border), 0), (x - border, high - border, 0.036), inside)
    if kind == "door":
        middle = dice.choice((-1, 1)) * (x - border - 0.1)
        b.box((middle - 0.055, 1.01, 0.036), (middle + 0.055, 1.03, 0.09), b.paint.frame())
        panel = dice.choice((inside, frame))
        for bottom in (0.17, 0.93):
            b.box((-0.6 * x, bottom, 0), (0.6 * x, bottom + 0.75, 0.046), panel)
    elif kind == "window":
        bars = dice.choice(((), (0.0,), (-x / 3, x / 3)))
        for middle in bars:
            b.box((middle - 0.018, low, 0), (middle + 0.018, high, 0.05), frame)
        if not bars or dice.random() < 0.5:  # without bars, the sill tells a window from a picture
            b.box((-x - 0.04, low - 0.03, 0), (x + 0.04, low, 0.14), frame)
    else:
        for _ in range(dice.randint(0, 3)):
            half_x, half_y = x * dice.uniform(0.1, 0.4), (high - low) / 2 * dice.uniform(0.1, 0.4)
            left, bottom = dice.uniform(-0.8 * x, 0.8 * x - 2 * half_x), dice.uniform(low + 0.1 * x, high - 2 * half_y)
            corner = (left + 2 * half_x, min(bottom + 2 * half_y, high - border), 0.042)
            b.box((left, bottom, 0.02), corner, b.paint.material(), dice.choice((BOX, ELLIPSOID)))


def _furnish_floor(b: SceneBuilder, plan: FloorPlan) -> None:
    for build, spans, at_wall, _ in b.dice.choices(_PIECES, [piece[-1] for piece in _PIECES], k=b.dice.randint(5, 12)):
        width, depth, height = (b.dice.uniform(*span) for span in spans)
        places = (_somewhere(b.dice, plan, at_wall, width, depth, height) for _ in range(14))
        place = plan.claim(places, 0.6 if height < 1.0 else 1.3)
        if place:  # a small room refuses the large pieces
            build(b, place)
            if build is table and height > 0.65:
                _add_chairs(b, plan, place)


def _somewhere(dice: Random, plan: FloorPlan, at_wall: float, width: float, depth: float, height: float) -> Place:
    if dice.random() < at_wall:
        place = plan.at_wall(dice.randrange(4), dice.random(), depth / 2 + 0.05)
    else:
        yaw = dice.randrange(4) * math.pi / 2 + dice.uniform(-0.3, 0.3)
        place = Place(dice.uniform(0, plan.size[0]), 0.0, dice.uniform(0, plan.size[2]), yaw)
    return place._replace(width=width, depth=depth, height=height)


def _add_chairs(b: SceneBuilder, plan: FloorPlan, place: Place) -> None:
    """Chairs at the sides of a table; all of them alike in size."""
    dice, size, height = b.dice, b.dice.uniform(0.4, 0.48), b.dice.uniform(0.8, 1.0)
    for x, z in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        out = (place.width if x else place.depth) / 2 + size / 2 + dice.uniform(0.06, 0.3)
        spot = place.inner(x * out, 0, z * out, size, size, math.atan2(-x, -z) + dice.uniform(-0.25, 0.25))
        if dice.random() < 0.7 and plan.claim([spot], 0.7):
            chair(b, spot._replace(height=height))


def _add_small_objects(b: SceneBuilder, plan: FloorPlan) -> None:
    """Small objects in separate slots of the supports, or one on the floor; one of them is the ornament."""
    dice, spots = b.dice, []
    for support in b.supports:
        slots = max(1, min(4, int(support.width / 0.34)))
        wide = support.width / slots
        for left in range(slots):
            size, across = 0.8 * min(wide, support.depth), max(support.depth - wide, 0) * dice.uniform(-0.2, 0.2)
            spots.append(support.inner(wide * (left + 0.5) - support.width / 2, 0, across, size, size))
    if not spots and (floor := plan.claim(plan.ahead(dice, (1.5, 3.0), 0.7, 0.4), 1.0)):
        spots = [floor]
    ornament = dice.randrange(len(spots)) if spots else 0
    for index, spot in enumerate(spots):
        if index == ornament or dice.random() < 0.55:
            small_object(b, spot._replace(yaw=spot.yaw + dice.uniform(-0.6, 0.6)), ornament=index == ornament)
