"""How each task is scored, and what becomes of its predictions in files."""

import warnings

import pytest
import torch

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics import BoundaryScores, EdgeF
from kdam_hf.readout_kdam import as_map
from kdam_hf.tasks import NYUD_V2, PASCAL_CONTEXT, Edge, edge, make_task, with_boundaries, with_options

SIZE = (22, 30)


def predicted(task, seed=0):
    """A decoded prediction of one image."""
    raw = torch.randn(1, task.channels, 6, 8, generator=torch.Generator().manual_seed(seed))
    raw = raw.abs() + 0.5 if task.name == "depth" else raw
    return task.decode(raw, SIZE)[0]


def test_a_stored_prediction_is_in_the_form_that_labels_are_read_from(all_tasks):
    for task in all_tasks:
        if task.name not in ("saliency", "edge"):  # their labels hold no probability
            label = task.label.from_file(task.reader.to_file(as_map(predicted(task))), {}, "file")
            task.label.check(label, "file")


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
        label[..., 2:] = predicted(task, seed=1).to(label)[..., 2:] if task.reader.suffix == ".npy" else 1
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
