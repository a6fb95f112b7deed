"""The contract of label kinds: what is invalid, mirroring, tensors, storage, and facts that add up."""

import json
from dataclasses import replace

import numpy as np
import pytest

from kdam_hf.errors import DataIntegrityError
from kdam_hf.tasks import FloatMap, LabelStatistics, Metres, Vectors, make_task

H, W = 6, 10


KINDS = {
    "classes": make_task("semseg", ["a", "b", "c"]).label,
    "parts": make_task("human_parts").label,
    "saliency": make_task("saliency").label,
    "edge": make_task("edge").label,
    "depth": Metres("depth"),
    "normals": Vectors("normals"),
    "flow": FloatMap("flow", 2, mirrored=(0,), scaling=1),
    "heat": FloatMap("heat"),
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


def raw(kind, seed=0):
    """A raw label with holes."""
    rng = np.random.default_rng(seed)
    if kind.dtype == np.uint8:
        label = rng.integers(0, 2, (H, W)).astype(np.uint8)
    else:
        label = rng.uniform(0.5, 60, (H, W, *kind.shape_suffix)).astype(np.float32)
        if isinstance(kind, Vectors):
            label = (label - 30) / np.linalg.norm(label - 30, axis=-1, keepdims=True)
    label[rng.random((H, W)) < 0.3] = kind.invalid
    return label


def hflip(kind, label):
    return kind.mirror_values(label[:, ::-1])


@kinds
def test_a_raw_label_passes_its_own_check_and_has_the_stated_form(kind):
    for label in (raw(kind), kind.unlabelled(H, W)):
        kind.check(label, "here")
        assert (label.dtype, label.shape) == (kind.dtype, (H, W, *kind.shape_suffix))
    assert not kind.valid(kind.unlabelled(H, W)).any()
    assert kind.statistics(kind.unlabelled(H, W)).valid == 0
    assert 0 < kind.valid(raw(kind)).sum() < H * W


@kinds
def test_two_flips_are_the_identity_and_a_scale_is_undone_by_its_inverse(kind):
    label = raw(kind)
    np.testing.assert_array_equal(hflip(kind, hflip(kind, label)), label)
    np.testing.assert_allclose(kind.rescale(kind.rescale(label, 2.0), 0.5), label)
    np.testing.assert_array_equal(kind.valid(kind.rescale(hflip(kind, label), 2.0)), kind.valid(label)[:, ::-1])


def test_values_follow_the_mirror_and_the_scale_where_they_must():
    assert hflip(KINDS["normals"], np.float32([[[1, 0, 0], [0, 0, 0]]]))[0, 1].tolist() == [-1, 0, 0]
    assert hflip(KINDS["flow"], np.float32([[[3, 5], [0, 0]]]))[0, 1].tolist() == [-3, 5]
    assert KINDS["depth"].rescale(np.float32([[3]]), 2.0) == 1.5
    assert KINDS["flow"].rescale(np.float32([[[3, 5]]]), 2.0).tolist() == [[[6, 10]]]


def test_human_parts_without_a_person_are_ignored():
    for label, tensor in (([[0, 0]], [[255, 255]]), ([[0, 3]], [[0, 3]])):
        assert KINDS["parts"].to_tensor(np.array(label, np.uint8)).tolist() == tensor


@kinds
def test_a_tensor_holds_the_same_values_and_the_same_invalid_pixels(kind):
    label = raw(kind)
    tensor = kind.to_tensor(hflip(kind, label))
    assert tensor.shape[-2:] == (H, W)
    assert tensor.is_contiguous()
    channels_last = tensor.numpy() if tensor.ndim == 2 else np.moveaxis(tensor.numpy(), 0, -1)
    np.testing.assert_array_equal(channels_last.reshape(label.shape), hflip(kind, label).astype(channels_last.dtype))
    invalid = kind.to_tensor(kind.unlabelled(2, 1))
    np.testing.assert_array_equal(invalid.numpy(), np.full(invalid.shape, kind.invalid))


@kinds
def test_storage_keeps_every_value_and_which_pixels_are_valid(kind):
    label = raw(kind)
    stored = kind.encode(label, "here")
    found = kind.decode(stored)
    assert (stored.dtype, stored.shape) == (kind.stored_dtype, label.shape)
    assert found.dtype == kind.dtype
    np.testing.assert_array_equal(kind.valid(found), kind.valid(label))
    error = {Metres: 0.5e-3 + 1e-5, Vectors: 0.5 / 32767 + 1e-7}.get(type(kind), 0)
    np.testing.assert_allclose(found, label, rtol=0, atol=error)
    np.testing.assert_array_equal(kind.decode(stored[1:4, 2:3]), found[1:4, 2:3])


@kinds
def test_a_label_file_of_its_own_making_is_read_back(kind):
    label = raw(kind)
    found = kind.from_file(kind.to_file(label, "here"), kind.own_options, "here")
    np.testing.assert_array_equal(kind.valid(found), kind.valid(label))
    np.testing.assert_allclose(found, label, atol={Metres: 1e-3, Vectors: 0.02}.get(type(kind), 0))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        *(("flow", np.zeros((H, W, 2), np.int16)), ("flow", np.zeros((H, W, 3), np.float32))),
        *(("flow", np.full((H, W, 2), np.inf)), ("heat", np.zeros((H, W, 1), np.float32))),
    ],
)
def test_a_float_label_of_another_shape_or_dtype_is_refused(name, array):
    with pytest.raises(DataIntegrityError, match=f"here: {name}"):
        KINDS[name].from_file(array, {}, "here")


def test_valid_depth_is_never_stored_as_a_hole_and_far_depth_is_refused():
    kind = Metres("depth")
    assert kind.encode(np.float32([[0, 0.0002, 1.2344, 65.535]]), "here").tolist() == [[0, 1, 1234, 65535]]
    with pytest.raises(DataIntegrityError, match=r"80.0 m; expected at most 65.535"):
        kind.encode(np.float32([[80]]), "here")


A = LabelStatistics(2, 10, 7, counts=(3, 4, 0))
B = LabelStatistics(1, 6, 6, counts=(0, 1, 5))
C = LabelStatistics(1, 4, 2, 0.5, 3.0, logarithms=0.25)
D = LabelStatistics(3, 9, 1, 2.0, 8.25, logarithms=1.5)


@pytest.mark.parametrize(
    ("name", "label", "expected"),
    [
        ("semseg", np.array([[0, 0, 2], [255, 2, 2]], np.uint8), LabelStatistics(1, 6, 5, counts=(2, 0, 3))),
        (
            "depth",
            np.array([[0, 1.5, 0.25], [9, 0, 0]], np.float32),
            LabelStatistics(1, 6, 3, 0.25, 9.0, logarithms=pytest.approx(np.log(1.5 * 0.25 * 9))),
        ),
        ("normals", np.array([[[0, 0, 1], [0, 0, 0], [-1, 0, 0]]], np.float32), LabelStatistics(1, 3, 2)),
        ("edge", np.array([[0, 1, 1, 255]], np.uint8), LabelStatistics(1, 4, 3, counts=(1, 2))),
        ("saliency", np.array([[0, 1, 1, 255]], np.uint8), LabelStatistics(1, 4, 3, counts=(1, 2))),
    ],
)
def test_classes_are_counted_and_depth_has_its_range_over_valid_pixels(name, label, expected):
    kind = make_task(name, "abc" if name == "semseg" else ()).label
    assert kind.statistics(label) == expected
    parts = np.array_split(label, 3, axis=1)
    assert replace(sum(map(kind.statistics, parts), LabelStatistics()), images=1) == expected


@pytest.mark.parametrize(("first", "second"), [(A, B), (C, D), (A, LabelStatistics(1, 4)), (LabelStatistics(1, 4), D)])
def test_statistics_add_up_in_any_order_survive_json_and_nothing_is_neutral(first, second):
    assert LabelStatistics(3, 16, 13, counts=(3, 5, 5)) == A + B
    assert LabelStatistics(4, 13, 3, 0.5, 8.25, logarithms=1.75) == C + D
    assert first + second == second + first
    assert first + LabelStatistics() == first
    text = json.dumps((first + second).as_json(), allow_nan=False)  # no Infinity, which other parsers refuse
    assert LabelStatistics.from_json(json.loads(text)) == first + second


def test_what_a_teacher_decides_becomes_a_raw_label():
    semseg, edge = make_task("semseg", "abcde").label, make_task("edge").label
    assert semseg.from_values(np.array([[0, 4, 5]])).tolist() == [[0, 4, 255]]
    assert edge.from_values(np.array([[0.49, 0.5, 1.0]])).tolist() == [[0, 1, 1]]


def test_an_ignored_pixel_is_no_person():
    assert (make_task("human_parts").label.to_tensor(np.uint8([[0, 255]])) == 255).all()
