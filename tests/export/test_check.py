"""A difference is found wherever it is, and reported where it is largest."""

import math

import pytest
import torch

from kdam_hf.errors import ExportError
from kdam_hf.export import checked_shapes, largest_differences, refuse_differences
from kdam_hf.modeling_kdam import KdamOutput

SHAPES = [(1, 8, 8), (2, 8, 12)]


def model(pixels):
    """Two tasks whose largest values are 2 and 10 at any size."""
    means = pixels.mean(1, keepdim=True)
    means = means / means.abs().max()
    return KdamOutput(predictions={"a": 2 * means, "b": 10 * means})


def exported(change):
    def call(pixels):
        predictions = dict(model(pixels).predictions)
        change(predictions, pixels)
        return predictions

    return call


def test_the_same_function_differs_by_nothing():
    found = largest_differences(model, exported(lambda p, x: None), SHAPES)
    assert [(each.absolute, each.relative) for each in found.values()] == [(0, 0), (0, 0)]
    refuse_differences(found)


def test_the_largest_difference_is_kept_with_its_shape_and_share():
    def change(predictions, pixels):
        predictions["b"] = predictions["b"] + (0.5 if len(pixels) == 2 else 0.25)

    found = largest_differences(model, exported(change), [*SHAPES, (1, 4, 4)])
    assert found["a"].absolute == 0
    assert found["b"].absolute == pytest.approx(0.5)
    assert found["b"].relative == pytest.approx(0.05)
    assert found["b"].shape == (2, 8, 12)
    with pytest.raises(ExportError, match=r"b: .*0\.5, 0\.05 of the largest value, on a batch of 2 at 8x12"):
        refuse_differences(found)
    refuse_differences(found, tolerance=0.06)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["file", "model"])
def test_what_is_not_finite_is_refused_on_either_side(value, side):
    def broken(pixels):
        predictions = dict(model(pixels).predictions)
        predictions["a"] = predictions["a"].clone()
        predictions["a"][0, 0, 0, 0] = value
        return KdamOutput(predictions=predictions)

    pair = (broken, exported(lambda p, x: None)) if side == "model" else (model, lambda x: broken(x).predictions)
    with pytest.raises(ExportError, match="a: "):
        refuse_differences(largest_differences(*pair, SHAPES))


def test_another_shape_is_refused_and_named():
    def change(predictions, pixels):
        predictions["b"] = predictions["b"][..., :-1]

    with pytest.raises(ExportError, match=r"b: for \(1, 3, 8, 8\) the exported graph yields \(1, 1, 8, 7\)"):
        largest_differences(model, exported(change), SHAPES)


def test_shapes_of_an_open_graph_lie_on_both_sides_of_what_tracing_saw():
    shapes = checked_shapes(None, [240, 320])
    assert (1, 240, 320) in shapes
    assert {batch == 1 for batch, _, _ in shapes} == {True, False}
    assert {height % 32 == 0 and width % 32 == 0 for _, height, width in shapes} == {True, False}
    assert {shape[1:] for shape in checked_shapes((64, 96), [240, 320])} == {(64, 96)}


def test_the_noise_is_the_same_for_the_same_seed():
    seen = []
    for seed in (0, 0, 1):
        largest_differences(model, exported(lambda p, x: seen.append(x)), SHAPES[:1], seed=seed)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
