import math

import pytest

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.delta_m import delta_m


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([(44.0, 40.0, True), (0.48, 0.6, False), (21.2, 20.0, False)], (10 + 20 - 6) / 3),
        ([(11.0, 10.0, True), (11.0, 10.0, False)], 0),
    ],
)
def test_signed_mean_of_relative_gains_in_percent(results, expected):
    assert delta_m(results) == pytest.approx(expected)


@pytest.mark.fault(12)
def test_nan_value_is_not_left_out():
    assert math.isnan(delta_m([(math.nan, 40.0, True), (44.0, 40.0, True)]))


@pytest.mark.parametrize("results", [[], *([(1.0, bad, True)] for bad in (0.0, -1.0, math.nan, math.inf))])
def test_no_task_and_unusable_references_are_refused(results):
    with pytest.raises(KdamValueError):
        delta_m(results)
