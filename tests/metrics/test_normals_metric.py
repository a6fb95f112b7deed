import math

import numpy as np
import pytest
import torch

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.normals import BINS_PER_DEGREE, NormalErrors, angular_error


def unit_vectors(*shape, seed=0):
    vectors = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=-3)


def reference(prediction, label):
    """Angle from cross and dot product, pixel by pixel."""
    p, g = (x.double().movedim(-3, -1).reshape(-1, 3).numpy() for x in (prediction, label))
    angles = []
    for a, b in zip(p, g, strict=True):
        if np.isfinite(b).all() and b.any():
            angles.append(math.degrees(math.atan2(np.linalg.norm(np.cross(a, b)), a @ b)))
    angles = np.array(angles)
    return {
        "mean_angle": angles.mean(),
        "median_angle": np.median(angles),
        "rmse_angle": np.sqrt(np.mean(angles**2)),
        **{f"within_{t:g}": 100 * np.mean(angles < t) for t in (11.25, 22.5, 30)},
    }


def assert_agrees(prediction, label):
    metric = NormalErrors()
    metric.update(prediction, label)
    values, expected = metric.compute(), reference(prediction, label)
    assert values.pop("median_angle") == pytest.approx(expected.pop("median_angle"), abs=0.5001 / BINS_PER_DEGREE)
    assert values == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("pixels", [(1, 1), (1, 2), (30, 41)])
@pytest.mark.parametrize("noise", [1e-3, 0.3, 3.0])
def test_agrees_with_cross_products(pixels, noise):
    label = unit_vectors(2, 3, *pixels)
    prediction = label + noise * unit_vectors(2, 3, *pixels, seed=1)
    if pixels[0] > 1:
        label[:, :, :2], label[:, 1, 3] = 0, torch.nan
    assert_agrees(prediction, label)
    assert_agrees(prediction.float(), label.float())


def test_median_of_two_far_angles_is_their_middle():
    label = torch.tensor([[[0.0, 0.0]], [[0.0, 0.0]], [[1.0, 1.0]]])
    prediction = torch.tensor([[[0.0, 1.0]], [[0.0, 0.0]], [[1.0, 0.0]]])
    metric = NormalErrors()
    metric.update(prediction, label)
    assert metric.compute()["median_angle"] == pytest.approx(45, abs=1 / BINS_PER_DEGREE)


def test_ties_at_the_median_count_as_in_numpy():
    angles = np.array([10.0] * 5 + [20.0] * 5 + [11.2, 22.6, 30.1, 179.999])
    radians = torch.from_numpy(np.radians(angles))
    prediction = torch.stack([radians.sin(), torch.zeros_like(radians), radians.cos()])[:, None]
    label = torch.zeros_like(prediction)
    label[2] = 1
    assert_agrees(prediction, label)


def test_median_lies_within_half_a_bin_on_skewed_angles_over_many_updates():
    metric, angles = NormalErrors(), []
    for seed in range(7):
        generator = torch.Generator().manual_seed(seed)
        degrees = 180 * torch.rand(1, 211 + seed, generator=generator, dtype=torch.float64) ** 4
        radians = torch.deg2rad(degrees)
        label = torch.zeros(3, *degrees.shape, dtype=torch.float64)
        label[2] = 1
        metric.update(torch.stack([radians.sin(), torch.zeros_like(radians), radians.cos()]), label)
        angles.append(degrees.ravel().numpy())
    median = np.median(np.concatenate(angles))
    assert metric.compute()["median_angle"] == pytest.approx(median, abs=0.5001 / BINS_PER_DEGREE)
    edges, counts = metric.error_histogram()
    assert len(edges) == len(counts) + 1
    assert counts[edges[:-1] < 30].sum() == metric.state["within"][2]


def test_more_pixels_than_one_chunk_give_the_same_as_image_by_image():
    label = unit_vectors(3, 250, 300)
    prediction = label + unit_vectors(3, 250, 300, seed=1)
    whole, rows = NormalErrors(), NormalErrors()
    whole.update(prediction, label)
    for row in range(250):
        rows.update(prediction[:, row : row + 1], label[:, row : row + 1])
    assert whole.compute() == pytest.approx(rows.compute(), rel=1e-12)


@pytest.mark.parametrize("degrees", [0, 1e-6, 11.25, 90, 180 - 1e-6, 180])
def test_angle_is_exact_up_to_both_ends(degrees):
    radians = math.radians(degrees)
    prediction = torch.tensor([[math.sin(radians)], [0], [math.cos(radians)]], dtype=torch.float64)
    angle = angular_error(7 * prediction, torch.tensor([[0.0], [0.0], [0.1]], dtype=torch.float64))
    assert angle.item() == pytest.approx(degrees, abs=1e-12, rel=1e-9)


def test_opposite_and_zero_predictions_are_180_and_90_degrees():
    metric = NormalErrors()
    metric.update(
        torch.tensor([[[0.0, 0.0]], [[0.0, 0.0]], [[-1.0, 0.0]]]), torch.tensor([[[0.0, 0]], [[0, 0]], [[1, 1]]])
    )
    assert metric.compute()["mean_angle"] == pytest.approx(135)


def test_four_channels_are_refused():
    with pytest.raises(KdamValueError, match=r"\(4, 2, 2\).*3, H, W"):
        NormalErrors().update(torch.ones(4, 2, 2), torch.ones(4, 2, 2))
