"""The embedded default dataset: furnished rooms, rendered on the fly with exact labels for six tasks.

Unusual here: nothing is read or stored. Image `index` of a split is a pure function of (seed, split, index),
bit-equal on every call on one machine.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from dataset_loaders.geometry import segment_borders
from dataset_loaders.registry import register
from dataset_loaders.rooms.layout import random_scene
from dataset_loaders.rooms.raycast import look
from dataset_loaders.rooms.scene import CLASS_NAMES, PART_NAMES, Scene
from dataset_loaders.rooms.shading import photograph
from dataset_loaders.sample import DenseDataset, Sample
from kdam_hf.errors import KdamValueError
from kdam_hf.photos_kdam import PhotoHeader
from kdam_hf.tasks import IGNORE_INDEX, Task, make_task, select_tasks

__all__ = ["CLASS_NAMES", "PART_NAMES", "SyntheticRooms"]

RENDERER = 2  # rises whenever a seed gives other scenes or labels
DEFAULT_SIZES = {"train": 2000, "val": 200}
_TASK_CLASSES = {"semseg": CLASS_NAMES, "human_parts": PART_NAMES}
LABELLED = ("semseg", "human_parts", "saliency", "depth", "normals", "edge")


@register("synthetic_rooms")
class SyntheticRooms(DenseDataset):
    """Random rooms with the labels

    - `semseg` uint8 (H,W): indices into `CLASS_NAMES`; every pixel has a class.
    - `human_parts` uint8 (H,W): indices into `PART_NAMES`; by convention 255 everywhere if no person is visible.
    - `saliency` uint8 (H,W) in {0, 1}: 1 on people and on the scene's ornament, the one small object (vase, box or
      books) whose colour is more saturated than anything else in the room; it may be hidden or out of view.
    - `depth` float32 (H,W): metres along the optical axis (z-depth, as a Kinect reports it), > 0 everywhere.
    - `normals` float32 (H,W,3): unit vectors in the camera frame, x right, y up, z towards the camera; each faces the
      camera. A horizontal flip of the image negates x.
    - `edge` uint8 (H,W) in {0, 1}: 1 where the right or the lower neighbour belongs to another instance. Each wall,
      the floor, a rug, the ceiling, each object and each row of books is one instance.

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
        num_images = DEFAULT_SIZES[split] if num_images is None else num_images
        if min(num_images, height, width) < 1 or seed < 0:
            given = f"num_images {num_images}, height {height}, width {width}, seed {seed}"
            raise KdamValueError(f"SyntheticRooms: {given}; expected at least 1, and a seed of at least 0")
        self.split, self.num_images, self.height, self.width, self.seed = split, num_images, height, width, seed
        self.tasks: tuple[Task, ...] = select_tasks([make_task(n, _TASK_CLASSES.get(n, ())) for n in LABELLED], tasks)

    def stamp(self, index: int) -> str:
        return f"renderer {RENDERER}, {self.height}x{self.width} pixels, seed {self.seed}"

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(f"{self.split}-{index:07d}" for index in range(self.num_images))

    def photo_header(self, index: int) -> PhotoHeader:
        return PhotoHeader(self.height, self.width)

    def __getitem__(self, index: int) -> Sample:
        """Render image `index`; IndexError outside 0 <= index < len(self), so that a plain `for` loop ends."""
        if not 0 <= index < self.num_images:
            raise IndexError(f"index {index} of a split of {self.num_images} images")
        rng = np.random.default_rng([self.seed, list(DEFAULT_SIZES).index(self.split), index])
        image, labels = render(random_scene(rng), self.height, self.width, rng)
        return {"id": self.ids[index], "image": image, "labels": {task.name: labels[task.name] for task in self.tasks}}


def render(scene: Scene, height: int, width: int, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The image of a scene and all its labels; `rng` moves the sensor noise and nothing in the labels."""
    view, primitives = look(scene.primitives, scene.camera, height, width), scene.primitives
    owner = view.owner.reshape(height, width)
    semseg, parts, instances = (primitives[name].take(owner) for name in ("class_id", "part", "instance"))
    normals = (scene.camera.rotation.astype(np.float32) @ view.normals).T.reshape(height, width, 3)
    person = semseg == CLASS_NAMES.index("person")
    labels = {
        "semseg": semseg,
        "human_parts": parts if person.any() else np.full_like(parts, IGNORE_INDEX),
        "saliency": primitives["salient"][owner] | person,
        "depth": view.depth,
        "normals": np.ascontiguousarray(normals),
        "edge": segment_borders(instances),
    }
    return photograph(scene, view, rng), labels
