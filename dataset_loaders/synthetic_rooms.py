"""The embedded default dataset: furnished rooms, rendered on the fly with exact labels for six tasks.

Unusual here: nothing is read or stored. Image `index` of a split is a pure function of (seed, split, index),
bit-equal on every call on one machine. Colours and textures are shared by all classes, so shape and context must tell
them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from dataset_loaders.geometry import segment_borders
from dataset_loaders.registry import register
from dataset_loaders.rooms.layout import random_scene
from dataset_loaders.rooms.raycast import cast_primitives, cast_room, pixel_grid, world_rays
from dataset_loaders.rooms.scene import CLASS_NAMES, FACES, PART_NAMES, ROOM_SURFACES, Scene
from dataset_loaders.rooms.shading import photograph, world_normals
from dataset_loaders.sample import DenseDataset, Sample
from kdam_hf.errors import KdamValueError
from kdam_hf.tasks import TASK_NAMES, Task, make_task, select_tasks

__all__ = ["CLASS_NAMES", "PART_NAMES", "SyntheticRooms"]

IGNORE = 255
RENDERER = 1
"""Rises whenever a seed gives other scenes or labels."""
DEFAULT_SIZES = {"train": 2000, "val": 200}
_SPLIT_NUMBERS = {"train": 0, "val": 1}
_TASK_CLASSES = {"semseg": CLASS_NAMES, "human_parts": PART_NAMES}
_ROOM_CLASSES = ("wall", "wall", "floor", "ceiling", "wall", "wall")


class Frame(NamedTuple):
    """A rendered scene: the image, its labels, and the instance map (H,W) int32 that the edges are drawn from."""

    image: np.ndarray
    labels: dict[str, np.ndarray]
    instance: np.ndarray


@register("synthetic_rooms")
class SyntheticRooms(DenseDataset):
    """Random rooms as a map-style dataset.

    A sample is `{"id": str, "image": uint8 (H,W,3) RGB, "labels": {...}}` with the labels

    - `semseg` uint8 (H,W): indices into `CLASS_NAMES`; every pixel has a class.
    - `human_parts` uint8 (H,W): indices into `PART_NAMES`; 255 everywhere if no person is visible (the field's
      convention).
    - `saliency` uint8 (H,W) in {0, 1}: 1 on people and on the scene's ornament, the one small object (vase, box or
      books) whose colour is more saturated than anything else in the room. There is at most one; it may be hidden or
      out of view.
    - `depth` float32 (H,W): metres along the optical axis (z-depth, as a Kinect reports it), > 0 everywhere.
    - `normals` float32 (H,W,3): unit vectors in the camera frame, x right, y up, z towards the camera; each faces the
      camera. A horizontal flip of the image negates x.
    - `edge` uint8 (H,W) in {0, 1}: 1 where the right or the lower neighbour belongs to another instance. Each wall,
      the floor, a rug, the ceiling, each object and each row of books is one instance; parts of one object have no
      edge between them.

    Args:
        split: "train" or "val".
        num_images: size of the split; None means 2000 for train, 200 for val. It does not change what `index` shows.
        height, width: image size in pixels. Scenes do not depend on it; the sensor noise does.
        seed: non-negative; another seed is another dataset.
        tasks: names of the tasks to label; all six for None.

    Raises:
        KdamValueError: for an unknown split, or a size or seed out of range.
    """

    name = "synthetic_rooms"
    notes = ("SYNTHETIC: images and labels are rendered together, so every label is exact and none is derived",)

    def __init__(
        self,
        split: str = "train",
        num_images: int | None = None,
        height: int = 240,
        width: int = 320,
        seed: int = 0,
        tasks: Sequence[str] | None = None,
    ) -> None:
        if split not in DEFAULT_SIZES:
            raise KdamValueError(f"SyntheticRooms has the splits {sorted(DEFAULT_SIZES)}, not {split!r}")
        if num_images is None:
            num_images = DEFAULT_SIZES[split]
        for name, value in (("num_images", num_images), ("height", height), ("width", width)):
            if value < 1:
                raise KdamValueError(f"{name} must be at least 1, not {value}")
        if seed < 0:
            raise KdamValueError(f"seed must not be negative, as NumPy's generators take none: {seed}")
        self.split = split
        self.tasks: tuple[Task, ...] = select_tasks([make_task(n, _TASK_CLASSES.get(n, ())) for n in TASK_NAMES], tasks)
        self.num_images = num_images
        self.height = height
        self.width = width
        self.seed = seed

    @property
    def version(self) -> str:
        """All that what `index` shows depends on; a training cache of another one is refused."""
        return f"renderer {RENDERER}, {self.height}x{self.width} pixels, seed {self.seed}"

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Of the images, in order."""
        return tuple(f"{self.split}-{index:07d}" for index in range(self.num_images))

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> Sample:
        """Render image `index`, 0 <= index < len(self).

        Raises:
            IndexError: for any other index, so that a plain `for` loop ends.
        """
        if not 0 <= index < self.num_images:
            raise IndexError(f"index {index} of a split of {self.num_images} images")
        rng = np.random.default_rng([self.seed, _SPLIT_NUMBERS[self.split], index])
        frame = render(random_scene(rng), self.height, self.width, rng)
        labels = {task.name: frame.labels[task.name] for task in self.tasks}
        return {"id": f"{self.split}-{index:07d}", "image": frame.image, "labels": labels}


def render(scene: Scene, height: int, width: int, rng: np.random.Generator) -> Frame:
    """Render a scene; `rng` moves the sensor noise and nothing in the labels."""
    camera = scene.camera
    grid = pixel_grid(camera, height, width)
    rays = world_rays(camera, grid)
    # Rays parallel to a face divide by zero; the infinity that follows compares as it should.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        depth, surface = cast_room(scene.size, camera, rays)
        everything = np.arange(len(scene.primitives.kind))
        cast_primitives(scene.primitives, everything, camera, grid, depth, surface)
        rays *= depth
        points = rays.reshape(3, -1) + camera.position.astype(np.float32)[:, None]
        seen = surface.ravel().astype(np.intp)
        normals = world_normals(scene, seen, points)
        image = photograph(scene, grid, depth, seen, points, normals, rng)
    labels, instance = _labels(scene, depth, surface, normals)
    return Frame(image, labels, instance)


def _labels(
    scene: Scene, depth: np.ndarray, surface: np.ndarray, normals: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Look all maps up by surface id; see `SyntheticRooms` for what they mean."""
    primitives = scene.primitives

    def per_surface(room: np.ndarray, objects: np.ndarray) -> np.ndarray:
        return np.concatenate([room.astype(objects.dtype), np.repeat(objects, FACES)])[surface]

    nothing = np.zeros(ROOM_SURFACES)
    room_classes = np.array([CLASS_NAMES.index(name) for name in _ROOM_CLASSES])
    semseg = per_surface(room_classes, primitives.class_id)
    instance = per_surface(np.arange(ROOM_SURFACES), primitives.instance)
    parts = per_surface(nothing, primitives.part)
    if not parts.any():
        parts.fill(IGNORE)
    is_person = (primitives.class_id == CLASS_NAMES.index("person")).astype(np.uint8)
    saliency = per_surface(nothing, primitives.salient | is_person)
    in_camera = scene.camera.rotation.astype(np.float32) @ normals
    labels = {
        "semseg": semseg,
        "human_parts": parts,
        "saliency": saliency,
        "depth": depth,
        "normals": np.ascontiguousarray(in_camera.T).reshape(*depth.shape, 3),
        "edge": segment_borders(instance),
    }
    return labels, instance
