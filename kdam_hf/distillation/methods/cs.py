"""KDAM: the Cauchy-Schwarz divergence over inter-task rows and intra-task columns (doi 10.1109/ICCV51070.2023.01970)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kdam_hf.distillation.divergences import DIVERGENCES
from kdam_hf.distillation.matching import INTER_MODES, inter_task, intra_task
from kdam_hf.distillation.methods.base import LogitMethod, Maps, log_softmax
from kdam_hf.distributed import Processes
from kdam_hf.errors import KdamValueError
from kdam_hf.tasks import Task


class CauchySchwarz(LogitMethod):
    """The method of the paper.

    Args:
        tasks: as of `Method`.
        inter: inter-task match: "concat", "per_task" or "off".
        intra: whether there is an intra-task match.
        divergence: of both matches, a name of `DIVERGENCES`.
        settings: of `LogitMethod`. T = 8 and beta = 0.5 are the best values reported for KDAM.

    Raises:
        KdamValueError: an unknown mode or divergence, or both matches off.
    """

    name = "cs"

    def __init__(
        self,
        tasks: Sequence[Task],
        beta: float = 0.5,
        temperature: float = 8.0,
        scale_by_temperature_squared: bool = True,
        inter: str = "concat",
        intra: bool = True,
        divergence: str = "cauchy_schwarz",
    ) -> None:
        super().__init__(tasks, beta, temperature, scale_by_temperature_squared)
        for key, value, known in (("inter", inter, INTER_MODES), ("divergence", divergence, tuple(DIVERGENCES))):
            if value not in known:
                raise KdamValueError(f"{key} {value!r} is not known: choose one of {', '.join(known)}.")
        if inter == "off" and not intra:
            raise KdamValueError("inter='off' and intra=False leave no term: switch one on, or use method 'none'.")
        self.inter, self.intra, self.divergence = inter, intra, divergence
        self.couples_batch = intra

    def compare(
        self, student: Maps, teacher: Maps, image: Tensor, pixels: Tensor | float, processes: Processes
    ) -> dict[str, Any]:
        log_p, log_q, divergence = log_softmax(student), log_softmax(teacher), DIVERGENCES[self.divergence]
        terms = {}
        if self.inter != "off":
            terms["inter_task"] = inter_task(log_p, log_q, divergence, self.inter, pixels)
        if self.intra:
            terms["intra_task"] = intra_task(log_p, log_q, divergence, processes)
        return terms
