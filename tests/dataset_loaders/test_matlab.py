"""MATLAB files written by SciPy and h5py, whole and spoilt."""

from contextlib import suppress

import h5py
import numpy as np
import pytest
import scipy.io
import trees

from dataset_loaders.matlab import class_ids, open_hdf5, read_mat, read_mat_map
from kdam_hf.errors import DataIntegrityError


@pytest.fixture
def mat(tmp_path):
    """A file with a map and what is none, of version 5."""
    content = {"ids": np.array([[0, 1, 40], [7, 7, 7]], np.uint8), "cube": np.zeros((2, 3, 4)), "text": "wall"}
    content |= {"complex": np.array([[1 + 2j]]), "record": np.array([[(1, 2)]], [("a", object), ("b", object)])}
    scipy.io.savemat(tmp_path / "labels.mat", content, do_compression=True)
    return tmp_path / "labels.mat"


@pytest.fixture
def hdf5(tmp_path):
    """A file of version 7.3 with two arrays and a group."""
    path = tmp_path / "large.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["images"] = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
        file["depths"] = np.zeros((2, 4), np.float32)
        file.create_group("#refs#")
    return path


@pytest.mark.fault(26)
@pytest.mark.parametrize("key", ["cube", "text", "complex", "record"])
def test_what_is_no_map_of_numbers_is_refused(mat, key):
    assert read_mat_map(mat, "ids").tolist() == [[0, 1, 40], [7, 7, 7]]
    with pytest.raises(DataIntegrityError, match=rf"labels\.mat: '{key}' is .*; expected numbers \(H, W\)"):
        read_mat_map(mat, key)


@pytest.mark.fault(26)
def test_a_file_cut_after_its_header_is_not_taken_for_an_empty_one(mat):
    trees.cut_after_mat_header(mat)
    assert not [key for key in scipy.io.loadmat(mat) if not key.startswith("__")]
    with pytest.raises(DataIntegrityError, match=r"labels\.mat: holds nothing \(cut after its header\?\).*'ids'"):
        read_mat(mat, "ids")


@pytest.mark.fault(26)
def test_random_bytes_or_a_cut_are_never_more_than_a_data_error(mat):
    rng = np.random.default_rng(0)
    content = mat.read_bytes()
    for _ in range(30):
        spoilt = bytearray(content)
        at = int(rng.integers(128, len(spoilt) - 8))
        spoilt[at : at + 4] = rng.bytes(4)
        mat.write_bytes(spoilt)
        with suppress(DataIntegrityError):  # nothing else comes out
            read_mat_map(mat, "ids")
    for keep in (0, 0.05, 0.3):
        mat.write_bytes(content[: int(keep * len(content))])
        with pytest.raises(DataIntegrityError, match=r"labels\.mat: "):
            read_mat_map(mat, "ids")


def test_each_version_is_told_from_the_other_and_a_missing_file_is_named(mat, hdf5, tmp_path):
    for read, path, key in ((read_mat, hdf5, "images"), (open_hdf5, mat, ["ids"])):
        with pytest.raises(DataIntegrityError, match=path.name):
            read(path, key)
        with pytest.raises(DataIntegrityError, match=r"gone\.mat: no such file"):
            read(tmp_path / "gone.mat", key)


def test_hdf5_arrays_are_found_and_missing_ones_named(hdf5):
    with open_hdf5(hdf5, ["images", "depths"]) as file:
        assert file["images"].shape == (2, 3, 4)
    with pytest.raises(DataIntegrityError, match="labels, #refs#"):
        open_hdf5(hdf5, ["images", "labels", "#refs#"])  # a group is no array
    trees.truncate(hdf5)
    with pytest.raises(DataIntegrityError, match=r"large\.mat"):
        open_hdf5(hdf5, ["images"])


@pytest.mark.fault(21)
def test_class_ids_stored_as_floats_become_integers_and_fractions_and_nan_are_refused():
    ids = class_ids(np.array([[-1.0, 0.0, 12.0]], np.float32), "f.npy")
    assert ids.dtype.kind == "i"
    assert ids.tolist() == [[-1, 0, 12]]
    whole = np.array([[3]], np.uint8)
    assert class_ids(whole, "f.npy") is whole
    for value in (0.5, np.nan, np.inf, 39.999):
        with pytest.raises(DataIntegrityError, match=r"f\.npy"):
            class_ids(np.array([[1.0, value]]), "f.npy")
