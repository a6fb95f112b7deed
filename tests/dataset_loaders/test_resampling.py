import numpy as np
import pytest
from PIL import Image

from dataset_loaders import resampling
from dataset_loaders.resampling import (
    Taps,
    bilinear_taps,
    count_ids,
    nearest_indices,
    resize_image,
    resize_label,
)
from kdam_hf.jit import HAS_NUMBA

IDENTITY = np.eye(3, 4, dtype=np.float32)
NO_LIMITS = np.float32([[-np.inf, np.inf]] * 3)
# start, extent, results on an axis of the source
WINDOWS = [(0, 40.0, 40), (3, 21.3, 50), (5, 30.0, 17), (0, 40.0, 3), (39, 1.0, 5), (0, 0.5, 1), (12, 28.0, 13)]


@pytest.fixture(params=[pytest.param(True, marks=pytest.mark.skipif(not HAS_NUMBA, reason="needs numba")), False])
def _numba(request, monkeypatch):
    monkeypatch.setattr(resampling, "HAS_NUMBA", request.param)


def random_image(height=40, width=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def random_label(kind, height=40, width=40):
    rng = np.random.default_rng(1)
    labels = {
        "ids": rng.integers(0, 256, (height, width), dtype=np.uint8),
        "metres": rng.random((height, width), dtype=np.float32),
        "vectors": rng.normal(size=(height, width, 3)).astype(np.float32),
    }
    return labels[kind]


KINDS = ["ids", "metres", "vectors"]


@pytest.mark.parametrize(("start", "extent", "count"), WINDOWS)
def test_taps_are_a_normalised_triangle_inside_the_source(start, extent, count):
    taps = bilinear_taps(start, extent, count, 40)
    assert taps.first.min() >= 0
    assert taps.first.max() + len(taps.weights) <= 40
    assert (taps.weights >= 0).all()
    np.testing.assert_allclose(taps.weights.sum(0), 1, atol=1e-6)
    radius = max(1, extent / count)
    for k in range(count):
        centre = start + (k + 0.5) * extent / count - 0.5
        dense = np.maximum(0, 1 - np.abs(np.arange(40) - centre) / radius)
        expected = np.zeros(40)
        expected[taps.first[k] : taps.first[k] + len(taps.weights)] = taps.weights[:, k]
        np.testing.assert_allclose(expected, dense / dense.sum(), atol=1e-6)


@pytest.mark.usefixtures("_numba")
@pytest.mark.parametrize(("start", "extent", "count"), WINDOWS)
def test_an_image_is_resized_as_by_two_dense_matrices(start, extent, count):
    image = random_image()

    def dense(taps):
        matrix = np.zeros((len(taps.first), 40))
        for t, weights in enumerate(taps.weights):
            matrix[np.arange(len(weights)), taps.first + t] += weights
        return matrix

    rows, columns = bilinear_taps(start, extent, count, 40), bilinear_taps(2, 31.7, 23, 40)
    colors = np.random.default_rng(2).normal(size=(3, 4)).astype(np.float32)
    limits = np.float32([[-100, 90], [0, 255], [-np.inf, 20]])
    rgb = np.einsum("ih,hwc,jw->cij", dense(rows), image.astype(np.float64), dense(columns))
    mapped = np.einsum("kc,cij->kij", colors[:, :3].astype(np.float64), rgb) + colors[:, 3, None, None]
    expected = np.clip(mapped, limits[:, 0, None, None], limits[:, 1, None, None])
    np.testing.assert_allclose(resize_image(image, rows, columns, colors, limits), expected, atol=2e-3)


@pytest.mark.usefixtures("_numba")
@pytest.mark.parametrize("scale", [0.5, 0.6, 0.9, 1.0, 1.7])
def test_a_whole_image_is_resized_as_by_pillow(scale):
    image = random_image(40, 60)
    height, width = round(40 * scale), round(60 * scale)
    taps = bilinear_taps(0, 40, height, 40), bilinear_taps(0, 60, width, 60)
    theirs = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR), np.float32)
    assert np.abs(resize_image(image, *taps, IDENTITY, NO_LIMITS).transpose(1, 2, 0) - theirs).max() <= 1


@pytest.mark.fault(21)
@pytest.mark.usefixtures("_numba")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("start", "extent", "count"), WINDOWS)
def test_a_label_is_picked_and_never_mixed(kind, start, extent, count):
    label = random_label(kind)
    ys, xs = nearest_indices(start, extent, count), nearest_indices(1, 37.0, 29)[::-1].copy()
    raw, found = label[:, :], resize_label(label, ys, xs)
    assert found.dtype == raw.dtype
    np.testing.assert_array_equal(found, raw[ys][:, xs])


@pytest.mark.skipif(not HAS_NUMBA, reason="needs numba")
@pytest.mark.parametrize(("start", "extent", "count"), WINDOWS)
def test_compiled_and_plain_give_the_same_bits(start, extent, count, monkeypatch):
    rng = np.random.default_rng(3)
    image, colors = random_image(), rng.normal(size=(3, 4)).astype(np.float32)
    taps = bilinear_taps(start, extent, count, 40), bilinear_taps(0, 40, 71, 40).reversed()
    limits = np.float32([[-100, 90], [0, 255], [-np.inf, 20]])
    ys, xs = nearest_indices(start, extent, count), nearest_indices(0, 40, 71)
    results = []
    for has_numba in (True, False):
        monkeypatch.setattr(resampling, "HAS_NUMBA", has_numba)
        labels = [resize_label(random_label(kind), ys, xs) for kind in KINDS]
        results.append([resize_image(image, *taps, colors, limits), *labels])
    for compiled, plain in zip(*results, strict=True):
        np.testing.assert_array_equal(compiled, plain)


@pytest.mark.usefixtures("_numba")
def test_memory_order_and_write_protection_change_nothing():
    image, label = random_image(), random_label("vectors")
    taps = bilinear_taps(3, 21.3, 50, 40), bilinear_taps(0, 40, 30, 40)
    ys, xs = nearest_indices(3, 21.3, 50), nearest_indices(0, 40, 30)
    expected = resize_image(image, *taps, IDENTITY, NO_LIMITS), resize_label(label, ys, xs)
    for change in (np.asfortranarray, lambda a: np.repeat(a, 2, axis=1)[:, ::2], lambda a: a[::-1].copy()[::-1]):
        np.testing.assert_array_equal(resize_image(change(image), *taps, IDENTITY, NO_LIMITS), expected[0])
        np.testing.assert_array_equal(resize_label(change(label), ys, xs), expected[1])
    for array in (image, label):
        array.flags.writeable = False
    np.testing.assert_array_equal(resize_image(image, *taps, IDENTITY, NO_LIMITS), expected[0])
    found = resize_label(label, ys, xs)
    np.testing.assert_array_equal(found, expected[1])
    found[:] = 0  # a copy, even where nothing was resized
    same = resize_label(label, np.arange(40), np.arange(40))
    assert not np.shares_memory(same, label)


def test_reversed_taps_give_the_results_from_the_last_to_the_first():
    taps = bilinear_taps(3, 21.3, 50, 40)
    image = random_image()
    rows = bilinear_taps(0, 40, 40, 40)
    plain = resize_image(image, rows, taps, IDENTITY, NO_LIMITS)
    assert isinstance(taps.reversed(), Taps)
    np.testing.assert_array_equal(resize_image(image, rows, taps.reversed(), IDENTITY, NO_LIMITS), plain[:, :, ::-1])


@pytest.mark.usefixtures("_numba")
def test_a_source_of_one_pixel_is_repeated():
    image = np.full((1, 1, 3), 7, np.uint8)
    taps = bilinear_taps(0, 1, 4, 1), bilinear_taps(0, 1, 3, 1)
    np.testing.assert_array_equal(resize_image(image, *taps, IDENTITY, NO_LIMITS), np.full((3, 4, 3), 7))


@pytest.mark.usefixtures("_numba")
@pytest.mark.parametrize("shift", [-1, 1])
def test_a_window_outside_the_source_is_refused_and_never_read(shift):
    image, all_of_it = random_image(), np.arange(40)
    taps = bilinear_taps(0, 40, 40, 40)
    outside = Taps(taps.first + shift, taps.weights)
    for pair in ((taps, outside), (outside, taps), (outside.reversed(), taps)):
        with pytest.raises(IndexError, match="window of rows"):
            resize_image(image, pair[1], pair[0], IDENTITY, NO_LIMITS)
    for ys, xs in (
        (all_of_it, all_of_it + shift),
        (all_of_it + shift, all_of_it),
        (all_of_it, all_of_it[::-1] + shift),
    ):
        with pytest.raises(IndexError, match="window of rows"):
            resize_label(image, ys, xs)


@pytest.mark.usefixtures("_numba")
@pytest.mark.parametrize("size", [(0, 0), (1, 1), (7, 9), (40, 40)])
def test_ids_are_counted(size):
    label = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    assert count_ids(label).tolist() == [int((label == k).sum()) for k in range(256)]


@pytest.mark.usefixtures("_numba")
@pytest.mark.parametrize("size", [(40, 50), (41, 50), (40, 57), (43, 52)])
def test_a_larger_result_holds_the_smaller_one_at_its_top_left(size):
    taps = bilinear_taps(3, 21.3, 40, 40), bilinear_taps(0, 40, 50, 40)
    ys, xs = nearest_indices(3, 21.3, 40), nearest_indices(0, 40, 50)
    found = resize_image(random_image(), *taps, IDENTITY, NO_LIMITS, size)
    expected = np.zeros((3, *size), np.float32)
    expected[:, :40, :50] = resize_image(random_image(), *taps, IDENTITY, NO_LIMITS)
    np.testing.assert_array_equal(found, expected)
    for kind in KINDS:
        small, found = resize_label(random_label(kind), ys, xs), resize_label(random_label(kind), ys, xs, size, 7)
        expected = np.full((*size, *small.shape[2:]), 7, small.dtype)
        expected[:40, :50] = small
        np.testing.assert_array_equal(found, expected)
