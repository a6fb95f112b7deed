import math

import numpy as np
import pytest
from metric_cases import soft_map

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.boundary_nms import suppress_non_maxima


def reference_angle(strength):
    """Smoothing by explicit sums over a mirrored frame, and the angle as published."""
    height, width = strength.shape
    weight = [(5 - abs(k)) / 25 for k in range(-4, 5)]
    framed = np.pad(strength, 4, mode="symmetric")
    rows = sum(weight[k] * framed[k : k + height] for k in range(9))
    smooth = sum(weight[k] * rows[:, k : k + width] for k in range(9))
    dy, dx = np.gradient(smooth)
    dyy, dxy = np.gradient(dy)
    dxx = np.gradient(dx)[1]
    return np.mod(np.arctan(dyy * np.sign(-dxy) / (dxx + 1e-5)), np.pi)


def reference(strength):
    """Pixel by pixel."""
    height, width = strength.shape
    angle = reference_angle(strength)
    out = np.zeros_like(strength)

    def value(y, x):
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        y0, x0 = min(math.floor(y), height - 2), min(math.floor(x), width - 2)
        corners = strength[y0 : y0 + 2, x0 : x0 + 2]
        return np.array([1 - y + y0, y - y0]) @ corners @ np.array([1 - x + x0, x - x0])

    for y in range(height):
        for x in range(width):
            dy, dx = math.sin(angle[y, x]), math.cos(angle[y, x])
            if all(1.01 * strength[y, x] >= value(y + side * dy, x + side * dx) for side in (-1, 1)):
                fade = min(1, min(y, height - 1 - y) / min(5, height // 2))
                fade *= min(1, min(x, width - 1 - x) / min(5, width // 2))
                out[y, x] = fade * strength[y, x]
    return out


@pytest.mark.parametrize("shape", [(23, 31), (7, 40), (2, 2), (3, 9)])
def test_agrees_with_a_loop_over_pixels(shape):
    for seed in range(3):
        strength = soft_map(seed, shape)
        assert suppress_non_maxima(strength) == pytest.approx(reference(strength), abs=1e-12)


def test_type_and_input_are_left_as_they_were():
    strength = soft_map(1, (23, 31)).astype(np.float32)
    before = strength.copy()
    kept = suppress_non_maxima(strength)
    assert kept.dtype == np.float32
    assert np.array_equal(strength, before)
    assert kept == pytest.approx(suppress_non_maxima(strength.astype(np.float64)), abs=1e-7)


def test_a_single_row_is_refused():
    with pytest.raises(KdamValueError, match=r"\(1, 9\)"):
        suppress_non_maxima(np.zeros((1, 9)))
