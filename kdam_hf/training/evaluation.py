"""Scores a model image by image at full resolution, in constant memory."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from kdam_hf.distributed import LOCAL, Processes
from kdam_hf.errors import KdamValueError
from kdam_hf.modeling_kdam import KdamPreTrainedModel
from kdam_hf.tasks import Task
from kdam_hf.training.scoring import ImageMaps, count_maps, flat_values, make_metrics, sum_over


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
        model: in any mode; it is evaluated in evaluation mode and left as it was, but for its buffers, which become those of
            the first process: batch norms of each process have seen other batches, and one model is scored.
        batches: dicts of the collator; every process passes its own, disjoint share.
        tasks: the tasks to score.
        device: where the model is.
        processes: those that share the split.
        progress: show a progress bar.
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
    sum_over(metrics, processes)
    return flat_values(metrics)


@torch.inference_mode()
def predict_maps(
    model: KdamPreTrainedModel,
    batches: Iterable[dict],
    tasks: Sequence[Task],
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Iterator[ImageMaps]:
    """Run the model and decode its predictions at the size of each image.

    Args:
        model: in any mode; it runs in evaluation mode and is left as it was.
        batches: dicts of the collator.
        tasks: the tasks to decode.
        device: where the model is.
        progress: show a progress bar.

    Raises:
        KdamValueError: a prediction is not finite.
    """
    was_training = model.training
    model.eval()
    try:
        for batch in tqdm(batches, desc="Evaluating", unit="batch", disable=not progress, leave=False):
            for part in equal_sizes(batch):
                predictions = model(part["pixel_values"].to(device), part["pixel_mask"].to(device)).predictions
                _refuse_non_finite(predictions, part["index"])
                for k, index in enumerate(part["index"].tolist()):
                    yield ImageMaps(
                        index,
                        {task.name: _decoded(task, predictions[task.name][k : k + 1], part) for task in tasks},
                        {task.name: part["labels"][task.name][k] for task in tasks},
                        {task.name: f"{task.name} of image {index}" for task in tasks},
                    )
    finally:
        model.train(was_training)


def _decoded(task: Task, prediction: Tensor, part: dict[str, Any]) -> Tensor:
    return task.decode(prediction, part["pixel_mask"].shape[-2:])[0].cpu()


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


def _refuse_non_finite(predictions: dict[str, Tensor], index: Tensor) -> None:
    # argmax would hide it
    for name, prediction in predictions.items():
        if not prediction.isfinite().all():
            raise KdamValueError(
                f"{name}: predictions for samples {index.tolist()} are not finite; check the weights and these images."
            )
