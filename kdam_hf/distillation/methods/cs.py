"""KDAM: the Cauchy-Schwarz divergence over inter-task rows and intra-task columns (doi 10.1109/ICCV51070.2023.01970)."""

import math
from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor

from kdam_hf.distillation.divergences import DIVERGENCES
from kdam_hf.distillation.matching import inter_task, intra_task
from kdam_hf.distillation.methods.base import Batch, LogitMethod, Maps, check_temperature
from kdam_hf.errors import KdamValueError, did_you_mean
from kdam_hf.tasks import Task

INTER_MODES = ("concat", "per_task", "off")
LOG_ZERO = -1e4
"""Finite, as divergences may ask for; its exponential is zero in any floating type."""


class CauchySchwarz(LogitMethod):
    """The method of the paper.

    Args:
        tasks: as of `Method`.
        inter: inter-task match: "concat", one row per pixel, of all tasks; "per_task", one row per pixel and task; or "off".
        intra: whether there is an intra-task match.
        inter_temperature: of the rows, > 0; `temperature` is that of the columns.
        divergence: of both matches, a name of `DIVERGENCES`.
        settings: of `LogitMethod`. The values reported as best for KDAM are T = 8 and beta = 0.5.

    Raises:
        KdamValueError: an unknown mode or divergence, a temperature that is not positive and finite, or both matches off.
    """

    name = "cs"

    def __init__(
        self,
        tasks: Sequence[Task],
        beta: float = 1.0,
        temperature: float = 2.0,
        scale_by_temperature: bool = True,
        inter: str = "concat",
        intra: bool = True,
        inter_temperature: float = 1.0,
        divergence: str = "cauchy_schwarz",
    ) -> None:
        super().__init__(tasks, beta, temperature, scale_by_temperature)
        check_temperature("inter_temperature", inter_temperature)
        for key, value, known in (("inter", inter, INTER_MODES), ("divergence", divergence, tuple(DIVERGENCES))):
            if value not in known:
                raise KdamValueError(f"{key} {value!r} is not known; {did_you_mean(value, known)}")
        if inter == "off" and not intra:
            raise KdamValueError("inter='off' and intra=False leave no term: switch one on, or use method 'none'.")
        self.inter, self.intra, self.inter_temperature, self.divergence = inter, intra, inter_temperature, divergence

    def rows(self, task: Task, prediction: Tensor, kept: Tensor) -> Tensor:
        return super().rows(task, prediction, kept).log_softmax(1)

    def compare(self, task: Task, student: Tensor, teacher: Tensor, batch: Batch, kept: Tensor) -> dict[str, Tensor]:
        terms, divergence = {}, DIVERGENCES[self.divergence]
        if self.inter == "per_task":
            scale = self.scale(task.temperature_power, self.inter_temperature) / self.scale(task.temperature_power)
            rows = self._at_row_temperature(student), self._at_row_temperature(teacher)
            terms["inter_task"] = scale * inter_task(*rows, divergence, batch.pixels)
        if self.intra:
            terms["intra_task"] = intra_task(student, teacher, divergence, task.column_weights, batch.processes)
        return terms

    def compare_jointly(self, student: Maps, teacher: Maps, batch: Batch, kept: Maps) -> dict[str, Tensor]:
        """One row of all tasks side by side, the literal reading of "for all tasks".

        A divergence that does not see the scale of a row sees only the ratios of the tasks' weights: the term has their mean
        as a factor, and the largest of the tasks' powers of T.
        """
        if self.inter != "concat":
            return {}
        pixels, *others = {id(pixels): pixels for pixels in kept.values()}.values()
        if others:
            pixels = torch.cat([pixels, *others]).unique()
        log_p, log_q = (self._side_by_side(maps, kept, pixels) for maps in (student, teacher))
        power = max(task.temperature_power for task in self.tasks)
        scale = self._mean_weight() * self.scale(power, self.inter_temperature)
        return {"inter_task": scale * inter_task(log_p, log_q, DIVERGENCES[self.divergence], batch.pixels)}

    def _at_row_temperature(self, log_p: Tensor) -> Tensor:
        """Rows of one task at the temperature of rows, from those at the temperature of columns."""
        ratio = self.temperature / self.inter_temperature
        return log_p if ratio == 1 else (ratio * log_p).log_softmax(1)

    def _mean_weight(self) -> float:
        return fmean(task.kd_weight for task in self.tasks)

    def _side_by_side(self, rows: Maps, kept: Maps, pixels: Tensor) -> Tensor:
        """Rows of all tasks, (N, sum of K); a task whose teacher knows nothing of a pixel has probability zero there."""
        parts = []
        for task in self.tasks:
            part, share = self._at_row_temperature(rows[task.name]), task.kd_weight / self._mean_weight()
            if share != 1:  # it multiplies the task's products
                part = part + 0.5 * math.log(share)
            if len(part) < len(pixels):
                empty = part.new_full((len(pixels), part.shape[1]), LOG_ZERO)
                part = empty.index_copy(0, torch.searchsorted(pixels, kept[task.name]), part)
            parts.append(part)
        return torch.cat(parts, 1)
