"""Doors, windows and pictures: thin boxes on the four walls that do not overlap one another. Sizes in metres."""

from dataset_loaders.rooms.floor_plan import FloorPlan
from dataset_loaders.rooms.scene import BOX, ELLIPSOID, Light, Place, SceneBuilder

_WIDTHS = {"door": (0.75, 1.0), "window": (0.7, 1.8), "picture": (0.3, 1.2)}


def furnish_walls(b: SceneBuilder, plan: FloorPlan) -> None:
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
            place = plan.at_wall(wall, (start + width / 2) / length)._replace(width=width, height=plan.size[1] - 0.1)
            b.begin(kind, place)
            if kind == "door":
                doors += 1
                _door(b, place)
                plan.take(place.inner(0, 0, 0.45, 0.9, 0.9))
            elif kind == "window":
                _window(b, place)
            else:
                _picture(b, place)
            start += width + dice.uniform(0.25, 1.2)


def _door(b: SceneBuilder, place: Place) -> None:
    dice, x, high, leaf = b.dice, place.width / 2, min(b.dice.uniform(1.95, 2.15), place.height), b.paint.material()
    border = dice.uniform(0.05, 0.09)
    b.box((-x, 0, 0), (x, high, 0.03), dice.choice((leaf, b.paint.material())))
    b.box((border - x, 0, 0), (x - border, high - border, 0.05), leaf)
    middle = dice.choice((-1, 1)) * (x - border - 0.1)
    b.box((middle - 0.055, 1.01, 0.05), (middle + 0.055, 1.03, 0.09), b.paint.frame())
    if dice.random() < 0.5:
        panel = dice.choice((leaf, b.paint.material()))
        for low, top in ((0.17, 0.73), (0.93, 1.77)):
            b.box((-0.6 * x, low, 0), (0.6 * x, top, 0.06), panel)


def _window(b: SceneBuilder, place: Place) -> None:
    dice, x, border = b.dice, place.width / 2, b.dice.uniform(0.04, 0.08)
    low, high = dice.uniform(0.7, 1.1), min(dice.uniform(1.8, 2.3), place.height)
    glass = b.paint.material(0.2)._replace(glow=dice.choice((0.02, 0.15, 0.5, 1.0)), period=4.0)
    frame = b.paint.material(0.8)
    b.box((-x, low, 0), (x, high, 0.03), frame)
    b.box((border - x, low + border, 0), (x - border, high - border, 0.032), glass)
    bars = dice.randint(0, 2)
    for middle in ((), (0.0,), (-x / 3, x / 3))[bars]:
        b.box((middle - 0.018, low, 0), (middle + 0.018, high, 0.05), frame)
    if bars == 0 or dice.random() < 0.5:  # without bars, the sill tells a window from a picture
        b.box((-x - 0.04, low - 0.03, 0), (x + 0.04, low, 0.14), frame)
    light = dice.uniform(0.5, 2.5)
    b.lights.append(Light(place.point(0, (low + high) / 2, 0.3), (0.85 * light, 0.95 * light, 1.1 * light)))


def _picture(b: SceneBuilder, place: Place) -> None:
    dice, x, middle, border = b.dice, place.width / 2, b.dice.uniform(1.35, 1.7), b.dice.uniform(0.015, 0.05)
    y = min(x * dice.uniform(0.6, 1.4), 2.25 - middle, middle - 0.9)
    b.box((-x, middle - y, 0), (x, middle + y, 0.024), b.paint.material())
    x, y = x - border, y - border
    b.box((-x, middle - y, 0), (x, middle + y, 0.03), b.paint.material(0.2))
    for _ in range(dice.randint(0, 3)):
        half_x, half_y = x * dice.uniform(0.15, 0.5), y * dice.uniform(0.15, 0.5)
        left, low = dice.uniform(-x, x - 2 * half_x), middle + dice.uniform(-y, y - 2 * half_y)
        high = (left + 2 * half_x, low + 2 * half_y, 0.036)
        b.box((left, low, 0.02), high, b.paint.material(), dice.choice((BOX, ELLIPSOID)))
