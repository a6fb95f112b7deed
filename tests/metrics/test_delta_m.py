import math

import pytest

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.delta_m import delta_m


def test_signed_mean_of_relative_gains_in_percent():
    # semseg +10 %, depth error 20 % lower, normals error 6 % higher
    results = [(44.0, 40.0, True), (0.48, 0.6, False), (21.2, 20.0, False)]
    assert delta_m(results) == pytest.approx((10 + 20 - 6) / 3)


def test_zero_against_itself():
    assert delta_m([(44.0, 44.0, True), (0.5, 0.5, False)]) == 0


def test_opposite_directions_of_one_change_cancel():
    assert delta_m([(11.0, 10.0, True), (11.0, 10.0, False)]) == pytest.approx(0)


@pytest.mark.fault(12)
def test_nan_value_is_not_left_out():
    assert math.isnan(delta_m([(math.nan, 40.0, True), (44.0, 40.0, True)]))


@pytest.mark.parametrize("reference", [0.0, -1.0, math.nan, math.inf])
def test_unusable_reference_is_refused(reference):
    with pytest.raises(KdamValueError, match="reference"):
        delta_m([(1.0, reference, True)])


def test_no_task_is_refused():
    with pytest.raises(KdamValueError, match="no task"):
        delta_m([])
