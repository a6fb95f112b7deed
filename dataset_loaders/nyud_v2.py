"""NYUD-v2 (795 training and 654 validation frames) in any of the six forms users have on disk.

Four incompatible trees share two names; which one a folder holds is recognised by its files. All come out in the same
form: semseg ids 0..39 (13 classes in `mtan` and `parquet`), depth in metres, unit normals, edges.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_loaders.files import FileDataset, LabelFiles, Layout, count_notes, list_folder, recognise
from dataset_loaders.hub import RowsDataset, as_photo
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
    known = COARSE if recognised.key == "mtan" else NYUD_V2
    return _open_tree(root, split, select_tasks(known, tasks), recognised.key, strict, origin)


def _map(path: Path) -> NDArray[Any]:
    """An array (H, W) that may be stored as (H, W, 1), or one of vectors."""
    array = read_array(path)
    return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array


def _photo(path: Path) -> NDArray[np.uint8]:
    return as_photo(_map(path), str(path))


def _ids(path: Path) -> NDArray[Any]:
    return class_ids(_map(path), str(path))


def _mat(path: Path) -> NDArray[Any]:
    """The map of a .mat, which is called as its folder; class ids may be stored as floats."""
    array = read_mat_map(path, path.parent.name)
    return class_ids(array, str(path)) if path.parent.name == "segmentation" else array


_FOLDERS = {"image": "images", "semseg": "segmentation", "depth": "depth", "normals": "normals", "edge": "edge"}
# How the files of each of them end, in trees with lists of ids.
_SUFFIXES = {
    "astmt": (".jpg", ".mat", ".mat", ".jpg", ".png"),
    "mtl_pytorch": (".jpg", ".png", ".npy", ".npy", ".npy"),
    "atrc": (".png", ".png", ".npy", ".png", ".png"),
}
Load = Callable[[Path], NDArray[Any]]
_MTAN: dict[str, tuple[str, Load]] = {
    "image": ("image", _photo),
    "semseg": ("label", _ids),
    "depth": ("depth", _map),
    "normals": ("normal", _map),
}
_COLUMNS = {"image": "image", "semseg": "segmentation", "depth": "depth", "normals": "normal"}


def _open_tree(root: Path, split: str, tasks: Sequence[Task], key: str, strict: bool, origin: str) -> FileDataset:
    """A split by its list in gt_sets; in `mtan` by its folder, whose files count as numbers."""
    by_folder, lists = key == "mtan", root / "gt_sets"
    if by_folder and (check_id(split) not in SPLITS or not (root / split).is_dir()):
        raise KdamValueError(f"{NAME}: no split {split!r} in {root}; expected one of {', '.join(SPLITS)}.")
    ids = () if by_folder else read_ids(lists / f"{check_id(split)}.txt")
    forms: dict[str, tuple[Path, str, Load]]
    if by_folder:
        forms = {name: (root / split / folder, ".npy", load) for name, (folder, load) in _MTAN.items()}
    else:
        openers: dict[str, Load] = {".jpg": read_image, ".mat": _mat}
        ends = zip(_FOLDERS.items(), _SUFFIXES[key], strict=True)
        forms = {name: (root / folder, end, openers.get(end, read_array)) for (name, folder), end in ends}
        forms["image"] = (*forms["image"][:2], read_image)
    files = {n: list_folder(*forms[n][:2], f"the {n} files") for n in ("image", *(task.name for task in tasks))}
    options: dict[str, Mapping[str, Any]] = {
        "semseg": {"ignore_index": -1} if by_folder else {"ignore_index": 0, "first_id": 1},
        "depth": METRIC_DEPTH,
        "edge": {"edge_value": 1 if key == "mtl_pytorch" else 255},
    }
    labels = {t: LabelFiles(files[t.name], forms[t.name][2], options.get(t.name, {})) for t in tasks}
    if by_folder:
        ids = tuple(sorted(files["image"].files, key=lambda stem: (int(stem) if stem.isdigit() else -1, stem)))
    listed = {*ids, *(sample_id for path in lists.glob("*.txt") for sample_id in read_ids(path))}
    facts: dict[str, Any] = {"name": NAME, "split": split, "strict": strict, "origin": origin, "settings": key}
    facts |= {"listed": listed, "notes": count_notes(SPLITS, split, len(ids)), "read_photo": forms["image"][2]}
    return FileDataset(ids=ids, images=files["image"], labels=labels, **facts)


def _open_parquet(root: Path, split: str, tasks: Sequence[Task], origin: str) -> RowsDataset:
    """Arrays with channels first in `data/SPLIT-*.parquet` or `SPLIT*.parquet`."""
    from datasets import Dataset  # takes over a second to import

    files = sorted([*root.glob(f"data/{check_id(split)}-*.parquet"), *root.glob(f"{split}*.parquet")])
    if not files:
        present = ", ".join(sorted(path.name for path in root.glob("**/*.parquet"))) or "none"
        raise KdamValueError(f"{NAME}: no Parquet file for split {split!r} in {root}; found {present}.")
    with reading(files[0], "set of Parquet files"):
        rows = Dataset.from_parquet([str(path) for path in files])
    columns = {name: _COLUMNS[name] for name in ("image", *(task.name for task in tasks))}
    if not {*columns.values()} <= {*rows.features}:
        raise DataIntegrityError(
            f"{files[0]}: columns {', '.join(rows.features)}; expected {', '.join(columns.values())}."
        )
    data = RowsDataset(rows, columns, tasks, options={"depth": METRIC_DEPTH})
    data.name, data.split, data.origin, data.notes = NAME, split, origin, count_notes(SPLITS, split, len(rows))
    return data
