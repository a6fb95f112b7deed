"""Scores a model image by image at full resolution, in constant memory."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from kdam_hf.distributed import LOCAL, Processes
from kdam_hf.errors import KdamValueError
from kdam_hf.image_processing_kdam import upsample
from kdam_hf.modeling_kdam import KdamPreTrainedModel
from kdam_hf.tasks import Task


@torch.inference_mode()
def evaluate_model(
    model: KdamPreTrainedModel,
    batches: Iterable[dict],
    tasks: Sequence[Task],
    device: torch.device | str = "cpu",
    processes: Processes = LOCAL,
    progress: bool = True,
) -> dict[str, float]:
    """Metrics of every task over all batches of all processes.

    Predictions are brought to the image's own size, padding is cut off, and each metric adds up sums only.

    Args:
        model: in any mode; it is evaluated in evaluation mode and left as it was.
        batches: dicts of the collator; every process passes its own, disjoint share.
        tasks: the tasks to score.
        device: where the model is.
        processes: those that share the split.
        progress: show a progress bar.

    Returns:
        Flat dict `task/metric` -> value.

    Raises:
        KdamValueError: the split is empty.
    """
    metrics = {task.name: task.metric() for task in tasks}
    images = torch.zeros((), dtype=torch.int64)
    was_training = model.training
    model.eval()
    for batch in tqdm(batches, desc="Evaluating", unit="batch", disable=not progress, leave=False):
        for part in _equal_sizes(batch):
            predictions = model(part["pixel_values"].to(device), part["pixel_mask"].to(device)).predictions
            _refuse_non_finite(predictions, part["index"])
            for k in range(len(part["index"])):
                for task in tasks:
                    full = upsample(predictions[task.name][k : k + 1].float(), part["pixel_mask"].shape[-2:])
                    metrics[task.name].update(task.decode(full)[0].cpu(), part["labels"][task.name][k])
        images += len(batch["index"])
    model.train(was_training)
    if processes.sum(images.to(device)) == 0:
        raise KdamValueError("nothing to evaluate: the split holds no image.")
    results: dict[str, float] = {}
    for name, metric in metrics.items():
        for key, value in metric.state.items():
            metric.state[key] = processes.sum(value.to(device)).cpu()
        results |= {f"{name}/{key}": value for key, value in metric.compute().items()}
    return results


def _equal_sizes(batch: dict[str, Any]) -> list[dict[str, Any]]:
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
