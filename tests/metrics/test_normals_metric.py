import numpy as np
import pytest
import torch

from kdam_hf.metrics.normals import BINS_PER_DEGREE, NormalErrors, angular_error


def unit_vectors(*shape, seed=0):
    vectors = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=-3)


def tilted(degrees):
    """Predictions that lean by (N,) degrees from labels that look along z; (3, 1, N) each."""
    radians = torch.deg2rad(torch.as_tensor(degrees, dtype=torch.float64))[None]
    label = torch.zeros(3, *radians.shape, dtype=torch.float64)
    label[2] = 1
    return torch.stack([radians.sin(), torch.zeros_like(radians), radians.cos()]), label


def reference(prediction, label):
    """Angles from cross and dot products."""
    p, g = (x.double().movedim(-3, -1).reshape(-1, 3).numpy() for x in (prediction, label))
    p, g = (x[np.isfinite(g).all(1) & g.any(1)] for x in (p, g))
    angles = np.degrees(np.arctan2(np.linalg.norm(np.cross(p, g), axis=1), (p * g).sum(1)))
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


@pytest.mark.parametrize("noise", [1e-3, 0.3, 3.0])
@pytest.mark.parametrize("pixels", [(1, 1), (1, 2), (30, 41), (150, 240)])  # the last is more than one chunk
def test_agrees_with_cross_products(pixels, noise):
    label = unit_vectors(2, 3, *pixels)
    prediction = label + noise * unit_vectors(2, 3, *pixels, seed=1)
    if pixels[0] > 1:
        label[:, :, :2], label[:, 1, 3] = 0, torch.nan
    assert_agrees(prediction, label)
    assert_agrees(prediction.float(), label.float())


@pytest.mark.parametrize(
    "degrees",
    [
        [0, 90],
        [10.0] * 5 + [20.0] * 5 + [11.2, 22.6, 30.1, 179.999],
        180 * np.random.default_rng(0).random(1501) ** 4,
    ],
    ids=["two far angles", "ties", "skewed"],
)
def test_median_lies_within_half_a_bin_of_that_of_all_angles(degrees):
    assert_agrees(*tilted(degrees))


def test_histogram_holds_the_angles():
    metric, degrees = NormalErrors(), 180 * np.random.default_rng(1).random(1010)
    metric.update(*tilted(degrees))
    edges, counts = metric.error_histogram()
    assert counts.tolist() == np.histogram(degrees, edges.numpy())[0].tolist()


@pytest.mark.parametrize("degrees", [0, 1e-6, 11.25, 90, 180 - 1e-6, 180])
def test_angle_is_exact_up_to_both_ends_whatever_the_lengths(degrees):
    prediction, label = tilted([degrees])
    assert angular_error(7 * prediction, label / 10).item() == pytest.approx(degrees, abs=1e-12, rel=1e-9)


def test_a_predicted_zero_vector_is_90_degrees_from_everything():
    label = unit_vectors(3, 1, 5)
    assert angular_error(torch.zeros_like(label), label).flatten().tolist() == pytest.approx([90] * 5)
