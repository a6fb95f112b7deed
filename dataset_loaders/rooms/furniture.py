"""Furniture and small things: each function adds one piece to the scene, in its own frame.

A piece of width w, depth d and height h (metres) stands on local y = 0, centred on x and z, its front towards +z.
"""

import math

from dataset_loaders.rooms.materials import Material
from dataset_loaders.rooms.scene import BOX, CYLINDER, ELLIPSOID, Place, SceneBuilder


def _legs(b: SceneBuilder, x: float, z: float, height: float, thick: float, material: Material) -> None:
    """Four legs at the corners of a rectangle of half sizes x, z."""
    kind = b.dice.choice((BOX, CYLINDER))
    for left in (-x, x - thick):
        for back in (-z, z - thick):
            b.box((left, 0, back), (left + thick, height, back + thick), material, kind)


def table(b: SceneBuilder, place: Place) -> None:
    """A table or desk on legs or, round, on a central pole."""
    dice, x, z, height = b.dice, place.width / 2, place.depth / 2, place.height
    b.begin("table", place)
    top, legs, under = b.paint.material(), b.paint.frame(), height - dice.uniform(0.03, 0.07)
    if dice.random() < 0.25:
        radius = min(x, z)
        for r, low, high, material in ((1.0, under, height, top), (0.1, 0, under, legs), (0.6, 0, 0.04, legs)):
            b.box((-r * radius, low, -r * radius), (r * radius, high, r * radius), material, CYLINDER)
        x = z = 0.7 * radius
    else:
        b.box((-x, under, -z), (x, height, z), top)
        _legs(b, x, z, under, dice.uniform(0.03, 0.08), legs)
        if dice.random() < 0.3:  # drawers or a panel
            b.box((dice.uniform(0.3, 0.8) * x, height * dice.uniform(0, 0.6), -0.9 * z), (0.9 * x, under, 0.9 * z), top)
    b.supports.append(place.inner(0, height, 0, 2 * x, 2 * z))


def chair(b: SceneBuilder, place: Place) -> None:
    """A chair, office chair or stool."""
    dice, x, z, height = b.dice, place.width / 2, place.depth / 2, place.height
    b.begin("chair", place)
    cloth, frame, level = b.paint.material(), b.paint.frame(), dice.uniform(0.42, 0.48)
    under, stool = level - dice.uniform(0.03, 0.09), dice.random() < 0.1
    b.box((-x, under, -z), (x, level, z), cloth, CYLINDER if stool else BOX)
    if dice.random() < 0.25:
        for half_x, half_z, high in ((0.03, 0.03, under), (x, 0.025, 0.06), (0.025, z, 0.06)):
            b.box((-half_x, 0, -half_z), (half_x, high, half_z), frame)
    else:
        _legs(b, x, z, under, dice.uniform(0.024, 0.05), frame)
    if not stool:
        for left in (-x, x - 0.036):
            b.box((left, level, -z), (left + 0.036, height, -z + 0.036), frame)
        slats, low = dice.choice(((1, level + 0.1), (2, height - 0.07), (3, height - 0.07)))
        for drop in (0.15 * slat for slat in range(slats)):
            b.box((-x, low - drop, -z), (x, height - drop, -z + 0.03), cloth)
    b.seats.append(place.inner(0, level, 0.02))


def cabinet(b: SceneBuilder, place: Place) -> None:
    """A closed cabinet with doors or drawers, or an open shelf with books in it."""
    dice, x, z, height = b.dice, place.width / 2, place.depth / 2, place.height
    body, front, knob = b.paint.material(), b.paint.material(), b.paint.frame()
    b.begin("cabinet", place)
    if height < 1.35:
        b.supports.append(place.inner(0, height, 0, place.width, place.depth))
    if height > 0.7 and dice.random() < 0.4:
        _shelf(b, place, body, front)
        return
    b.box((-x, dice.choice((0.0, 0.0, 0.1)), -z), (x, height, z - 0.02), body)
    columns = max(1, round(place.width / dice.uniform(0.5, 0.8)))
    rows = dice.randint(2, 4) if height < 1.3 and dice.random() < 0.6 else 1
    wide, tall = place.width / columns, (height - 0.1) / rows
    half_x, half_y = (0.04, 0.01) if rows > 1 else (0.01, 0.05)
    for column in range(columns):
        side = -x + wide * (column + (0.5 if rows > 1 else (0.87, 0.13)[column % 2]))
        for row in range(rows):
            left, low = -x + column * wide, 0.1 + row * tall
            b.box((left + 0.012, low + 0.012, z - 0.02), (left + wide - 0.012, low + tall - 0.012, z), front)
            middle = low + tall / 2
            b.box((side - half_x, middle - half_y, z), (side + half_x, middle + half_y, z + 0.024), knob)


def _shelf(b: SceneBuilder, place: Place, body: Material, back: Material) -> None:
    x, z, height = place.width / 2, place.depth / 2, place.height
    for left in (-x, x - 0.03):
        b.box((left, 0, -z), (left + 0.03, height, z), body)
    b.box((-x, 0, -z), (x, height, -z + 0.02), back)
    count = max(2, round(height / b.dice.uniform(0.33, 0.45)))
    levels = [(height - 0.03) * level / count for level in range(count + 1)]
    for low in levels:
        b.box((-x, low, -z), (x, low + 0.03, z - 0.01), body)
    for low in levels[:-1]:
        if b.dice.random() < 0.65:
            _books(b, place.inner(0, low + 0.03, 0), x - 0.04, z - 0.02, levels[1] - 0.03)


def _books(b: SceneBuilder, place: Place, x: float, z: float, room: float) -> None:
    """A row of upright books over part of the width -x..x, their backs at depth z, under `room` of height."""
    dice, left, end = b.dice, x * b.dice.uniform(-1.0, 0.2), x * b.dice.uniform(0.4, 1.0)
    b.begin("books", place)
    while left < end - 0.04:
        # A bundle of equal books is one box: half as many primitives, and volumes of one series do look alike.
        right = min(left + dice.uniform(0.04, 0.18), end)
        high, back = room * dice.uniform(0.55, 0.92), z * dice.uniform(-0.6, -0.2)
        b.box((left, 0, back), (right, high, z), b.paint.material(0.6))
        left = right + dice.choice((0.002, 0.002, 0.002, 0.08))


def bed(b: SceneBuilder, place: Place) -> None:
    """A bed, its head at the back."""
    dice, x, z = b.dice, place.width / 2, place.depth / 2
    b.begin("bed", place)
    frame, sheet, cover, pillow = (b.paint.material(plainly) for plainly in (0.35, 0.6, 0.2, 0.6))
    level, top = dice.uniform(0.2, 0.34), dice.uniform(0.4, 0.6)
    _legs(b, x, z, level, 0.07, frame)
    b.box((-x, dice.choice((0.0, 0.12)), -z), (x, level, z), frame)
    b.box((-x + 0.03, level, -z + 0.05), (x - 0.03, top, z - 0.03), sheet)
    b.box((-x - 0.01, level + 0.03, -dice.uniform(0.2, 0.6) * z), (x + 0.01, top + 0.02, z), cover)
    b.box((-x, 0, -z), (x, place.height, -z + 0.06), frame)
    half = min(0.34, x / 2.2)
    for middle in (-x / 2, x / 2) if x > 0.6 else (0.0,):
        b.box((middle - half, top - 0.02, -z + 0.12), (middle + half, top + 0.14, -z + 0.52), pillow, ELLIPSOID)
    b.seats.append(place.inner(x - 0.28, top, 0.25, turn=math.pi / 2))


def sofa(b: SceneBuilder, place: Place) -> None:
    """A sofa or armchair."""
    dice, x, z = b.dice, place.width / 2, place.depth / 2
    b.begin("sofa", place)
    cloth, cushion = b.paint.material(), b.paint.material()
    arm, back, level = dice.uniform(0.12, 0.26), dice.uniform(0.16, 0.26), dice.uniform(0.38, 0.46)
    b.box((-x, dice.choice((0.0, 0.08)), -z), (x, level - 0.12, z), cloth)
    b.box((-x, level - 0.12, -z), (x, place.height, -z + back), cloth)
    for left in (-x, x - arm):
        b.box((left, 0, -z + back), (left + arm, level + 0.18, z), cloth)
    count = max(1, round((place.width - 2 * arm) / 0.65))
    wide = (place.width - 2 * arm) / count
    for left in (-x + arm + index * wide for index in range(count)):
        b.box((left + 0.006, level - 0.12, -z + back), (left + wide - 0.006, level, z - 0.01), cushion)
        if dice.random() < 0.3:
            middle = (left + wide / 2, level + 0.19, -z + back + 0.12)
            b.add(ELLIPSOID, middle, (0.21, 0.2, 0.08), b.paint.material(), (0.0, math.cos(0.35), -math.sin(0.35)))
        else:
            b.seats.append(place.inner(left + wide / 2, level, back / 2))


def lamp(b: SceneBuilder, place: Place) -> None:
    """A lamp on a pole, or always lit from a ceiling where the height is negative; a lit one is a light."""
    dice, radius, height = b.dice, place.width / 2, place.height
    b.begin("lamp", place)
    lit = height < 0 or dice.random() < 0.6
    metal, shade = b.paint.frame(), b.paint.material(0.7)._replace(glow=dice.uniform(0.6, 1.2) if lit else 0.0)
    tall, pole, foot = min(abs(height), radius * dice.uniform(0.8, 2.2)), 0.006 + 0.008 * abs(height), 0.7 * radius
    end = height - tall if height > 0 else height
    b.box((-foot, 0, -foot), (foot, math.copysign(0.024, height), foot), metal, CYLINDER)
    b.box((-pole, 0, -pole), (pole, end + tall / 2, pole), metal, CYLINDER)
    b.box((-radius, end, -radius), (radius, end + tall, radius), shade, dice.choice((CYLINDER, ELLIPSOID)))
    if lit:
        strength = dice.uniform(0.2, 0.8)
        b.lights.append((place.point(0, end + tall / 2, 0), (strength, 0.85 * strength, 0.65 * strength)))


def crate(b: SceneBuilder, place: Place) -> None:
    """A crate or carton on the floor."""
    x, z = place.width / 2, place.depth / 2
    b.begin("box", place)
    b.box((-x, 0, -z), (x, place.height, z), b.paint.material())
    b.supports.append(place.inner(0, place.height, 0, place.width, place.depth))


def small_object(b: SceneBuilder, place: Place, *, ornament: bool) -> None:
    """One object on a spot of this size; the ornament is a vase, a box or a pile of books of one strong colour."""
    dice, reach = b.dice, min(place.width, place.depth) / 2
    kind, tall = dice.choice(("vase", "box", "books") if ornament else ("vase", "box", "books", "lamp")), dice.random()
    if kind == "lamp":
        lamp(b, place._replace(width=min(2 * reach, 0.32), height=0.3 + 0.25 * tall))
        return
    b.begin(kind, place, salient=ornament)
    skin, x, z = b.paint.ornament() if ornament else b.paint.material(), reach * dice.uniform(0.4, 0.7), 0.6 * reach
    if kind == "vase":
        radius, high, neck = min(x, 0.13), 0.18 + 0.16 * tall, min(x, 0.13) * dice.uniform(0.25, 0.6)
        b.box((-radius, 0, -radius), (radius, high, radius), skin, ELLIPSOID)
        b.box((-neck, 0, -neck), (neck, high * dice.uniform(1.1, 1.4), neck), skin, CYLINDER)
    elif kind == "box":
        b.box((-x, 0, -z), (x, 0.1 + 0.22 * tall, z), skin)
    else:
        for low in (0.05 * level for level in range(1 + int(4 * tall))):
            z = min(reach, 0.16) * dice.uniform(0.75, 0.98)
            b.box((-0.72 * z, low, -z), (0.72 * z, low + 0.05, z), skin if ornament else b.paint.material(0.6))
