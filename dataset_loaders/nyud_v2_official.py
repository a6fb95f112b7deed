"""NYUD-v2 as published: one HDF5 file of 1449 labelled frames, a list of splits and a map of 894 classes to 40.

Unusual here: normals and edges are derived. Normals are those of planes fitted to the depth around each pixel; edges are
borders between (label, instance) segments, unlabelled pixels going to the nearest segment first. Neither is what the
trees of the field hold, so numbers on them do not compare with papers.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_loaders.files import file_facts
from dataset_loaders.geometry import KINECT_COLOR, Intrinsics, normals_from_depth, segment_borders
from dataset_loaders.matlab import open_hdf5, read_mat
from dataset_loaders.reading import reading
from dataset_loaders.sample import DenseDataset, Sample
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.io import lines_sha256
from kdam_hf.photos_kdam import PhotoHeader
from kdam_hf.tasks import IGNORE_INDEX, Task

LABELED, SPLITS, CLASSES = "nyu_depth_v2_labeled.mat", "splits.mat", "classMapping40.mat"
KINDS = {"images": "u1", "depths": "f", "labels": "u", "instances": "u"}  # as NumPy writes types
SPLIT_KEYS = {"train": "trainNdxs", "val": "testNdxs"}
NATIVE = (480, 640)
FIELD_CROP = (45, 470, 41, 601)  # rows and columns inside the white frame; 425x560, as in the trees of the field
FINE_CLASSES = 894
# What a Kinect reports ends near 10 m; larger values are another unit.
METRIC_DEPTH: dict[str, Any] = {"unit": "m", "max_depth": 20.0}


class OfficialNyud(DenseDataset):
    """One split of the official files below `root`; `crop` and `intrinsics` as `open_nyud_v2` describes them."""

    ids: Sequence[str] = ()

    def __init__(
        self, name: str, root: Path, split: str, tasks: Sequence[Task], crop: str, intrinsics: str, origin: str
    ) -> None:
        if split not in SPLIT_KEYS:
            raise KdamValueError(f"{name}: no split {split!r} in {SPLITS}; expected one of {', '.join(SPLIT_KEYS)}.")
        self.name, self.split, self.tasks, self.origin = name, split, tuple(tasks), origin
        self._path = root / LABELED
        count, height, width = self._check_shapes()
        self._crop = parse_crop(crop, (height, width))
        self._camera = parse_intrinsics(intrinsics, (height, width))
        self._frames = _read_split(root / SPLITS, SPLIT_KEYS[split], count)
        self.ids = tuple(f"{frame + 1:04d}" for frame in self._frames)
        self._mapping = _read_mapping(root / CLASSES)
        chosen = lines_sha256(map(str, [*self._frames, *self._mapping]))[:16]
        version = f"{self._path.stat().st_size}-{self._crop}-{self._camera}-{chosen}"
        self._stamp = lines_sha256([version, file_facts(self._path)])[:16]
        self.notes = [f"{t.name}: derived {_DERIVED[t.name]}" for t in tasks if t.name in _DERIVED]

    def stamp(self, index: int) -> str:  # of all frames
        return self._stamp

    def photo_header(self, index: int) -> PhotoHeader:
        top, bottom, left, right = self._crop
        return PhotoHeader(bottom - top, right - left)

    def __getitem__(self, index: int) -> Sample:
        frame = self._frames[index]
        where = f"{self._path} frame {frame + 1}"
        top, bottom, left, right = self._crop
        labels = {}
        for task in self.tasks:
            array = _READ[task.name](self, frame=frame)[top:bottom, left:right]
            labels[task.name] = task.label.from_file(array, _OPTIONS.get(task.name, {}), where)
        image = self._read("images", frame)[top:bottom, left:right]
        return {"id": self.ids[index], "image": np.ascontiguousarray(image), "labels": labels}

    def _read(self, key: str, frame: int) -> NDArray[Any]:
        """(N, [3,] W, H) on disk, as h5py shows MATLAB's arrays -> (H, W[, 3]).

        The file is opened each time, which takes a millisecond: HDF5 supports no handle across a fork.
        """
        with reading(self._path, f"MATLAB file at {key!r}, frame {frame + 1}"), open_hdf5(self._path, [key]) as file:
            return np.asarray(file[key][frame]).T

    def _check_shapes(self) -> tuple[int, int, int]:
        """Number of frames, height and width."""
        with open_hdf5(self._path, KINDS) as file:
            arrays = {key: (file[key].dtype, file[key].shape) for key in KINDS}
        (_, shape), *others = arrays.values()
        alike = len(shape) == 4 and shape[1] == 3 and all(other == (shape[0], *shape[2:]) for _, other in others)
        if not alike or not all(dtype.str[1:].startswith(KINDS[key]) for key, (dtype, _) in arrays.items()):
            found = ", ".join(f"{key} {dtype} {other}" for key, (dtype, other) in arrays.items())
            raise DataIntegrityError(
                f"{self._path}: holds {found}; expected images uint8 (N, 3, W, H), depths floats (N, W, H), labels and "
                "instances unsigned integers (N, W, H)."
            )
        return shape[0], shape[3], shape[2]

    def _semseg(self, frame: int) -> NDArray[Any]:
        fine = self._read("labels", frame)
        if fine.max(initial=0) > FINE_CLASSES:
            raise DataIntegrityError(f"{self._path} frame {frame + 1}: label {fine.max()}; expected 0..{FINE_CLASSES}.")
        return self._mapping[fine]

    def _normals(self, frame: int) -> NDArray[Any]:
        return normals_from_depth(self._read("depths", frame).astype(np.float32), self._camera)

    def _edge(self, frame: int) -> NDArray[Any]:
        from scipy.ndimage import distance_transform_edt  # takes a third of a second to import

        labels, instances = (self._read(key, frame).astype(np.int64) for key in ("labels", "instances"))
        segments = labels * 256 + instances
        void = labels == 0
        if void.any() and not void.all():
            segments = segments[tuple(distance_transform_edt(void, return_distances=False, return_indices=True))]
        return segment_borders(segments)


_OPTIONS = {"depth": METRIC_DEPTH}
_DERIVED = {"normals": "from depth (planes fitted to 7x7 pixels)", "edge": "from borders of labelled instances"}
_READ: dict[str, Callable[..., NDArray[Any]]] = {
    "semseg": OfficialNyud._semseg,
    "depth": partial(OfficialNyud._read, key="depths"),
    "normals": OfficialNyud._normals,
    "edge": OfficialNyud._edge,
}


def parse_crop(text: str, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """`auto`, `none` or `top:bottom:left:right` -> rows and columns to keep of a picture of `size` (height, width).

    Raises:
        KdamValueError: not of that form, or outside the picture.
    """
    if text in ("auto", "none"):
        return FIELD_CROP if text == "auto" and size == NATIVE else (0, size[0], 0, size[1])
    parts = text.split(":")
    if len(parts) == 4 and all(part.isdigit() for part in parts):
        top, bottom, left, right = (int(part) for part in parts)
        if top < bottom <= size[0] and left < right <= size[1]:
            return (top, bottom, left, right)
    raise KdamValueError(
        f"crop {text!r} of a picture of {size[0]}x{size[1]} pixels; expected auto, none or top:bottom:left:right inside it."
    )


def parse_intrinsics(text: str, size: tuple[int, int]) -> Intrinsics:
    """`kinect`, scaled to a picture of `size` (height, width), or `fx,fy,cx,cy` as they are, in pixels.

    Raises:
        KdamValueError: not of that form, or a focal length that is not positive.
    """
    if text == "kinect":
        return KINECT_COLOR.scaled(size[0] / NATIVE[0], size[1] / NATIVE[1])
    try:
        fx, fy, cx, cy = (float(part) for part in text.split(","))
        if not np.isfinite((fx, fy, cx, cy)).all() or min(fx, fy) <= 0:
            raise ValueError("a number is not finite, or a focal length not positive")
    except ValueError as error:
        raise KdamValueError(f"intrinsics {text!r}; expected kinect or fx,fy,cx,cy in pixels ({error}).") from error
    return Intrinsics(fx, fy, cx, cy)


def _read_split(path: Path, key: str, count: int) -> NDArray[np.int64]:
    """Frames of a split, counted from 0."""
    numbers = read_mat(path, key)
    if numbers.dtype.kind not in "iuf" or not numbers.size or (numbers % 1 != 0).any():
        raise DataIntegrityError(f"{path}: {key} is {numbers.dtype} {numbers.shape}; expected frame numbers.")
    frames = numbers.ravel().astype(np.int64) - 1
    if frames.min() < 0 or frames.max() >= count or len(set(frames.tolist())) != len(frames):
        raise DataIntegrityError(f"{path}: {key} holds numbers outside 1..{count}, or one twice.")
    return frames


def _read_mapping(path: Path) -> NDArray[np.uint8]:
    """Table from fine label 0..894 to class id 0..39; 255 for unlabelled."""
    coarse = read_mat(path, "mapClass").ravel()
    numeric = coarse.dtype.kind in "iuf" and len(coarse) == FINE_CLASSES
    if not numeric or (coarse % 1 != 0).any() or coarse.min() < 1 or coarse.max() > 40:
        raise DataIntegrityError(
            f"{path}: mapClass is {coarse.dtype} of length {len(coarse)}; expected {FINE_CLASSES} whole numbers in 1..40."
        )
    return np.concatenate([[IGNORE_INDEX], coarse - 1]).astype(np.uint8)
