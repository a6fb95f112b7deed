"""Scores a model image by image at full resolution, in constant memory."""

from collections.abc import Iterable, Sequence

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
        mask = batch["pixel_mask"]
        predictions = model(batch["pixel_values"].to(device), mask.to(device)).predictions
        _refuse_non_finite(predictions, batch["index"])
        for k, (height, width) in enumerate(_true_sizes(mask)):
            for task in tasks:
                full = upsample(predictions[task.name][k : k + 1].float(), (height, width))
                label = batch["labels"][task.name][k, ..., :height, :width]
                metrics[task.name].update(task.decode(full)[0].cpu(), label)
        images += len(mask)
    model.train(was_training)
    if processes.sum(images) == 0:
        raise KdamValueError("nothing to evaluate: the split holds no image.")
    results: dict[str, float] = {}
    for name, metric in metrics.items():
        for key, value in metric.state.items():
            metric.state[key] = processes.sum(value)
        results |= {f"{name}/{key}": value for key, value in metric.compute().items()}
    return results


def _refuse_non_finite(predictions: dict[str, Tensor], index: Tensor) -> None:
    # argmax would hide it
    for name, prediction in predictions.items():
        if not prediction.isfinite().all():
            raise KdamValueError(
                f"{name}: predictions for samples {index.tolist()} are not finite; check the weights and these images."
            )


def _true_sizes(mask: Tensor) -> list[tuple[int, int]]:
    """(height, width) in pixels of each image of a padded batch."""
    return list(zip(mask[:, :, 0].sum(1).tolist(), mask[:, 0].sum(1).tolist(), strict=True))
