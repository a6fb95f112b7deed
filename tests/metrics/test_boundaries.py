from functools import partial

import metric_cases
import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from skimage import morphology

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics import BoundaryScores, EdgeF, boundary_counts
from kdam_hf.metrics.boundaries import BOUNDARY_PROTOCOLS, HED_THRESHOLDS, average_precision
from kdam_hf.metrics.boundary_nms import suppress_non_maxima

SHAPE = (30, 40)  # the diagonal is 50 pixels


soft_map = partial(metric_cases.soft_map, shape=SHAPE)


def masks(seed, number):
    return [morphology.thin(soft_map(100 * seed + k) > 0.6) for k in range(number)]


def reference_counts(prediction, annotations, thresholds, radius):
    """Dense assignments, threshold by threshold and annotator by annotator."""
    rows = []
    for threshold in thresholds:
        found = np.argwhere(morphology.thin(prediction >= threshold))
        matched = np.zeros(len(found), bool)
        recalled = 0
        for annotation in annotations:
            annotated = np.argwhere(annotation)
            distance = np.sqrt(((found[:, None] - annotated[None]) ** 2).sum(-1))
            pairs = linear_sum_assignment(np.where(distance <= radius, distance, 1e6))
            good = distance[pairs] <= radius
            recalled += good.sum()
            matched[pairs[0][good]] = True
        rows.append((recalled, sum(a.sum() for a in annotations), matched.sum(), len(found)))
    return np.array(rows).T


@pytest.mark.parametrize("max_dist", [0.01, 0.044, 0.1])
def test_counts_agree_with_dense_assignments(max_dist):
    for seed in range(2):
        prediction, annotations = soft_map(seed), masks(seed, 1)
        thresholds = [0.2, 0.5, 0.8, 0.99]
        counts = boundary_counts(prediction, annotations, thresholds=thresholds, max_dist=max_dist)
        expected = reference_counts(prediction, annotations, thresholds, 50 * max_dist)
        assert np.array_equal(counts, expected)
        assert all(each.dtype == np.int64 for each in counts)


def test_recall_of_several_annotators_is_summed_and_precision_is_their_union():
    prediction, annotations = soft_map(0), masks(0, 4)
    thresholds = [0.3, 0.6]
    together = boundary_counts(prediction, annotations, thresholds=thresholds, max_dist=0.05)
    alone = [boundary_counts(prediction, [a], thresholds=thresholds, max_dist=0.05) for a in annotations]
    assert np.array_equal(together.recall_matched, np.sum([a.recall_matched for a in alone], axis=0))
    assert np.array_equal(together.recall_total, np.sum([a.recall_total for a in alone], axis=0))
    assert np.array_equal(together.precision_total, alone[0].precision_total)
    assert (together.precision_matched >= np.max([a.precision_matched for a in alone], axis=0)).all()
    assert (together.precision_matched <= together.precision_total).all()
    # ties between equally short matchings leave a little play
    union = reference_counts(prediction, annotations, thresholds, 2.5)[2]
    assert together.precision_matched == pytest.approx(union, rel=0.03)
    turned = boundary_counts(prediction, annotations[::-1], thresholds=thresholds, max_dist=0.05)
    assert np.array_equal(turned, together)


def test_annotators_that_agree_match_the_same_pixels():
    """Two lines are predicted, one on the annotated line and one beside it: short pairs leave the second unmatched."""
    prediction, annotation = np.zeros((2, 30, 40))
    prediction[[10, 13]] = annotation[10] = 1
    counts = boundary_counts(prediction, [annotation == 1] * 3, thresholds=[0.5], max_dist=0.1)
    assert [int(each[0]) for each in counts] == [120, 120, 40, 80]


def test_thinning_makes_a_thick_response_or_annotation_count_once():
    thick, line = np.zeros((2, 30, 40))
    thick[8:13] = line[10] = 1
    settings = {"thresholds": [0.5], "max_dist": 0.1}
    assert boundary_counts(thick, [line == 1], **settings).precision_total < 45
    assert boundary_counts(line, [thick == 1], **settings).recall_total == 200
    thinned = int(morphology.thin(thick == 1).sum())
    assert boundary_counts(line, [thick == 1], thin_annotations=True, **settings).recall_total == thinned


def test_each_threshold_is_counted_on_its_own_after_nms_and_inputs_stay_as_they_were():
    prediction, annotations = soft_map(4), masks(4, 2)
    before = prediction.copy(), annotations[0].copy()
    thresholds = [0.5, 0.2, 0.9, 0.2]
    counts = boundary_counts(prediction, annotations, thresholds=thresholds, nms=True, thin_annotations=True)
    for k, threshold in enumerate(thresholds):
        alone = boundary_counts(suppress_non_maxima(prediction), annotations, thresholds=[threshold])
        assert [int(each[k]) for each in counts] == [int(each[0]) for each in alone]
    assert np.array_equal(prediction, before[0])
    assert np.array_equal(annotations[0], before[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_pixel_on_a_threshold_reaches_it(dtype):
    values = np.array(HED_THRESHOLDS, dtype)
    prediction = np.pad(values[None], ((1, 1), (0, 0)))
    counts = boundary_counts(prediction, [prediction > 2], thresholds=101)
    assert counts.precision_total.tolist() == [101 - k for k in range(101)]


def test_ignored_pixels_count_nowhere_and_may_hold_anything():
    prediction, annotations = soft_map(5), masks(5, 2)
    ignore = np.zeros(SHAPE, bool)
    ignore[:, 25:] = True
    expected = boundary_counts(np.where(ignore, 0, prediction), [a & ~ignore for a in annotations], thresholds=9)
    for rubbish in (0.7, np.nan, np.inf, -3):
        counts = boundary_counts(np.where(ignore, rubbish, prediction), annotations, ignore, thresholds=9)
        assert np.array_equal(counts, expected)
    assert not np.any(boundary_counts(prediction, annotations, np.ones(SHAPE, bool), thresholds=9))


def test_average_precision_is_the_area_under_the_curve():
    recall = np.linspace(1, 0, 50)
    assert average_precision(np.full(50, 0.4), recall) == pytest.approx(0.4 * 1.01)
    assert average_precision(1 - recall / 2, recall) == pytest.approx(0.75, abs=0.01)
    # recalls below those that are reached count as no precision
    assert average_precision(np.ones(50), 0.5 + recall / 2) == pytest.approx(0.51)
    # of equal recalls the lowest threshold counts
    assert average_precision(np.array([0.2, 0.5, 1.0]), np.array([1.0, 0.0, 0.0])) == pytest.approx(0.35 * 1.01)


@pytest.mark.parametrize(
    ("change", "given"),
    [
        ({"prediction": np.zeros((30, 40), np.uint8)}, "uint8 (30, 40)"),
        ({"prediction": np.zeros((1, 30, 40))}, "float64 (1, 30, 40)"),
        ({"prediction": np.full((30, 40), 1.5)}, "1.5"),
        ({"prediction": np.full((30, 40), np.nan)}, "nan"),
        ({"annotations": []}, "annotations are empty"),
        ({"annotations": np.zeros((30, 40), bool)}, "bool (40,)"),
        ({"annotations": [np.zeros((30, 40))]}, "annotation 0 is float64 (30, 40)"),
        ({"annotations": [np.zeros((30, 41), bool)]}, "bool (30, 41): expected bool (30, 40)"),
        ({"ignore": np.zeros((30, 40))}, "ignore is float64"),
        ({"max_dist": 4.3}, "4.3"),
        ({"max_dist": 0}, "max_dist is 0"),
        ({"thresholds": 0}, "thresholds are 0"),
        ({"thresholds": []}, "thresholds are []"),
        ({"thresholds": [0.0, 0.5]}, "[0.0, 0.5]"),
    ],
)
def test_other_inputs_are_refused_with_what_was_given(change, given):
    with pytest.raises(KdamValueError) as caught:
        boundary_counts(**{"prediction": np.zeros(SHAPE), "annotations": [np.zeros(SHAPE, bool)], **change})
    assert given in str(caught.value)


def reference_scores(images, settings):
    """ODS, OIS and their threshold by plain loops over images and thresholds."""
    per_image = [np.array(boundary_counts(*image, **settings)) for image in images]

    def f(counts):
        r, p = counts[0] / max(counts[1], 1), counts[2] / max(counts[3], 1)
        return 2 * p * r / (p + r) if p + r else 0.0

    whole = sum(per_image)
    of_threshold = [f(whole[:, k]) for k in range(9)]
    own = sum(counts[:, int(np.argmax([f(counts[:, k]) for k in range(9)]))] for counts in per_image)
    best = int(np.argmax(of_threshold))
    return {"odsf": 100 * max(of_threshold), "oisf": 100 * f(own), "ods_threshold": (1 + best) / 10}


def test_scores_agree_with_loops_over_images_and_thresholds():
    settings = {"thresholds": 9, "max_dist": 0.05}
    prediction = torch.from_numpy(np.stack([soft_map(50 + k) for k in range(5)]))
    label = torch.from_numpy(np.stack([soft_map(k) > 0.6 for k in range(5)])).long()
    label[:, :3] = 255
    metric, exact = BoundaryScores(**settings), EdgeF()
    for each in (metric, exact):
        each.update(prediction, label)
    values = metric.compute()
    images = [(p.numpy(), [a.numpy() == 1], a.numpy() == 255) for p, a in zip(prediction, label, strict=True)]
    expected = reference_scores(images, settings)
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    p, r = values["ods_precision"], values["ods_recall"]
    assert values["odsf"] == pytest.approx(2 * p * r / (p + r))
    assert 0 < values["ap"] <= 100
    assert values["maxf"] == exact.compute()["maxf"]
    several = [(soft_map(k), masks(k, 3)) for k in range(2)]
    metric = metric.with_settings()
    for image in several:
        metric.add(boundary_counts(*image, **settings))
    assert metric.compute()["odsf"] == pytest.approx(reference_scores(several, settings)["odsf"])
    assert int(metric.state["images"]) == 2


@pytest.mark.parametrize("protocol", BOUNDARY_PROTOCOLS)
def test_the_metric_counts_an_image_by_its_protocol_also_where_pixels_are_ignored(protocol):
    settings, prediction = BOUNDARY_PROTOCOLS[protocol], metric_cases.soft_map(50, (30, 40))
    label = (metric_cases.soft_map(0, (30, 40)) > 0.6).astype(np.int64)
    label[:3] = 255
    metric = BoundaryScores(**settings)
    metric.update(torch.from_numpy(prediction), torch.from_numpy(label))
    expected = boundary_counts(np.where(label == 255, 0, prediction), [label == 1], **settings)
    assert np.array_equal(metric.state["counts"].numpy(), expected)


def test_boundary_protocols_are_those_of_papers():
    assert BOUNDARY_PROTOCOLS == {
        "bsds": {"thresholds": 99, "max_dist": 0.0075, "nms": False, "thin_annotations": False},
        "nyud": {"thresholds": 101, "max_dist": 0.011, "nms": True, "thin_annotations": True},
        "pascal": {"thresholds": 101, "max_dist": 0.0075, "nms": True, "thin_annotations": True},
    }
    assert (len(HED_THRESHOLDS), HED_THRESHOLDS[0], HED_THRESHOLDS[-1]) == (101, 0.001, 0.999)
