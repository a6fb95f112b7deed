"""The training step that ours replaces, written plainly: float32, full-resolution maps, losses one after the other.

Unusual here: the supervised losses and the distributions are those of the tasks, so that both sides train on the same
objective and their losses can be compared.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from benchmarks.plain_losses import cauchy_schwarz, upsample
from kdam_hf.modeling_kdam import KdamPreTrainedModel
from kdam_hf.tasks import Task

Maps = Mapping[str, Tensor]


@torch.no_grad()
def teach(teacher: KdamPreTrainedModel, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stride-4 predictions."""
    return teacher(batch["pixel_values"], batch["pixel_mask"]).predictions


def objective(
    tasks: Sequence[Task],
    predictions: Maps,
    taught: Maps | None,
    labels: Maps,
    mask: Tensor,
    temperature: float,
    weight: float,
) -> Tensor:
    """Supervised losses, and `weight` times naive CS with the teacher if there is one, at full resolution.

    Args:
        tasks: in canonical order.
        predictions: task name -> (B, C, H / 4, W / 4).
        taught: the teacher's; every pixel is valid.
        labels: task name -> (B, ..., H, W).
        mask: (B, H, W) bool.
        temperature: of both.
        weight: of the match.
    """
    full = {name: upsample(x) for name, x in predictions.items()}
    loss = torch.stack(
        [
            task.loss_weight * task.loss_share(full[task.name], label, mask, task.loss_weights(label, mask))
            for task, label in ((task, labels[task.name]) for task in tasks)
        ]
    ).sum()
    if taught is None:
        return loss
    with torch.no_grad():
        t = [task.distribution_logits(upsample(taught[task.name])) for task in tasks]
    z = [task.distribution_logits(full[task.name]) for task in tasks]
    return loss + weight * cauchy_schwarz(z, t, temperature)
