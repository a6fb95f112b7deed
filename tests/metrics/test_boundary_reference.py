"""Beside the C++ matcher behind published numbers, where its Python port is installed (extra `bench`)."""

import numpy as np
import pytest
from scipy import ndimage
from skimage import data, feature

from kdam_hf.metrics import boundary_counts
from kdam_hf.metrics.boundaries import precision_recall_f

evaluation = pytest.importorskip(
    "pyEdgeEval.common.binary_label.evaluate_boundaries", reason="development-only: pip install '.[bench]'"
)
THRESHOLDS = np.array([0.1, 0.3, 0.5, 0.7])


@pytest.fixture(scope="module")
def photograph():
    """The gradient of a photograph, and its Canny edges at three scales as annotators."""
    grey = data.camera()[60:320, 100:420] / 255
    strength = ndimage.gaussian_gradient_magnitude(grey, 1.5)
    annotations = [
        feature.canny(grey, scale, low_threshold=0.88, high_threshold=0.96, use_quantiles=True) for scale in (2, 3, 4)
    ]
    return np.clip(strength / np.quantile(strength, 0.995), 0, 1), annotations


@pytest.mark.parametrize("annotators", [1, 3])
@pytest.mark.parametrize("nms", [False, True])
def test_f_is_within_two_thousandths_at_every_threshold(photograph, annotators, nms):
    prediction, annotations = photograph[0], photograph[1][:annotators]
    if nms:
        from kdam_hf.metrics.boundary_nms import suppress_non_maxima

        prediction = suppress_non_maxima(prediction)
    reference = evaluation.evaluate_boundaries_threshold_multiple_gts(THRESHOLDS, prediction, annotations, 0.0075)
    counts = boundary_counts(prediction, annotations, thresholds=THRESHOLDS, max_dist=0.0075)
    assert precision_recall_f(counts)[2] == pytest.approx(precision_recall_f(type(counts)(*reference))[2], abs=0.002)
    assert counts.recall_total == pytest.approx(reference[1])
    # its thinning may differ by single pixels
    assert counts.precision_total == pytest.approx(reference[3], abs=2)
    assert counts.recall_matched == pytest.approx(reference[0], abs=3 * annotators + 5)
