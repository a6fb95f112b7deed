import numpy as np
import pytest
import torch

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics import EdgeF, Saliency
from kdam_hf.metrics.saliency import SALIENCY_THRESHOLDS
from kdam_hf.metrics.thresholds import EDGE_THRESHOLDS, Pixels, check_thresholds, counts_above, precision_recall_iou

METRICS = {"saliency": (Saliency, np.arange(5, 100, 5) / 100, 0.3), "edge": (EdgeF, np.arange(1, 100) / 100, 1.0)}
both = pytest.mark.parametrize(("make", "thresholds", "beta_squared"), METRICS.values(), ids=METRICS.keys())
SETS = {
    "saliency": SALIENCY_THRESHOLDS,
    "edge": EDGE_THRESHOLDS,
    "all": tuple(k / 255 for k in range(256)),
    "ends": (0.0, 1.0),
    "one": (0.5,),
    "crowded": (0.3, 0.3 + 1e-6, 0.3 + 3e-6, 0.9),
}


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


def on_thresholds(dtype):
    generator = torch.Generator().manual_seed(0)
    prediction = (torch.randint(0, 101, (50, 60), generator=generator).double() / 100).to(dtype)
    return prediction, (torch.rand(50, 60, generator=generator) < prediction).long()


@both
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_maxf_agrees_with_a_loop_over_thresholds(make, thresholds, beta_squared, dtype):
    for prediction, label in (random_case(0, dtype), random_case(1, dtype), on_thresholds(dtype)):
        expected = reference_maxf(prediction, label, thresholds, beta_squared)
        assert computed(make, prediction, label)["maxf"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("thresholds", SETS.values(), ids=SETS.keys())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("strict", [False, True])
def test_counts_are_exact_on_and_beside_every_threshold(thresholds, dtype, strict):
    on = torch.tensor(thresholds, dtype=dtype)
    beside = [torch.nextafter(on, torch.full_like(on, end)) for end in (-1, 2)]
    p = torch.cat([on, *beside, torch.tensor([-1e-6, -0.0, 0, 1, 1 + 1e-6], dtype=dtype)])
    positive, valid = torch.arange(len(p)) % 2 == 0, torch.arange(len(p)) % 5 > 0
    counts = counts_above(Pixels(p, positive, valid), thresholds, strict)
    for row, of_row in enumerate((~positive & valid, positive & valid)):
        reached = [(p > t if strict else p >= t) for t in thresholds]
        assert counts[row].tolist() == [int(of_row.sum())] + [int((of_row & r).sum()) for r in reached]


def test_half_precision_is_compared_in_float32():
    prediction, label = random_case(0, torch.bfloat16)
    assert computed(EdgeF, prediction, label) == computed(EdgeF, prediction.float(), label)


@both
@pytest.mark.parametrize(
    ("prediction", "label", "expected"),
    [([0.0, 1.0, 0.5], [0.0, 1.0, 255.0], 100), ([0.3, 0.8], [0.0, 0.0], 0), ([0.0, 0.0], [0.0, 0.0], 0)],
)
def test_perfect_prediction_scores_100_and_empty_labels_0(make, thresholds, beta_squared, prediction, label, expected):
    assert computed(make, torch.tensor([prediction]), torch.tensor([label]))["maxf"] == pytest.approx(expected)


def test_iou_of_two_empty_sides_is_what_the_caller_says():
    counts = counts_above(Pixels(torch.zeros(4), torch.zeros(4).bool(), torch.ones(4).bool()), (0.5,))
    for both_empty in (0, 1):
        assert precision_recall_iou(counts, both_empty).flatten().tolist() == [0, 0, both_empty]


def test_one_threshold_serves_all_images():
    label, prediction = torch.tensor([[[0, 1]], [[0, 1]]]), torch.tensor([[[0.1, 0.2]], [[0.8, 0.9]]])
    assert [computed(EdgeF, prediction[i], label[i])["maxf"] for i in (0, 1)] == [100, 100]
    assert computed(EdgeF, prediction, label)["maxf"] == pytest.approx(80)


@both
@pytest.mark.parametrize(
    ("prediction", "label", "given"),
    [([[-2.0, 3.0]], [[0, 1]], ("-2", "3")), ([[0, 1]], [[0, 1]], ("int64",)), ([[0.0, 1.0]], [[0, 254]], ("254",))],
)
def test_logits_and_other_labels_are_refused(make, thresholds, beta_squared, prediction, label, given):
    with pytest.raises(KdamValueError) as caught:
        make().update(torch.tensor(prediction), torch.tensor(label))
    assert all(word in str(caught.value) for word in given)


@pytest.mark.parametrize("thresholds", [(), (0.5, 0.5), (0.5, 0.4), (-0.1, 0.5), (0.5, 1.1), (float("nan"),)])
def test_thresholds_that_do_not_ascend_within_the_unit_interval_are_refused(thresholds):
    with pytest.raises(KdamValueError):
        check_thresholds(thresholds)
