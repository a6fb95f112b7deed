"""Furniture and small objects, each a function that adds one piece to the scene in its own frame.

A piece of width w, depth d and height h (metres) stands on local y = 0, centred on x and z, its front towards +z. The
same palette and textures serve every class, so that only shape and context tell a cabinet from a bed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dataset_loaders.rooms.materials import Painter
from dataset_loaders.rooms.scene import Dice, Material, SceneBuilder, Support, Vector


class Place(NamedTuple):
    """Where a piece stands: world position of its base centre (metres), yaw (radians) and its width, depth, height."""

    x: float
    y: float
    z: float
    yaw: float
    width: float
    depth: float
    height: float


def _legs(
    b: SceneBuilder, material: Material, half_x: float, half_z: float, height: float, radius: float, round_legs: bool
) -> None:
    add = b.tube if round_legs else b.box
    for x in (-half_x, half_x):
        for z in (-half_z, half_z):
            add((x, height / 2, z), (radius, height / 2, radius), material)


def table(b: SceneBuilder, dice: Dice, paint: Painter, place: Place) -> None:
    """A table or desk: legs, side panels or a central pole; rectangular or round."""
    width, depth, height = place.width, place.depth, place.height
    b.begin("table", *place[:4])
    top, legs = paint.material(), paint.metal() if dice.chance(0.4) else paint.material()
    thick = dice.uniform(0.015, 0.035)
    under = height - 2 * thick
    centre = (0.0, height - thick, 0.0)
    style = dice.random()
    if style < 0.25:
        width = depth = min(width, depth)
        b.tube(centre, (width / 2, thick, depth / 2), top)
        radius = dice.uniform(0.02, 0.05)
        b.tube((0, under / 2, 0), (radius, under / 2, radius), legs)
        b.tube((0, 0.02, 0), (width * 0.3, 0.02, width * 0.3), legs)
        width = depth = width * 0.7
    else:
        b.box(centre, (width / 2, thick, depth / 2), top)
        radius = dice.uniform(0.015, 0.04)
        if style < 0.4:
            for x in (-1, 1):
                b.box((x * (width / 2 - 0.06), under / 2, 0), (0.025, under / 2, depth * 0.42), legs)
        else:
            inset = radius + dice.uniform(0.0, 0.05)
            _legs(b, legs, width / 2 - inset, depth / 2 - inset, under, radius, dice.chance(0.5))
        if style > 0.8:
            drawers = 0.2 * width
            b.box((width / 2 - drawers - 0.05, under - 0.2, 0), (drawers, 0.2, depth * 0.42), top)
    b.supports.append(b.surface(0, height, 0, width / 2, depth / 2))


def chair(b: SceneBuilder, dice: Dice, paint: Painter, place: Place) -> None:
    """A chair, office chair or stool."""
    width, depth, height = place.width, place.depth, place.height
    b.begin("chair", *place[:4])
    cloth, frame = paint.material(), paint.metal() if dice.chance(0.4) else paint.material()
    seat_y = dice.uniform(0.42, 0.48)
    thick = dice.uniform(0.015, 0.045)
    half_x, half_z = width / 2, depth / 2
    style = dice.random()
    seat = b.tube if style > 0.85 else b.box
    seat((0, seat_y - thick, 0), (half_x, thick, half_z), cloth)
    if style < 0.25:
        b.tube((0, (seat_y - 2 * thick) / 2, 0), (0.03, seat_y / 2 - thick, 0.03), frame)
        b.box((0, 0.035, 0), (half_x, 0.025, 0.025), frame)
        b.box((0, 0.035, 0), (0.025, 0.025, half_z), frame)
    else:
        radius = dice.uniform(0.012, 0.025)
        spread = 0.7 if style > 0.85 else 1.0
        foot_x, foot_z = (half_x - radius) * spread, (half_z - radius) * spread
        _legs(b, frame, foot_x, foot_z, seat_y - 2 * thick, radius, dice.chance(0.5))
    if style <= 0.85:
        back = (height - seat_y) / 2
        middle, behind = seat_y + back, -half_z + 0.02
        if dice.chance(0.5):
            b.box((0, middle + 0.04, behind), (half_x, back - 0.04, 0.02), cloth)
            b.box((0, seat_y + 0.04, behind), (0.03, 0.05, 0.015), frame)
        else:
            for x in (-half_x + 0.02, half_x - 0.02):
                b.box((x, middle, behind), (0.018, back, 0.018), frame)
            for level in range(dice.integer(1, 3)):
                b.box((0, height - 0.06 - 0.13 * level, behind), (half_x - 0.03, 0.035, 0.012), cloth)
        if dice.chance(0.3):
            for x in (-half_x + 0.02, half_x - 0.02):
                b.box((x, seat_y + 0.2, 0), (0.022, 0.015, half_z * 0.85), frame)
                b.box((x, seat_y + 0.1, half_z * 0.7), (0.015, 0.1, 0.015), frame)
    b.seats.append(b.surface(0, seat_y, 0.02, half_x, half_z))


def cabinet(b: SceneBuilder, dice: Dice, paint: Painter, place: Place) -> None:
    """A closed cabinet with doors or drawers, or an open shelf with books in it."""
    width, depth, height = place.width, place.depth, place.height
    body = paint.material()
    if height > 0.7 and dice.chance(0.4):
        _shelf(b, dice, paint, place, body)
        return
    b.begin("cabinet", *place[:4])
    foot = dice.pick((0.0, 0.0, 0.08, 0.14))
    if foot:
        _legs(b, paint.metal(), width / 2 - 0.04, depth / 2 - 0.04, foot, 0.02, dice.chance(0.5))
    b.box((0, (height + foot) / 2, -0.01), (width / 2, (height - foot) / 2, depth / 2 - 0.01), body)
    front, knob = body if dice.chance(0.5) else paint.material(), paint.metal()
    columns = max(1, round(width / dice.uniform(0.4, 0.7)))
    rows = dice.integer(2, 4) if height < 1.3 and dice.chance(0.6) else 1
    half_x, half_y = width / columns / 2, (height - foot) / rows / 2
    for column in range(columns):
        for row in range(rows):
            x, y = -width / 2 + half_x * (2 * column + 1), foot + half_y * (2 * row + 1)
            b.box((x, y, depth / 2 - 0.01), (half_x - 0.012, half_y - 0.012, 0.01), front)
            side = 0.0 if rows > 1 else (0.75 * half_x if column % 2 == 0 else -0.75 * half_x)
            b.box((x + side, y, depth / 2 + 0.012), (0.04, 0.01, 0.012) if rows > 1 else (0.01, 0.05, 0.012), knob)
    if height < 1.35:
        b.supports.append(b.surface(0, height, 0, width / 2, depth / 2))


def _shelf(b: SceneBuilder, dice: Dice, paint: Painter, place: Place, body: Material) -> None:
    width, depth, height = place.width, place.depth, place.height
    b.begin("cabinet", *place[:4])
    for x in (-width / 2 + 0.015, width / 2 - 0.015):
        b.box((x, height / 2, 0), (0.015, height / 2, depth / 2), body)
    back = body if dice.chance(0.5) else paint.material()
    b.box((0, height / 2, -depth / 2 + 0.01), (width / 2 - 0.03, height / 2, 0.01), back)
    count = max(2, round(height / dice.uniform(0.33, 0.45)))
    gap = (height - 0.03) / count
    for level in range(count + 1):
        b.box((0, 0.015 + gap * level, 0.01), (width / 2 - 0.03, 0.015, depth / 2 - 0.01), body)
    for level in range(count):
        if dice.chance(0.65):
            _book_row(b, dice, paint, place, 0.031 + gap * level, gap - 0.03)


def _book_row(b: SceneBuilder, dice: Dice, paint: Painter, place: Place, y: float, room: float) -> None:
    b.begin("books", *place[:4])
    start = -place.width / 2 + 0.04
    end = place.width / 2 - 0.04
    x = start + dice.random() * 0.4 * (end - start)
    end = x + max(0.2, dice.random()) * (end - x)
    while x < end - 0.04:
        # A bundle of equal books is one box: half as many primitives, and volumes of one series do look alike.
        half_x = min(dice.uniform(0.02, 0.09), (end - x) / 2)
        half_y = room / 2 * dice.uniform(0.55, 0.92)
        half_z = place.depth / 2 * dice.uniform(0.6, 0.8)
        b.box((x + half_x, y + half_y, place.depth / 2 - half_z - 0.02), (half_x, half_y, half_z), paint.material(0.6))
        x += 2 * half_x + (0.002 if dice.chance(0.8) else dice.uniform(0.0, 0.15))


def bed(b: SceneBuilder, dice: Dice, paint: Painter, place: Place) -> None:
    """A bed, its head at the back."""
    width, depth, height = place.width, place.depth, place.height
    b.begin("bed", *place[:4])
    frame, sheet, cover = paint.material(), paint.material(0.6), paint.material(0.2)
    level = dice.uniform(0.2, 0.34)
    foot = dice.pick((0.0, 0.1, 0.15))
    if foot:
        _legs(b, frame, width / 2 - 0.06, depth / 2 - 0.06, foot, 0.035, False)
    b.box((0, (level + foot) / 2, 0), (width / 2, (level - foot) / 2, depth / 2), frame)
    soft = dice.uniform(0.08, 0.13)
    b.box((0, level + soft, 0.01), (width / 2 - 0.03, soft, depth / 2 - 0.04), sheet)
    top = level + 2 * soft
    length = depth / 2 * dice.uniform(0.6, 0.8)
    b.box((0, top - soft * 0.6, depth / 2 - length), (width / 2 + 0.01, soft * 0.6 + 0.02, length), cover)
    b.box((0, height / 2, -depth / 2 + 0.03), (width / 2, height / 2, 0.03), frame)
    if dice.chance(0.3):
        b.box((0, (top + 0.1) / 2, depth / 2 - 0.02), (width / 2, (top + 0.1) / 2, 0.02), frame)
    pillow = paint.material(0.6)
    places = (-width / 4, width / 4) if width > 1.2 else (0.0,)
    for x in places:
        b.ball((x, top + 0.06, -depth / 2 + 0.32), (min(0.34, width / 4.4), 0.08, 0.2), pillow)
    b.seats.append(b.surface(width / 2 - 0.28, top, 0.25, 0.2, 0.2)._replace(yaw=place.yaw + 1.5708))


def sofa(b: SceneBuilder, dice: Dice, paint: Painter, place: Place) -> None:
    """A sofa or armchair."""
    width, depth, height = place.width, place.depth, place.height
    b.begin("sofa", *place[:4])
    cloth = paint.material()
    cushion = cloth if dice.chance(0.6) else paint.material()
    arm = dice.uniform(0.06, 0.13)
    back = dice.uniform(0.08, 0.13)
    foot = dice.pick((0.0, 0.06, 0.12))
    seat_y = dice.uniform(0.38, 0.46)
    if foot:
        _legs(b, paint.metal(), width / 2 - 0.06, depth / 2 - 0.06, foot, 0.02, True)
    b.box((0, (foot + seat_y - 0.12) / 2, 0), (width / 2, (seat_y - 0.12 - foot) / 2, depth / 2), cloth)
    b.box((0, (height + seat_y - 0.12) / 2, -depth / 2 + back), (width / 2, (height - seat_y + 0.12) / 2, back), cloth)
    arm_y = dice.uniform(0.54, 0.66)
    for x in (-width / 2 + arm, width / 2 - arm):
        if dice.chance(0.9):
            b.box((x, (seat_y - 0.12 + arm_y) / 2, back), (arm, (arm_y - seat_y + 0.12) / 2, depth / 2 - back), cloth)
    inside = width - 4 * arm
    count = max(1, round(inside / 0.65))
    half = inside / count / 2
    for index in range(count):
        x = -inside / 2 + half * (2 * index + 1)
        b.box((x, seat_y - 0.06, back), (half - 0.006, 0.06, depth / 2 - back - 0.005), cushion)
        if dice.chance(0.3):
            lean = (0.0, 0.94, -0.34)
            b.ball((x, seat_y + 0.19, -depth / 2 + 2 * back + 0.12), (0.21, 0.2, 0.08), paint.material(0.3), axis=lean)
        else:
            b.seats.append(b.surface(x, seat_y, back, half, 0.2))


def floor_lamp(b: SceneBuilder, dice: Dice, paint: Painter, place: Place) -> Vector | None:
    """A standing lamp; returns the world position of its light when it is lit."""
    b.begin("lamp", *place[:4])
    return _lamp(b, dice, paint, place.height, min(place.width, place.depth) / 2)


def _lamp(b: SceneBuilder, dice: Dice, paint: Painter, height: float, radius: float) -> Vector | None:
    metal = paint.metal() if dice.chance(0.6) else paint.material()
    lit = dice.chance(0.6)
    shade = paint.material(0.7)._replace(glow=dice.uniform(0.6, 1.2) if lit else 0.0)
    tall = radius * dice.uniform(0.6, 1.2)
    pole = max(0.008, min(0.02, height * 0.02))
    b.tube((0, 0.012, 0), (radius * 0.7, 0.012, radius * 0.7), metal)
    b.tube((0, (height - tall) / 2, 0), (pole, (height - tall) / 2, pole), metal)
    if dice.chance(0.6):
        b.tube((0, height - tall, 0), (radius, tall, radius), shade)
    else:
        b.ball((0, height - tall, 0), (radius, tall, radius), shade)
    return b.to_world(0, height - tall, 0) if lit else None


def pendant(b: SceneBuilder, dice: Dice, paint: Painter, place: Place) -> None:
    """A lamp that hangs `place.height` below `place.y`, or a flat ceiling lamp when that is little."""
    b.begin("lamp", *place[:4])
    radius, drop = place.width / 2, place.height
    shade = paint.material(0.7)._replace(glow=dice.uniform(0.7, 1.3))
    tall = min(drop, radius * dice.uniform(0.4, 0.9))
    if drop > 2 * tall:
        b.tube((0, -(drop - tall) / 2, 0), (0.008, (drop - tall) / 2, 0.008), paint.metal())
    add = b.tube if dice.chance(0.5) else b.ball
    add((0, -drop + tall / 2, 0), (radius, tall / 2, radius), shade)


def small_object(b: SceneBuilder, dice: Dice, paint: Painter, spot: Support, ornament: bool) -> Vector | None:
    """Put one small object on a spot; returns the position of its light if it is a lit lamp."""
    reach = min(spot.half_x, spot.half_z)
    place = (spot.x, spot.y, spot.z, spot.yaw + dice.uniform(-0.6, 0.6))
    choice = dice.random() * (0.8 if ornament else 1.0)
    skin = paint.ornament() if ornament else paint.material()
    if choice < 0.3:
        _vase(b, dice, skin, place, min(reach, 0.14), ornament)
    elif choice < 0.55:
        b.begin("box", *place, salient=ornament)
        half_x, half_z = reach * dice.uniform(0.4, 0.7), reach * dice.uniform(0.4, 0.7)
        half_y = dice.uniform(0.05, 0.16)
        b.box((0, half_y, 0), (half_x, half_y, half_z), skin)
        if dice.chance(0.4):
            b.box((0, 2 * half_y, 0), (half_x + 0.006, 0.015, half_z + 0.006), skin if ornament else paint.material())
    elif choice < 0.8:
        b.begin("books", *place, salient=ornament)
        level = 0.0
        for _ in range(dice.integer(1, 4)):
            thick = dice.uniform(0.012, 0.03)
            size = min(reach, 0.16) * dice.uniform(0.75, 0.98)
            b.box((0, level + thick, 0), (size * 0.72, thick, size), skin if ornament else paint.material(0.6))
            level += 2 * thick
    else:
        b.begin("lamp", *place)
        return _lamp(b, dice, paint, dice.uniform(0.3, 0.55), min(reach, 0.16))
    return None


def _vase(
    b: SceneBuilder, dice: Dice, skin: Material, place: tuple[float, float, float, float], reach: float, ornament: bool
) -> None:
    b.begin("vase", *place, salient=ornament)
    radius, tall = reach * dice.uniform(0.55, 0.95), dice.uniform(0.09, 0.17)
    b.ball((0, tall * 0.97, 0), (radius, tall, radius), skin)
    neck = radius * dice.uniform(0.25, 0.6)
    b.tube((0, tall * 2, 0), (neck, tall * dice.uniform(0.15, 0.45), neck), skin)
    b.tube((0, 0.01, 0), (radius * 0.6, 0.01, radius * 0.6), skin)


def floor_box(b: SceneBuilder, dice: Dice, paint: Painter, place: Place) -> None:
    """A crate or carton on the floor, sometimes two."""
    b.begin("box", *place[:4])
    width, depth, height = place.width, place.depth, place.height
    b.box((0, height / 2, 0), (width / 2, height / 2, depth / 2), paint.material())
    if dice.chance(0.3):
        b.begin("box", place.x, place.y + height, place.z, place.yaw + dice.uniform(-0.3, 0.3))
        tall = dice.uniform(0.08, 0.2)
        b.box((0, tall, 0), (width * 0.38, tall, depth * 0.38), paint.material())
    else:
        b.supports.append(b.surface(0, height, 0, width / 2, depth / 2))


def rug(b: SceneBuilder, dice: Dice, paint: Painter, place: Place) -> None:
    """A rug: an instance of its own, of class floor."""
    b.begin("floor", *place[:4])
    half_x, half_y, half_z = place.width / 2, place.height / 2, place.depth / 2
    add = b.tube if dice.chance(0.25) else b.box
    add((0, half_y, 0), (half_x, half_y, half_z), paint.material(0.2))


class Piece(NamedTuple):
    """How to place furniture: ranges of sizes (metres), probability to stand at a wall, weight in the draw."""

    build: Callable[[SceneBuilder, Dice, Painter, Place], Vector | None]
    width: tuple[float, float]
    depth: tuple[float, float]
    height: tuple[float, float]
    at_wall: float
    weight: float


PIECES: tuple[Piece, ...] = (
    Piece(table, (0.7, 1.8), (0.5, 0.95), (0.38, 0.78), 0.3, 1.5),
    Piece(chair, (0.4, 0.55), (0.4, 0.52), (0.8, 1.05), 0.25, 0.9),
    Piece(cabinet, (0.5, 1.7), (0.3, 0.6), (0.45, 2.1), 0.95, 1.5),
    Piece(bed, (0.9, 1.8), (1.9, 2.1), (0.6, 1.1), 0.9, 0.9),
    Piece(sofa, (0.85, 2.2), (0.8, 0.95), (0.72, 0.92), 0.6, 1.0),
    Piece(floor_lamp, (0.25, 0.45), (0.25, 0.45), (1.2, 1.8), 0.6, 0.7),
    Piece(floor_box, (0.25, 0.6), (0.25, 0.5), (0.15, 0.5), 0.4, 0.7),
)
