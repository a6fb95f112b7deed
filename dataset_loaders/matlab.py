"""MATLAB files: version 5 through SciPy, version 7.3 (HDF5) through h5py.

A `.mat` that was cut right after its header opens without an error and holds nothing, so every key is asked for by name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from dataset_loaders.sample import reading
from kdam_hf.errors import DataIntegrityError


def read_mat(path: Path, key: str) -> NDArray[Any]:
    """The variable `key` of a version 5 `.mat`, as SciPy shapes it: numbers at least 2-D, structs as records.

    Raises:
        DataIntegrityError: missing, truncated, of version 7.3, or without the key; names the keys that are there.
    """
    with reading(path, "MATLAB file of version 5"):
        try:
            with path.open("rb") as file:  # given a name, SciPy hides why it cannot be opened
                content = loadmat(file)
        except NotImplementedError as error:
            raise DataIntegrityError(
                f"{path}: MATLAB version 7.3 (HDF5); expected version 5. Save it with `save -v7` in MATLAB."
            ) from error
    if key not in content:
        found = ", ".join(name for name in content if not name.startswith("__")) or "nothing (cut after its header?)"
        raise DataIntegrityError(f"{path}: holds {found}; expected the variable {key!r}. Replace the file.")
    return content[key]


def read_mat_map(path: Path, key: str) -> NDArray[Any]:
    """As `read_mat`, for a map of numbers (H, W).

    Raises:
        DataIntegrityError: as `read_mat`, and for anything but a 2-D array of numbers.
    """
    array = read_mat(path, key)
    if array.dtype.kind not in "biuf" or array.ndim != 2:
        raise DataIntegrityError(f"{path}: {key!r} is {array.dtype} {array.shape}; expected numbers (H, W).")
    return array


def open_hdf5(path: Path, keys: Sequence[str]) -> h5py.File:
    """A version 7.3 `.mat`, open for reading; h5py shows its axes in reverse order.

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
    """Class ids that MATLAB or NumPy stored as floats, as integers; integers as they are.

    Raises:
        DataIntegrityError: fractions, NaN or infinity, as a resized or averaged map holds them.
    """
    if array.dtype.kind != "f":
        return array
    if not np.isfinite(array).all() or (array != np.rint(array)).any():
        raise DataIntegrityError(f"{where}: class ids with fractions or NaN; expected whole numbers. Was it resized?")
    return array.astype(np.int64)
