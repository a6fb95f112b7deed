"""The distillation criterion: predictions of student and teacher in, a dict of named, weighted loss terms out.

Unusual here: a method is one function in the dict `_TERMS`; and padding is overwritten before any task's function sees
it, because a logarithm or norm inside such a function turns the zero gradient of a padded NaN into NaN.

Shapes: B batch, C channels of a prediction, K distribution channels of a task, H W map size of the student.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from kdam_hf.distillation.baselines import cwd, dist, kl
from kdam_hf.distillation.cauchy_schwarz import at_least_float32
from kdam_hf.distillation.kernels.objective import Match
from kdam_hf.distillation.matching import INTER_MODES, check_maps, inter_task, intra_task
from kdam_hf.distributed import LOCAL, Processes
from kdam_hf.errors import KdamValueError

Maps = dict[str, Tensor]
RESOLUTIONS = ("stride4", "full")


class DistributionTask(Protocol):
    """What the criterion needs of a task: its name, and its rule that makes distribution logits of a prediction."""

    @property
    def name(self) -> str:
        """The key of this task in every mapping of predictions."""

    def distribution_logits(self, prediction: Tensor) -> Tensor:
        """(B, C, H, W) prediction -> (B, K, H, W) logits of a distribution per pixel, K >= 2."""


@dataclass(frozen=True)
class DistillationCriterion:
    """Combines a method's terms: beta * (T^2 where the method is scaled by it) * term.

    Args:
        tasks: the distilled tasks in canonical order; predictions may hold more.
        method: "cs" (KDAM), "kl", "dist", "cwd", or "none" (no term; teacher predictions are not looked at).
        temperature: softmax temperature T, > 0. 8 is the best value reported for KDAM.
        beta: weight of all terms, >= 0. 0.5 is the best value reported for KDAM.
        inter: inter-task match of "cs": "concat", "per_task" or "off".
        intra: whether "cs" has the intra-task match.
        resolution: where "cs" is computed: "stride4", on the maps that the models predict, or "full", on their upsampling.
            The others are computed at stride 4.
        scale_by_temperature_squared: multiply "cs", "kl" and "cwd" by T^2, so that a softer distribution does not
            shrink their gradient. "dist" is never scaled: correlations do not shrink with T, and it was published so.

    Raises:
        KdamValueError: an argument outside of the ranges above, or "cs" with both matches off.
    """

    tasks: Sequence[DistributionTask]
    method: str = "cs"
    temperature: float = 8.0
    beta: float = 0.5
    inter: str = "concat"
    intra: bool = True
    resolution: str = "stride4"
    scale_by_temperature_squared: bool = True

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise KdamValueError(f"method {self.method!r} is not known: choose one of {', '.join(METHODS)}")
        if self.inter not in (*INTER_MODES, "off"):
            raise KdamValueError(f"inter {self.inter!r} is not known: choose one of {', '.join((*INTER_MODES, 'off'))}")
        if self.resolution not in RESOLUTIONS or (self.resolution == "full" and self.method not in ("cs", "none")):
            raise KdamValueError(
                f"resolution {self.resolution!r} with method {self.method!r}: expected {' or '.join(RESOLUTIONS)}, "
                "full for cs alone"
            )
        if not 0 < self.temperature < math.inf:
            raise KdamValueError(
                f"temperature is {self.temperature}: logits are divided by it, give a finite value > 0"
            )
        if not 0 <= self.beta < math.inf:
            raise KdamValueError(f"beta is {self.beta}: a loss weight must be finite and >= 0")
        if self.method == "cs" and self.inter == "off" and not self.intra:
            raise KdamValueError(
                "method 'cs' with inter='off' and intra=False has no term left: switch one on, or use method 'none'"
            )
        if self.method != "none" and not self.tasks:
            raise KdamValueError(f"method {self.method!r} was given no task: name at least one, or use method 'none'")

    def __call__(
        self,
        student_predictions: Mapping[str, Tensor],
        teacher_predictions: Mapping[str, Tensor],
        valid_BHW: Tensor,
        processes: Processes = LOCAL,
    ) -> dict[str, Tensor]:
        """Weighted terms by name; their sum is the distillation loss.

        Args:
            student_predictions: task name -> (B, C, H, W) floating, physical units as the task's head gives them.
            teacher_predictions: task name -> (B, C, h, w) floating; detached, resized bilinearly to (H, W) if need be.
            valid_BHW: (B, H, W) bool at the student's map size, False on padding.
            processes: the processes that share the batch.

        Returns:
            Scalars in float32 (float64 for float64 predictions): {} for "none"; "kd_inter_task" and "kd_intra_task" for
            "cs"; "kd_kl"; "kd_dist_inter" and "kd_dist_intra"; "kd_cwd".

        Raises:
            KdamValueError: a missing task; shapes that do not fit; a non-finite teacher prediction on a valid pixel.
        """
        if self.method == "none":
            return {}
        # autocast would take the products inside a task's function back to half precision
        with torch.autocast(valid_BHW.device.type, enabled=False):
            student, teacher = self._aligned(student_predictions, teacher_predictions)
            check_maps(student, teacher, valid_BHW)
            _check_finite_teacher(teacher, valid_BHW)
            logits = self._logits(student, valid_BHW), self._logits(teacher, valid_BHW)
            terms = _TERMS[self.method](self, *logits, valid_BHW, processes)
        return {name: self.scale * term for name, term in terms.items()}

    @property
    def scale(self) -> float:
        """Factor of every term: beta, and T^2 where the method is scaled by it."""
        squared = self.scale_by_temperature_squared and self.method != "dist"
        return self.beta * (self.temperature**2 if squared else 1)

    @property
    def couples_batch(self) -> bool:
        """Whether a pixel's term depends on the other images of the batch."""
        return (self.method == "cs" and self.intra) or self.method == "dist"

    def match(
        self, student_predictions: Mapping[str, Tensor], teacher_predictions: Mapping[str, Tensor], valid_BHW: Tensor
    ) -> Match:
        """The match of "cs" as the kernels take it: for `match_loss` on these maps, for `dense_loss` on their upsampling.

        Arguments and errors as of a call.
        """
        student, teacher = self._aligned(student_predictions, teacher_predictions)
        check_maps(student, teacher, valid_BHW)
        _check_finite_teacher(teacher, valid_BHW)
        return Match(teacher, self.temperature, self.scale, self.inter, self.intra)

    def _aligned(self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> tuple[Maps, Maps]:
        """Both predictions in at least float32, the teacher's detached and at the student's map size."""
        aligned_student, aligned_teacher = {}, {}
        for name in (task.name for task in self.tasks):
            for who, predictions in (("student", student), ("teacher", teacher)):
                if name not in predictions:
                    raise KdamValueError(
                        f"the {who} predicts {sorted(predictions)}, not {name!r}: distil tasks that both models have"
                    )
            s_BCHW, t_BChw = at_least_float32(student[name]), at_least_float32(teacher[name].detach())
            if s_BCHW.dim() != 4 or t_BChw.dim() != 4 or s_BCHW.shape[:2] != t_BChw.shape[:2]:
                raise KdamValueError(
                    f"teacher predicts {name} of shape {tuple(t_BChw.shape)}, student {tuple(s_BCHW.shape)}: batch and "
                    "channels must agree; build both models with the same classes"
                )
            if t_BChw.shape[2:] != s_BCHW.shape[2:]:
                t_BChw = F.interpolate(t_BChw, size=s_BCHW.shape[2:], mode="bilinear", align_corners=False)
            aligned_student[name], aligned_teacher[name] = s_BCHW, t_BChw
        return aligned_student, aligned_teacher

    def _logits(self, predictions: Maps, valid_BHW: Tensor) -> Maps:
        """Distribution logits (B, K, H, W) of each task; padding is one (metre, logit, component) beforehand."""
        return {
            task.name: task.distribution_logits(torch.where(valid_BHW[:, None], predictions[task.name], 1))
            for task in self.tasks
        }


def _check_finite_teacher(teacher: Maps, valid_BHW: Tensor) -> None:
    # one transfer per batch: the tasks are told apart only after something was found
    bad = torch.stack(
        [(~torch.isfinite(x_BCHW)).any(dim=1).logical_and(valid_BHW).sum() for x_BCHW in teacher.values()]
    )
    if not bad.any():
        return
    counts = ", ".join(f"{name} ({n} pixels)" for name, n in zip(teacher, bad.tolist(), strict=True) if n)
    raise KdamValueError(
        f"the teacher's prediction is not finite for {counts}: a student must not learn from it; run the teacher in "
        "float32 or bfloat16 and check its weights and this batch's images"
    )


def _cs(
    criterion: DistillationCriterion, student: Maps, teacher: Maps, valid_BHW: Tensor, processes: Processes
) -> Maps:
    terms, temperature = {}, criterion.temperature
    if criterion.inter != "off":
        terms["kd_inter_task"] = inter_task(student, teacher, valid_BHW, temperature, criterion.inter, processes)
    if criterion.intra:
        terms["kd_intra_task"] = intra_task(student, teacher, valid_BHW, temperature, processes)
    return terms


def _kl(
    criterion: DistillationCriterion, student: Maps, teacher: Maps, valid_BHW: Tensor, processes: Processes
) -> Maps:
    return {"kd_kl": kl(student, teacher, valid_BHW, criterion.temperature, processes)}


def _dist(
    criterion: DistillationCriterion, student: Maps, teacher: Maps, valid_BHW: Tensor, processes: Processes
) -> Maps:
    inter, intra = dist(student, teacher, valid_BHW, criterion.temperature, processes)
    return {"kd_dist_inter": inter, "kd_dist_intra": intra}


def _cwd(
    criterion: DistillationCriterion, student: Maps, teacher: Maps, valid_BHW: Tensor, processes: Processes
) -> Maps:
    return {"kd_cwd": cwd(student, teacher, valid_BHW, criterion.temperature, processes)}


_Terms = Callable[[DistillationCriterion, Maps, Maps, Tensor, Processes], Maps]
_TERMS: dict[str, _Terms] = {"kl": _kl, "dist": _dist, "cwd": _cwd, "cs": _cs}
METHODS = ("none", *_TERMS)
