"""DIST: Pearson correlation of probabilities along rows ("inter") and columns ("intra"), both with weight 1.

Huang et al., NeurIPS 2022 (arXiv:2205.10536). It names the two after classes: its "inter" correlates the classes of one
pixel, its "intra" the pixels of one class. Published for segmentation with temperature 1, and never scaled by T^2, since
correlations do not shrink with T.
"""

from collections.abc import Sequence

from torch import Tensor

from kdam_hf.distillation.divergences import pearson_distance
from kdam_hf.distillation.matching import inter_task, intra_task
from kdam_hf.distillation.methods.base import Batch, LogitMethod
from kdam_hf.tasks import Task


class Dist(LogitMethod):
    """Arguments of `LogitMethod`, without `scale_by_temperature`."""

    name = "dist"

    def __init__(self, tasks: Sequence[Task], beta: float = 1.0, temperature: float = 2.0) -> None:
        super().__init__(tasks, beta, temperature, scale_by_temperature=False)

    def compare(self, task: Task, student: Tensor, teacher: Tensor, batch: Batch, kept: Tensor) -> dict[str, Tensor]:
        log_p, log_q = student.log_softmax(1), teacher.log_softmax(1)
        return {
            "dist_inter": inter_task(log_p, log_q, pearson_distance, batch.pixels),
            "dist_intra": intra_task(log_p, log_q, pearson_distance, task.column_weights, batch.processes),
        }
