"""People made of parts: a small forward-kinematic figure, standing or sitting, with random pose, size and clothes.

Local frame: the unit of length is the body height; feet on y = 0, the face towards +z. Lengths follow the usual
artist's proportions. Angles are radians; a limb hangs straight down at pitch 0 and points forward at pitch pi / 2.
"""

import math

from dataset_loaders.rooms.materials import Material, Vector, plain, scaled
from dataset_loaders.rooms.scene import CYLINDER, ELLIPSOID, PART_NAMES, Place, SceneBuilder

HEAD, TORSO, UPPER_ARM, LOWER_ARM, UPPER_LEG, LOWER_LEG = range(1, len(PART_NAMES))
_SKIN = ((0.72, 0.45, 0.33), (0.55, 0.32, 0.21), (0.34, 0.18, 0.11), (0.14, 0.07, 0.045))
_HAIR = ((0.013, 0.01, 0.007), (0.04, 0.03, 0.02), (0.1, 0.08, 0.055), (0.39, 0.3, 0.21))
_SHOES = ((0.024, 0.02, 0.018), (0.06, 0.05, 0.045), (0.12, 0.1, 0.09), (0.6, 0.5, 0.45))


def person(b: SceneBuilder, place: Place, sitting: bool = False) -> None:
    """Add one person whose hips are above a place on the floor, or on the seat there."""
    dice, wide = b.dice, b.dice.uniform(0.9, 1.2)
    tall = dice.uniform(1.5, 1.9) if dice.random() < 0.85 else dice.uniform(1.1, 1.45)
    skin, shirt = plain(scaled(dice.choice(_SKIN), dice.uniform(0.8, 1.15))), b.paint.material(0.5)
    stride = 0.0 if sitting else dice.uniform(-0.45, 0.45) * dice.choice((0.1, 1.0))
    legs = []  # per leg: its side, the pitch of the thigh and of the shin
    for side in (-1, 1):
        thigh = dice.uniform(1.35, 1.6) if sitting else side * stride
        legs.append((side, thigh, dice.uniform(-0.25, 0.35) if sitting else thigh - dice.uniform(0, 0.15)))
    # The lower foot is on the floor, or the thighs are on the seat if that is higher.
    hip = 0.03 + 0.25 * max(math.cos(thigh) + math.cos(shin) for _, thigh, shin in legs)
    hip = max(hip, place.y / tall + 0.045) if sitting else hip
    lean = dice.uniform(-0.12, 0.2)
    spine = (0.0, math.cos(lean), math.sin(lean))
    b.begin("person", place._replace(y=0.0), scale=tall)
    _legs(b, hip, wide, legs, skin, spine)
    y, z = hip + 0.29 * spine[1], 0.29 * spine[2]  # of the shoulders
    b.add(CYLINDER, (0, (hip + y) / 2, z / 2), (0.093 * wide, 0.12, 0.062 * wide), shirt, spine, TORSO)
    b.add(ELLIPSOID, (0, y - 0.06, 0.8 * z), (0.118 * wide, 0.085, 0.07 * wide), shirt, spine, TORSO)
    b.add(CYLINDER, (0, y + 0.025, z), (0.028, 0.035, 0.028), skin, part=TORSO)
    _head(b, y + 0.115, z + 0.015, skin)
    sleeve = dice.choice((shirt, skin))
    for side in (-1, 1):
        pitch = dice.uniform(-0.5, 0.9) if dice.random() < 0.9 else dice.uniform(1.5, 2.8)
        splay, bend = side * dice.uniform(0.08, 0.45), dice.uniform(0.0, 1.6)
        elbow = _limb(b, (side * 0.118 * wide, y - 0.035, z), pitch, splay, 0.17, 0.032 * wide, shirt, UPPER_ARM)
        splay *= dice.uniform(-0.6, 0.8)
        wrist = _limb(b, elbow, pitch + bend, splay, 0.15, 0.025 * wide, sleeve, LOWER_ARM)
        b.add(ELLIPSOID, wrist, (0.024, 0.03, 0.022), skin, part=LOWER_ARM)


def _legs(
    b: SceneBuilder, hip: float, wide: float, legs: list[tuple[int, float, float]], skin: Material, spine: Vector
) -> None:
    dice, trousers = b.dice, b.paint.material(0.6)
    shin_skin, shoe = trousers if dice.random() < 0.75 else skin, plain(dice.choice(_SHOES))
    b.add(ELLIPSOID, (0, hip + 0.01, 0), (0.098 * wide, 0.075, 0.072 * wide), trousers, spine, TORSO)
    for side, thigh, shin in legs:
        splay = side * dice.uniform(0.02, 0.14)
        knee = _limb(b, (side * 0.05 * wide, hip, 0.0), thigh, splay, 0.25, 0.048 * wide, trousers, UPPER_LEG)
        x, y, z = _limb(b, knee, shin, splay * 0.5, 0.25, 0.036 * wide, shin_skin, LOWER_LEG)
        b.add(ELLIPSOID, (x, y, z + 0.045), (0.03, 0.03, 0.08), shoe, part=LOWER_LEG)


def _limb(
    b: SceneBuilder, start: Vector, pitch: float, splay: float, length: float, radius: float, skin: Material, part: int
) -> Vector:
    """Add a limb from a joint and return its far end."""
    axis = (math.sin(splay), -math.cos(splay) * math.cos(pitch), math.cos(splay) * math.sin(pitch))
    x, y, z = (s + length * a for s, a in zip(start, axis, strict=True))
    middle = ((start[0] + x) / 2, (start[1] + y) / 2, (start[2] + z) / 2)
    b.add(ELLIPSOID, middle, (radius, 0.58 * length, radius), skin, axis, part)
    return (x, y, z)


def _head(b: SceneBuilder, y: float, z: float, skin: Material) -> None:
    dice, hair = b.dice, plain(b.dice.choice(_HAIR))
    b.add(ELLIPSOID, (0, y, z), (0.046, 0.066, 0.054), skin, part=HEAD)
    b.add(ELLIPSOID, (0, y - 0.005, z + 0.053), (0.008, 0.013, 0.012), skin, part=HEAD)
    if dice.random() < 0.9:
        b.add(ELLIPSOID, (0, y + 0.018, z - 0.012), (0.051, 0.062, 0.055), hair, part=HEAD)
        if dice.random() < 0.35:
            b.add(ELLIPSOID, (0, y - 0.04, z - 0.035), (0.05, 0.085, 0.03), hair, part=HEAD)
