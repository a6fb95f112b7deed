"""PASCAL-Context (4998 training and 5105 validation images) with human parts, saliency, normals and edges.

Unusual here: normals and saliency are the outputs of other models, as the whole field uses them; edges are computed from
the 459-class map unless `edge/ID.png` is there, which is slow: prepare the data once. Nothing is ever written into the
tree, not even the index of parts.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_loaders.files import FileDataset, Folder, LabelFiles, ReadLabel, list_folder
from dataset_loaders.geometry import laplacian_borders
from dataset_loaders.layouts import Layout, count_notes, recognise
from dataset_loaders.matlab import class_ids, read_mat, read_mat_map
from dataset_loaders.reading import check_id, read_array, read_ids, read_text, reading
from dataset_loaders.registry import register
from kdam_hf.errors import DataIntegrityError
from kdam_hf.metrics.thinning import thin
from kdam_hf.tasks import PASCAL_CONTEXT, Task, select_tasks

NAME = "pascal_context"
SPLITS = {"train": 4998, "val": 5105}
LAYOUTS = (Layout("pascal_mt", "PASCAL_MT or PASCALContext", ("ImageSets/Context/*.txt", "JPEGImages/*.jpg")),)
CONTEXT_CLASSES = 459
PERSON = 15
_PART_IDS = {
    1: "hair head lear rear lebrow rebrow leye reye mouth nose",
    2: "neck torso",
    3: "luarm ruarm",
    4: "llarm lhand rlarm rhand",
    5: "luleg ruleg",
    6: "llleg lfoot rlleg rfoot",
}
PART_OF = {name: part for part, names in _PART_IDS.items() for name in names.split()}
# fmt: off
# The ids among the 459 classes whose name is also one of NYU's 894 (and tvmonitor): elsewhere a network trained on NYU has
# no say on normals. From the two public lists of class names.
NORMALS_VALID = frozenset((
    3, 4, 6, 9, 10, 11, 13, 15, 17, 18, 22, 23, 29, 30, 33, 34, 36, 37, 38, 39, 41, 43, 46, 49, 50, 51, 53, 55, 56, 59, 61,
    62, 65, 66, 68, 69, 72, 73, 78, 83, 84, 85, 87, 88, 95, 96, 101, 104, 105, 107, 111, 113, 115, 122, 124, 135, 141, 142,
    143, 146, 150, 154, 157, 158, 159, 165, 172, 174, 181, 183, 184, 191, 193, 195, 197, 199, 202, 213, 215, 216, 219, 220,
    223, 225, 228, 230, 232, 233, 238, 239, 242, 243, 246, 250, 251, 252, 255, 260, 261, 263, 269, 272, 273, 275, 281, 283,
    284, 285, 286, 287, 288, 290, 291, 292, 293, 295, 304, 307, 309, 310, 314, 315, 319, 323, 329, 330, 331, 336, 342, 345,
    349, 350, 351, 352, 355, 357, 368, 370, 371, 374, 379, 380, 383, 384, 397, 401, 403, 405, 407, 408, 411, 412, 413, 414,
    417, 419, 421, 423, 427, 429, 430, 432, 440, 441, 442, 443, 444, 446, 454, 457,
))
# fmt: on


@register(NAME)
def open_pascal_context(
    split: str,
    data_dir: str | Path,
    tasks: Sequence[str] | None = None,
    layout: str | None = None,
    strict: bool = True,
) -> FileDataset:
    """One split of PASCAL-Context.

    Args:
        split: `train`, `val`, or any list in ImageSets/Context.
        data_dir: root of the tree, or the folder it lies in.
        tasks: names of the tasks to read; all for None.
        layout: key of one of `LAYOUTS`; recognised for None.
        strict: refuse ids without files.

    Raises:
        KdamValueError: no such folder, layout or task.
        DataIntegrityError: the folder is not recognised, or its files do not fit together.
    """
    root, recognised = recognise(data_dir, LAYOUTS, layout, NAME)
    ids = read_ids(root / "ImageSets" / "Context" / f"{check_id(split)}.txt")
    open_labels = {
        "semseg": _semseg,
        "human_parts": lambda root, task: _human_parts(root, split),
        "saliency": _saliency,
        "normals": _normals,
        "edge": _edge,
    }
    selected = select_tasks(PASCAL_CONTEXT, tasks)
    labels = {task: open_labels[task.name](root, task) for task in selected}
    return FileDataset(
        NAME,
        split,
        ids,
        list_folder(root / "JPEGImages", ".jpg", "the photos"),
        labels,
        strict,
        origin=f"{NAME}: layout {recognised} in {root}",
        notes=[
            *count_notes(SPLITS, split, len(ids)),
            *(f"{task.name}: {_NOTES[task.name]}" for task in selected if task.name in _NOTES),
        ],
        settings=NAME,
    )


_NOTES = {
    "saliency": "the output of another model (distilled)",
    "normals": "the output of another model (distilled), kept on 170 of the 459 classes",
    "edge": "derived from the 459-class map where there is no edge/ID.png",
}


def _semseg(root: Path, task: Task) -> LabelFiles:
    """The 21 classes of VOC; where an image has two files, that of VOC12 counts."""
    folders = [root / "semseg" / name for name in ("pascal-context", "VOC12")]
    files: dict[str, Path] = {}
    for folder in folders:
        if folder.is_dir():
            files |= list_folder(folder, ".png", "semseg labels").files
    if not files:
        raise DataIntegrityError(f"{root / 'semseg'}: no labels; expected VOC12/ID.png or pascal-context/ID.png.")
    return LabelFiles(Folder(root / "semseg" / "VOC12", (".png",), files), ReadLabel(task))


def _saliency(root: Path, task: Task) -> LabelFiles:
    folder = list_folder(root / "sal_distill", ".png", "saliency maps")
    return LabelFiles(folder, ReadLabel(task, _salient, task.label.own_options))


def _salient(path: Path) -> NDArray[np.uint8]:
    """1 where the stored probability v / 255 is above one half."""
    array = read_array(path)
    if array.dtype != np.uint8 or array.ndim != 2:
        raise DataIntegrityError(f"{path}: saliency is {array.dtype} {array.shape}; expected an 8-bit grey PNG.")
    return (array > 127).astype(np.uint8)


def _context(root: Path) -> Folder:
    return list_folder(root / "pascal-context" / "trainval", ".mat", "the 459-class maps (LabelMap)")


def _label_map(path: Path) -> NDArray[Any]:
    ids = class_ids(read_mat_map(path, "LabelMap"), str(path))
    if ids.size and not 0 <= ids.min() <= ids.max() <= CONTEXT_CLASSES:
        raise DataIntegrityError(f"{path}: LabelMap holds {ids.min()} to {ids.max()}; expected 0..{CONTEXT_CLASSES}.")
    return ids


def _normals(root: Path, task: Task) -> LabelFiles:
    stored = list_folder(root / "normals_distill", ".png", "normals")
    context = _context(root)
    return LabelFiles(stored, _ReadNormals(ReadLabel(task), context), (context,))


@dataclass(frozen=True)
class _ReadNormals:
    """Normals where the class is one that a network trained on NYU has seen; elsewhere (0, 0, 0)."""

    read: ReadLabel
    context: Folder
    valid: Collection[int] = NORMALS_VALID

    def __call__(self, path: Path) -> NDArray[np.float32]:
        normals = self.read(path)
        context = self.context[path.stem]
        label_map = _label_map(context)
        if label_map.shape != normals.shape[:2]:
            raise DataIntegrityError(
                f"{path} is {normals.shape[0]}x{normals.shape[1]} pixels, {context} {label_map.shape[0]}x{label_map.shape[1]}; "
                "expected one size (height x width), that of the image."
            )
        normals[~np.isin(label_map, list(self.valid))] = 0
        return normals


def _edge(root: Path, task: Task) -> LabelFiles:
    context = _context(root)
    if not (root / "edge").is_dir():
        return LabelFiles(context, ReadLabel(task, _context_edges, task.label.own_options))
    drawn = list_folder(root / "edge", ".png", "edges")
    both = Folder(drawn.path, (".png",), {**context.files, **drawn.files})
    return LabelFiles(both, _ReadEdges(ReadLabel(task), ReadLabel(task, _context_edges, task.label.own_options)))


@dataclass(frozen=True)
class _ReadEdges:
    """A drawn map where there is one, else the borders of the 459-class map."""

    drawn: ReadLabel
    derived: ReadLabel

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        return (self.drawn if path.suffix.lower() == ".png" else self.derived)(path)


def _context_edges(path: Path) -> NDArray[np.uint8]:
    """The borders of the 459-class map, one pixel thin."""
    return thin(laplacian_borders(_label_map(path))).astype(np.uint8)


def _human_parts(root: Path, split: str) -> LabelFiles:
    stored = list_folder(root / "human_parts", ".mat", "the annotation of parts")
    return LabelFiles(stored, _ReadParts(_read_parts_index(root / "ImageSets" / "Parts" / f"{split}.txt")))


@dataclass(frozen=True)
class _ReadParts:
    """Six parts of people on background; None for an image without annotated people.

    Args:
        index: VOC classes with parts, by image id; an image that is not in it is opened to see.
    """

    index: Mapping[str, Sequence[int]]

    def __call__(self, path: Path) -> NDArray[np.uint8] | None:
        if PERSON not in self.index.get(path.stem, [PERSON]):
            return None
        with reading(path, "annotation of parts (anno)"):
            return human_parts(read_mat(path, "anno"), str(path))


def human_parts(anno: NDArray[Any], where: str) -> NDArray[np.uint8] | None:
    """The parts of all people in a PASCAL-Part annotation.

    Args:
        anno: struct (1, 1) of (image name, objects); an object is (class, class id, mask, parts), a part (name, mask).
        where: file for messages.

    Returns:
        uint8 (H, W): 0 background, 1 head, 2 torso, 3 upper arm, 4 lower arm, 5 upper leg, 6 lower leg; None if no person
        has parts.

    Raises:
        DataIntegrityError: a part of a person that is not known.
    """
    target: NDArray[np.uint8] | None = None
    for record in anno[0, 0][1].ravel():
        _, class_id, mask, parts = (record[k] for k in range(4))
        if int(np.asarray(class_id).ravel()[0]) != PERSON or not parts.size:
            continue
        if target is None:
            target = np.zeros(mask.shape, np.uint8)
        for part in parts.ravel():
            name = str(np.asarray(part[0]).ravel()[0])
            if name not in PART_OF:
                raise DataIntegrityError(f"{where}: part {name!r} of a person; expected {', '.join(PART_OF)}.")
            target[np.asarray(part[1]).astype(bool)] = PART_OF[name]
    return target


def _read_parts_index(path: Path) -> dict[str, list[int]]:
    """Empty where there is no index; it is an index only, and never written."""
    if not path.is_file():
        return {}
    try:
        index = json.loads(read_text(path, "it lists the classes with parts of each image"))
        return {str(key): [int(value) for value in values] for key, values in index.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise DataIntegrityError(f'{path}: expected JSON {{"ID": [class ids]}} ({error}).') from error
