"""MATLAB files: version 5 through SciPy, in a process beside; version 7.3 (HDF5) through h5py.

A `.mat` that was cut right after its header opens without an error and holds nothing, so every key is asked for by name.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dataset_loaders.mat_process import parse
from dataset_loaders.reading import reading
from kdam_hf.errors import DataIntegrityError

MAX_BYTES = 500 * 2**20
"""Of a file of version 5; a map of 50 million pixels in double precision takes less."""


def read_mat(path: Path, key: str) -> NDArray[Any]:
    """The variable `key` of a version 5 `.mat`, as SciPy shapes it: numbers at least 2-D, structs as records.

    Raises:
        DataIntegrityError: missing, truncated, of version 7.3, without the key, or its parser dies, hangs or asks for too
            much memory.
    """
    if h5py.is_hdf5(path):
        raise DataIntegrityError(f"{path}: MATLAB version 7.3 (HDF5); expected version 5: save it with `save -v7`.")
    with reading(path, "MATLAB file of version 5"):
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataIntegrityError(f"{path}: {size} bytes; expected at most {MAX_BYTES}.")
        found = parse(path.read_bytes(), key)
    if isinstance(found, list):
        names = ", ".join(found) or "nothing (cut after its header?)"
        raise DataIntegrityError(f"{path}: holds {names}; expected the variable {key!r}. Replace the file.")
    return found


def read_mat_map(path: Path, key: str) -> NDArray[Any]:
    """As `read_mat`, for a map of numbers (H, W); anything else is a DataIntegrityError."""
    array = read_mat(path, key)
    if array.dtype.kind not in "biuf" or array.ndim != 2:
        raise DataIntegrityError(f"{path}: {key!r} is {array.dtype} {array.shape}; expected numbers (H, W).")
    return array


def open_hdf5(path: Path, keys: Iterable[str]) -> h5py.File:
    """A version 7.3 `.mat` with these arrays, open for reading; h5py shows its axes in reverse order.

    Raises:
        DataIntegrityError: missing, truncated, of version 5, or without one of the keys.
    """
    with reading(path, "MATLAB file of version 7.3 (HDF5)"):
        file = h5py.File(path, "r")
    missing = [key for key in keys if not isinstance(file.get(key), h5py.Dataset)]
    if missing:
        found = ", ".join(file) or "nothing"
        file.close()
        raise DataIntegrityError(f"{path}: holds {found}; expected also {', '.join(missing)}. Replace the file.")
    return file


def class_ids(array: NDArray[Any], where: str) -> NDArray[Any]:
    """Class ids that MATLAB or NumPy stored as floats, as integers; DataIntegrityError for fractions and NaN."""
    if array.dtype.kind != "f":
        return array
    if not np.isfinite(array).all() or (array != np.rint(array)).any():
        raise DataIntegrityError(f"{where}: class ids with fractions or NaN; expected whole numbers. Was it resized?")
    return array.astype(np.int64)
