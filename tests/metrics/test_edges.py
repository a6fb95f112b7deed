import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics import BOUNDARY_PROTOCOLS, BoundaryScores, EdgeF, EdgeScores

SETTINGS = {"thresholds": 9, "max_dist": 0.05}


def images(seed=0, number=4):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((2, number, 24, 32)), (0, 0, 1.5, 1.5))
    noise = (noise - noise.min()) / np.ptp(noise)
    label = (noise[1] > 0.6).astype(np.int64)
    label[:, :3] = 255
    return torch.from_numpy(noise[0]), torch.from_numpy(label)


def filled(metric, prediction, label):
    metric.update(prediction, label)
    return metric


def test_values_are_those_of_the_two_metrics_it_joins():
    joined = filled(EdgeScores(**SETTINGS), *images()).compute()
    alone = filled(BoundaryScores(**SETTINGS), *images()).compute() | filled(EdgeF(), *images()).compute()
    assert joined == alone
    assert min(joined.values()) > 0


def test_merged_parts_equal_the_whole():
    prediction, label = images()
    first, second = (filled(EdgeScores(**SETTINGS), prediction[part], label[part]) for part in (slice(1), slice(1, 4)))
    first.merge(second)
    assert first.compute() == filled(EdgeScores(**SETTINGS), prediction, label).compute()
    with pytest.raises(KdamValueError, match="cannot merge BoundaryScores"):
        first.merge(BoundaryScores(**SETTINGS))


def test_settings_survive_a_copy():
    metric = EdgeScores(**BOUNDARY_PROTOCOLS["nyud"]).with_settings()
    assert (metric.max_dist, metric.nms, metric.thin_annotations, len(metric.thresholds)) == (0.011, True, True, 101)
    assert set(metric.state) == {"counts", "best", "images", "pixels"}


def test_no_valid_pixel_gives_nan():
    prediction, label = images()
    values = filled(EdgeScores(**SETTINGS), prediction, torch.full_like(label, 255)).compute()
    assert all(math.isnan(value) for value in values.values())
