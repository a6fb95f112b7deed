"""DIST: Pearson correlation of probabilities along rows ("inter") and columns ("intra"), both with weight 1.

Huang et al., NeurIPS 2022 (arXiv:2205.10536). It names the two after classes: its "inter" correlates the classes of one
pixel, its "intra" the pixels of one class. Published for segmentation with temperature 1, and never scaled by T^2, since
correlations do not shrink with T.
"""

from collections.abc import Sequence

from torch import Tensor

from kdam_hf.distillation.divergences import pearson_distance
from kdam_hf.distillation.matching import inter_task, intra_task
from kdam_hf.distillation.methods.base import LogitMethod, Maps, log_softmax
from kdam_hf.distributed import Processes
from kdam_hf.tasks import Task


class Dist(LogitMethod):
    """Arguments of `LogitMethod`, without `scale_by_temperature_squared`."""

    name = "dist"
    couples_batch = True

    def __init__(self, tasks: Sequence[Task], beta: float = 0.5, temperature: float = 8.0) -> None:
        super().__init__(tasks, beta, temperature, scale_by_temperature_squared=False)

    def compare(
        self, student: Maps, teacher: Maps, image: Tensor, pixels: Tensor | float, processes: Processes
    ) -> dict[str, Tensor]:
        log_p, log_q = log_softmax(student), log_softmax(teacher)
        return {
            "dist_inter": inter_task(log_p, log_q, pearson_distance, "per_task", pixels),
            "dist_intra": intra_task(log_p, log_q, pearson_distance, processes),
        }
