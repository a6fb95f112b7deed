"""Miniature, valid copies of the public NYUD-v2 and PASCAL-Context trees, drawn from synthetic rooms.

Unusual here: nothing is shared with the loaders (plain numpy, PIL, scipy.io, h5py, datasets), and every writer returns
the truth, {split: [Scene]}: the arrays that a reader must come to, rounded as the files round them. The scenes that go
in (`nyud_scenes`, `pascal_scenes`, `folder_scenes`) hold the exact values; A, B, C, D, E and O show the same ones.
Arrays are read-only, as they are cached. The functions at the end spoil one file of a tree.
"""

import itertools
import json
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import scipy.io
from PIL import Image
from skimage.morphology import thin

from dataset_loaders.rooms.layout import random_scene
from dataset_loaders.synthetic_rooms import CLASS_NAMES, Frame, render

Array = np.ndarray
SPLITS = ("train", "val")
VOID = 255
# The Kinect's field of view: focal length 518.858 pixels at 640 columns; here with the principal point in the middle.
HALF_WIDTH = 320 / 518.857901
DISTINCT = 64  # scenes per split; a longer split shows them again

# Ids 1..40 of NYUD-v2 by the names of the rooms.
NYU40_OF_ROOM = {
    "wall": 1, "floor": 2, "cabinet": 3, "bed": 4, "chair": 5, "sofa": 6, "table": 7, "door": 8, "window": 9,
    "picture": 11, "ceiling": 22, "books": 23, "box": 29, "person": 31, "lamp": 35, "vase": 40,
}  # fmt: skip
# bed books ceiling chair floor furniture objects picture sofa table tv wall window = 0..12, for ids 1..40.
NYU13_OF_40 = (
    11, 4, 5, 0, 3, 8, 9, 11, 12, 5, 7, 5, 12, 9, 5, 12, 5, 6, 6, 4,
    6, 2, 1, 5, 10, 6, 6, 6, 6, 6, 6, 5, 6, 6, 6, 6, 6, 6, 5, 6,
)  # fmt: skip
# Made up, in the form of classMapping40.mat: class 1..40 of the label 1..894 at index label - 1; all classes occur.
MAP_CLASS = np.array([7 * label % 40 + 1 for label in range(1, 895)], np.uint8)
# Row c: the smallest and the largest label of class c; both occur in the trees. Row 0 is void.
LABELS_OF_40 = np.array([[0, 0], *(1 + np.flatnonzero(c == MAP_CLASS)[[0, -1]] for c in range(1, 41))])

VOC_OF_ROOM = {"chair": 9, "table": 11, "person": 15, "sofa": 18, "vase": 5}
VOC_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
CONTEXT_OF_ROOM = {
    "wall": 440, "floor": 158, "ceiling": 68, "door": 115, "window": 454, "picture": 287, "table": 397, "chair": 72,
    "cabinet": 46, "bed": 18, "sofa": 368, "lamp": 232, "books": 33, "box": 37, "vase": 34, "person": 284,
}  # fmt: skip
# The ids of the 459 classes that are called as the 21 of VOC; sky for the background.
CONTEXT_OF_VOC = (360, 2, 23, 25, 31, 34, 45, 59, 65, 72, 98, 397, 113, 207, 258, 284, 308, 347, 368, 416, 427)
# Of all ids that occur in these trees, those that NYU's 894 classes also name; tvmonitor (427) by the field's choice.
NORMALS_VALID = frozenset({*CONTEXT_OF_ROOM.values(), 23, 59, 65, 113, 427})
PARTS = {
    "head": 1, "hair": 1, "lear": 1, "rear": 1, "lebrow": 1, "rebrow": 1, "leye": 1, "reye": 1, "mouth": 1, "nose": 1,
    "neck": 2, "torso": 2, "luarm": 3, "ruarm": 3, "llarm": 4, "lhand": 4, "rlarm": 4, "rhand": 4,
    "luleg": 5, "ruleg": 5, "llleg": 6, "lfoot": 6, "rlleg": 6, "rfoot": 6,
}  # fmt: skip


class Object(NamedTuple):
    """An entry of a PASCAL Parts file: class name, VOC id, mask bool (H, W) and (part name, mask) pairs."""

    name: str
    number: int
    mask: Array
    parts: list[tuple[str, Array]]


@dataclass(frozen=True)
class Scene:
    """One image and what a reader must make of its label files.

    `labels`, by task: semseg u8 (255 void), depth f32 metres (0 invalid), normals f32 (H, W, 3) unit (0 invalid),
    edge u8 {0, 1}, human_parts u8 (255 where nobody is in view), saliency u8 {0, 1}. `raw` holds values as the files
    do: NYUD `labels` u16 and `instances` u8 of layout O; PASCAL `LabelMap` u16, `normals` f32 before the classes are
    looked at, `saliency` u8 soft, `semseg` u8 without void.
    """

    id: str
    image: Array
    labels: dict[str, Array]
    raw: dict[str, Array] = field(default_factory=dict)
    objects: tuple[Object, ...] = ()

    def __post_init__(self) -> None:
        for array in (self.image, *self.labels.values(), *self.raw.values()):
            array.flags.writeable = False


Truth = dict[str, list[Scene]]


def intrinsics(height: int, width: int) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy in pixels of every scene; the centre of the first pixel is (0, 0)."""
    focal = 0.5 * width / HALF_WIDTH
    return focal, focal, (width - 1) / 2, (height - 1) / 2


# ---- scenes ----


def nyud_ids(train: int, val: int) -> dict[str, list[str]]:
    """The first ids of each split: as in the original up to 16, then mixed so that 1449 hold 795 and 654."""
    ids: dict[str, list[str]] = {"train": [], "val": []}
    for k in itertools.count(1):
        if len(ids["train"]) >= train and len(ids["val"]) >= val:
            return {"train": ids["train"][:train], "val": ids["val"][:val]}
        later = (k - 16) * 648 // 1433 > (k - 17) * 648 // 1433
        ids["val" if k in (1, 2, 9, 14, 15, 16) or (k > 16 and later) else "train"].append(f"{k:04d}")
    raise AssertionError


def nyud_scenes(train: int = 6, val: int = 3, height: int = 45, width: int = 61, seed: int = 0) -> Truth:
    """Scenes with all 40 classes, void pixels, holes in the depth and more of them in the normals."""
    scenes: Truth = {}
    for split, ids in nyud_ids(train, val).items():
        views = [_nyud_scene(split, k, height, width, seed) for k in range(min(len(ids), DISTINCT))]
        scenes[split] = [replace(views[k % DISTINCT], id=name) for k, name in enumerate(ids)]
    return scenes


def pascal_scenes(train: int = 6, val: int = 3, height: int = 45, width: int = 61, seed: int = 0) -> Truth:
    """Scenes of about this size, each of its own, some upright, with all 21 classes and people in most."""
    scenes: Truth = {}
    for split, count in (("train", train), ("val", val)):
        views = [_pascal_scene(split, k, height, width, seed) for k in range(min(count, DISTINCT))]
        names = [f"{2008 + k // 2 % 3}_{2 * k + 2 + (split == 'val'):06d}" for k in range(count)]
        scenes[split] = [replace(views[k % DISTINCT], id=name) for k, name in enumerate(names)]
    return scenes


def folder_scenes(train: int = 6, val: int = 3, height: int = 45, width: int = 61, seed: int = 0) -> Truth:
    """Scenes of about this size with the classes of the rooms and all six tasks."""
    scenes: Truth = {}
    for split, count in (("train", train), ("val", val)):
        views = [_folder_scene(split, k, height, width, seed) for k in range(min(count, DISTINCT))]
        scenes[split] = [replace(views[k % DISTINCT], id=f"{split}{k:03d}") for k in range(count)]
    return scenes


@lru_cache(maxsize=256)
def _frame(split: str, index: int, height: int, width: int, seed: int) -> Frame:
    if min(height, width) < 24:
        raise ValueError(f"{height}x{width} pixels; the colour chart and the holes need at least 24x24.")
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    scene = random_scene(rng)
    return render(scene._replace(camera=scene.camera._replace(half_width=HALF_WIDTH)), height, width, rng)


def _by_room(values: dict[str, int], frame: Frame) -> Array:
    return np.array([values.get(name, 0) for name in CLASS_NAMES])[frame.labels["semseg"]]


def _chart(values: Collection[int], columns: int) -> tuple[tuple[slice, slice], Array]:
    """Where and what to paint so that each value stands in the upper left corner on 2x2 pixels."""
    grid = np.array(list(values)).reshape(-1, columns).repeat(2, 0).repeat(2, 1)
    return (slice(grid.shape[0]), slice(grid.shape[1])), grid


def _borders(*maps: Array) -> Array:
    """1 where the right or the lower neighbour differs in any of the maps; uint8."""
    edge = np.zeros(maps[0].shape, np.uint8)
    for values in maps:
        edge[:, :-1] |= values[:, :-1] != values[:, 1:]
        edge[:-1] |= values[:-1] != values[1:]
    return edge


def _with_holes(frame: Frame) -> tuple[Array, Array]:
    """Depth with zeros in a block and here and there; normals with zero vectors there and in another block."""
    depth, normals = frame.labels["depth"].copy(), frame.labels["normals"].copy()
    depth[-6:-2, 5:15] = 0
    depth.reshape(-1)[::97] = 0
    normals[depth == 0] = 0
    normals[-6:-2, 20:26] = 0
    return depth, normals


@lru_cache(maxsize=256)
def _nyud_scene(split: str, index: int, height: int, width: int, seed: int) -> Scene:
    frame = _frame(split, index, height, width, seed)
    depth, normals = _with_holes(frame)
    classes, things = _by_room(NYU40_OF_ROOM, frame), frame.instance.copy()
    where, chart = _chart(range(1, 41), 10)
    classes[where] = chart
    things[where] = chart + 10_000
    void = np.zeros(classes.shape, bool)
    void[:, -2:] = True
    void[height // 2 : height // 2 + 3, width // 2 : width // 2 + 5] = True
    labels = np.where(void, 0, LABELS_OF_40[classes, things % 2]).astype(np.uint16)
    instances = np.zeros(labels.shape, np.uint8)
    for label in np.unique(labels[~void]):
        mask = labels == label
        instances[mask] = np.unique(things[mask], return_inverse=True)[1] + 1
    tasks = {
        "semseg": np.where(void, VOID, classes - 1).astype(np.uint8),
        "depth": depth,
        "normals": normals,
        "edge": _borders(labels, instances),
    }
    return Scene("", frame.image, tasks, {"labels": labels, "instances": instances})


@lru_cache(maxsize=256)
def _pascal_scene(split: str, index: int, height: int, width: int, seed: int) -> Scene:
    frame = _frame(split, index, *_native_size(index, height, width), seed)
    voc, label_map = _by_room(VOC_OF_ROOM, frame), _by_room(CONTEXT_OF_ROOM, frame)
    where, chart = _chart(range(21), 7)
    voc[where] = chart
    label_map[where] = np.array(CONTEXT_OF_VOC)[chart]
    label_map[0, 14:16] = 1, 459
    objects = tuple(_objects(frame, voc, where, listed=index % 2 == 0, annotated=index % 3 != 2))
    soft = np.where(frame.labels["saliency"], 190, 60) + np.random.default_rng(index).integers(-50, 50, voc.shape)
    soft[0, :4] = 0, 127, 128, 255
    _, normals = _with_holes(frame)
    laplacian = sum(_shifted(label_map, *step) for step in ((-1, 0), (1, 0), (0, -1), (0, 1))) - 4 * label_map
    tasks = {
        "semseg": np.where(_borders(voc), VOID, voc).astype(np.uint8),
        "human_parts": _paint_parts(objects, voc.shape),
        "saliency": (soft > 127.5).astype(np.uint8),
        "normals": normals,
        "edge": thin(np.abs(laplacian) > 0).astype(np.uint8),
    }
    raw = {
        "LabelMap": label_map.astype(np.uint16),
        "saliency": soft.astype(np.uint8),
        "semseg": voc.astype(np.uint8),
        "instance edge": _borders(frame.instance),
    }
    return Scene("", frame.image, tasks, raw, objects)


def _native_size(index: int, height: int, width: int) -> tuple[int, int]:
    """Another size for each image, odd and even, every second one upright."""
    size = (height + index // 4, width - index % 4)
    return size[::-1] if index % 2 else size


def _shifted(values: Array, down: int, right: int) -> Array:
    """The map moved by one pixel, mirrored about its outermost pixels."""
    return np.roll(np.pad(values, 1, mode="reflect"), (down, right), (0, 1))[1:-1, 1:-1]


def _objects(frame: Frame, voc: Array, where: tuple[slice, slice], listed: bool, annotated: bool) -> Iterator[Object]:
    """People with parts if `annotated`, furniture without, a cat with parts; if `listed`, also a person without parts."""
    for room, number in VOC_OF_ROOM.items():
        of_class = frame.labels["semseg"] == CLASS_NAMES.index(room)
        for instance in np.unique(frame.instance[of_class]):
            mask = of_class & (frame.instance == instance)
            parts = (
                list(_body_parts(np.where(mask, frame.labels["human_parts"], 0)))
                if room == "person" and annotated
                else []
            )
            yield Object(VOC_NAMES[number], number, mask, parts)
    in_chart = np.zeros(voc.shape, bool)
    in_chart[where] = True
    cat = in_chart & (voc == 8)
    yield Object("cat", 8, cat, [("head", cat), ("torso", cat), ("leye", cat)])
    if listed:
        yield Object("person", 15, in_chart & (voc == 15), [])
    yield Object("tvmonitor", 20, in_chart & (voc == 20), [])


def _body_parts(ids: Array) -> Iterator[tuple[str, Array]]:
    """The 24 names of the field from the six ids of the rooms; they overlap, and the later one counts."""
    rows, columns = np.indices(ids.shape)
    for number in np.unique(ids[ids > 0]):
        mask = ids == number
        top, middle = rows[mask].min(), np.median(columns[mask])
        left, low = columns >= middle, rows > (top + rows[mask].max()) / 2
        names = [name for name in PARTS if PARTS[name] == number]
        if number == 1:
            pixels = itertools.cycle(np.argwhere(mask))
            masks = [mask, mask & ~low, *(_dot(mask.shape, next(pixels)) for _ in names[2:])]
        elif number == 2:
            masks = [(mask & (rows == top)) | _dot(mask.shape, (max(top - 1, 0), int(middle))), mask & (rows > top)]
        elif len(names) == 2:
            masks = [mask & left, mask & ~left]
        else:
            masks = [mask & left & ~low, mask & left & low, mask & ~left & ~low, mask & ~left & low]
        yield from ((name, m) for name, m in zip(names, masks, strict=True) if m.any())


def _dot(shape: tuple[int, ...], pixel: Any) -> Array:
    mask = np.zeros(shape, bool)
    mask[tuple(pixel)] = True
    return mask


def _paint_parts(objects: Collection[Object], shape: tuple[int, ...]) -> Array:
    label = np.zeros(shape, np.uint8)
    for part, mask in itertools.chain.from_iterable(thing.parts for thing in objects if thing.number == 15):
        label[mask] = PARTS[part]
    return label if label.any() else np.full(shape, VOID, np.uint8)


@lru_cache(maxsize=256)
def _folder_scene(split: str, index: int, height: int, width: int, seed: int) -> Scene:
    frame = _frame(split, index, *_native_size(index, height, width), seed)
    depth, normals = _with_holes(frame)
    semseg = frame.labels["semseg"].copy()
    semseg[:, -2:] = VOID
    labels = {**frame.labels, "semseg": semseg, "depth": depth, "normals": normals}
    return Scene("", frame.image, labels)


# ---- files ----


def _new(root: Path, *parts: str) -> Path:
    path = root.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _save_jpeg(path: Path, array: Array, subsampling: int = -1) -> Array:
    """Write, and give back what it decodes to."""
    Image.fromarray(array).save(path, quality=95, subsampling=subsampling)
    with Image.open(path) as image:
        return np.array(image)


def _save_png(path: Path, array: Array) -> None:
    Image.fromarray(array).save(path, compress_level=1)


def _save_mat(path: Path, **arrays: Array) -> None:
    scipy.io.savemat(path, arrays, do_compression=True)


def _encode_normals(normals: Array) -> Array:
    """8 bits; the zero vector falls between 127 and 128 and takes either."""
    codes = np.round((normals + 1) * 127.5).astype(np.uint8)
    codes[::2][(normals[::2] == 0).all(-1)] = 127
    return codes


def _decode_normals(codes: Array) -> Array:
    vectors = codes * (2 / 255) - 1
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length < 0.5, 0, vectors / np.maximum(length, 0.5)).astype(np.float32)


def _write_lists(folder: Path, truth: Truth) -> Truth:
    for split, scenes in truth.items():
        _new(folder, f"{split}.txt").write_text("".join(f"{scene.id}\n" for scene in scenes))
    return truth


def _write_each(root: Path, scenes: Truth, write: Callable[[Path, Scene], Scene]) -> Truth:
    return {split: [write(Path(root), scene) for scene in scenes[split]] for split in scenes}


def _nyud_file_ids(scene: Scene) -> Array:
    """0 for void, else the class from 1; uint8."""
    return scene.labels["semseg"] + np.uint8(1)


# ---- NYUD-v2 ----


def write_nyud_a(root: Path, scenes: Truth) -> Truth:
    """`NYUD_MT` of ASTMT: JPEG images and normals, .mat semseg (uint8 for even ids, float64 for odd) and depth."""
    return _write_lists(Path(root, "gt_sets"), _write_each(root, scenes, _write_a))


def _write_a(root: Path, scene: Scene) -> Scene:
    labels = scene.labels
    image = _save_jpeg(_new(root, "images", f"{scene.id}.jpg"), scene.image)
    ids = _nyud_file_ids(scene).astype(np.float64 if int(scene.id) % 2 else np.uint8)
    _save_mat(_new(root, "segmentation", f"{scene.id}.mat"), segmentation=ids)
    _save_mat(_new(root, "depth", f"{scene.id}.mat"), depth=labels["depth"])
    codes = _save_jpeg(_new(root, "normals", f"{scene.id}.jpg"), _encode_normals(labels["normals"]), subsampling=0)
    _save_png(_new(root, "edge", f"{scene.id}.png"), labels["edge"] * np.uint8(255))
    return replace(scene, image=image, labels={**labels, "normals": _decode_normals(codes)})


def write_nyud_b(root: Path, scenes: Truth) -> Truth:
    """`NYUD_MT` of MTL-PyTorch: JPEG images, PNG semseg, the rest .npy; only the images lose precision."""
    return _write_lists(Path(root, "gt_sets"), _write_each(root, scenes, _write_b))


def _write_b(root: Path, scene: Scene) -> Scene:
    image = _save_jpeg(_new(root, "images", f"{scene.id}.jpg"), scene.image)
    _save_png(_new(root, "segmentation", f"{scene.id}.png"), _nyud_file_ids(scene))
    for task in ("depth", "normals", "edge"):
        np.save(_new(root, task, f"{scene.id}.npy"), scene.labels[task])
    return replace(scene, image=image)


def write_nyud_c(root: Path, scenes: Truth) -> Truth:
    """`NYUDv2` of ATRC and InvPT: PNG everywhere but .npy depth; only the normals lose precision."""
    return _write_lists(Path(root, "gt_sets"), _write_each(root, scenes, _write_c))


def _write_c(root: Path, scene: Scene) -> Scene:
    labels = scene.labels
    codes = _encode_normals(labels["normals"])
    _save_png(_new(root, "images", f"{scene.id}.png"), scene.image)
    _save_png(_new(root, "segmentation", f"{scene.id}.png"), _nyud_file_ids(scene))
    np.save(_new(root, "depth", f"{scene.id}.npy"), labels["depth"])
    _save_png(_new(root, "normals", f"{scene.id}.png"), codes)
    _save_png(_new(root, "edge", f"{scene.id}.png"), labels["edge"] * np.uint8(255))
    return replace(scene, labels={**labels, "normals": _decode_normals(codes)})


def _with_13_classes(scene: Scene, name: str) -> Scene:
    """As D and E know it: 13 classes and no edges; ids count from 0 in each split."""
    classes = np.array([*NYU13_OF_40, *[VOID] * 216], np.uint8)[scene.labels["semseg"]]
    labels = {"semseg": classes, **{task: scene.labels[task] for task in ("depth", "normals")}}
    return Scene(name, scene.image, labels)


def write_nyud_d(root: Path, scenes: Truth) -> Truth:
    """`nyuv2` of MTAN: .npy, channels last, nothing is lost."""
    truth = {split: [_with_13_classes(s, str(k)) for k, s in enumerate(scenes[split])] for split in scenes}
    for split in truth:
        for scene in truth[split]:
            labels, name = scene.labels, f"{scene.id}.npy"
            semseg = labels["semseg"].astype(np.float32)
            np.save(_new(root, split, "image", name), (scene.image / 255).astype(np.float32))
            np.save(_new(root, split, "label", name), np.where(semseg == VOID, np.float32(-1), semseg))
            np.save(_new(root, split, "depth", name), labels["depth"][..., None])
            np.save(_new(root, split, "normal", name), labels["normals"])
    return truth


def write_nyud_e(root: Path, scenes: Truth) -> Truth:
    """Parquet as `tanganke/nyuv2` on the Hub, its extra column `noise` too: channels first, train in two shards."""
    from datasets import Array2D, Array3D, Dataset, Features

    truth = {split: [_with_13_classes(s, str(k)) for k, s in enumerate(scenes[split])] for split in scenes}
    for split in truth:
        rows = [_hub_row(scene) for scene in truth[split]]
        if not rows:
            continue
        features = {name: Array3D(array.shape, "float32") for name, array in rows[0].items() if array.ndim == 3}
        features["segmentation"] = Array2D(rows[0]["segmentation"].shape, "int64")
        table = Dataset.from_dict(
            {name: [row[name] for row in rows] for name in rows[0]}, Features({n: features[n] for n in rows[0]})
        )
        shards = min(2 if split == "train" else 1, len(rows))
        for k in range(shards):
            path = _new(root, "data", f"{split}-{k:05d}-of-{shards:05d}.parquet")
            table.shard(shards, k, contiguous=True).to_parquet(path)
    return truth


def _hub_row(scene: Scene) -> dict[str, Array]:
    semseg = scene.labels["semseg"].astype(np.int64)
    return {
        "image": (scene.image.transpose(2, 0, 1) / 255).astype(np.float32),
        "segmentation": np.where(semseg == VOID, -1, semseg),
        "depth": scene.labels["depth"][None],
        "normal": scene.labels["normals"].transpose(2, 0, 1),
        "noise": np.random.default_rng(int(scene.id)).random((1, *semseg.shape), np.float32),
    }


def write_nyud_o(root: Path, scenes: Truth) -> Truth:
    """The official files: HDF5 whose axes h5py shows reversed, and two MATLAB 5 files.

    The cells of strings are left out. Normals and edges are not in the files: those of the truth are the scene's, with
    `edge` = border of (label, instance) towards the right or the lower pixel. Frames of no split are blank.
    """
    frames = {int(scene.id): scene for split in scenes.values() for scene in split}
    height, width = next(iter(frames.values())).image.shape[:2]
    count = max(frames)
    arrays = {
        "images": np.zeros((count, 3, width, height), np.uint8),
        "depths": np.zeros((count, width, height), np.float32),
        "rawDepths": np.zeros((count, width, height), np.float32),
        "labels": np.zeros((count, width, height), np.uint16),
        "instances": np.zeros((count, width, height), np.uint8),
    }
    for number, scene in frames.items():
        arrays["images"][number - 1] = scene.image.transpose(2, 1, 0)
        arrays["depths"][number - 1] = scene.labels["depth"].T
        arrays["rawDepths"][number - 1, ::2] = scene.labels["depth"].T[::2]
        arrays["labels"][number - 1] = scene.raw["labels"].T
        arrays["instances"][number - 1] = scene.raw["instances"].T
    path = _new(root, "nyu_depth_v2_labeled.mat")
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            chunk = (1, *array.shape[1:])
            dataset = file.create_dataset(name, data=array, chunks=chunk, compression="gzip", compression_opts=1)
            kind = {"float32": "single"}.get(str(array.dtype), str(array.dtype))
            dataset.attrs["MATLAB_class"] = np.bytes_(kind)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(124) + b"\x00\x02IM")
    numbers = {split: np.array([[int(s.id)] for s in scenes[split]], np.uint16).reshape(-1, 1) for split in scenes}
    _save_mat(Path(root, "splits.mat"), trainNdxs=numbers["train"], testNdxs=numbers["val"])
    _save_mat(Path(root, "classMapping40.mat"), mapClass=MAP_CLASS[None])
    return scenes


# ---- PASCAL-Context ----


def write_pascal(root: Path, scenes: Truth, edges: bool = False, valid_ids: Collection[int] = NORMALS_VALID) -> Truth:
    """The one tree of PASCAL-Context.

    The third, sixth, ... image of a split has its semseg in semseg/pascal-context (grey, no void), the second, fifth,
    ... in both folders. Normals are true on the Context classes `valid_ids` only. With `edges` there is
    edge/ID.png (borders of instances), else the truth is the thinned Laplacian of LabelMap.
    """
    truth: Truth = {}
    for split in scenes:
        pairs = enumerate(scenes[split])
        truth[split] = [_write_pascal_scene(Path(root), k, scene, edges, valid_ids) for k, scene in pairs]
        persons = {scene.id: [thing.number for thing in scene.objects] for scene in scenes[split]}
        _new(root, "ImageSets", "Parts", f"{split}.txt").write_text(json.dumps(persons, indent="\t"))
    return _write_lists(Path(root, "ImageSets", "Context"), truth)


def _write_pascal_scene(root: Path, index: int, scene: Scene, edges: bool, valid_ids: Collection[int]) -> Scene:
    labels, raw, name = dict(scene.labels), scene.raw, scene.id
    image = _save_jpeg(_new(root, "JPEGImages", f"{name}.jpg"), scene.image)
    if index % 3 == 2:
        labels["semseg"] = raw["semseg"]
    else:
        coloured = Image.fromarray(labels["semseg"])
        coloured.putpalette(voc_palette().tobytes())  # turns L into P and keeps the values
        coloured.save(_new(root, "semseg", "VOC12", f"{name}.png"))
    if index % 3:
        _save_png(_new(root, "semseg", "pascal-context", f"{name}.png"), raw["semseg"])
    _save_mat(_new(root, "human_parts", f"{name}.mat"), anno=_annotation(scene))
    _save_mat(_new(root, "pascal-context", "trainval", f"{name}.mat"), LabelMap=raw["LabelMap"])
    codes = _encode_normals(labels["normals"])
    _save_png(_new(root, "normals_distill", f"{name}.png"), codes)
    _save_png(_new(root, "sal_distill", f"{name}.png"), raw["saliency"])
    if edges:
        labels["edge"] = raw["instance edge"]
        _save_png(_new(root, "edge", f"{name}.png"), labels["edge"] * np.uint8(255))
    normals = _decode_normals(codes)
    labels["normals"] = np.where(np.isin(raw["LabelMap"], list(valid_ids))[..., None], normals, np.float32(0))
    return replace(scene, image=image, labels=labels, raw={**raw, "normals": normals})


def _annotation(scene: Scene) -> Array:
    """MATLAB structs: anno(1).objects(k).parts(j).mask; no parts are an empty matrix, not an empty struct."""
    objects = _struct(len(scene.objects), "class", "class_ind", "mask", "parts")
    for thing, (name, number, mask, pieces) in zip(objects[0], scene.objects, strict=True):
        parts = _struct(len(pieces), "name", "mask")
        for part, (part_name, part_mask) in zip(parts[0], pieces, strict=True):
            part["name"], part["mask"] = part_name, part_mask
        thing["class"], thing["class_ind"], thing["mask"] = name, np.array([[number]], np.uint8), mask
        thing["parts"] = parts if pieces else np.zeros((0, 0))
    anno = _struct(1, "imname", "objects")
    anno[0, 0]["imname"], anno[0, 0]["objects"] = scene.id, objects
    return anno


def _struct(count: int, *fields: str) -> Array:
    return np.empty((1, count), [(name, object) for name in fields])


def voc_palette() -> Array:
    """The colours of VOC, uint8 (256, 3): the bits of an id are dealt to red, green and blue in turn."""
    ids = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((ids >> 3 * bit + channel & 1) << 7 - bit).astype(np.uint8)
    return colours


# ---- own data ----


def write_folder(root: Path, scenes: Truth) -> Truth:
    """Own data as in the README, both file kinds of each task; the second image has no depth, the fifth no parts."""
    without = {1: "depth", 4: "human_parts"}
    truth = {
        split: [_write_own(Path(root), k, scene, without.get(k)) for k, scene in enumerate(scenes[split])]
        for split in scenes
    }
    tasks: dict[str, dict[str, Any]] = {task: {} for task in ("depth", "normals", "edge", "saliency", "human_parts")}
    tasks["semseg"] = {"num_classes": len(CLASS_NAMES), "class_names": list(CLASS_NAMES), "ignore_index": VOID}
    _new(root, "dataset.json").write_text(json.dumps({"name": "rooms", "tasks": tasks}, indent=2))
    return _write_lists(Path(root), truth)


def _write_own(root: Path, index: int, scene: Scene, missing: str | None) -> Scene:
    labels, image, name = {t: a for t, a in scene.labels.items() if t != missing}, scene.image, scene.id
    even = index % 2 == 0
    if even:
        image = _save_jpeg(_new(root, "images", f"{name}.jpg"), scene.image)
    else:
        _save_png(_new(root, "images", f"{name}.png"), scene.image)
    for task in labels:
        png, npy = _new(root, task, f"{name}.png"), _new(root, task, f"{name}.npy")
        if task == "depth" and even:
            millimetres = np.round(labels[task] * 1000).astype(np.uint16)
            _save_png(png, millimetres)
            labels[task] = (millimetres / 1000).astype(np.float32)
        elif task == "normals" and even:
            codes = _encode_normals(labels[task])
            _save_png(png, codes)
            labels[task] = _decode_normals(codes)
        elif task in ("depth", "normals"):
            np.save(npy, labels[task])
        else:
            _save_png(png, labels[task] * np.uint8(255 if task == "edge" else 1))
    return replace(scene, image=image, labels=labels)


# ---- all of them ----


class Layout(NamedTuple):
    """Writer, maker of its scenes, and the height and width of a miniature."""

    write: Callable[[Path, Truth], Truth]
    scenes: Callable[..., Truth]
    height: int = 45
    width: int = 61


LAYOUTS = {
    "A": Layout(write_nyud_a, nyud_scenes),
    "B": Layout(write_nyud_b, nyud_scenes),
    "C": Layout(write_nyud_c, nyud_scenes),
    "D": Layout(write_nyud_d, nyud_scenes, 36, 48),
    "E": Layout(write_nyud_e, nyud_scenes, 36, 48),
    "O": Layout(write_nyud_o, nyud_scenes),
    "pascal": Layout(write_pascal, pascal_scenes),
    "pascal_edge": Layout(partial(write_pascal, edges=True), pascal_scenes),
    "folder": Layout(write_folder, folder_scenes),
}


def write_tree(
    layout: str,
    root: Path,
    train: int = 6,
    val: int = 3,
    height: int | None = None,
    width: int | None = None,
    seed: int = 0,
) -> Truth:
    """Write a tree of one of `LAYOUTS` into `root` (made if need be) and give back what a reader must find there."""
    kind = LAYOUTS[layout]
    Path(root).mkdir(parents=True, exist_ok=True)
    scenes = kind.scenes(train, val, height or kind.height, width or kind.width, seed)
    return kind.write(Path(root), scenes)


def make_archive(root: Path, path: Path) -> Path:
    """Pack a tree, its top folder included, as the suffix of `path` says: .tgz, .tar.gz or .zip."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(root.rglob("*")):
                archive.write(file, Path(root.name, file.relative_to(root)))
    else:
        with tarfile.open(path, "w:gz", compresslevel=1) as archive:
            archive.add(root, root.name)
    return path


# ---- faults; each spoils the file at `path` ----


def _edit(path: Path, change: Callable[[Array], Array]) -> None:
    """Apply `change` to the array of a .npy, to the only variable of a .mat, or to the pixels of a PNG."""
    if path.suffix == ".npy":
        np.save(path, change(np.load(path)))
    elif path.suffix == ".mat":
        [(key, array)] = ((k, a) for k, a in scipy.io.loadmat(path).items() if not k.startswith("__"))
        _save_mat(path, **{key: change(array)})
    else:
        with Image.open(path) as image:
            array = np.array(image)
        Image.fromarray(change(array)).save(path)


def _set_centre(path: Path, value: float) -> None:
    def change(array: Array) -> Array:
        array = array.copy()
        array[array.shape[0] // 2, array.shape[1] // 2] = value
        return array

    _edit(path, change)


def truncate(path: Path, keep: float = 0.5) -> None:
    """Cut any file, e.g. a JPEG, after this share of its bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def cut_after_mat_header(path: Path) -> None:
    """The 128 bytes that scipy.io.loadmat reads as a file without variables."""
    path.write_bytes(path.read_bytes()[:128])


def drop_mat_key(path: Path, key: str | None = None) -> None:
    """Rename a variable of a MATLAB 5 file (the only one for None), or delete it from an HDF5 one."""
    if h5py.is_hdf5(path):
        with h5py.File(path, "r+") as file:
            del file[key]
        return
    content = {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")}
    content["other"] = content.pop(key or next(iter(content)))
    _save_mat(path, **content)


def colour_ids(path: Path) -> None:
    """Class ids of a PNG by their RGB colours."""
    _edit(path, lambda ids: voc_palette()[ids])


def set_label(path: Path, value: int = 41) -> None:
    """An id out of range in the centre."""
    _set_centre(path, value)


def set_nan(path: Path) -> None:
    """NaN in the centre of a float .npy or .mat."""
    _set_centre(path, np.nan)


def crop_label(path: Path) -> None:
    """One row less than the image has."""
    _edit(path, lambda array: array[:-1])


def depth_as_8_bit(path: Path) -> None:
    """Depth as an 8-bit grey ramp."""
    _edit(path, lambda depth: np.round(depth * (255 / depth.max())).astype(np.uint8))


def depth_as_millimetres(path: Path) -> None:
    """Float millimetres where metres are expected."""
    _edit(path, lambda depth: depth * np.float32(1000))


def normals_as_0_to_1(path: Path) -> None:
    """Normals of a .npy as (n + 1) / 2, float."""
    _edit(path, lambda normals: (normals + 1) / 2)


def normals_as_0_to_255(path: Path) -> None:
    """Normals of a .npy as 255 (n + 1) / 2, float."""
    _edit(path, lambda normals: (normals + 1) * np.float32(127.5))


def pickle_npy(path: Path) -> None:
    """A .npy of Python objects."""
    _edit(path, lambda array: array.astype(object))


def add_id(path: Path, sample_id: str = "9999") -> None:
    """An id in a list that has no files."""
    path.write_text(path.read_text() + f"{sample_id}\n")


def add_stray_file(path: Path, sample_id: str = "9999") -> Path:
    """A copy of a file under an id that is in no list."""
    return shutil.copy(path, path.with_name(f"{sample_id}{path.suffix}"))


def make_bomb(path: Path, height: int = 30_000, width: int = 30_000) -> None:
    """A PNG or JPEG whose header promises more pixels than anyone wants."""
    content = bytearray(path.read_bytes())
    if path.suffix == ".png":
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    else:
        at = 2
        while content[at + 1] not in (0xC0, 0xC1, 0xC2):  # up to the frame header
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    path.write_bytes(content)
