"""Scores a model image by image at full resolution, in constant memory; photos without labels against a teacher's decisions.

The latter says how far the student agrees, not how right it is.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers.trainer_utils import SaveStrategy, SchedulerType

from dataset_loaders import DenseDataset, EvalTransform, TransformedDataset, shuffled
from kdam_hf.configuration_kdam import STRIDE, KdamConfig
from kdam_hf.distributed import LOCAL, Processes
from kdam_hf.errors import KdamValueError
from kdam_hf.modeling_kdam import KdamPreTrainedModel
from kdam_hf.readout_kdam import as_map
from kdam_hf.tasks import Task
from kdam_hf.training.arguments import KdamTrainingArguments
from kdam_hf.training.loading import layers
from kdam_hf.training.scoring import ImageMaps, count_maps, flat_values, make_metrics
from kdam_hf.training.sources import starts
from kdam_hf.training.teacher import FrozenTeacher, check_tasks_agree

PREFIX = "agreement/"
"""Before the name of every score against a teacher."""


def evaluate_model(
    model: KdamPreTrainedModel,
    batches: Iterable[dict],
    tasks: Sequence[Task],
    device: torch.device | str = "cpu",
    processes: Processes = LOCAL,
    progress: bool = True,
    num_proc: int = 1,
) -> dict[str, float]:
    """Metrics of every task over all batches of all processes.

    Predictions are brought to the image's own size, padding is cut off, and each metric adds up sums only.

    Args:
        model: on `device`, in any mode; it is left as it was, but for its buffers, which become those of the first process:
            batch norms of each process have seen other batches, and one model is scored.
        batches: dicts of the collator; every process passes its own, disjoint share.
        tasks: the tasks to score.
        processes: those that share the split.
        num_proc: processes that count beside this one while the model runs; 1 counts here.

    Returns:
        Flat dict `task/metric` -> value.

    Raises:
        KdamValueError: the split is empty.
    """
    processes.share_buffers(model)
    metrics = make_metrics(tasks)
    images = count_maps(predict_maps(model, batches, tasks, device, progress), metrics, num_proc)
    if not any(processes.gather(images)):
        raise KdamValueError("nothing to evaluate: the split holds no image.")
    totals = {name: metric.with_settings() for name, metric in metrics.items()}
    for states in processes.gather({name: metric.state for name, metric in metrics.items()}):
        for name, state in states.items():
            totals[name].add_state(state)
    return flat_values(totals)


def score_model(
    model: KdamPreTrainedModel,
    batches: DataLoader,
    tasks: Sequence[Task],
    examiner: Callable[[], FrozenTeacher] | None,
    device: torch.device,
    **settings: Any,
) -> dict[str, float]:
    """As `evaluate_model`, and `agreement/task/metric` against a teacher for photos and tasks that nothing labels.

    Args:
        examiner: gives the teacher; None for no such scores.
        settings: of `evaluate_model`.

    Raises:
        KdamValueError: photos without a teacher.
    """
    unlabelled = is_unlabelled(batches.dataset)
    found = {} if unlabelled else evaluate_model(model, batches, tasks, device, **settings)
    labelled = {key.split("/")[0] for key, value in found.items() if not math.isnan(value)}
    rest = [task for task in tasks if task.name not in labelled]
    if unlabelled and examiner is None:
        raise KdamValueError("photos without labels are scored against a teacher; there is none.")
    if not rest or examiner is None:
        return found
    teacher = examiner().to(device)
    taught = [task for task in rest if task.name in teacher.task_names]
    if not taught:
        return found
    agreed = evaluate_model(model, taught_batches(batches, teacher, taught, device), taught, device, **settings)
    alone = {task.name for task in taught}
    found = {key: value for key, value in found.items() if key.split("/")[0] not in alone}
    return found | {f"{PREFIX}{name}": value for name, value in agreed.items()}


@torch.inference_mode()
def predict_maps(
    model: KdamPreTrainedModel,
    batches: Iterable[dict],
    tasks: Sequence[Task],
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Iterator[ImageMaps]:
    """Run the model, in evaluation mode, on batches of the collator and decode its predictions at the size of each image.

    Raises:
        KdamValueError: a prediction is not finite.
    """
    modes = {module: module.training for module in model.modules()}  # parts of it may rest
    model.eval()
    try:
        for batch in tqdm(batches, desc="Evaluating", unit="batch", disable=not progress, leave=False):
            for part in equal_sizes(batch):
                predictions = model(part["pixel_values"].to(device), part["pixel_mask"].to(device)).predictions
                for name, prediction in predictions.items():
                    if not prediction.isfinite().all():  # argmax would hide it
                        raise KdamValueError(
                            f"{name}: predictions for samples {part['index'].tolist()} are not finite; check the weights and "
                            "these images."
                        )
                size = part["pixel_mask"].shape[-2:]
                for k, index in enumerate(part["index"].tolist()):
                    one = {task.name: predictions[task.name][k : k + 1] for task in tasks}
                    yield ImageMaps(
                        index,
                        {task.name: task.reader.decode(one[task.name], size)[0].cpu() for task in tasks},
                        {task.name: part["labels"][task.name][k] for task in tasks},
                        {task.name: f"{task.name} of image {index}" for task in tasks},
                    )
    finally:
        for module, training in modes.items():
            module.training = training


def seen_by(config: KdamConfig, dataset: DenseDataset, tasks: Sequence[Task]) -> TransformedDataset:
    """A data set at full size, as a model with this configuration sees it and its tasks are scored.

    Raises:
        KdamValueError: the model does not have one of the tasks, or with other classes.
    """
    check_tasks_agree(config.tasks or [], [task.spec() for task in tasks], "the model", "the data")
    return TransformedDataset(dataset, EvalTransform(tasks, config.image_mean or [], config.image_std or []))


def equal_sizes(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """The batch as it is when nothing is padded, else image by image without padding.

    Padding is seen by convolutions and attention near the border: a score must not depend on an image's neighbours.
    """
    mask = batch["pixel_mask"]
    if mask.all():
        return [batch]
    parts = []
    for k, (height, width) in enumerate(zip(mask[:, :, 0].sum(1).tolist(), mask[:, 0].sum(1).tolist(), strict=True)):
        part = {key: batch[key][k : k + 1, ..., :height, :width] for key in ("pixel_values", "pixel_mask")}
        labels = {name: label[k : k + 1, ..., :height, :width] for name, label in batch["labels"].items()}
        parts.append({**part, "labels": labels, "index": batch["index"][k : k + 1]})
    return parts


def is_unlabelled(dataset: Any) -> bool:
    """Whether a dataset, behind its layers, holds photos without any label."""
    *_, source = layers(dataset)
    return isinstance(source, DenseDataset) and not source.labelled


def taught_batches(
    batches: Iterable[dict[str, Any]], teacher: FrozenTeacher, tasks: Sequence[Task], device: torch.device | str
) -> Iterator[dict[str, Any]]:
    """Batches of the collator in parts of equal sizes, whose labels are what the teacher decides on these tasks."""
    for batch in batches:
        for part in equal_sizes(batch):
            images, mask = (part[key].to(device) for key in ("pixel_values", "pixel_mask"))
            said = teacher(images, mask).predictions
            raw = {task: _decided(task, said[task.name], mask.shape[-2:]) for task in tasks}
            yield {**part, "labels": {t.name: torch.stack([*map(t.label.to_tensor, maps)]) for t, maps in raw.items()}}


def taught_start(
    dataset: TransformedDataset, teacher: FrozenTeacher, tasks: Sequence[Task], device: torch.device | str
) -> dict[str, list[float]]:
    """What the heads of tasks that nobody labels should predict at first, from some training crops; see `Task.start`."""
    some = shuffled(np.random.default_rng(0), len(dataset), dataset.dataset.runs)[:16].tolist()
    crops = (dataset[index] for index in some)
    inputs = ([crop[key][None].to(device) for key in ("pixel_values", "pixel_mask")] for crop in crops)
    said = [teacher(*pair).predictions for pair in inputs]
    size = [STRIDE * side for side in said[0][tasks[0].name].shape[-2:]]
    return starts((task, [_decided(task, maps[task.name], size)[0] for maps in said]) for task in tasks)


def _decided(task: Task, prediction: Tensor, size: Sequence[int]) -> list[NDArray[Any]]:
    """Raw labels of what predictions (B, C, h, w) decide at the size of the image."""
    return [task.label.from_values(as_map(one)) for one in task.reader.decode(prediction, size).cpu()]


def metric_names(tasks: Sequence[Task]) -> list[str]:
    """`task/metric` of every score."""
    return [*flat_values(make_metrics(tasks))]


def _prefix(dataset: Any, name: str) -> str:
    """Of a score `task/metric` on a data set: that of agreement where nothing labels the task."""
    *_, source = layers(dataset)
    return PREFIX if isinstance(source, DenseDataset) and name.split("/")[0] not in source.labelled else ""


def choose_direction(args: KdamTrainingArguments, tasks: Sequence[Task], eval_dataset: Any) -> None:
    """Fill in whether the metric that decides is to rise or to fall, which its task knows of the primary one."""
    if args.metric_for_best_model is None and args.save_strategy != SaveStrategy.BEST:
        return
    sets = {f"{key}_": x for key, x in eval_dataset.items()} if isinstance(eval_dataset, dict) else {"": eval_dataset}
    names = metric_names(tasks)
    known = {f"{start}{_prefix(dataset, name)}{name}": name for start, dataset in sets.items() for name in names}
    asked, given = args.metric_for_best_model, args.greater_is_better
    name = known.get(str(asked).removeprefix("eval_"))
    primary = {f"{task.name}/{task.primary_metric}": task.higher_is_better for task in tasks}
    if name is None:
        raise KdamValueError(f"metric_for_best_model is {asked}; expected one of {', '.join(known)}.")
    rises = primary.get(name, given)
    if rises is None or given not in (None, rises):
        raise KdamValueError(
            f"metric_for_best_model is {asked}, greater_is_better {given}; expected "
            + ("true, or false for a metric that is better when it falls." if rises is None else f"{rises}.")
        )
    args.greater_is_better = rises
    if args.lr_scheduler_type in (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY):
        further: Any = args.lr_scheduler_kwargs or {}
        args.lr_scheduler_kwargs = {"mode": "max" if rises else "min", **further}
