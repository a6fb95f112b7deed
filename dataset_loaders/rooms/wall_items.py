"""Doors, windows and pictures: thin boxes on the four walls that do not overlap one another."""

from __future__ import annotations

import math
from collections.abc import Callable

from dataset_loaders.rooms.materials import Painter
from dataset_loaders.rooms.scene import Dice, Material, SceneBuilder, Vector

Spot = tuple[float, float, float, float]  # x, y, z in metres and yaw in radians
_WIDTHS = {"door": (0.75, 1.0), "window": (0.7, 1.8), "picture": (0.3, 1.2)}  # metres


def furnish_walls(
    b: SceneBuilder, dice: Dice, paint: Painter, size: Vector, take: Callable[[float, float, float, float], None]
) -> list[Vector]:
    """Hang doors, windows and pictures.

    Args:
        take: is told the floor area in front of each door (x, z, half_x, half_z in metres), which must stay free.

    Returns:
        World positions just inside the windows, from which light comes.
    """
    lights: list[Vector] = []
    doors = 0
    for wall in range(4):
        length = size[0] if wall % 2 == 0 else size[2]
        at = dice.uniform(0.15, 0.5)
        while True:
            choice = dice.random()
            kind = "door" if choice < 0.25 and doors < 2 else "window" if choice < 0.55 else "picture"
            width = dice.uniform(*_WIDTHS[kind])
            if at + width > length - 0.15:
                break
            spot = _on_wall(wall, size, at + width / 2)
            if kind == "door":
                doors += 1
                _door(b, dice, paint, spot, width, size[1])
                take(spot[0] + math.sin(spot[3]) * 0.45, spot[2] + math.cos(spot[3]) * 0.45, 0.45, 0.45)
            elif kind == "window":
                lights.append(_window(b, dice, paint, spot, width, size[1]))
            else:
                _picture(b, dice, paint, spot, width, size[1])
            at += width + dice.uniform(0.25, 1.2)
    return lights


def _on_wall(wall: int, size: Vector, along: float) -> Spot:
    """A place at the foot of a wall, facing the room."""
    if wall == 0:
        return (along, 0.0, 0.0, 0.0)
    if wall == 1:
        return (0.0, 0.0, along, math.pi / 2)
    if wall == 2:
        return (along, 0.0, size[2], math.pi)
    return (size[0], 0.0, along, -math.pi / 2)


def _frame(
    b: SceneBuilder, material: Material, half_x: float, low: float, high: float, border: float, depth: float
) -> None:
    middle, half_y = (low + high) / 2, (high - low) / 2
    for x in (-half_x + border / 2, half_x - border / 2):
        b.box((x, middle, depth / 2), (border / 2, half_y, depth / 2), material)
    b.box((0, high - border / 2, depth / 2), (half_x - border, border / 2, depth / 2), material)
    if low > 0:
        b.box((0, low + border / 2, depth / 2), (half_x - border, border / 2, depth / 2), material)


def _door(b: SceneBuilder, dice: Dice, paint: Painter, spot: Spot, width: float, room_height: float) -> None:
    b.begin("door", *spot)
    high = min(dice.uniform(1.95, 2.15), room_height - 0.1)
    border = dice.uniform(0.05, 0.09)
    leaf = paint.material()
    _frame(b, leaf if dice.chance(0.5) else paint.material(), width / 2, 0.0, high, border, 0.06)
    inner = width / 2 - border
    b.box((0, (high - border) / 2, 0.015), (inner, (high - border) / 2, 0.015), leaf)
    side = dice.pick((-1, 1))
    b.box((side * (inner - 0.1), 1.02, 0.055), (0.055, 0.01, 0.012), paint.metal())
    if dice.chance(0.5):
        panel = leaf if dice.chance(0.5) else paint.material()
        for y, half_y in ((0.45, 0.28), (1.35, 0.42)):
            b.box((0, y, 0.034), (inner * 0.65, half_y, 0.006), panel)


def _window(b: SceneBuilder, dice: Dice, paint: Painter, spot: Spot, width: float, room_height: float) -> Vector:
    b.begin("window", *spot)
    low, high = dice.uniform(0.7, 1.1), min(dice.uniform(1.8, 2.3), room_height - 0.1)
    border = dice.uniform(0.04, 0.08)
    frame = paint.material(0.8)
    _frame(b, frame, width / 2, low, high, border, 0.05)
    glass = paint.material(0.2)._replace(glow=dice.pick((0.02, 0.15, 0.5, 1.0)), period=4.0)
    middle, half_y = (low + high) / 2, (high - low) / 2 - border
    b.box((0, middle, 0.008), (width / 2 - border, half_y, 0.008), glass)
    bars = dice.integer(0, 2)
    sill = bars == 0 or dice.chance(0.5)  # without bars, the sill tells a window from a picture
    for bar in range(bars):
        x = -width / 2 + width * (bar + 1) / (bars + 1)
        b.box((x, middle, 0.02), (0.018, half_y, 0.015), frame)
    if dice.chance(0.4):
        b.box((0, middle + half_y * dice.uniform(-0.3, 0.4), 0.02), (width / 2 - border, 0.018, 0.015), frame)
    if sill:
        b.box((0, low - 0.015, 0.07), (width / 2 + 0.04, 0.015, 0.07), frame)
    return b.to_world(0, middle, 0.3)


def _picture(b: SceneBuilder, dice: Dice, paint: Painter, spot: Spot, width: float, room_height: float) -> None:
    b.begin("picture", *spot)
    tall = width * dice.uniform(0.6, 1.4)
    middle = dice.uniform(1.35, 1.7)
    half_y = min(tall / 2, room_height - 0.15 - middle, middle - 0.9)
    half_x, border = width / 2, dice.uniform(0.015, 0.05)
    b.box((0, middle, 0.012), (half_x, half_y, 0.012), paint.material())
    inner_x, inner_y = half_x - border, half_y - border
    b.box((0, middle, 0.02), (inner_x, inner_y, 0.012), paint.material(0.2))
    for _ in range(dice.integer(0, 3)):
        size_x, size_y = inner_x * dice.uniform(0.15, 0.5), inner_y * dice.uniform(0.15, 0.5)
        x, y = dice.uniform(-1, 1) * (inner_x - size_x), dice.uniform(-1, 1) * (inner_y - size_y)
        add = b.box if dice.chance(0.5) else b.ball
        add((x, middle + y, 0.03), (size_x, size_y, dice.uniform(0.004, 0.008)), paint.material(0.6))
