"""Channel-wise distillation: softmax of each channel over the pixels of its image, KL(teacher || student).

Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021 (arXiv:2011.13256), eq. 2-3; published
with temperature 4. Mean over channels, over images that have a valid pixel, and over tasks. A channel that is constant by
construction (the second logit of a binary task) adds zero to the sum and one to the number of channels.
"""

import torch
from torch import Tensor

from kdam_hf.distillation.divergences import kullback_leibler
from kdam_hf.distillation.methods.base import LogitMethod, Maps
from kdam_hf.distributed import Processes


class ChannelWise(LogitMethod):
    """Arguments of `LogitMethod`."""

    name = "cwd"

    def compare(
        self, student: Maps, teacher: Maps, image: Tensor, pixels: Tensor | float, processes: Processes
    ) -> dict[str, Tensor]:
        sizes = image.unique_consecutive(return_counts=True)[1].tolist()
        images = processes.mean(next(iter(student.values())).new_tensor(float(len(sizes)))).clamp_min(1)
        per_task = []
        for name, z in student.items():
            parts = zip(z.split(sizes), teacher[name].split(sizes), strict=True)
            values = [kullback_leibler(a.log_softmax(0), b.log_softmax(0), 0).mean() for a, b in parts]
            per_task.append((torch.stack(values).sum() if values else z.sum()) / images)
        return {"cwd": torch.stack(per_task).mean()}
