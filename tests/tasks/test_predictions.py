"""How each task is scored, and what becomes of its predictions in files."""

import warnings

import numpy as np
import pytest
import torch

from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.metrics import BoundaryScores, EdgeF
from kdam_hf.tasks import NYUD_V2, PASCAL_CONTEXT, Edge, edge, make_task, with_boundaries, with_options
from kdam_hf.tasks.base import as_map

SIZE = (22, 30)


def predicted(task, seed=0):
    """A decoded prediction of one image."""
    raw = torch.randn(1, task.channels, 6, 8, generator=torch.Generator().manual_seed(seed))
    raw = raw.abs() + 0.5 if task.name == "depth" else raw
    return task.decode(raw, SIZE)[0]


# the largest error a file may bring: ids none, metres none, 8-bit probabilities half a step, vectors in half precision
PRECISION = {"semseg": 0, "human_parts": 0, "saliency": 0.5 / 255, "depth": 0, "normals": 5e-4, "edge": 0.5 / 255}


def test_a_stored_prediction_comes_back_within_the_precision_of_its_file(all_tasks):
    for task in all_tasks:
        values = predicted(task)
        stored = task.prediction_to_file(as_map(values))
        assert (stored.dtype == np.uint8) == (task.stored_as == ".png"), task.name
        assert stored.shape[:2] == SIZE
        read = task.prediction_from_file(stored, "file")
        assert (read.shape, read.dtype) == (values.shape, values.dtype), task.name
        torch.testing.assert_close(read, values, rtol=0, atol=1e-6 + PRECISION[task.name], msg=task.name)


def test_a_stored_prediction_is_in_the_form_that_labels_are_read_from(all_tasks):
    for task in all_tasks:
        if task.name not in ("saliency", "edge"):  # their labels hold no probability
            label = task.label.from_file(task.prediction_to_file(as_map(predicted(task))), {}, "file")
            task.label.check(label, "file")


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("semseg", np.array([[0, 2]], np.uint16), [[0, 2]]),
        ("saliency", np.array([[0, 51]], np.uint8), [[0, 0.2]]),
        ("edge", np.array([[0, 65535]], np.uint16), [[[0, 1]]]),
        ("edge", np.array([[0, 0.25]], np.float64), [[[0, 0.25]]]),
        ("depth", np.array([[0, 1500]], np.uint16), [[[0, 1.5]]]),
        ("depth", np.array([[-1, 1.5]], np.float16), [[[-1, 1.5]]]),
        ("normals", np.array([[[255, 0, 255]]], np.uint8), [[[1]], [[-1]], [[1]]]),
    ],
)
def test_predictions_of_others_are_read_in_the_usual_forms(name, array, expected, all_tasks):
    task = next(task for task in all_tasks if task.name == name)
    torch.testing.assert_close(task.prediction_from_file(array, "file").double(), torch.tensor(expected).double())


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("semseg", np.zeros((2, 3), np.float32)),
        ("semseg", np.zeros((2, 3, 3), np.uint8)),
        ("saliency", np.zeros((2, 3), np.int32)),
        ("edge", np.zeros((2, 3, 3), np.uint8)),
        ("depth", np.zeros((2, 3), np.uint8)),
        ("normals", np.zeros((2, 3), np.float32)),
        ("normals", np.zeros((2, 3, 3), np.uint16)),
    ],
)
def test_a_file_of_another_kind_is_named(name, array, all_tasks):
    task = next(task for task in all_tasks if task.name == name)
    with pytest.raises(DataIntegrityError, match=rf"out/1\.png.*({array.dtype}|{array.ndim}|3\))"):
        task.prediction_from_file(array, "out/1.png")


def test_boundaries_are_scored_as_papers_do_on_each_dataset():
    of = {
        name: next(task for task in tasks if task.name == "edge")
        for name, tasks in (("n", NYUD_V2), ("p", PASCAL_CONTEXT))
    }
    assert (of["n"].metric().max_dist, of["p"].metric().max_dist, make_task("edge").metric().max_dist) == (
        0.011,
        0.0075,
        0.0075,
    )
    assert of["n"].primary_metric == "odsf"
    assert of["n"].scoring() == {"boundaries": "nyud"}
    assert all(not task.scoring() for task in NYUD_V2[:3])


def test_boundaries_can_be_left_out_or_scored_otherwise():
    without = with_boundaries(NYUD_V2, "none")
    assert without[:3] == NYUD_V2[:3]
    assert (without[3].primary_metric, type(without[3].metric())) == ("maxf", EdgeF)
    assert without[3].figure(without[3].metric(), "m") is None
    assert with_boundaries(NYUD_V2, None) == NYUD_V2
    assert with_options(NYUD_V2, ["edge.boundaries=none"]) == without
    assert isinstance(with_boundaries(NYUD_V2, "bsds")[3].metric(), BoundaryScores)


def test_an_unknown_protocol_of_boundaries_is_refused():
    with pytest.raises(KdamValueError, match="'nyu' is not known: choose one of bsds, nyud, pascal, none"):
        with_boundaries(NYUD_V2, "nyu")
    with pytest.raises(KdamValueError, match=r"edge\.boundaries one of bsds"):
        with_options(NYUD_V2, ["edge.boundaries=nyu"])


def test_a_slow_installation_says_so_and_how_to_mend_it(monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Edge().metric()
        monkeypatch.setattr(edge, "HAS_NUMBA", False)
        Edge(boundaries="none").metric()
    with pytest.warns(UserWarning, match=r"kdam-hf\[fast\].*edge.boundaries=none"):
        Edge().metric()


def test_figures_show_what_the_metric_has_seen(all_tasks):
    pytest.importorskip("matplotlib")
    titles = {}
    for task in all_tasks:
        metric = task.metric()
        label = task.label.to_tensor(task.label.unlabelled(*SIZE))
        label[..., 2:] = predicted(task, seed=1).to(label)[..., 2:] if task.stored_as == ".npy" else 1
        metric.update(predicted(task), label)
        figure = task.figure(metric, "student")
        if figure is not None:
            titles[task.name] = figure.axes[0].get_title("left")
    assert titles == {
        "semseg": "semseg, student",
        "human_parts": "human_parts, student",
        "depth": "depth",
        "normals": "normals",
        "edge": "edge",
    }
