"""People made of parts: a small forward-kinematic figure, standing or sitting, with random pose, size and clothes.

Local frame: feet on y = 0 (or the seat at its height), the face towards +z. Lengths follow from the body height by
the usual artist's proportions. Angles are radians; a limb hangs straight down at pitch 0 and points forward at pitch
pi / 2.
"""

from __future__ import annotations

import math

from dataset_loaders.rooms.materials import Painter
from dataset_loaders.rooms.scene import PART_NAMES, Dice, Material, SceneBuilder, Vector, scaled
from dataset_loaders.rooms.textures import PLAIN

HEAD, TORSO, UPPER_ARM, LOWER_ARM, UPPER_LEG, LOWER_LEG = range(1, len(PART_NAMES))
_SKIN = ((0.72, 0.45, 0.33), (0.55, 0.32, 0.21), (0.34, 0.18, 0.11), (0.14, 0.07, 0.045))


def _plain(colour: Vector) -> Material:
    return Material(colour, scaled(colour, 0.9), PLAIN, 1.0)


def _limb(
    b: SceneBuilder,
    start: Vector,
    pitch: float,
    splay: float,
    length: float,
    radius: float,
    skin: Material,
    part: int,
) -> Vector:
    """Add a limb from a joint and return its far end."""
    axis = (math.sin(splay), -math.cos(splay) * math.cos(pitch), math.cos(splay) * math.sin(pitch))
    b.ball(_along(start, axis, 0.5 * length), (radius, 0.58 * length, radius), skin, axis, part)
    return _along(start, axis, length)


def _along(start: Vector, axis: Vector, length: float) -> Vector:
    return (start[0] + length * axis[0], start[1] + length * axis[1], start[2] + length * axis[2])


def person(b: SceneBuilder, dice: Dice, paint: Painter, x: float, z: float, yaw: float, seat: float | None) -> None:
    """Add one person.

    Args:
        x, z: world position of the hips, metres.
        yaw: the direction the person faces, radians.
        seat: height of the seat in metres, or None for a standing person.
    """
    tall = dice.uniform(1.5, 1.9) if dice.chance(0.85) else dice.uniform(1.1, 1.45)
    wide = tall * dice.uniform(0.9, 1.2)
    colour = scaled(dice.pick(_SKIN), dice.uniform(0.8, 1.15))
    skin, shirt, trousers = _plain(colour), paint.material(0.5), paint.material(0.6)
    legs = _leg_angles(dice, seat is not None)
    hip = _hip_height(tall, legs, seat)
    b.begin("person", x, 0.0, z, yaw)
    _add_legs(b, dice, tall, wide, hip, legs, skin, trousers)
    lean = dice.uniform(-0.12, 0.2)
    shoulder_y, shoulder_z = hip + 0.29 * tall * math.cos(lean), 0.29 * tall * math.sin(lean)
    spine = (0.0, math.cos(lean), math.sin(lean))
    middle = (0.0, (hip + shoulder_y) / 2, shoulder_z / 2)
    b.ball((0, hip + 0.01, 0), (0.098 * wide, 0.075 * tall, 0.072 * wide), trousers, spine, TORSO)
    b.tube(middle, (0.093 * wide, 0.12 * tall, 0.062 * wide), shirt, spine, TORSO)
    chest = (0.0, shoulder_y - 0.06 * tall, shoulder_z * 0.8)
    b.ball(chest, (0.118 * wide, 0.085 * tall, 0.07 * wide), shirt, spine, TORSO)
    _head(b, dice, tall, shoulder_y, shoulder_z, skin)
    sleeve = shirt if dice.chance(0.5) else skin
    for side in (-1, 1):
        pitch, splay, bend = dice.uniform(-0.5, 0.9), side * dice.uniform(0.08, 0.45), dice.uniform(0.0, 1.6)
        if dice.chance(0.1):
            pitch = dice.uniform(1.5, 2.8)
        joint = (side * 0.118 * wide, shoulder_y - 0.035 * tall, shoulder_z)
        elbow = _limb(b, joint, pitch, splay, 0.17 * tall, 0.032 * wide, shirt, UPPER_ARM)
        splay *= dice.uniform(-0.6, 0.8)
        wrist = _limb(b, elbow, pitch + bend, splay, 0.15 * tall, 0.025 * wide, sleeve, LOWER_ARM)
        b.ball(wrist, (0.024 * tall, 0.03 * tall, 0.022 * tall), skin, part=LOWER_ARM)


def _leg_angles(dice: Dice, sitting: bool) -> list[tuple[float, float, float]]:
    """Per leg: pitch of the thigh, its splay, pitch of the shin."""
    legs = []
    stride = dice.uniform(-0.45, 0.45) if dice.chance(0.5) else dice.uniform(-0.06, 0.06)
    for side in (-1, 1):
        splay = side * dice.uniform(0.02, 0.14)
        if sitting:
            legs.append((dice.uniform(1.35, 1.6), splay, dice.uniform(-0.25, 0.35)))
        else:
            legs.append((side * stride, splay, side * stride - dice.uniform(0.0, 0.15)))
    return legs


def _hip_height(tall: float, legs: list[tuple[float, float, float]], seat: float | None) -> float:
    """The hip height that puts the lower foot on the floor, or the thighs on the seat if that is higher."""
    reach = max(math.cos(splay) * (math.cos(thigh) + math.cos(shin)) for thigh, splay, shin in legs)
    reach = (0.25 * reach + 0.03) * tall
    return reach if seat is None else max(reach, seat + 0.045 * tall)


def _add_legs(
    b: SceneBuilder,
    dice: Dice,
    tall: float,
    wide: float,
    hip: float,
    angles: list[tuple[float, float, float]],
    skin: Material,
    trousers: Material,
) -> None:
    shin_skin, shoe = trousers if dice.chance(0.75) else skin, _shoe(dice)
    for side, (thigh, splay, shin) in zip((-1, 1), angles, strict=True):
        knee = _limb(b, (side * 0.05 * wide, hip, 0.0), thigh, splay, 0.25 * tall, 0.048 * wide, trousers, UPPER_LEG)
        ankle = _limb(b, knee, shin, splay * 0.5, 0.25 * tall, 0.036 * wide, shin_skin, LOWER_LEG)
        foot = (ankle[0], ankle[1], ankle[2] + 0.045 * tall)
        b.ball(foot, (0.03 * tall, 0.03 * tall, 0.08 * tall), shoe, part=LOWER_LEG)


def _shoe(dice: Dice) -> Material:
    """Dark, light or brown shoes."""
    grey = dice.pick((0.02, 0.05, 0.1, 0.5))
    return _plain((grey * 1.2, grey, grey * 0.9))


def _head(b: SceneBuilder, dice: Dice, tall: float, shoulder_y: float, shoulder_z: float, skin: Material) -> None:
    turn = dice.uniform(-0.02, 0.02) * tall
    y, z = shoulder_y + 0.115 * tall, shoulder_z + 0.015 * tall
    b.tube((0, shoulder_y + 0.025 * tall, shoulder_z), (0.028 * tall, 0.035 * tall, 0.028 * tall), skin, part=TORSO)
    b.ball((turn, y, z), (0.046 * tall, 0.066 * tall, 0.054 * tall), skin, part=HEAD)
    nose = (turn * 1.3, y - 0.005 * tall, z + 0.053 * tall)
    b.ball(nose, (0.008 * tall, 0.013 * tall, 0.012 * tall), skin, part=HEAD)
    if dice.chance(0.9):
        shade = dice.pick((0.01, 0.03, 0.08, 0.3))
        hair = _plain((shade * 1.3, shade, shade * 0.7))
        b.ball((turn, y + 0.018 * tall, z - 0.012 * tall), (0.051 * tall, 0.062 * tall, 0.055 * tall), hair, part=HEAD)
        if dice.chance(0.35):
            b.ball((turn, y - 0.04 * tall, z - 0.035 * tall), (0.05 * tall, 0.085 * tall, 0.03 * tall), hair, part=HEAD)
