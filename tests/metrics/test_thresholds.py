import numpy as np
import pytest
import torch

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.thresholds import EDGE_THRESHOLDS, SALIENCY_THRESHOLDS, EdgeF, Saliency, counts_above

METRICS = {"saliency": (Saliency, np.arange(5, 100, 5) / 100, 0.3), "edge": (EdgeF, np.arange(1, 100) / 100, 1.0)}
both = pytest.mark.parametrize(("make", "thresholds", "beta_squared"), METRICS.values(), ids=METRICS.keys())


def reference_maxf(prediction, label, thresholds, beta_squared):
    """Precision and recall threshold by threshold."""
    p, g = prediction.numpy().ravel(), label.numpy().ravel()
    p, g = p[g != 255], g[g != 255] == 1
    best = 0.0
    for threshold in thresholds:
        # numpy compares a float32 array with a Python float in float32
        found = p >= float(threshold)
        hits = np.sum(found & g)
        if hits:
            precision, recall = hits / np.sum(found), hits / np.sum(g)
            best = max(best, (1 + beta_squared) * precision * recall / (beta_squared * precision + recall))
    return 100 * best


def computed(make, prediction, label):
    metric = make()
    metric.update(prediction, label)
    return metric.compute()


def random_case(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 3, (2, 30, 40), generator=generator)
    label[label == 2] = 255
    noise = torch.rand(2, 30, 40, generator=generator, dtype=torch.float64)
    return (0.4 * (label == 1) + 0.6 * noise).to(dtype), label


@both
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_maxf_agrees_with_a_loop_over_thresholds(make, thresholds, beta_squared, dtype):
    for seed in range(5):
        prediction, label = random_case(seed, dtype)
        expected = reference_maxf(prediction, label, thresholds, beta_squared)
        assert computed(make, prediction, label)["maxf"] == pytest.approx(expected, rel=1e-12)


@both
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_maxf_agrees_on_predictions_that_sit_exactly_on_thresholds(make, thresholds, beta_squared, dtype):
    generator = torch.Generator().manual_seed(0)
    prediction = (torch.randint(0, 101, (50, 60), generator=generator).double() / 100).to(dtype)
    label = (torch.rand(50, 60, generator=generator) < prediction).long()
    expected = reference_maxf(prediction, label, thresholds, beta_squared)
    assert computed(make, prediction, label)["maxf"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("thresholds", [SALIENCY_THRESHOLDS, EDGE_THRESHOLDS])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_counts_are_exact_on_and_beside_every_threshold(thresholds, dtype):
    on = torch.tensor(thresholds, dtype=dtype)
    p = torch.cat([on, torch.nextafter(on, torch.zeros_like(on)), torch.nextafter(on, torch.ones_like(on))])
    positive = torch.arange(len(p)) % 2 == 0
    counts = counts_above(p, positive, thresholds)
    for row, of_row in enumerate((~positive, positive)):
        expected = [int(of_row.sum())] + [int((of_row & (p >= threshold)).sum()) for threshold in thresholds]
        assert counts[row].tolist() == expected


def test_half_precision_is_compared_in_float32():
    prediction, label = random_case(0, torch.bfloat16)
    assert computed(EdgeF, prediction, label) == computed(EdgeF, prediction.float(), label)


def test_mae_agrees_with_numpy():
    prediction, label = random_case(1)
    keep = label != 255
    expected = np.abs(prediction[keep].double().numpy() - label[keep].numpy()).mean()
    assert computed(Saliency, prediction, label)["mae"] == pytest.approx(expected, rel=1e-12)


@both
def test_perfect_prediction_scores_100_and_empty_labels_0(make, thresholds, beta_squared):
    label = torch.tensor([[[0.0, 1.0, 255.0]]])
    assert computed(make, torch.tensor([[[0.0, 1.0, 0.5]]]), label)["maxf"] == 100
    assert computed(make, torch.rand(1, 4, 4), torch.zeros(1, 4, 4))["maxf"] == 0
    assert computed(make, torch.zeros(1, 4, 4), torch.zeros(1, 4, 4))["maxf"] == 0


def test_one_threshold_serves_all_images():
    label = torch.tensor([[[0, 1]], [[0, 1]]])
    prediction = torch.tensor([[[0.1, 0.2]], [[0.8, 0.9]]])
    each = [computed(EdgeF, prediction[i], label[i])["maxf"] for i in (0, 1)]
    assert each == [100, 100]
    assert computed(EdgeF, prediction, label)["maxf"] == pytest.approx(80)


@both
def test_logits_and_other_labels_are_refused(make, thresholds, beta_squared):
    with pytest.raises(KdamValueError, match="between -2 and 3"):
        make().update(torch.tensor([[-2.0, 3.0]]), torch.tensor([[0, 1]]))
    with pytest.raises(KdamValueError, match=r"torch\.int64"):
        make().update(torch.tensor([[0, 1]]), torch.tensor([[0, 1]]))
    with pytest.raises(KdamValueError, match=r"label holds \[254\]"):
        make().update(torch.tensor([[0.0, 1.0]]), torch.tensor([[0, 254]]))
