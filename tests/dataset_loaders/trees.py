"""Miniature, valid copies of the public NYUD-v2 and PASCAL-Context trees and of own data, made of random blocks.

Nothing is shared with the loaders (plain numpy, PIL, scipy.io, h5py, datasets), and every writer returns the truth,
{split: [Scene]}: the arrays that a reader must come to, rounded as the files round them. The functions at the end spoil
one file of a tree.
"""

import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import scipy.ndimage
from PIL import Image
from skimage.morphology import thin

Array = np.ndarray
SPLITS = ("train", "val")
VOID, OWN_VOID = 255, 200  # of a label; in the files of own data
CLASS_NAMES = [f"thing {k}" for k in range(11)]  # of own data
# Made up, in the form of classMapping40.mat: class 1..40 of the label 1..894 at index label - 1; all classes occur.
MAP_CLASS = np.array([7 * label % 40 + 1 for label in range(1, 895)], np.uint8)
LABEL_OF_40 = np.array([0, *(1 + np.flatnonzero(c == MAP_CLASS)[-1] for c in range(1, 41))])
# Ids among the 459 classes: wall, floor, person, tvmonitor; unknown to NYU: sky, aeroplane, and the first and the last.
CONTEXT, NORMALS_VALID = np.array([440, 158, 284, 427, 360, 2, 1, 459]), (440, 158, 284, 427)
PARTS = {"head": 1, "torso": 2, "luarm": 3, "rhand": 4, "luleg": 5, "rfoot": 6}


@dataclass(frozen=True)
class Scene:
    """One image and what a reader must make of its label files.

    `labels`, by task: semseg u8 (255 void), depth f32 metres (0 invalid), normals f32 (H, W, 3) unit (0 invalid),
    edge u8 {0, 1}, human_parts u8 (255 where nobody is annotated), saliency u8 {0, 1}. `raw` holds values as files do.
    """

    id: str
    image: Array
    labels: dict[str, Array]
    raw: dict[str, Any] = field(default_factory=dict)


Truth = dict[str, list[Scene]]


# ---- scenes ----


def _blocks(rng: np.random.Generator, count: int, height: int, width: int) -> Array:
    """Ids below `count` in blocks of 5x5 pixels; each occurs where there are as many blocks."""
    grid = np.resize(rng.permutation(count), (-(-height // 5), -(-width // 5)))
    return np.kron(grid, np.ones((5, 5), int))[:height, :width]


def _borders(ids: Array) -> Array:
    """1 where the right or the lower neighbour differs; uint8."""
    edge = np.zeros(ids.shape, np.uint8)
    edge[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    edge[:-1] |= ids[:-1] != ids[1:]
    return edge


def _scene(layout: str, split: str, index: int, height: int, width: int) -> Scene:
    """An image, smooth depth and normals with holes, 40 classes with void, saliency, parts and edges."""
    rng = np.random.default_rng([SPLITS.index(split), index])
    if layout in ("pascal", "folder"):  # images of several sizes, every second one upright
        height, width = (height + index // 4, width - index % 4)[:: -1 if index % 2 else 1]
    ids = _blocks(rng, 41, height, width)
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    depth = (1 + ids / 10 + rows + columns).astype(np.float32)
    normals = np.stack([np.sin(3 * columns + index), np.cos(4 * rows), np.ones_like(rows)], -1)
    normals = (normals / np.linalg.norm(normals, axis=-1, keepdims=True)).astype(np.float32)
    depth[-6:-2, 5:15] = normals[-6:-2, 2:15] = 0
    labels = {"semseg": (ids - 1).astype(np.uint8), "depth": depth, "normals": normals, "edge": _borders(ids)}
    labels |= {"saliency": (ids % 3 == 0).astype(np.uint8), "human_parts": (ids % 7).astype(np.uint8)}
    image = rng.integers(0, 256, (41, 3))[ids] * 0.8 + 50 * rows[..., None]
    return Scene("", image.astype(np.uint8), labels, {"ids": ids})


# ---- files ----


def _new(root: Path, *parts: str) -> Path:
    path = root.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def save(path: Path, array: Array, variable: str = "") -> Array:
    """Write a JPEG, PNG, .npy or .mat, whose variable has the name of its folder by default; gives back what it decodes to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {variable or path.parent.name: array}, do_compression=True)
    elif path.suffix == ".png":
        Image.fromarray(array).save(path, compress_level=1)
    else:
        Image.fromarray(array).save(path, quality=95, subsampling=0)
        return np.array(Image.open(path))
    return array


def _encode_normals(normals: Array) -> Array:
    """8 bits; the zero vector falls between 127 and 128."""
    return np.round((normals + 1) * 127.5).astype(np.uint8)


def _decode_normals(codes: Array) -> Array:
    vectors = codes * (2 / 255) - 1
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length < 0.5, 0, vectors / np.maximum(length, 0.5)).astype(np.float32)


def _each(truth: Truth) -> Iterator[tuple[str, Scene]]:
    return ((split, scene) for split in truth for scene in truth[split])


def _write_lists(folder: Path, truth: Truth) -> None:
    for split, scenes in truth.items():
        _new(folder, f"{split}.txt").write_text("".join(f"{scene.id}\n" for scene in scenes))


# ---- NYUD-v2 ----

# Ends of the files of images, semseg, depth, normals and edges: ASTMT, MTL-PyTorch, ATRC.
NYUD = {"A": "jpg mat mat jpg png", "B": "jpg png npy npy npy", "C": "png png npy png png"}


def _write_nyud(layout: str, root: Path, scenes: Truth) -> Truth:
    """A tree with lists of ids; semseg counts from 1, with 0 for void; in A some are float64."""
    photo, *suffixes = NYUD[layout].split()
    truth: Truth = {split: [] for split in scenes}
    for split, scene in _each(scenes):
        labels = {task: scene.labels[task] for task in ("semseg", "depth", "normals", "edge")}
        image = save(root / f"images/{scene.id}.{photo}", scene.image)
        for (task, label), suffix in zip(labels.items(), suffixes, strict=True):
            path = root / (task if task != "semseg" else "segmentation") / f"{scene.id}.{suffix}"
            if task == "semseg":
                ids = label + np.uint8(1)
                save(path, ids.astype(np.float64) if layout == "A" and int(scene.id) % 2 else ids)
            elif task == "normals" and suffix != "npy":
                labels = labels | {task: _decode_normals(save(path, _encode_normals(label)))}
            else:
                save(path, label * np.uint8(255) if task == "edge" and suffix == "png" else label)
        truth[split].append(replace(scene, image=image, labels=labels))
    _write_lists(root / "gt_sets", truth)
    return truth


def _with_13_classes(scenes: Truth) -> Truth:
    """As D and E know it: 13 classes and no edges; ids count from 0 in each split."""

    def one(scene: Scene, name: str) -> Scene:
        semseg = scene.labels["semseg"]
        labels = {"semseg": np.where(semseg == VOID, VOID, semseg % 13).astype(np.uint8)}
        return Scene(name, scene.image, labels | {task: scene.labels[task] for task in ("depth", "normals")})

    return {split: [one(scene, str(k)) for k, scene in enumerate(scenes[split])] for split in scenes}


def _write_nyud_d(root: Path, scenes: Truth) -> Truth:
    """`nyuv2` of MTAN: .npy, channels last, nothing is lost."""
    truth = _with_13_classes(scenes)
    for split, scene in _each(truth):
        semseg, folder, name = scene.labels["semseg"].astype(np.float32), root / split, f"{scene.id}.npy"
        save(folder / "image" / name, (scene.image / 255).astype(np.float32))
        save(folder / "label" / name, np.where(semseg == VOID, np.float32(-1), semseg))
        save(folder / "depth" / name, scene.labels["depth"][..., None])
        save(folder / "normal" / name, scene.labels["normals"])
    return truth


def _write_nyud_e(root: Path, scenes: Truth) -> Truth:
    """Parquet as `tanganke/nyuv2` on the Hub, its extra column `noise` too: channels first, train in two shards."""
    from datasets import Array2D, Array3D, Dataset, Features

    truth = _with_13_classes(scenes)
    for split in truth:
        rows: dict[str, list[Array]] = {name: [] for name in ("image", "segmentation", "depth", "normal", "noise")}
        for scene in truth[split]:
            semseg = scene.labels["semseg"].astype(np.int64)
            rows["image"].append((scene.image.transpose(2, 0, 1) / 255).astype(np.float32))
            rows["segmentation"].append(np.where(semseg == VOID, -1, semseg))
            rows["depth"].append(scene.labels["depth"][None])
            rows["normal"].append(scene.labels["normals"].transpose(2, 0, 1))
            rows["noise"].append(np.ones((1, *semseg.shape), np.float32))
        columns = {
            name: (Array2D if a[0].ndim == 2 else Array3D)(a[0].shape, str(a[0].dtype)) for name, a in rows.items()
        }
        table, shards = Dataset.from_dict(rows, Features(columns)), min(2 if split == "train" else 1, len(truth[split]))
        for k in range(shards):
            path = _new(root, "data", f"{split}-{k:05d}-of-{shards:05d}.parquet")
            table.shard(shards, k, contiguous=True).to_parquet(path)
    return truth


def _write_nyud_o(root: Path, scenes: Truth) -> Truth:
    """The official files: HDF5 whose axes h5py shows reversed, and two MATLAB 5 files; normals and edges are not there."""
    frames = sorted((scene for split in scenes.values() for scene in split), key=lambda scene: int(scene.id))
    ids = [scene.raw["ids"] for scene in frames]
    arrays = {
        "images": np.stack([scene.image.transpose(2, 1, 0) for scene in frames]),
        "depths": np.stack([scene.labels["depth"].T for scene in frames]),
        "labels": np.stack([LABEL_OF_40[classes].T for classes in ids]).astype(np.uint16),
        "instances": np.stack([(classes > 0).T for classes in ids]).astype(np.uint8),
    }
    with h5py.File(_new(root, "nyu_depth_v2_labeled.mat"), "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, chunks=(1, *array.shape[1:]), compression="gzip", compression_opts=1)
    numbers = {split: np.array([[int(s.id)] for s in scenes[split]], np.uint16).reshape(-1, 1) for split in scenes}
    scipy.io.savemat(root / "splits.mat", {"trainNdxs": numbers["train"], "testNdxs": numbers["val"]})
    scipy.io.savemat(root / "classMapping40.mat", {"mapClass": MAP_CLASS[None]})
    return scenes


# ---- PASCAL-Context ----


def _write_pascal(root: Path, scenes: Truth, edges: bool = False) -> Truth:
    """The one tree of PASCAL-Context.

    The third, sixth, ... image of a split has its semseg in semseg/pascal-context (grey, no void) and nobody annotated;
    the second, fifth, ... has its semseg in both folders. With `edges` there is edge/ID.png, else edges are derived.
    """
    truth = {split: [_write_pascal_scene(root, k, s, edges) for k, s in enumerate(scenes[split])] for split in scenes}
    for split in truth:
        index = {scene.id: scene.raw["classes"] for scene in truth[split]}
        _new(root, "ImageSets", "Parts", f"{split}.txt").write_text(json.dumps(index))
    _write_lists(root / "ImageSets/Context", truth)
    return truth


def _write_pascal_scene(root: Path, index: int, scene: Scene, edges: bool) -> Scene:
    ids, name = scene.raw["ids"], scene.id
    voc, label_map = (ids % 21).astype(np.uint8), CONTEXT[ids % len(CONTEXT)].astype(np.uint16)
    soft = np.random.default_rng(index).integers(0, 256, ids.shape).astype(np.uint8)
    soft[0, :4] = 0, 127, 128, 255
    image = save(root / f"JPEGImages/{name}.jpg", scene.image)
    semseg = voc if index % 3 == 2 else np.where(_borders(voc), VOID, voc).astype(np.uint8)
    if index % 3 != 2:
        coloured = Image.fromarray(semseg)
        coloured.putpalette(palette().tobytes())  # turns L into P and keeps the values
        coloured.save(_new(root, "semseg", "VOC12", f"{name}.png"))
    if index % 3:
        save(root / f"semseg/pascal-context/{name}.png", voc)
    people = [(n, ids % 9 == k) for n, k in PARTS.items()] if index % 3 != 2 else []
    things = [("person", 15, people), ("cat", 8, [("head", ids == 1)]), *([("person", 15, [])] if index % 2 else [])]
    save(root / f"human_parts/{name}.mat", annotation(ids.shape, things), "anno")
    save(root / f"pascal-context/trainval/{name}.mat", label_map, "LabelMap")
    codes = save(root / f"normals_distill/{name}.png", _encode_normals(scene.labels["normals"]))
    save(root / f"sal_distill/{name}.png", soft)
    edge = scene.labels["edge"] if edges else thin(scipy.ndimage.laplace(label_map.astype(float), mode="mirror") != 0)
    if edges:
        save(root / f"edge/{name}.png", edge * np.uint8(255))
    parts = np.full(ids.shape, 0 if people else VOID, np.uint8)
    for part, mask in people:
        parts[mask] = PARTS[part]
    known = np.isin(label_map, NORMALS_VALID)[..., None]
    labels = {
        "semseg": semseg,
        "human_parts": parts,
        "saliency": (soft > 127.5).astype(np.uint8),
        "normals": np.where(known, _decode_normals(codes), np.float32(0)),
        "edge": edge.astype(np.uint8),
    }
    return Scene(name, image, labels, {"classes": [number for _, number, _ in things]})


def struct_array(fields: str, *rows: Any) -> Array:
    """A MATLAB struct array (1, n)."""
    array = np.empty((1, len(rows)), [(name, object) for name in fields.split()])
    for k, row in enumerate(rows):
        array[0, k] = tuple(row)
    return array


def annotation(shape: tuple[int, ...], things: list[tuple[str, int, list[tuple[str, Array]]]]) -> Array:
    """MATLAB structs: anno(1).objects(k).parts(j).mask; no parts are an empty matrix, not an empty struct."""
    objects = []
    for name, number, parts in things:
        pieces = struct_array("name mask", *parts) if parts else np.zeros((0, 0))
        objects.append((name, np.array([[number]], np.uint8), np.ones(shape, np.uint8), pieces))
    found = struct_array("class class_ind mask parts", *objects) if objects else np.zeros((0, 0))
    return struct_array("imname objects", ("name", found))


def palette() -> Array:
    """Any 256 colours, uint8 (256, 3)."""
    return np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)


def png_bytes(width: int, height: int, bits: int, colour: int, *chunks: bytes) -> bytes:
    """A PNG from its header (colour 0 grey, 2 RGB, 3 palette) and the body of its further chunks, name first."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    packed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, *chunks))
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def encoded(image: Any, kind: str = "PNG", orientation: int | None = None, **options: Any) -> bytes:
    """The content of a file of this picture or array."""
    if orientation is not None:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def packed_png(rows: Array, bits: int, colour: int) -> bytes:
    """A PNG of any depth; `rows` (height, width * channels) hold its samples."""
    if bits == 16:
        lines = [row.astype(">u2").tobytes() for row in rows]
    else:
        lines = [
            np.packbits(np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :]).tobytes() for row in rows
        ]
    data = b"IDAT" + zlib.compress(b"".join(b"\0" + line for line in lines))
    palette_chunk = [b"PLTE" + palette()[: 2**bits].tobytes()] if colour == 3 else []
    return png_bytes(rows.shape[1] // (3 if colour == 2 else 1), len(rows), bits, colour, *palette_chunk, data, b"IEND")


# ---- own data ----


def _write_folder(root: Path, scenes: Truth) -> Truth:
    """Own data as in the README, both file kinds of each task; the second image has no depth, the fifth no parts."""
    truth = {split: [_write_own(root, k, scene) for k, scene in enumerate(scenes[split])] for split in scenes}
    tasks: dict[str, dict[str, Any]] = {task: {} for task in ("depth", "normals", "edge", "saliency", "human_parts")}
    tasks["semseg"] = {"num_classes": len(CLASS_NAMES), "class_names": CLASS_NAMES, "ignore_index": OWN_VOID}
    _new(root, "dataset.json").write_text(json.dumps({"name": "rooms", "tasks": tasks}))
    _write_lists(root, truth)
    return truth


def _write_own(root: Path, index: int, scene: Scene) -> Scene:
    even, name = index % 2 == 0, scene.id
    image = save(root / f"images/{name}.{('jpg', 'png', 'jpeg')[index % 3]}", scene.image)
    labels = {task: label for task, label in scene.labels.items() if task != {1: "depth", 4: "human_parts"}.get(index)}
    semseg = labels["semseg"]
    labels["semseg"] = np.where(semseg == VOID, VOID, semseg % len(CLASS_NAMES)).astype(np.uint8)
    for task, label in labels.items():
        stem = root / task / name
        if task == "depth" and even:
            millimetres = save(stem.with_suffix(".png"), np.round(label * 1000).astype(np.uint16))
            labels[task] = (millimetres / 1000).astype(np.float32)
        elif task == "normals" and even:
            labels[task] = _decode_normals(save(stem.with_suffix(".png"), _encode_normals(label)))
        elif task in ("depth", "normals"):
            save(stem.with_suffix(".npy"), label)
        elif task == "semseg":
            save(stem.with_suffix(".png"), np.where(label == VOID, np.uint8(OWN_VOID), label))
        else:
            save(stem.with_suffix(".png"), label * np.uint8(255 if task == "edge" else 1))
    return replace(scene, image=image, labels=labels)


# ---- all of them ----

LAYOUTS: dict[str, Callable[[Path, Truth], Truth]] = {
    **{layout: partial(_write_nyud, layout) for layout in NYUD},
    "D": _write_nyud_d,
    "E": _write_nyud_e,
    "O": _write_nyud_o,
    "pascal": _write_pascal,
    "pascal_edge": partial(_write_pascal, edges=True),
    "folder": _write_folder,
}


def name_of(layout: str) -> str:
    """The data set that a layout is one of."""
    return "folder" if layout == "folder" else "pascal_context" if layout.startswith("pascal") else "nyud_v2"


def write_tree(layout: str, root: Path, train: int = 6, val: int = 3, height: int = 45, width: int = 61) -> Truth:
    """Write a tree of one of `LAYOUTS` into `root` (made if need be) and give back what a reader must find there.

    The ids of val are 0001, 0002, ..., those of train follow.
    """
    Path(root).mkdir(parents=True, exist_ok=True)
    first, scenes = {"val": 1, "train": val + 1}, {}
    for split, count in (("train", train), ("val", val)):
        views = (_scene(layout.partition("_")[0], split, k, height, width) for k in range(count))
        scenes[split] = [replace(view, id=f"{first[split] + k:04d}") for k, view in enumerate(views)]
    return LAYOUTS[layout](Path(root), scenes)


def make_archive(root: Path, path: Path) -> Path:
    """Pack a tree, its top folder included, as the suffix of `path` says: .tgz, .tar.gz or .zip."""
    kind = "zip" if path.suffix == ".zip" else "gztar"
    return Path(shutil.make_archive(str(path), kind, root.parent, root.name)).rename(path)


# ---- faults; each spoils the file at `path` ----


def edit(path: Path, change: Callable[[Array], Array]) -> None:
    """Apply `change` to the array of a .npy, to the only variable of a .mat, or to the pixels of a PNG."""
    if path.suffix == ".npy":
        np.save(path, change(np.load(path)))
    elif path.suffix == ".mat":
        [(key, array)] = ((k, a) for k, a in scipy.io.loadmat(path).items() if not k.startswith("__"))
        scipy.io.savemat(path, {key: change(array)})
    else:
        with Image.open(path) as image:
            array = np.array(image)
        Image.fromarray(change(array)).save(path)


def truncate(path: Path, keep: float = 0.5) -> None:
    """Cut any file after this share of its bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def cut_after_mat_header(path: Path) -> None:
    """The 128 bytes that scipy.io.loadmat reads as a file without variables."""
    path.write_bytes(path.read_bytes()[:128])


def set_label(path: Path, value: float = 41) -> None:
    """A value in the centre: an id out of range, or NaN."""

    def change(array: Array) -> Array:
        array = array.copy()
        array[array.shape[0] // 2, array.shape[1] // 2] = value
        return array

    edit(path, change)


def set_nan(path: Path) -> None:
    """NaN in the centre of a float .npy or .mat."""
    set_label(path, np.nan)


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
