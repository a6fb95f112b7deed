"""What a room consists of: the vocabulary of labels, and the builder that collects primitives.

Unusual here: every object, a chair as well as a person, is a list of boxes, ellipsoids and elliptic cylinders, kept
as plain tuples while the scene is drawn and turned into arrays once at the end.

World frame: metres, x and z along the floor, y up; the room is [0, size_x] x [0, size_y] x [0, size_z]. An object at
yaw a (radians) has its front, local +z, along (sin a, 0, cos a).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

CLASS_NAMES: tuple[str, ...] = (
    "wall",
    "floor",
    "ceiling",
    "door",
    "window",
    "picture",
    "table",
    "chair",
    "cabinet",
    "bed",
    "sofa",
    "lamp",
    "books",
    "box",
    "vase",
    "person",
)
PART_NAMES: tuple[str, ...] = ("background", "head", "torso", "upper_arm", "lower_arm", "upper_leg", "lower_leg")

BOX, ELLIPSOID, CYLINDER = 0, 1, 2
ROOM_SURFACES = 6  # x = 0, x = size_x, y = 0 (floor), y = size_y (ceiling), z = 0, z = size_z
FACES = 3  # a primitive has three surfaces: one face per axis of a box; side and cap of a cylinder
UP = (0.0, 1.0, 0.0)

Item = TypeVar("Item")
Vector = tuple[float, float, float]


def scaled(colour: Vector, factor: float) -> Vector:
    """A colour, lighter or darker."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


class Dice:
    """Cheap scalar random numbers: a Generator costs a microsecond per scalar, a list of its floats far less."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._floats: list[float] = []

    def random(self) -> float:
        """A float in [0, 1)."""
        if not self._floats:
            self._floats = self._rng.random(2048).tolist()
        return self._floats.pop()

    def uniform(self, low: float, high: float) -> float:
        """A float in [low, high)."""
        return low + (high - low) * self.random()

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high], both included."""
        return low + int(self.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random() < probability

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[int(self.random() * len(items))]


class Material(NamedTuple):
    """Two linear RGB colours mixed by a texture that repeats every `period` metres; `glow` is emitted light."""

    colour: Vector
    second: Vector
    texture: int
    period: float
    glow: float = 0.0


class Camera(NamedTuple):
    """A pinhole: world position, rows right, up, backward of `rotation`; `half_width` is tan(hfov / 2)."""

    position: np.ndarray
    rotation: np.ndarray
    half_width: float


class Light(NamedTuple):
    """A point light: world position in metres, linear RGB intensity."""

    position: Vector
    colour: Vector


class Support(NamedTuple):
    """A horizontal surface that small objects may stand on: world centre, yaw (radians) and half sizes (metres)."""

    x: float
    y: float
    z: float
    yaw: float
    half_x: float
    half_z: float


class Primitives(NamedTuple):
    """N primitives in the world frame. `rotation[:, :, k]` is local axis k; `part` is 0 for everything but people."""

    kind: np.ndarray
    centre: np.ndarray
    rotation: np.ndarray
    half: np.ndarray
    class_id: np.ndarray
    part: np.ndarray
    instance: np.ndarray
    salient: np.ndarray
    materials: list[Material]


class Scene(NamedTuple):
    """All that the renderer needs; the first light is the one that casts shadows."""

    size: Vector
    room_materials: list[Material]
    primitives: Primitives
    camera: Camera
    lights: list[Light]
    ambient: Vector


class SceneBuilder:
    """Collects primitives: `begin` opens an object; `box`, `ball` and `tube` add to it in its local frame."""

    def __init__(self) -> None:
        self.supports: list[Support] = []
        self.seats: list[Support] = []
        self._rows: list[tuple[float, ...]] = []
        self._materials: list[Material] = []
        self._instance = ROOM_SURFACES - 1
        self._object: tuple[float, ...] = ()
        self._frame = (0.0, 0.0, 0.0, 0.0, 1.0)

    def begin(self, class_name: str, x: float, y: float, z: float, yaw: float, *, salient: bool = False) -> None:
        """Open a new object (one instance) whose local origin is at (x, y, z) in the world, turned by yaw radians."""
        self._instance += 1
        sine, cosine = math.sin(yaw), math.cos(yaw)
        self._frame = (x, y, z, sine, cosine)
        self._object = (CLASS_NAMES.index(class_name), self._instance, float(salient), yaw)

    def _add(self, kind: int, centre: Vector, half: Vector, material: Material, axis: Vector, part: int) -> None:
        self._rows.append((kind, *self.to_world(*centre), *half, *axis, part, *self._object))
        self._materials.append(material)

    def box(self, centre: Vector, half: Vector, material: Material, axis: Vector = UP, part: int = 0) -> None:
        """Add a box with half sizes along its own x, y, z; its y axis lies along `axis`."""
        self._add(BOX, centre, half, material, axis, part)

    def ball(self, centre: Vector, half: Vector, material: Material, axis: Vector = UP, part: int = 0) -> None:
        """Add an ellipsoid with these half axes."""
        self._add(ELLIPSOID, centre, half, material, axis, part)

    def tube(self, centre: Vector, half: Vector, material: Material, axis: Vector = UP, part: int = 0) -> None:
        """Add a capped elliptic cylinder along `axis` with radii half[0], half[2] and half length half[1]."""
        self._add(CYLINDER, centre, half, material, axis, part)

    def to_world(self, x: float, y: float, z: float) -> Vector:
        """A point of the open object's local frame, in the world."""
        origin_x, origin_y, origin_z, sine, cosine = self._frame
        return (origin_x + cosine * x + sine * z, origin_y + y, origin_z - sine * x + cosine * z)

    def surface(self, x: float, y: float, z: float, half_x: float, half_z: float) -> Support:
        """A horizontal surface of the open object, given in its local frame."""
        return Support(*self.to_world(x, y, z), self._object[3], half_x, half_z)

    def build(self) -> Primitives:
        """Turn the collected tuples into arrays (float64; the renderer rounds)."""
        rows = np.array(self._rows, dtype=np.float64).reshape(-1, 15)
        yaw = rows[:, 14]
        turn = np.zeros((len(rows), 3, 3))
        turn[:, 1, 1] = 1.0
        turn[:, 0, 0] = turn[:, 2, 2] = np.cos(yaw)
        turn[:, 0, 2] = np.sin(yaw)
        turn[:, 2, 0] = -turn[:, 0, 2]
        return Primitives(
            kind=rows[:, 0].astype(np.int64),
            centre=rows[:, 1:4],
            rotation=turn @ _basis_along(rows[:, 7:10]),
            half=rows[:, 4:7],
            class_id=rows[:, 11].astype(np.uint8),
            part=rows[:, 10].astype(np.uint8),
            instance=rows[:, 12].astype(np.int32),
            salient=rows[:, 13].astype(np.uint8),
            materials=self._materials,
        )


def _basis_along(axis: np.ndarray) -> np.ndarray:
    """Right-handed rotations (N,3,3) whose y column is `axis` (N,3); the identity for an axis pointing up."""
    reference = np.where(np.abs(axis[:, 2:3]) > 0.9, (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))
    axis = axis / np.linalg.norm(axis, axis=1, keepdims=True)
    side = np.cross(axis, reference)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    return np.stack([side, axis, np.cross(side, axis)], axis=2)
