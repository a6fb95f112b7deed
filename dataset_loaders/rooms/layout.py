"""Draws a whole random scene: room, walls, people, furniture, things on furniture, lights.

The camera is drawn first, so that furniture can be put where it will be seen and never around the lens; then standing
people, before the furniture could hide them.
"""

import math
from random import Random

import numpy as np

from dataset_loaders.rooms.floor_plan import FloorPlan
from dataset_loaders.rooms.furniture import bed, cabinet, chair, crate, lamp, small_object, sofa, table
from dataset_loaders.rooms.materials import Vector
from dataset_loaders.rooms.people import person
from dataset_loaders.rooms.scene import BOX, CYLINDER, PRIMITIVE, Camera, Place, Scene, SceneBuilder
from dataset_loaders.rooms.wall_items import furnish_walls

MAX_LIGHTS = 4
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


def random_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene; all randomness comes from `rng`."""
    dice = Random(int.from_bytes(rng.bytes(16), "little"))  # scalars from a Generator cost ten times as much
    size = (dice.uniform(3.2, 7.0), dice.uniform(2.4, 3.1), dice.uniform(3.8, 8.5))
    camera, plan = _random_camera(dice, size)
    b = SceneBuilder(dice)
    _build_room(b, size)
    _add_ceiling_light(b, plan)
    furnish_walls(b, plan)
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
