"""Doors, windows and pictures: thin boxes on the four walls that do not overlap one another. Sizes in metres."""

from dataset_loaders.rooms.floor_plan import FloorPlan
from dataset_loaders.rooms.scene import BOX, ELLIPSOID, Place, SceneBuilder

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
