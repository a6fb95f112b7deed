"""Facts of labels that add up."""

import json
from dataclasses import replace

import numpy as np
import pytest

from kdam_hf.tasks import LabelStatistics, make_task

A = LabelStatistics(2, 10, 7, counts=(3, 4, 0))
B = LabelStatistics(1, 6, 6, counts=(0, 1, 5))
C = LabelStatistics(1, 4, 2, 0.5, 3.0, logarithms=0.25)
D = LabelStatistics(3, 9, 1, 2.0, 8.25, logarithms=1.5)


@pytest.mark.parametrize(
    ("name", "label", "expected"),
    [
        ("semseg", np.array([[0, 0, 2], [255, 2, 2]], np.uint8), LabelStatistics(1, 6, 5, counts=(2, 0, 3))),
        (
            "depth",
            np.array([[0, 1.5, 0.25], [9, 0, 0]], np.float32),
            LabelStatistics(1, 6, 3, 0.25, 9.0, logarithms=pytest.approx(np.log(1.5 * 0.25 * 9))),
        ),
        ("normals", np.array([[[0, 0, 1], [0, 0, 0], [-1, 0, 0]]], np.float32), LabelStatistics(1, 3, 2)),
        ("edge", np.array([[0, 1, 1, 255]], np.uint8), LabelStatistics(1, 4, 3, counts=(1, 2))),
        ("saliency", np.array([[0, 1, 1, 255]], np.uint8), LabelStatistics(1, 4, 3, counts=(1, 2))),
    ],
)
def test_classes_are_counted_and_depth_has_its_range_over_valid_pixels(name, label, expected):
    kind = make_task(name, "abc" if name == "semseg" else ()).label
    assert kind.statistics(label) == expected
    parts = np.array_split(label, 3, axis=1)
    assert replace(sum(map(kind.statistics, parts), LabelStatistics()), images=1) == expected


@pytest.mark.parametrize(("first", "second"), [(A, B), (C, D), (A, LabelStatistics(1, 4)), (LabelStatistics(1, 4), D)])
def test_statistics_add_up_in_any_order_survive_json_and_nothing_is_neutral(first, second):
    assert (LabelStatistics(3, 16, 13, counts=(3, 5, 5)), LabelStatistics(4, 13, 3, 0.5, 8.25, logarithms=1.75)) == (
        A + B,
        C + D,
    )
    assert first + second == second + first
    assert first + LabelStatistics() == first
    text = json.dumps((first + second).as_json(), allow_nan=False)  # no Infinity, which other parsers refuse
    assert LabelStatistics.from_json(json.loads(text)) == first + second
