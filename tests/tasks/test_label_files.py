"""What label files in usual encodings become, and which are refused with the file and what is wrong in it."""

import numpy as np
import pytest

from kdam_hf.errors import DataIntegrityError
from kdam_hf.tasks import Depth, Normals, make_task

U8, U16, I16, F32 = np.uint8, np.uint16, np.int16, np.float32


def read(name, array, options=None):
    task = make_task(name, "abc" if name == "semseg" else ())
    return task.label.from_file(array, options or {}, "some/file.png")


@pytest.mark.parametrize(
    ("name", "dtype", "stored", "options", "expected"),
    [
        # NYUD-v2 stores 0 for void and 1..40; MTAN -1 and 0..12; most others 0.. and 255
        ("semseg", I16, [0, 2, 255], {}, [0, 2, 255]),
        ("semseg", I16, [0, 1, 3], {"first_id": 1, "ignore_index": 0}, [255, 0, 2]),
        ("semseg", I16, [1, 3, 255], {"first_id": 1}, [0, 2, 255]),
        ("semseg", I16, [-1, 0, 2], {"ignore_index": -1}, [255, 0, 2]),
        ("semseg", I16, [3, 10, 12], {"first_id": 10, "ignore_index": 3}, [255, 0, 2]),
        ("semseg", I16, [0, 1, 2], {"ignore_index": 1}, [0, 255, 2]),  # a class that shall not count
        ("depth", U16, [0, 2500, 65535], {}, [0, 2.5, 65.535]),
        ("depth", F32, [2.5, 20.0], {"max_depth": 20.0}, [2.5, 20]),
        ("depth", F32, [1200.0], {"unit": "mm"}, [1.2]),
        ("depth", U16, [3], {"unit": "m"}, [3]),
        ("edge", U8, [0, 255], {"ignore_index": 255}, [0, 1]),
        ("edge", U8, [0, 1, 255], {"ignore_index": 255}, [0, 1, 255]),
        ("edge", U8, [0, 255], {"edge_value": 1}, [0, 255]),
        ("saliency", U8, [0, 255], {}, [0, 1]),
        ("saliency", U8, [0, 1, 255], {}, [0, 1, 255]),
        ("saliency", U8, [0, 255], {"ignore_index": 255}, [0, 255]),
        ("normals", U8, [[255, 128, 128], [0, 0, 0]], {}, [[1, 0, 0], [0, 0, 0]]),
    ],
    ids=str,
)
def test_files_in_the_usual_encodings_become_raw_labels(name, dtype, stored, options, expected):
    found = read(name, np.array([stored], dtype), options)
    assert found.dtype == make_task(name, "abc" if name == "semseg" else ()).label.dtype
    np.testing.assert_allclose(found[0], expected, atol=0.01 if name == "normals" else 1e-6)


@pytest.mark.fault(16)
@pytest.mark.parametrize(
    ("name", "array", "options", "says"),
    [
        ("semseg", np.array([[1, 3]], I16), {}, "[3]; expected 0..2 or 255"),
        ("semseg", np.array([[1, -1]], I16), {}, "[-1]"),
        ("semseg", np.array([[1, 4]], I16), {"first_id": 1, "ignore_index": 0}, "[4]; expected 1..3 or 0"),
        ("semseg", np.array([[1, 0]], I16), {"first_id": 1}, "[0]; expected 1..3 or 255"),
        ("semseg", np.array([[1, 255]], I16), {"ignore_index": -1}, "[255]; expected 0..2 or -1"),
        ("semseg", np.zeros((2, 2, 3), U8), {}, "(2, 2, 3)"),
        ("semseg", np.zeros((2, 2)), {}, "float64"),
        ("depth", np.zeros((2, 2), U8), {}, "8-bit"),
        ("depth", np.array([[np.nan]], F32), {}, "NaN"),
        ("depth", np.array([[-1.0]], F32), {}, "-1"),
        ("depth", np.array([[19.9, 20.5]], F32), {"max_depth": 20.0}, "20.5 m; expected at most 20 m"),
        ("depth", np.array([[20_500]], U16), {"max_depth": 20.0, "unit": "mm"}, "20.5 m; expected at most 20 m"),
        ("depth", np.array([[1200.0]], F32), {}, "1200 m; expected at most 655.35 m"),
        ("depth", np.array([[1200]], U16), {"unit": "m"}, "1200 m; expected at most 655.35 m"),
        ("depth", np.array([[1.0]], F32), {"unit": "cm"}, "'cm'"),
        ("normals", np.zeros((2, 2), U8), {}, "(H, W, 3)"),
        ("normals", np.zeros((2, 2, 3), U16), {}, "uint16"),
        ("normals", np.full((1, 1, 3), 9.0), {}, "unit vectors"),
        ("edge", np.array([[0, 3]], U8), {}, "[3]"),
        # a photo, mostly grey: its vectors are short
        ("normals", np.arange(0, 256, 5, U8).reshape(4, 13, 1).repeat(3, -1), {}, "are not of length 1"),
    ],
    ids=str,
)
def test_a_wrong_label_file_is_named_with_what_was_given_and_expected(name, array, options, says):
    with pytest.raises(DataIntegrityError) as caught:
        read(name, array, options)
    assert "some/file.png" in str(caught.value)
    assert says in str(caught.value)


def wall(x, y, z):
    """8x8 normals: three quarters of a wall, and an axis of the room in each direction."""
    normals = np.empty((8, 8, 3))
    normals[:] = np.array([x, y, z]) / np.linalg.norm([x, y, z])
    normals[:2, :2], normals[:2, 2:4], normals[:2, 4:6] = (0, 1, 0), (1, 0, 0), (0, -1, 0)
    return normals


@pytest.mark.parametrize("direction", [(0, 0, 1), (1, 0, 0), (0, 1, 0), (-1, 0, 2), (0, -1, 1.5), (1, 1, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unit_vectors_pass_and_the_same_in_0_to_1_or_0_to_255_do_not(direction, dtype):
    task, normals = Normals(), wall(*direction).astype(dtype)
    np.testing.assert_allclose(task.label.from_file(normals, {}, "f"), normals, atol=1e-6)
    for stored in ((normals + 1) / 2, (normals + 1) * 127.5, normals * 2, normals * 0.8):
        with pytest.raises(DataIntegrityError):
            task.label.from_file(stored, {}, "f")


def test_some_vectors_shortened_by_resizing_are_lengthened_again():
    normals = wall(0, 0, 1)
    normals[0] *= 0.7
    normals[1, 0] = 0.1, 0, 0.2
    found = Normals().label.from_file(normals, {}, "f")
    np.testing.assert_allclose(np.linalg.norm(found[0], axis=-1), 1, atol=1e-6)
    assert not found[1, 0].any()


def test_the_scale_of_integers_is_not_applied_to_floats():
    label = Depth(scale=5000.0).label
    assert label.from_file(np.float32([[2.0]]), {}, "x.npy") == 2 == label.from_file(np.uint16([[10000]]), {}, "x.png")


def test_normals_are_stored_rounded_to_the_nearest_of_8_bits():
    label, normals = make_task("normals").label, np.float32([[[0.6, 0.0, 0.8], [-0.6, 0.8, 0.0]]])
    back = label.from_file(label.to_file(normals, ""), {}, "")
    assert np.degrees(np.arccos(np.clip((back * normals).sum(-1), -1, 1))).max() < 0.4
