"""What a teacher cache was made from, as plain data, and how that differs from what a run asks for."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from dataset_loaders import TrainTransform, TransformedDataset
from kdam_hf.errors import CheckpointError, KdamValueError
from kdam_hf.image_processing_kdam import STRIDE
from kdam_hf.tasks import Task
from kdam_hf.training.arguments import DistillationArguments
from kdam_hf.training.runs import weights_hash
from kdam_hf.training.teacher_cache import FORMAT, crop_checksum


def describe(distillation: DistillationArguments, dataset: TransformedDataset, tasks: Sequence[Task]) -> dict[str, Any]:
    """What a cache depends on, as plain data; None where something is not known or not asked for.

    Raises:
        KdamValueError: no teacher, cache folder or number of views, or crops that are not those of `TrainTransform`.
    """
    transform, source = dataset.transform, dataset.dataset
    if not (distillation.teacher and distillation.teacher_cache and distillation.teacher_views):
        raise KdamValueError(
            f"teacher={distillation.teacher}, teacher_cache={distillation.teacher_cache}, "
            f"teacher_views={distillation.teacher_views}; a teacher cache needs all three."
        )
    if not isinstance(transform, TrainTransform):
        raise KdamValueError(f"{type(transform).__name__}: expected TrainTransform, whose crops have one size.")
    facts = {
        "format": FORMAT,
        "views": distillation.teacher_views,
        "images": len(dataset),
        "dtype": distillation.teacher_cache_dtype,
        "precision": None if distillation.teacher_precision == "auto" else distillation.teacher_precision,
        "teacher": sorted(teacher_hash(name) for name in distillation.teacher),
        "data": {
            "name": source.name,
            "split": source.split,
            "version": source.version,
            "ids": source.digest,
            "first_crop": crop_checksum(dataset[0, 0]["pixel_values"]),
        },
        "augmentation": transform.settings,
        "tasks": {
            task.name: {key: task.spec()[key] for key in ("kind", "channels", "class_names")}
            | {"predicts_logits": task.predicts_logits}
            for task in tasks
        },
        "grid": [-(-side // STRIDE) for side in transform.size],
        "complete": False,
    }
    return json.loads(json.dumps(facts))


def teacher_hash(name: str) -> str:
    """SHA-256 of the weights of a folder or hub id.

    Raises:
        CheckpointError: no weights there.
    """
    try:
        return weights_hash(name) or str(weights_hash(os.path.dirname(cached_file(name, "model.safetensors"))))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"no model at {name!r}: {str(error).splitlines()[0]} "
            "Give a folder that train.py or distill.py wrote, or a hub id."
        ) from error


def refuse_other(found: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    """Raise CheckpointError with the list of differences, if any; None agrees with everything."""
    different = list(_differences(found, {**wanted, "complete": None}))
    if different:
        raise CheckpointError(
            f"{folder} was made from another teacher, data or augmentation: {'; '.join(different)}. "
            "Use its settings, give another teacher_cache, or remove the folder."
        )


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in dict.fromkeys([*wanted, *found]):
        there, here = found.get(key, "nothing"), wanted.get(key, "nothing")
        if isinstance(there, dict) and isinstance(here, dict):
            yield from _differences(there, here, f"{prefix}{key}.")
        elif there != here and there is not None and here is not None:
            yield f"{prefix}{key} is {there!s:.80} there and {here!s:.80} here"
