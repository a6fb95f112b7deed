"""PASCAL-Context (4998 training and 5105 validation images) with human parts, saliency, normals and edges.

Unusual here: normals and saliency are the outputs of other models, as the whole field uses them; edges are computed from
the 459-class map unless `edge/ID.png` is there, which is slow: prepare the data once. Nothing is ever written into the
tree, not even the index of parts.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dataset_loaders.files import (
    FileDataset,
    Folder,
    LabelFiles,
    Layout,
    count_notes,
    file_facts,
    list_folder,
    recognise,
)
from dataset_loaders.matlab import class_ids, read_mat, read_mat_map
from dataset_loaders.reading import check_id, read_array, read_ids, reading
from dataset_loaders.registry import register
from kdam_hf.errors import DataIntegrityError
from kdam_hf.metrics.thinning import thin
from kdam_hf.tasks import PASCAL_CONTEXT, select_tasks

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
    split: str, data_dir: str | Path, tasks: Sequence[str] | None = None, layout: str | None = None, strict: bool = True
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
    selected, index = select_tasks(PASCAL_CONTEXT, tasks), _parts_index(root, split)
    notes = [f"{task.name}: {_NOTES[task.name]}" for task in selected if task.name in _NOTES]
    return FileDataset(
        name=NAME,
        split=split,
        ids=ids,
        images=list_folder(root / "JPEGImages", ".jpg", "the photos"),
        labels={task: _LABELS[task.name](root, split) for task in selected},
        strict=strict,
        origin=f"{NAME}: layout {recognised} in {root.resolve()}",
        notes=[*count_notes(SPLITS, split, len(ids)), *notes],
        settings=f"{NAME} {file_facts(index if index.is_file() else None)}",
    )


def _semseg(root: Path, split: str) -> LabelFiles:
    """The 21 classes of VOC; where an image has two files, that of VOC12 counts."""
    files: dict[str, Path] = {}
    for folder in (root / "semseg" / name for name in ("pascal-context", "VOC12")):
        if folder.is_dir():
            files |= list_folder(folder, ".png", "semseg labels").files
    if not files:
        raise DataIntegrityError(f"{root / 'semseg'}: no labels; expected VOC12/ID.png or pascal-context/ID.png.")
    return LabelFiles(Folder(root / "semseg" / "VOC12", (".png",), files))


def _saliency(root: Path, split: str) -> LabelFiles:
    # stated, so that an all-white map has no other reading
    return LabelFiles(list_folder(root / "sal_distill", ".png", "saliency maps"), _salient, {"ignore_index": 255})


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


def _normals(root: Path, split: str) -> LabelFiles:
    context = _context(root)
    stored = list_folder(root / "normals_distill", ".png", "normals")
    return LabelFiles(stored, partial(_known_normals, context=context), beside=(context,))


def _known_normals(path: Path, context: Folder) -> NDArray[Any]:
    """Codes of the normals where the class is one that a network trained on NYU has seen; elsewhere black, invalid."""
    codes, classes = read_array(path), context[path.stem]
    label_map = _label_map(classes)
    if label_map.shape != codes.shape[:2]:
        raise DataIntegrityError(
            f"{path} is {codes.shape[0]}x{codes.shape[1]} pixels, {classes} {label_map.shape[0]}x{label_map.shape[1]}; "
            "expected one size (height x width), that of the image."
        )
    codes[~np.isin(label_map, list(NORMALS_VALID))] = 0
    return codes


def _edge(root: Path, split: str) -> LabelFiles:
    context = _context(root)
    if not (root / "edge").is_dir():
        return LabelFiles(context, _borders)
    drawn = list_folder(root / "edge", ".png", "edges")
    return LabelFiles(Folder(drawn.path, (".png",), {**context.files, **drawn.files}), _borders)


def _borders(path: Path) -> NDArray[Any]:
    """A drawn map as it is; the borders of a 459-class map, one pixel thin."""
    if path.suffix.lower() == ".png":
        return read_array(path)
    return thin(ndimage.laplace(_label_map(path).astype(float), mode="mirror") != 0).astype(np.uint8)


def _human_parts(root: Path, split: str) -> LabelFiles:
    stored = list_folder(root / "human_parts", ".mat", "the annotation of parts")
    return LabelFiles(stored, partial(_parts, index=_read_parts_index(_parts_index(root, split))))


_LABELS = {"semseg": _semseg, "human_parts": _human_parts, "saliency": _saliency, "normals": _normals, "edge": _edge}
_NOTES = {
    "saliency": "the output of another model (distilled)",
    "normals": "the output of another model (distilled), kept on 170 of the 459 classes",
    "edge": "derived from the 459-class map where there is no edge/ID.png",
}


def _parts(path: Path, index: Mapping[str, Sequence[int]]) -> NDArray[np.uint8] | None:
    """Background 0, head, torso, upper arm, lower arm, upper leg and lower leg of all people; None for an image without them.

    An object of PASCAL-Part is (class, class id, mask, parts), a part (name, mask). What is not in the index is opened to see.
    """
    if PERSON not in index.get(path.stem, [PERSON]):
        return None
    target: NDArray[np.uint8] | None = None
    with reading(path, "annotation of parts (anno)"):
        objects = read_mat(path, "anno")[0, 0][1].ravel()
        for _, class_id, mask, parts in (tuple(record)[:4] for record in objects):
            if int(np.asarray(class_id).ravel()[0]) != PERSON or not parts.size:
                continue
            target = np.zeros(mask.shape, np.uint8) if target is None else target
            for part in parts.ravel():
                name = str(np.asarray(part[0]).ravel()[0])
                if name not in PART_OF:
                    raise DataIntegrityError(f"{path}: part {name!r} of a person; expected {', '.join(PART_OF)}.")
                target[np.asarray(part[1]).astype(bool)] = PART_OF[name]
    return target


def _parts_index(root: Path, split: str) -> Path:
    return root / "ImageSets" / "Parts" / f"{split}.txt"


def _read_parts_index(path: Path) -> dict[str, list[int]]:
    """Empty where there is no index."""
    if not path.is_file():
        return {}
    with reading(path, 'index of parts, {"ID": [class ids]}'):
        index = json.loads(path.read_text("utf-8"))
        return {str(key): [int(value) for value in values] for key, values in index.items()}
