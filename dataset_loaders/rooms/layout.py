"""Draws a whole random scene: room, walls, furniture, things on furniture, people, lights.

The camera is drawn first, so that furniture can be put where it will be seen and never around the lens. Two pieces
never share floor area, except chairs pushed under a table.
"""

from __future__ import annotations

import math

import numpy as np

from dataset_loaders.rooms.furniture import PIECES, Piece, Place, chair, pendant, rug, small_object, table
from dataset_loaders.rooms.materials import Painter
from dataset_loaders.rooms.people import person
from dataset_loaders.rooms.scene import Camera, Dice, Light, Material, Scene, SceneBuilder, Support, Vector
from dataset_loaders.rooms.wall_items import furnish_walls

MAX_LIGHTS = 4
_TOTAL_WEIGHT = sum(piece.weight for piece in PIECES)


class FloorPlan:
    """The occupied rectangles of the floor, and what the camera sees of it (metres and radians)."""

    def __init__(self, size: Vector, eye: tuple[float, float], yaw: float, half_angle: float) -> None:
        self.size = size
        self.eye = eye
        self.yaw = yaw
        self.half_angle = half_angle
        self.taken: list[tuple[float, float, float, float]] = []

    def is_free(self, x: float, z: float, half_x: float, half_z: float, clear: float) -> bool:
        """Whether the rectangle lies in the room, apart from all others, in view and `clear` metres from the eye."""
        if not (half_x <= x <= self.size[0] - half_x and half_z <= z <= self.size[2] - half_z):
            return False
        ahead_x, ahead_z = x - self.eye[0], z - self.eye[1]
        if math.hypot(max(abs(ahead_x) - half_x, 0), max(abs(ahead_z) - half_z, 0)) < clear:
            return False
        angle = math.atan2(ahead_x, ahead_z) - self.yaw
        if abs(math.remainder(angle, 2 * math.pi)) > self.half_angle:
            return False
        return all(
            x + half_x <= left or x - half_x >= right or z + half_z <= near or z - half_z >= far
            for left, near, right, far in self.taken
        )

    def take(self, x: float, z: float, half_x: float, half_z: float) -> None:
        """Mark a rectangle as occupied."""
        self.taken.append((x - half_x, z - half_z, x + half_x, z + half_z))


def random_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene; all randomness comes from `rng`."""
    dice = Dice(rng)
    paint = Painter(dice)
    size = (dice.uniform(3.2, 7.0), dice.uniform(2.4, 3.1), dice.uniform(3.8, 8.5))
    camera, plan = _random_camera(dice, size)
    builder = SceneBuilder()
    windows = furnish_walls(builder, dice, paint, size, plan.take)
    lights = [_ceiling_light(builder, dice, paint, size, plan)]
    lights += _furnish_floor(builder, dice, paint, plan)
    _add_people(builder, dice, paint, plan)
    lights += _clutter(builder, dice, paint, plan)
    _lay_rug(builder, dice, paint, size)
    for window in windows:
        strength = dice.uniform(0.5, 2.5)
        lights.append(Light(window, (0.85 * strength, 0.95 * strength, 1.1 * strength)))
    dim = dice.uniform(0.12, 0.3)
    return Scene(
        size=size,
        room_materials=_room_materials(dice, paint),
        primitives=builder.build(),
        camera=camera,
        lights=lights[:MAX_LIGHTS],
        ambient=(dim * dice.uniform(0.9, 1.1), dim, dim * dice.uniform(0.9, 1.15)),
    )


def _random_camera(dice: Dice, size: Vector) -> tuple[Camera, FloorPlan]:
    """A camera near the walls that looks across the room."""
    margin = 0.35
    x, z = dice.uniform(margin, size[0] - margin), dice.uniform(margin, 0.35 * size[2])
    if dice.chance(0.5):
        z = size[2] - z
    eye = np.array([x, min(dice.uniform(1.1, 1.8), size[1] - 0.5), z])
    target_x, target_z = size[0] * dice.uniform(0.25, 0.75), size[2] * dice.uniform(0.4, 0.6)
    yaw = math.atan2(target_x - x, target_z - z) + dice.uniform(-0.25, 0.25)
    pitch = math.radians(dice.uniform(-22.0, 2.0))
    half_angle = math.radians(dice.uniform(55.0, 75.0)) / 2
    forward = np.array([math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch)])
    right = np.array([-math.cos(yaw), 0.0, math.sin(yaw)])
    rotation = np.stack([right, np.cross(right, forward), -forward])
    plan = FloorPlan(size, (x, z), yaw, half_angle + 0.08)
    return Camera(eye, rotation, math.tan(half_angle)), plan


def _room_materials(dice: Dice, paint: Painter) -> list[Material]:
    """Materials in the order of the room's surfaces; the four walls agree, or one of them is an accent."""
    wall = paint.material(0.6)
    walls = [wall] * 4
    if dice.chance(0.35):
        walls[dice.integer(0, 3)] = paint.material(0.3)
    return [walls[0], walls[1], paint.material(0.15), paint.material(0.8), walls[2], walls[3]]


def _ceiling_light(b: SceneBuilder, dice: Dice, paint: Painter, size: Vector, plan: FloorPlan) -> Light:
    x, z = size[0] * dice.uniform(0.3, 0.7), size[2] * dice.uniform(0.3, 0.7)
    drop = dice.uniform(0.05, 0.15) if dice.chance(0.5) else dice.uniform(0.35, 0.75)
    if math.hypot(x - plan.eye[0], z - plan.eye[1]) > 1.2:
        width = dice.uniform(0.25, 0.55)
        pendant(b, dice, paint, Place(x, size[1], z, dice.uniform(0, 3.0), width, width, drop))
    strength, warmth = dice.uniform(1.2, 3.5), dice.uniform(0.6, 1.0)
    return Light((x, size[1] - drop - 0.02, z), (strength, strength * (0.5 + 0.5 * warmth), strength * warmth))


def _furnish_floor(b: SceneBuilder, dice: Dice, paint: Painter, plan: FloorPlan) -> list[Light]:
    lights = []
    wanted = dice.integer(3, 9)
    for _ in range(wanted + 6):  # a small room refuses the large pieces
        piece = _random_piece(dice)
        place = _find_place(dice, plan, piece)
        if place is None:
            continue
        wanted -= 1
        bulb = piece.build(b, dice, paint, place)
        if bulb is not None:
            lights.append(_bulb_light(dice, bulb))
        if piece.build is table and place.height > 0.65:
            _chairs_around(b, dice, paint, plan, place)
        if wanted == 0:
            break
    return lights


def _random_piece(dice: Dice) -> Piece:
    left = dice.uniform(0.0, _TOTAL_WEIGHT)
    for piece in PIECES:
        left -= piece.weight
        if left < 0:
            return piece
    return PIECES[-1]


def _find_place(dice: Dice, plan: FloorPlan, piece: Piece) -> Place | None:
    """Try some random places; None if the piece fits at none of them."""
    width, depth = dice.uniform(*piece.width), dice.uniform(*piece.depth)
    height = dice.uniform(*piece.height)
    for _ in range(14):
        if dice.chance(piece.at_wall):
            x, z, yaw = _at_wall(dice, plan.size, width, depth)
            half_x, half_z = (width / 2, depth / 2) if abs(math.sin(yaw)) < 0.5 else (depth / 2, width / 2)
        else:
            x, z = dice.uniform(0, plan.size[0]), dice.uniform(0, plan.size[2])
            yaw = dice.pick((0.0, 0.5, 1.0, 1.5)) * math.pi + dice.uniform(-0.3, 0.3)
            half_x, half_z = _turned(width / 2, depth / 2, yaw)
        if plan.is_free(x, z, half_x + 0.04, half_z + 0.04, 0.6 if height < 1.0 else 1.3):
            plan.take(x, z, half_x, half_z)
            return Place(x, 0.0, z, yaw, width, depth, height)
    return None


def _at_wall(dice: Dice, size: Vector, width: float, depth: float) -> tuple[float, float, float]:
    wall = dice.integer(0, 3)
    gap = depth / 2 + 0.05
    if wall % 2 == 0:
        x = dice.uniform(width / 2, size[0] - width / 2)
        return (x, gap, 0.0) if wall == 0 else (x, size[2] - gap, math.pi)
    z = dice.uniform(width / 2, size[2] - width / 2)
    return (gap, z, math.pi / 2) if wall == 1 else (size[0] - gap, z, -math.pi / 2)


def _turned(half_x: float, half_z: float, yaw: float) -> tuple[float, float]:
    """Half sizes of the axis-aligned rectangle around a turned one."""
    sine, cosine = abs(math.sin(yaw)), abs(math.cos(yaw))
    return half_x * cosine + half_z * sine, half_x * sine + half_z * cosine


def _chairs_around(b: SceneBuilder, dice: Dice, paint: Painter, plan: FloorPlan, place: Place) -> None:
    """Chairs at the sides of a table, partly under it; all of them alike in size."""
    width, depth = dice.uniform(0.4, 0.48), dice.uniform(0.4, 0.48)
    height = dice.uniform(0.8, 1.0)
    sides = [(0.0, 1.0), (0.0, -1.0), (1.0, 0.0), (-1.0, 0.0)]
    sine, cosine = math.sin(place.yaw), math.cos(place.yaw)
    table_rectangle = plan.taken.pop()
    for side_x, side_z in sides:
        if not dice.chance(0.6):
            continue
        out = (place.width / 2 if side_x else place.depth / 2) + dice.uniform(0.05, 0.3)
        local_x, local_z = side_x * out, side_z * out
        x, z = place.x + cosine * local_x + sine * local_z, place.z - sine * local_x + cosine * local_z
        yaw = place.yaw + math.atan2(-side_x, -side_z) + dice.uniform(-0.25, 0.25)
        half_x, half_z = _turned(width / 2, depth / 2, yaw)
        if plan.is_free(x, z, half_x + 0.03, half_z + 0.03, 0.7):
            plan.take(x, z, half_x, half_z)
            chair(b, dice, paint, Place(x, 0.0, z, yaw, width, depth, height))
    plan.taken.append(table_rectangle)


def _add_people(b: SceneBuilder, dice: Dice, paint: Painter, plan: FloorPlan) -> None:
    for _ in range(dice.pick((0, 0, 0, 1, 1, 1, 1, 2, 2, 3))):
        far_seats = [seat for seat in b.seats if math.hypot(seat.x - plan.eye[0], seat.z - plan.eye[1]) > 1.4]
        if far_seats and dice.chance(0.6):
            seat = dice.pick(far_seats)
            b.seats.remove(seat)
            yaw = seat.yaw + dice.uniform(-0.3, 0.3)
            person(b, dice, paint, seat.x - 0.05 * math.sin(yaw), seat.z - 0.05 * math.cos(yaw), yaw, seat.y)
            continue
        for _ in range(14):
            x, z = dice.uniform(0, plan.size[0]), dice.uniform(0, plan.size[2])
            if plan.is_free(x, z, 0.36, 0.36, 1.2):
                plan.take(x, z, 0.36, 0.36)
                person(b, dice, paint, x, z, dice.uniform(0, 2 * math.pi), None)
                break


def _clutter(b: SceneBuilder, dice: Dice, paint: Painter, plan: FloorPlan) -> list[Light]:
    """Small objects in separate slots of the supports, one of them the ornament; returns the lights of lit lamps."""
    spots = []
    for support in b.supports:
        slots = max(1, min(4, int(2 * support.half_x / 0.34)))
        half = support.half_x / slots
        sine, cosine = math.sin(support.yaw), math.cos(support.yaw)
        for slot in range(slots):
            along = half * (2 * slot + 1) - support.half_x
            across = dice.uniform(-0.4, 0.4) * max(support.half_z - half, 0.0)
            x, z = support.x + cosine * along + sine * across, support.z - sine * along + cosine * across
            spots.append(Support(x, support.y, z, support.yaw, half * 0.8, min(half, support.half_z) * 0.8))
    spots = spots or _floor_spots(dice, plan)
    lights = []
    ornament = dice.integer(0, max(len(spots) - 1, 0))
    for index, spot in enumerate(spots):
        if index != ornament and not dice.chance(0.55):
            continue
        bulb = small_object(b, dice, paint, spot, index == ornament)
        if bulb is not None:
            lights.append(_bulb_light(dice, bulb))
    return lights


def _floor_spots(dice: Dice, plan: FloorPlan) -> list[Support]:
    """A place for the ornament in a room where nothing else can bear it."""
    for _ in range(30):
        x, z = dice.uniform(0, plan.size[0]), dice.uniform(0, plan.size[2])
        if plan.is_free(x, z, 0.2, 0.2, 1.0):
            return [Support(x, 0.0, z, 0.0, 0.2, 0.2)]
    return []


def _lay_rug(b: SceneBuilder, dice: Dice, paint: Painter, size: Vector) -> None:
    if not dice.chance(0.35):
        return
    width, depth = dice.uniform(1.0, 0.7 * size[0]), dice.uniform(1.0, 0.5 * size[2])
    x, z = dice.uniform(0.4, 0.6) * size[0], dice.uniform(0.35, 0.65) * size[2]
    rug(b, dice, paint, Place(x, 0.0, z, 0.0, width, depth, 0.012))


def _bulb_light(dice: Dice, bulb: Vector) -> Light:
    strength = dice.uniform(0.2, 0.8)
    return Light(bulb, (strength, 0.85 * strength, 0.65 * strength))
