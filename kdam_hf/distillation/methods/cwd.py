"""Channel-wise distillation: softmax of each channel over the pixels of its image, KL(teacher || student).

Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021 (arXiv:2011.13256), eq. 2-3; published
with temperature 4. Mean over images that have a valid pixel, and over channels with the weights of the intra-task match's
columns. A channel that is constant by construction (the second logit of a binary task) adds zero.
"""

import torch
from torch import Tensor

from kdam_hf.distillation.divergences import kullback_leibler
from kdam_hf.distillation.methods.base import Batch, LogitMethod
from kdam_hf.tasks import Task


class ChannelWise(LogitMethod):
    """Arguments of `LogitMethod`."""

    name = "cwd"

    def compare(self, task: Task, student: Tensor, teacher: Tensor, batch: Batch, kept: Tensor) -> dict[str, Tensor]:
        image = kept // batch.valid[0].numel()
        sizes = image.unique_consecutive(return_counts=True)[1].tolist()
        images = batch.processes.mean(student.new_tensor(float(len(sizes)))).clamp_min(1)
        weights = task.column_weights(batch.processes.mean(teacher.softmax(1).sum(0)) * batch.processes.size)
        values = [
            kullback_leibler(z.log_softmax(0), t.log_softmax(0), 0) @ weights
            for z, t in zip(student.split(sizes), teacher.split(sizes), strict=True)
        ]
        total = torch.stack(values).sum() if values else student.sum()
        return {"cwd": total / (images * weights.sum().clamp_min(torch.finfo(weights.dtype).tiny))}
