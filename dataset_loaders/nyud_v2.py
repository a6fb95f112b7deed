"""NYUD-v2 (795 training and 654 validation frames) in any of the six forms users have on disk.

Four incompatible trees share two names; which one a folder holds is recognised by its files. All come out in the same
form: semseg ids 0..39 (13 classes in `mtan` and `parquet`), depth in metres, unit normals, edges.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_loaders.files import FileDataset, Read, ReadLabel, digest, file_facts, list_folder, read_ids
from dataset_loaders.layouts import Layout, count_notes, recognise
from dataset_loaders.matlab import class_ids, read_mat_map
from dataset_loaders.nyud_v2_official import METRIC_DEPTH, OfficialNyud
from dataset_loaders.sample import DenseDataset, Sample, check_id, read_array, read_image, reading
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.tasks import NYUD_V2, Task, make_task, select_tasks

NAME = "nyud_v2"
SPLITS = {"train": 795, "val": 654}
# The coarse classes of Couprie et al. (2013), in the alphabetical order of the published 13-class labels.
COARSE_CLASSES = (
    *("bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa", "table", "television"),
    *("wall", "window"),
)
COARSE = (make_task("semseg", COARSE_CLASSES), make_task("depth"), make_task("normals"))

LAYOUTS = (
    Layout("astmt", "NYUD_MT of ASTMT", ("gt_sets/*.txt", "images/*.jpg", "segmentation/*.mat")),
    Layout("mtl_pytorch", "NYUD_MT of MTL-PyTorch", ("gt_sets/*.txt", "images/*.jpg", "segmentation/*.png")),
    Layout("atrc", "NYUDv2 of ATRC, InvPT and later", ("gt_sets/*.txt", "images/*.png", "segmentation/*.png")),
    Layout("mtan", "nyuv2 of MTAN", ("train/image/*.npy", "train/label/*.npy", "train/depth/*.npy")),
    Layout("parquet", "13 classes from the Hub", ("data/*.parquet|*.parquet",)),
    Layout("official", "the labelled set as published", ("nyu_depth_v2_labeled.mat",)),
)


def open_nyud_v2(
    split: str,
    data_dir: str | Path | None,
    tasks: Sequence[str] | None = None,
    layout: str | None = None,
    strict: bool = True,
    crop: str = "auto",
    intrinsics: str = "kinect",
) -> DenseDataset:
    """One split of NYUD-v2.

    Args:
        split: `train` or `val`; in trees with lists of ids, any list in gt_sets.
        data_dir: root of the tree, or the folder it lies in.
        tasks: names of the tasks to read; all for None.
        layout: key of one of `LAYOUTS`; recognised for None.
        strict: refuse ids without files and files without ids.
        crop: for `official`, rows and columns to keep as `top:bottom:left:right`; `auto` takes off the white frame of
            480x640 pictures (45:470:41:601, the 425x560 of the field), `none` nothing.
        intrinsics: for `official`, `fx,fy,cx,cy` in pixels of the whole picture, for normals from depth; `kinect` for
            those of the data set's colour camera.

    Raises:
        KdamValueError: no such folder, split, layout or task.
        DataIntegrityError: the folder is not recognised, or its files do not fit together.
    """
    if data_dir is None:
        raise KdamValueError("dataset 'nyud_v2' needs data_dir: the root of the data set on disk.")
    root, recognised = recognise(data_dir, LAYOUTS, layout, NAME)
    origin = f"{NAME}: layout {recognised} in {root}"
    if recognised.key == "official":
        return OfficialNyud(NAME, root, split, select_tasks(NYUD_V2, tasks), crop, intrinsics, origin)
    if recognised.key == "parquet":
        return CoarseParquet(root, split, select_tasks(COARSE, tasks), origin)
    if recognised.key == "mtan":
        return _open_mtan(root, split, select_tasks(COARSE, tasks), strict, origin)
    return _open_tree(root, split, select_tasks(NYUD_V2, tasks), recognised.key, strict, origin)


# ---- trees with lists of ids ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Form:
    """How the labels of one task are stored: the end of its files, and what opens them."""

    suffix: str
    load: Read = read_array
    options: Mapping[str, Any] = field(default_factory=dict)


def _mat_ids(path: Path, key: str) -> NDArray[Any]:
    return class_ids(read_mat_map(path, key), str(path))


_VOID_FIRST = {"ignore_index": 0, "first_id": 1}
_MASK = {"edge_value": 255}
_FOLDERS = {"semseg": "segmentation"}
_TREES: dict[str, tuple[str, dict[str, _Form]]] = {
    "astmt": (
        ".jpg",
        {
            "semseg": _Form(".mat", partial(_mat_ids, key="segmentation"), _VOID_FIRST),
            "depth": _Form(".mat", partial(read_mat_map, key="depth")),
            "normals": _Form(".jpg", read_image),
            "edge": _Form(".png", options=_MASK),
        },
    ),
    "mtl_pytorch": (
        ".jpg",
        {
            "semseg": _Form(".png", options=_VOID_FIRST),
            "depth": _Form(".npy"),
            "normals": _Form(".npy"),
            "edge": _Form(".npy", options={"edge_value": 1}),
        },
    ),
    "atrc": (
        ".png",
        {
            "semseg": _Form(".png", options=_VOID_FIRST),
            "depth": _Form(".npy"),
            "normals": _Form(".png"),
            "edge": _Form(".png", options=_MASK),
        },
    ),
}


def _open_tree(root: Path, split: str, tasks: Sequence[Task], key: str, strict: bool, origin: str) -> FileDataset:
    photo_suffix, forms = _TREES[key]
    ids = read_ids(root / "gt_sets" / f"{check_id(split)}.txt")
    listed = {sample_id for path in (root / "gt_sets").glob("*.txt") for sample_id in read_ids(path)}
    labels = {}
    for task in tasks:
        form = forms[task.name]
        folder = list_folder(root / _FOLDERS.get(task.name, task.name), form.suffix, f"the {task.name} labels")
        labels[task] = (folder, ReadLabel(task, form.load, {**form.options, **METRIC_DEPTH.get(task.name, {})}))
    photos = list_folder(root / "images", photo_suffix, "the photos")
    dataset = FileDataset(
        NAME,
        split,
        ids,
        photos,
        labels,
        listed=listed,
        origin=origin,
        notes=count_notes(SPLITS, split, len(ids)),
        settings=key,
    )
    return _complete(dataset, strict)


def _complete(dataset: FileDataset, strict: bool) -> FileDataset:
    if strict:
        for problem in (*dataset.missing(), *dataset.unlisted()):
            raise DataIntegrityError(problem)
    return dataset


# ---- 13 classes: MTAN's arrays, and the same as Parquet ---------------------------------------------------------------


def _coarse_depth(array: NDArray[Any], where: str) -> NDArray[Any]:
    return array.reshape(array.shape[:2]) if array.ndim == 3 and array.shape[2] == 1 else array


def _as_it_is(array: NDArray[Any], where: str) -> NDArray[Any]:
    return array


_COARSE: dict[str, tuple[str, Callable[[NDArray[Any], str], NDArray[Any]], dict[str, Any]]] = {
    "semseg": ("label", class_ids, {"ignore_index": -1}),
    "depth": ("depth", _coarse_depth, METRIC_DEPTH["depth"]),
    "normals": ("normal", _as_it_is, {}),
}


def unit_photo(array: NDArray[Any], where: str) -> NDArray[np.uint8]:
    """A float photo (H, W, 3) in [0, 1] as uint8; what was an 8-bit photo before comes back unchanged.

    Raises:
        DataIntegrityError: another shape or type, or values outside [0, 1].
    """
    if array.dtype.kind != "f" or array.ndim != 3 or array.shape[2] != 3:
        raise DataIntegrityError(f"{where}: photo is {array.dtype} {array.shape}; expected floats (H, W, 3).")
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise DataIntegrityError(f"{where}: photo holds {array.min():.4g} to {array.max():.4g}; expected 0 to 1.")
    return np.rint(array * 255).astype(np.uint8, order="C")


@dataclass(frozen=True)
class _Array:
    """Opens a `.npy` and brings it into the form that the task's `from_file` takes."""

    convert: Callable[[NDArray[Any], str], NDArray[Any]]

    def __call__(self, path: Path) -> NDArray[Any]:
        return self.convert(read_array(path), str(path))


def _open_mtan(root: Path, split: str, tasks: Sequence[Task], strict: bool, origin: str) -> FileDataset:
    if check_id(split) not in SPLITS or not (root / split).is_dir():
        raise KdamValueError(f"{NAME}: no split {split!r} in {root}; expected one of {', '.join(SPLITS)}.")
    photos = list_folder(root / split / "image", ".npy", "the photos as arrays")
    labels = {}
    for task in tasks:
        name, convert, options = _COARSE[task.name]
        folder = list_folder(root / split / name, ".npy", f"the {task.name} labels as arrays")
        labels[task] = (folder, ReadLabel(task, _Array(convert), options))
    ids = sorted(photos.files, key=lambda stem: (not stem.isdigit(), int(stem) if stem.isdigit() else 0, stem))
    dataset = FileDataset(
        NAME,
        split,
        ids,
        photos,
        labels,
        _Array(unit_photo),
        listed=set(ids),
        origin=origin,
        notes=count_notes(SPLITS, split, len(ids)),
        settings="mtan",
    )
    return _complete(dataset, strict)


class CoarseParquet:
    """Columns `image` f32 (3, H, W), `segmentation` i64 (H, W), `depth` f32 (1, H, W) and `normal` f32 (3, H, W).

    Args:
        root: holds `data/SPLIT-*.parquet` or `SPLIT*.parquet`.
        split: `train` or `val`.
        tasks: to read.
        origin: in words.

    Raises:
        KdamValueError: no file for the split.
        DataIntegrityError: not readable, or without a column.
    """

    name = NAME

    def __init__(self, root: Path, split: str, tasks: Sequence[Task], origin: str) -> None:
        # `datasets` takes over a second to import.
        from datasets import Dataset
        from pyarrow.parquet import read_schema

        files = sorted([*root.glob(f"data/{check_id(split)}-*.parquet"), *root.glob(f"{split}*.parquet")])
        if not files:
            present = ", ".join(sorted(path.name for path in root.glob("**/*.parquet"))) or "none"
            raise KdamValueError(f"{NAME}: no Parquet file for split {split!r} in {root}; found {present}.")
        self.split, self.tasks, self.origin = split, tuple(tasks), origin
        self._folder = files[0].parent
        self._columns = {task.name: _COLUMNS[task.name] for task in tasks}
        columns = ["image", *self._columns.values()]
        for path in files:
            with reading(path, "Parquet file"):
                found = read_schema(path).names
            if not set(columns) <= set(found):
                raise DataIntegrityError(f"{path}: columns {', '.join(found)}; expected {', '.join(columns)}.")
        with reading(self._folder, f"set of Parquet files for split {split!r}"):
            rows = Dataset.from_parquet([str(path) for path in files], columns=columns)
        self._rows = rows.with_format("numpy")
        self.ids = tuple(map(str, range(len(rows))))
        self.notes = count_notes(SPLITS, split, len(rows))
        self.version = "-".join(str(path.stat().st_size) for path in files)
        self._stamp = digest([self.version, *map(file_facts, files)])

    def __len__(self) -> int:
        return len(self._rows)

    def stamp(self, index: int) -> str:
        """Changes with the names, sizes and times of the files."""
        return self._stamp

    def __getitem__(self, index: int) -> Sample:
        """Row `index`.

        Raises:
            DataIntegrityError: values out of range.
        """
        row, where = self._rows[index], f"{self._folder}, {self.split} row {index}"
        labels = {}
        for task in self.tasks:
            _, convert, options = _COARSE[task.name]
            array = _channels_last(np.asarray(row[self._columns[task.name]]))
            labels[task.name] = task.label.from_file(convert(array, f"{where}: {task.name}"), options, where)
        image = unit_photo(_channels_last(np.asarray(row["image"])), f"{where}: image")
        return {"id": self.ids[index], "image": image, "labels": labels}


_COLUMNS = {"semseg": "segmentation", "depth": "depth", "normals": "normal"}


def _channels_last(array: NDArray[Any]) -> NDArray[Any]:
    return array.transpose(1, 2, 0) if array.ndim == 3 else array
