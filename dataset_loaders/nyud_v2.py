"""NYUD-v2 (795 training and 654 validation frames) in any of the six forms users have on disk.

Four incompatible trees share two names; which one a folder holds is recognised by its files. All come out in the same
form: semseg ids 0..39 (13 classes in `mtan` and `parquet`), depth in metres, unit normals, edges.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dataset_loaders.files import FileDataset, LabelFiles, list_folder
from dataset_loaders.hub import RowsDataset, as_photo
from dataset_loaders.layouts import Layout, count_notes, recognise
from dataset_loaders.matlab import class_ids, read_mat_map
from dataset_loaders.nyud_v2_official import METRIC_DEPTH, OfficialNyud
from dataset_loaders.reading import check_id, read_array, read_ids, read_image, reading
from dataset_loaders.registry import register
from dataset_loaders.sample import DenseDataset
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


@register(NAME)
def open_nyud_v2(
    split: str,
    data_dir: str | Path,
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
    root, recognised = recognise(data_dir, LAYOUTS, layout, NAME)
    origin = f"{NAME}: layout {recognised} in {root.resolve()}"
    if recognised.key == "official":
        return OfficialNyud(NAME, root, split, select_tasks(NYUD_V2, tasks), crop, intrinsics, origin)
    if recognised.key == "parquet":
        return _open_parquet(root, split, select_tasks(COARSE, tasks), origin)
    if recognised.key == "mtan":
        return _open_mtan(root, split, select_tasks(COARSE, tasks), strict, origin)
    return _open_tree(root, split, select_tasks(NYUD_V2, tasks), recognised.key, strict, origin)


# ---- trees with lists of ids ------------------------------------------------------------------------------------------


def _mat_ids(path: Path) -> NDArray[Any]:
    return class_ids(read_mat_map(path, "segmentation"), str(path))


# Ends of the files of the photos and of each task; what opens some of them, and what is known of their arrays.
_TREES = {
    "astmt": {"photo": ".jpg", "semseg": ".mat", "depth": ".mat", "normals": ".jpg", "edge": ".png"},
    "mtl_pytorch": {"photo": ".jpg", "semseg": ".png", "depth": ".npy", "normals": ".npy", "edge": ".npy"},
    "atrc": {"photo": ".png", "semseg": ".png", "depth": ".npy", "normals": ".png", "edge": ".png"},
}
_LOAD: dict[tuple[str, str], Callable[[Path], NDArray[Any]]] = {
    ("semseg", ".mat"): _mat_ids,
    ("depth", ".mat"): partial(read_mat_map, key="depth"),
    ("normals", ".jpg"): read_image,
}
_VOID_FIRST = {"ignore_index": 0, "first_id": 1}
_OPTIONS: dict[tuple[str, str], Mapping[str, Any]] = {
    **{("semseg", suffix): _VOID_FIRST for suffix in (".mat", ".png")},
    **{("depth", suffix): METRIC_DEPTH for suffix in (".mat", ".npy")},
    ("edge", ".png"): {"edge_value": 255},
    ("edge", ".npy"): {"edge_value": 1},
}
_FOLDERS = {"semseg": "segmentation"}


def _open_tree(root: Path, split: str, tasks: Sequence[Task], key: str, strict: bool, origin: str) -> FileDataset:
    suffixes = _TREES[key]
    ids = read_ids(root / "gt_sets" / f"{check_id(split)}.txt")
    listed = {sample_id for path in (root / "gt_sets").glob("*.txt") for sample_id in read_ids(path)}
    labels = {}
    for task in tasks:
        form = task.name, suffixes[task.name]
        folder = list_folder(root / _FOLDERS.get(task.name, task.name), suffixes[task.name], f"the {task.name} labels")
        labels[task] = LabelFiles(folder, _LOAD.get(form, read_array), _OPTIONS.get(form, {}))
    photos = list_folder(root / "images", suffixes["photo"], "the photos")
    facts: dict[str, Any] = {"listed": listed, "origin": origin, "notes": count_notes(SPLITS, split, len(ids))}
    return FileDataset(NAME, split, ids, photos, labels, strict, settings=key, **facts)


# ---- 13 classes: MTAN's arrays, and the same as Parquet ---------------------------------------------------------------


_FOLDERS_OF_13 = {"image": "image", "semseg": "label", "depth": "depth", "normals": "normal"}
_COLUMNS_OF_13 = {"image": "image", "semseg": "segmentation", "depth": "depth", "normals": "normal"}
_OPTIONS_OF_13: dict[str, Mapping[str, Any]] = {"semseg": {"ignore_index": -1}, "depth": METRIC_DEPTH}


_CONVERT_13 = {"image": as_photo, "semseg": class_ids}


def _load_13(path: Path, name: str) -> NDArray[Any]:
    array = read_array(path)
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return _CONVERT_13[name](array, str(path)) if name in _CONVERT_13 else array


def _open_mtan(root: Path, split: str, tasks: Sequence[Task], strict: bool, origin: str) -> FileDataset:
    if check_id(split) not in SPLITS or not (root / split).is_dir():
        raise KdamValueError(f"{NAME}: no split {split!r} in {root}; expected one of {', '.join(SPLITS)}.")
    names = ("image", *(task.name for task in tasks))
    photos, *folders = (
        list_folder(root / split / _FOLDERS_OF_13[name], ".npy", f"the {name} arrays") for name in names
    )
    labels = {
        task: LabelFiles(folder, partial(_load_13, name=task.name), _OPTIONS_OF_13.get(task.name, {}))
        for task, folder in zip(tasks, folders, strict=True)
    }
    ids = sorted(photos.files, key=lambda stem: (int(stem) if stem.isdigit() else -1, stem))
    facts: dict[str, Any] = {"listed": set(ids), "origin": origin, "notes": count_notes(SPLITS, split, len(ids))}
    return FileDataset(
        NAME, split, ids, photos, labels, strict, read_photo=partial(_load_13, name="image"), settings="mtan", **facts
    )


def _open_parquet(root: Path, split: str, tasks: Sequence[Task], origin: str) -> RowsDataset:
    """Arrays with channels first in `data/SPLIT-*.parquet` or `SPLIT*.parquet`."""
    from datasets import Dataset  # takes over a second to import

    files = sorted([*root.glob(f"data/{check_id(split)}-*.parquet"), *root.glob(f"{split}*.parquet")])
    if not files:
        present = ", ".join(sorted(path.name for path in root.glob("**/*.parquet"))) or "none"
        raise KdamValueError(f"{NAME}: no Parquet file for split {split!r} in {root}; found {present}.")
    with reading(files[0], "set of Parquet files"):
        rows = Dataset.from_parquet([str(path) for path in files])
    columns = {name: _COLUMNS_OF_13[name] for name in ("image", *(task.name for task in tasks))}
    if not {*columns.values()} <= {*rows.features}:
        raise DataIntegrityError(
            f"{files[0]}: columns {', '.join(rows.features)}; expected {', '.join(columns.values())}."
        )
    data = RowsDataset(rows, columns, tasks, options={"depth": METRIC_DEPTH})
    data.name, data.split, data.origin, data.notes = NAME, split, origin, count_notes(SPLITS, split, len(rows))
    return data
