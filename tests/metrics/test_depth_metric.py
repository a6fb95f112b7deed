import numpy as np
import pytest
import torch

from kdam_hf.metrics import DepthErrors


def reference(prediction, label):
    p, g = prediction.double().numpy().ravel(), label.double().numpy().ravel()
    keep = np.isfinite(g) & (g > 0)
    p, g = p[keep], g[keep]
    worst = np.where(p > 0, np.maximum(p / g, g / np.where(p > 0, p, 1)), np.inf)
    return {
        "rmse": np.sqrt(np.mean((p - g) ** 2)),
        "log_rmse": np.sqrt(np.mean((np.log(np.maximum(p, 1e-9)) - np.log(g)) ** 2)),
        "abs_rel": np.mean(np.abs(p - g) / g),
        **{f"delta{k}": 100 * np.mean(worst < 1.25**k) for k in (1, 2, 3)},
    }


def filled(prediction, label):
    metric = DepthErrors()
    metric.update(prediction, label)
    return metric


def case(seed, dtype=torch.float32):
    """Maps with holes of every kind, and predictions of which some are not positive."""
    generator = torch.Generator().manual_seed(seed)
    label = 10 * torch.rand(2, 1, 40, 50, generator=generator, dtype=torch.float64).to(dtype)
    prediction = label * torch.exp(torch.randn(label.shape, generator=generator, dtype=dtype) / 3)
    label[:, :, :3], label[:, :, 3], label[:, :, 4], label[:, :, 5] = 0, -1, torch.nan, torch.inf
    prediction[..., 0], prediction[..., 1] = 0, -1
    return prediction, label


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_agrees_with_numpy_on_maps_with_holes(dtype):
    prediction, label = case(0, dtype)
    assert filled(prediction, label).compute() == pytest.approx(reference(prediction, label), rel=1e-12)


def test_ratio_exactly_at_the_threshold_is_outside():
    assert filled(torch.tensor([[[1.25, 2.0]]]), torch.tensor([[[1.0, 2.5]]])).compute()["delta1"] == 0


def test_histogram_of_the_factor_agrees_with_a_loop_and_with_the_deltas():
    prediction, label = case(1)
    metric = filled(prediction, label)
    edges, counts = metric.error_histogram()
    expected = np.zeros(len(counts), int)
    for p, g in zip(prediction.double().ravel().tolist(), label.double().ravel().tolist(), strict=True):
        if 0 < g < np.inf:
            factor = max(p / g, g / p) if p > 0 else np.inf
            expected[min(np.searchsorted(edges.numpy(), factor, side="right"), len(counts)) - 1] += 1
    assert counts.tolist() == expected.tolist()
    for k in (1, 2, 3):
        assert edges[50 * k] == pytest.approx(1.25**k)
        share = 100 * float(counts[: 50 * k].sum() / counts.sum())
        assert metric.compute()[f"delta{k}"] == pytest.approx(share)
