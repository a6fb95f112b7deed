"""Which floor is taken, and what the camera sees of it (metres, radians)."""

import math
from collections.abc import Iterable, Iterator
from random import Random

from dataset_loaders.rooms.materials import Vector
from dataset_loaders.rooms.scene import Place


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
