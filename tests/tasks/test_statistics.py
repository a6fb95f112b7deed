"""Facts of labels that add up, and settings of tasks from the command line."""

import json

import numpy as np
import pytest

from kdam_hf.errors import KdamValueError
from kdam_hf.tasks import NYUD_V2, LabelStatistics, make_task, with_options

A = LabelStatistics(2, 10, 7, counts=(3, 4, 0))
B = LabelStatistics(1, 6, 6, counts=(0, 1, 5))
C = LabelStatistics(1, 4, 2, 0.5, 3.0)
D = LabelStatistics(3, 9, 1, 2.0, 8.25)


@pytest.mark.parametrize(
    ("name", "label", "expected"),
    [
        ("semseg", np.array([[0, 0, 2], [255, 2, 2]], np.uint8), LabelStatistics(1, 6, 5, counts=(2, 0, 3))),
        ("depth", np.array([[0, 1.5, 0.25], [9, 0, 0]], np.float32), LabelStatistics(1, 6, 3, 0.25, 9.0)),
        ("normals", np.array([[[0, 0, 1], [0, 0, 0], [-1, 0, 0]]], np.float32), LabelStatistics(1, 3, 2)),
        ("edge", np.array([[0, 1, 1, 255]], np.uint8), LabelStatistics(1, 4, 3, counts=(1, 2))),
        ("saliency", np.array([[0, 1, 1, 255]], np.uint8), LabelStatistics(1, 4, 3, counts=(1, 2))),
    ],
)
def test_classes_are_counted_and_depth_has_its_range_over_valid_pixels(name, label, expected):
    assert make_task(name, "abc" if name == "semseg" else ()).label.statistics(label) == expected


@pytest.mark.parametrize(("first", "second"), [(A, B), (C, D), (A, LabelStatistics(1, 4)), (LabelStatistics(1, 4), D)])
def test_statistics_add_up_in_any_order_survive_json_and_nothing_is_neutral(first, second):
    assert (LabelStatistics(3, 16, 13, counts=(3, 5, 5)), LabelStatistics(4, 13, 3, 0.5, 8.25)) == (A + B, C + D)
    assert first + second == second + first
    assert first + LabelStatistics() == first
    text = json.dumps((first + second).as_json(), allow_nan=False)  # no Infinity, which other parsers refuse
    assert LabelStatistics.from_json(json.loads(text)) == first + second


def test_the_statistics_of_two_labels_are_those_of_both_side_by_side(all_tasks):
    rng = np.random.default_rng(1)
    for task in all_tasks:
        labels = []
        for _ in range(2):
            label = task.label.unlabelled(5, 6)
            chosen = rng.random((5, 6)) < 0.6
            values = rng.integers(0, 2, (5, 6)) if label.dtype == np.uint8 else rng.uniform(0.5, 9, (5, 6))
            label[chosen] = (0, 1, 0) if label.ndim == 3 else values[chosen]
            np.testing.assert_array_equal(task.label.valid(label), chosen)
            labels.append(label)
        first, second = (task.label.statistics(label) for label in labels)
        whole = task.label.statistics(np.concatenate(labels))
        extremes = whole.lowest, whole.highest, whole.counts
        assert first + second == LabelStatistics(2, whole.pixels, whole.valid, *extremes)


# ---- settings ----


def test_settings_change_only_what_they_name():
    given = [
        "edge.positive_weight=0.8",
        "semseg.loss_weight=2",
        "depth.bins=20",
        "depth.nearest=1e-1",
        "edge.loss_weight=0",
    ]
    semseg, depth, normals, edge = with_options(NYUD_V2, given)
    assert (edge.positive_weight, edge.loss_weight, edge.boundaries) == (0.8, 0, "nyud")
    assert (semseg.loss_weight, semseg.classes) == (2.0, NYUD_V2[0].classes)
    assert (depth.bins, type(depth.bins), depth.nearest, depth.farthest) == (20, int, 0.1, 10.0)
    assert normals is NYUD_V2[2]
    assert with_options(NYUD_V2, []) == NYUD_V2
    assert with_options(NYUD_V2, ["edge.loss_weight=1", "edge.loss_weight=3"])[3].loss_weight == 3


@pytest.mark.parametrize(
    "option",
    [
        *("saliency.loss_weight=1", "loss_weight=1", "edge", "edge.positive_weight", "edge.positive_weight="),
        *("edge.positive_weight=high", "edge.weight=1", "edge.name=1", "semseg.classes=3", "depth.bins=3.5"),
        *("depth.bins=-3", "edge.loss_weight=-1", "edge.loss_weight=nan", "edge.loss_weight=inf", "edge.boundaries=x"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(option):
    with pytest.raises(KdamValueError, match=repr(option)):
        with_options(NYUD_V2, [option])
