import json
import math
import os
import signal

import pytest
import torch

from kdam_hf.errors import DataWorkerError, KdamValueError
from kdam_hf.tasks import NYUD_V2
from kdam_hf.training.scoring import ImageMaps, count_maps, flat_values, make_metrics, single_task_references

META = {"protocol": "ours", "boundaries": "nyud", "data": "nyud_v2", "split": "val", "images": 2, "ids_sha256": None}
SINGLE = {"semseg/miou": 40.0, "depth/rmse": 0.6, "normals/mean_angle": 20.0, "edge/odsf": 75.0}


def maps(tasks, number=5, size=(24, 36)):
    """Noise as predictions and labels, some of them invalid, one image after the other."""
    generator = torch.Generator().manual_seed(0)
    for index in range(number):
        predictions, labels = {}, {}
        for task in tasks:
            raw = torch.randn(2, task.channels, 6, 9, generator=generator)
            raw = raw.abs() + 0.5 if task.channels == 1 else raw
            predictions[task.name], label = task.reader.decode(raw, size)
            labels[task.name] = label.round() if task.readout in ("sigmoid", "foreground") else label
            labels[task.name][..., :3, :] = task.label.to_tensor(task.label.unlabelled(3, 36))
        labels["saliency"] = labels["saliency"].long()
        yield ImageMaps(index, predictions, labels, {task.name: f"{task.name} {index}" for task in tasks})


def test_processes_count_what_one_counts_and_take_maps_as_they_are_needed(all_tasks):
    here, there = make_metrics(all_tasks), make_metrics(all_tasks)
    assert count_maps(maps(all_tasks), here) == count_maps(maps(all_tasks), there, num_proc=2) == 5
    assert flat_values(there) == pytest.approx(flat_values(here), rel=1e-12)
    for name, metric in here.items():
        for key, value in metric.state.items():
            if not value.is_floating_point():
                assert value.equal(there[name].state[key]), f"{name} {key}"


@pytest.mark.parametrize("num_proc", [1, 2])
def test_a_refused_prediction_is_named(all_tasks, num_proc):
    def spoilt():
        for one in maps(all_tasks, 3):
            if one.index == 1:
                one.predictions["depth"][0, 10, 10] = math.nan
            yield one

    with pytest.raises(KdamValueError, match=r"depth 1: 1 predicted values .* NaN"):
        count_maps(spoilt(), make_metrics(all_tasks), num_proc)


def test_a_counting_process_that_is_killed_is_an_error_that_says_so(all_tasks, monkeypatch):
    metrics = make_metrics(all_tasks)
    monkeypatch.setattr(type(metrics["depth"]), "update", lambda *maps: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(DataWorkerError, match="one of 2 processes died"):
        count_maps(maps(all_tasks, size=(120, 160)), metrics, num_proc=2)


def write(path, results, **meta):
    path.write_text(json.dumps({**results, "meta": {**META, **meta}}))
    return path


def test_references_are_the_primary_metrics_of_one_file_for_all(tmp_path):
    path = write(tmp_path / "all.json", SINGLE)
    keys = {task.name: f"{task.name}/{task.primary_metric}" for task in NYUD_V2}
    expected = {name: (str(path), SINGLE[key]) for name, key in keys.items()}
    assert single_task_references([path], NYUD_V2, META) == expected


@pytest.mark.parametrize("value", [float("nan"), 0.0, float("inf")])
def test_a_reference_of_which_there_is_no_gain_is_refused_before_anything_is_scored(tmp_path, value):
    path = write(tmp_path / "all.json", {**SINGLE, "depth/rmse": value})
    with pytest.raises(KdamValueError, match="depth/rmse"):
        single_task_references([path], NYUD_V2, META)


def test_references_that_are_missing_doubled_or_unreadable_are_refused(tmp_path):
    files = [write(tmp_path / f"{key.split('/')[0]}.json", {key: value}) for key, value in SINGLE.items()]
    again, no_object = write(tmp_path / "again.json", SINGLE), tmp_path / "list.json"
    no_object.write_text("[1]")
    for given, named in (
        (files[:3], "edge/odsf is in 0 of"),
        ([*files, again], "semseg/miou is in 2 of"),
        ([tmp_path / "nowhere.json"], "nowhere.json"),
        ([no_object], "list.json"),
    ):
        with pytest.raises(KdamValueError, match=named):
            single_task_references(given, NYUD_V2, META)


@pytest.mark.parametrize("other", [{"protocol": "atrc"}, {"images": 3}])
def test_references_under_other_conditions_are_refused_with_both(tmp_path, other):
    file = write(tmp_path / "single.json", SINGLE, **other)
    ((name, value),) = other.items()
    with pytest.raises(KdamValueError, match=rf"single\.json.*{name} {value} -> {META[name]}"):
        single_task_references([file], NYUD_V2, META)
