import pytest
import torch
from metric_cases import computed

from kdam_hf.metrics import EdgeF
from kdam_hf.metrics.saliency import SALIENCY_THRESHOLDS
from kdam_hf.metrics.thresholds import EDGE_THRESHOLDS, Pixels, counts_above

SETS = {
    "saliency": SALIENCY_THRESHOLDS,
    "edge": EDGE_THRESHOLDS,
    "all": tuple(k / 255 for k in range(256)),
    "ends": (0.0, 1.0),
    "one": (0.5,),
    "crowded": (0.3, 0.3 + 1e-6, 0.3 + 3e-6, 0.9),
}


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


@pytest.mark.parametrize(
    ("prediction", "label", "expected"),
    [
        ([[0.0, 1.0, 0.5]], [[0.0, 1.0, 255.0]], 100),
        ([[0.3, 0.8]], [[0.0, 0.0]], 0),
        # two images that one threshold serves, each perfect with its own
        ([[[0.1, 0.2]], [[0.8, 0.9]]], [[[0, 1]], [[0, 1]]], 80),
    ],
)
def test_perfect_predictions_score_100_empty_labels_0_and_images_share_a_threshold(prediction, label, expected):
    assert computed(EdgeF(), prediction, label)["maxf"] == pytest.approx(expected)
