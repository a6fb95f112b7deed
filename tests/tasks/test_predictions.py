"""How each task is scored, settings of tasks from the command line, and what becomes of predictions in files."""

import pytest
import torch

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics import BoundaryScores, EdgeF
from kdam_hf.readout_kdam import as_map
from kdam_hf.tasks import NYUD_V2, PASCAL_CONTEXT, make_task, with_boundaries, with_options

SIZE = (22, 30)


def predicted(task, seed=0):
    """A decoded prediction of one image."""
    raw = torch.randn(1, task.channels, 6, 8, generator=torch.Generator().manual_seed(seed))
    raw = raw.abs() + 0.5 if task.name == "depth" else raw
    return task.reader.decode(raw, SIZE)[0]


def test_a_stored_prediction_is_in_the_form_that_labels_are_read_from(all_tasks):
    for task in all_tasks:
        if task.name not in ("saliency", "edge"):  # their labels hold no probability
            label = task.label.from_file(task.reader.to_file(as_map(predicted(task))), {}, "file")
            task.label.check(label, "file")


def test_boundaries_are_scored_as_papers_do_on_each_dataset_or_otherwise_or_not():
    distances = [task.metric().max_dist for task in (NYUD_V2[-1], PASCAL_CONTEXT[-1], make_task("edge"))]
    assert distances == [0.011, 0.0075, 0.0075]
    assert NYUD_V2[3].primary_metric == "odsf"
    assert [task.scoring() for task in NYUD_V2] == [{}, {}, {}, {"boundaries": "nyud"}]
    without = with_boundaries(NYUD_V2, "none")
    assert without[:3] == NYUD_V2[:3]
    assert (without[3].primary_metric, type(without[3].metric())) == ("maxf", EdgeF)
    assert without[3].figure(without[3].metric(), "m") is None
    assert with_boundaries(NYUD_V2, None) == NYUD_V2
    assert with_options(NYUD_V2, ["edge.boundaries=none"]) == without
    assert isinstance(with_boundaries(NYUD_V2, "bsds")[3].metric(), BoundaryScores)
    with pytest.raises(KdamValueError, match=r"'nyu'.*nyud"):
        with_boundaries(NYUD_V2, "nyu")


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
    classes = {name: f"{name}, student" for name in ("semseg", "human_parts")}
    assert titles == classes | {name: name for name in ("depth", "normals", "edge")}


def test_settings_change_only_what_they_name():
    given = ("edge.positive_weight=0.8", "semseg.loss_weight=2", "depth.max=20", "depth.nearest=1e-1")
    semseg, depth, normals, edge = with_options(NYUD_V2, [*given, "edge.loss_weight=0"])
    assert (edge.positive_weight, edge.loss_weight, edge.boundaries) == (0.8, 0, "nyud")
    assert (semseg.loss_weight, semseg.classes) == (2.0, NYUD_V2[0].classes)
    assert (depth.min, depth.max, depth.nearest, depth.farthest) == (0.1, 20, 0.1, 10.0)
    assert normals is NYUD_V2[2]
    assert with_options(NYUD_V2, []) == NYUD_V2
    assert with_options(PASCAL_CONTEXT, ["human_parts.class_weights=1,2,3,4,5,0,.5"])[1].class_weights[-2:] == (0, 0.5)
    assert with_options(NYUD_V2, ["semseg.class_weights=balanced"])[0].class_weights == "balanced"
    far = with_options(NYUD_V2, ["depth.nearest=15", "depth.farthest=80", "depth.min=300", "depth.max=400"])[1]
    assert (far.nearest, far.farthest, far.min, far.max) == (15, 80, 300, 400), "in any order"
    assert with_options(NYUD_V2, ["edge.loss_weight=1", "edge.loss_weight=3"])[3].loss_weight == 3


@pytest.mark.parametrize(
    "option",
    [
        *("saliency.loss_weight=1", "loss_weight=1", "edge", "edge.positive_weight", "edge.positive_weight="),
        *("edge.positive_weight=high", "edge.weight=1", "edge.name=1", "semseg.classes=3", "depth.max=far"),
        *("depth.max=-3", "edge.loss_weight=-1", "edge.loss_weight=nan", "edge.loss_weight=inf", "edge.boundaries=x"),
        *("semseg.class_weights=1,2", "semseg.class_weights=even", "dpth.kd_weight=0", "edge.positive_weight=95"),
        *("depth.farthest=0.5", "depth.nearest=0", "normals.directions=1", "normals.kappa=0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(option):
    with pytest.raises(KdamValueError, match=repr(option)):
        with_options(NYUD_V2, [option])
