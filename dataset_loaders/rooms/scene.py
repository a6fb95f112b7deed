"""What a room consists of: the vocabulary of labels, and the builder that collects primitives.

Unusual here: everything, a wall as well as a chair or a person, is a list of boxes, ellipsoids and elliptic cylinders.

World frame: metres, x and z along the floor, y up; the room is [0, size_x] x [0, size_y] x [0, size_z]. An object at
yaw a (radians) has its front, local +z, along (sin a, 0, cos a).
"""

import math
from random import Random
from typing import NamedTuple

import numpy as np

from dataset_loaders.rooms.materials import Material, Painter, Vector

CLASS_NAMES = (
    *("wall", "floor", "ceiling", "door", "window", "picture", "table", "chair"),
    *("cabinet", "bed", "sofa", "lamp", "books", "box", "vase", "person"),
)
PART_NAMES = ("background", "head", "torso", "upper_arm", "lower_arm", "upper_leg", "lower_leg")
BOX, ELLIPSOID, CYLINDER = 0, 1, 2
UP = (0.0, 1.0, 0.0)
# `half`: half sizes along a primitive's own axes; the second one lies along `axis` of an object turned by `yaw`.
# `part` is 0 for everything but people. The last five fields are those of a Material.
PRIMITIVE = np.dtype([
    *(("kind", "u1"), ("centre", "f8", 3), ("half", "f8", 3), ("axis", "f8", 3), ("yaw", "f8"), ("part", "u1")),
    *(("class_id", "u1"), ("instance", "i4"), ("salient", "u1")),
    *(("colour", "f4", 3), ("second", "f4", 3), ("pattern", "i4"), ("period", "f4"), ("glow", "f4")),
])  # fmt: skip


class Place(NamedTuple):
    """Where a piece stands: world position of its base centre, yaw (radians), width, depth, height (metres)."""

    x: float
    y: float
    z: float
    yaw: float = 0.0
    width: float = 0.0
    depth: float = 0.0
    height: float = 0.0

    def point(self, x: float, y: float, z: float) -> Vector:
        """A point of the piece's own frame, in the world."""
        sine, cosine = math.sin(self.yaw), math.cos(self.yaw)
        return (self.x + cosine * x + sine * z, self.y + y, self.z - sine * x + cosine * z)

    def inner(self, x: float, y: float, z: float, width: float = 0, depth: float = 0, turn: float = 0) -> "Place":
        """A place given in the piece's own frame."""
        return Place(*self.point(x, y, z), self.yaw + turn, width, depth)


class Camera(NamedTuple):
    """A pinhole: world position, rows right, up, backward of `rotation`; `half_width` is tan(hfov / 2)."""

    position: np.ndarray
    rotation: np.ndarray
    half_width: float


class Scene(NamedTuple):
    """All that the renderer needs: primitives (N,) of `PRIMITIVE`; position and linear RGB intensity of the lights, of
    which the first casts shadows."""

    size: Vector
    primitives: np.ndarray
    camera: Camera
    lights: list[tuple[Vector, Vector]]
    ambient: Vector


class SceneBuilder:
    """Collects what a scene is made of: `begin` opens an object; `box` and `add` add to it."""

    def __init__(self, dice: Random) -> None:
        self.dice = dice
        self.paint = Painter(dice)
        self.lights: list[tuple[Vector, Vector]] = []
        self.supports: list[Place] = []  # horizontal surfaces that small objects may stand on
        self.seats: list[Place] = []
        self.primitives: list[tuple] = []  # of the fields of `PRIMITIVE`
        self._objects = 0

    def begin(self, class_name: str, place: Place, *, salient: bool = False, scale: float = 1.0) -> None:
        """Open a new object (one instance) in the frame of a place; its own unit of length is `scale` metres."""
        self._place, self._scale = place, scale
        self._labels = (CLASS_NAMES.index(class_name), self._objects, salient)
        self._objects += 1

    def add(
        self, kind: int, centre: Vector, half: Vector, material: Material, axis: Vector = UP, part: int = 0
    ) -> None:
        """Add a primitive with half sizes (or radii) along its own x, y, z; its y axis lies along `axis`."""
        (x, y, z), (a, b, c), s = centre, half, self._scale
        centre, half = self._place.point(s * x, s * y, s * z), (s * a, s * b, s * c)
        self.primitives.append((kind, centre, half, axis, self._place.yaw, part, *self._labels, *material))

    def box(self, low: Vector, high: Vector, material: Material, kind: int = BOX) -> None:
        """Add the box between two corners, or the ellipsoid or the upright cylinder that fills it."""
        (a, b, c), (x, y, z) = low, high
        half = (abs(x - a) / 2, abs(y - b) / 2, abs(z - c) / 2)
        self.add(kind, ((a + x) / 2, (b + y) / 2, (c + z) / 2), half, material)
