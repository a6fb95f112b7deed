"""Decoded maps into metrics, in this process or in several, and results from metrics.

Unusual here: every image is counted into sums of its own, here or in another process, and sums are added, so that the
numbers do not depend on how many count.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdam_hf.errors import KdamValueError
from kdam_hf.hub.record import score_facts
from kdam_hf.io import as_scores, differences
from kdam_hf.metrics import Metric, in_processes, under_protocol
from kdam_hf.tasks import Task
from kdam_hf.training.signals import shield_worker, worker_context


@dataclass(frozen=True)
class ImageMaps:
    """Per task what was predicted for the image of this index in the split, and what is true.

    Predictions are as `Readout.decode` gives them for one image, on the CPU, labels as `to_tensor` does; `sources` say where
    predictions come from, for error messages.
    """

    index: int
    predictions: dict[str, Tensor]
    labels: dict[str, Tensor]
    sources: dict[str, str]


def make_metrics(tasks: Sequence[Task], protocol: str = "ours") -> dict[str, Metric]:
    """An empty metric per task; KdamValueError for an unknown protocol."""
    return {task.name: under_protocol(task.metric(), protocol) for task in tasks}


def count_maps(maps: Iterable[ImageMaps], metrics: Mapping[str, Metric], num_proc: int = 1) -> int:
    """Add images to the metrics by task name; their number. Maps may hold more tasks, and a few are held at a time.

    Above 1, `num_proc` processes count while this one goes on taking maps.

    Raises:
        KdamValueError: num_proc < 1, or a metric refuses a map; names where the prediction comes from.
        DataWorkerError: a counting process died.
    """
    images = 0
    kinds = {name: (type(metric), metric.settings()) for name, metric in metrics.items()}
    packed = (replace(one, predictions=_arrays(one.predictions), labels=_arrays(one.labels)) for one in maps)
    for states in in_processes(partial(_count, kinds), packed, num_proc, _begin, (os.getpid(),), worker_context()):
        images += 1
        for name, state in states.items():
            metrics[name].add_state(_tensors(state))
    return images


def flat_values(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """`task/metric` -> value."""
    return {f"{name}/{key}": value for name, metric in metrics.items() for key, value in metric.compute().items()}


def conditions(tasks: Sequence[Task], protocol: str = "ours") -> dict[str, str]:
    """Under which settings the tasks are scored, as plain data for results."""
    return {"protocol": protocol, **{key: value for task in tasks for key, value in task.scoring().items()}}


def single_task_references(
    files: Sequence[str | Path], tasks: Sequence[Task], meta: Mapping[str, Any]
) -> dict[str, tuple[str, float]]:
    """For each task the results.json that holds its primary metric, and the value there, to hold a score with `meta` against.

    Raises:
        KdamValueError: a file is not readable or was scored under other conditions, or a task is in none or two of them.
    """
    found, references = {}, {}
    for path in map(str, files):
        try:
            found[path] = as_scores(dict(json.loads(Path(path).read_text("utf-8"))))
            dict(found[path].get("meta", {}))
            [float(value) for key, value in found[path].items() if key != "meta"]
        except (OSError, ValueError, TypeError) as error:
            raise KdamValueError(f"{path}: not readable as the results.json of kdam evaluate ({error}).") from error
    for task in tasks:
        key = f"{task.name}/{task.primary_metric}"
        holders = [path for path, content in found.items() if key in content]
        if len(holders) != 1:
            raise KdamValueError(
                f"single_task: {key} is in {len(holders)} of {', '.join(found)}; expected one. Give one results.json per task, "
                "of a model that kdam evaluate scored on it, or choose --tasks."
            )
        path, content = holders[0], found[holders[0]]
        theirs = content.get("meta", {})
        both = [name for name in score_facts(theirs, meta) if name in theirs and name in meta]
        if other := differences({name: theirs[name] for name in both}, {name: meta[name] for name in both}):
            raise KdamValueError(
                f"{path}: scored under other conditions than here ({'; '.join(other)}); a gain needs equal ones. Score both "
                "with kdam evaluate and the same options."
            )
        if not 0 < content[key] < math.inf:  # nan is not
            raise KdamValueError(
                f"{path}: {key} is {content[key]}, of which there is no gain; expected a number above 0."
            )
        references[task.name] = (path, float(content[key]))
    return references


def _begin(parent: int) -> None:
    shield_worker(parent)
    torch.set_num_threads(1)


def _count(kinds: Mapping[str, tuple[type[Metric], dict[str, Any]]], maps: Any) -> dict[str, Any]:
    """States per task of metrics that have seen one image."""
    predictions, labels, states = _tensors(maps.predictions), _tensors(maps.labels), {}
    for name, (kind, settings) in kinds.items():
        metric = kind(**settings)
        try:
            metric.update(predictions[name], labels[name])
        except KdamValueError as error:
            raise KdamValueError(f"{maps.sources[name]}: {error}") from error
        states[name] = _arrays(metric.state)
    return states


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """As NumPy arrays: tensors would be handed over in shared memory, of which containers have little."""
    return {name: np.asarray(tensor) for name, tensor in tensors.items()}


def _tensors(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
