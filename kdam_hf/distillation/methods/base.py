"""What a method of distillation is: predictions of student and teacher in, named loss terms with gradient out.

Shapes: B batch, C channels of a prediction, K channels of its distribution, h w stride-4 map, N valid pixels.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdam_hf.distributed import LOCAL, Processes
from kdam_hf.errors import KdamValueError, did_you_mean
from kdam_hf.tasks import Task
from kdam_hf.tasks.base import at_least_float32

Maps = Mapping[str, Tensor]
METHODS: dict[str, type["Method"]] = {}


@dataclass(frozen=True)
class Batch:
    """What a method compares.

    Args:
        student: task name -> predictions (B, C, h, w), floating.
        teacher: task name -> predictions of the same batch and channels, any size; without gradient. One more channel is what
            it knows beyond the student's classes: where that one wins, it has no say.
        valid: (B, h, w) bool, False on padding.
        pixels: what sums over pixels are divided by: the mean number of valid pixels of all processes, at least 1.
        processes: those that share the batch; averaged over them, terms are those of the global batch.
        features: lists of the backbones' maps, of student and teacher, for a method with `needs_features`.
    """

    student: Maps
    teacher: Maps
    valid: Tensor
    pixels: Tensor | float = 1.0
    processes: Processes = LOCAL
    features: Any = None


class Method(nn.Module, ABC):
    """One way to learn from a teacher. Its parameters, if it has any, are trained and saved with the run.

    A subclass keeps every argument as an attribute of its name, and has a `name` by which it is known.

    Args:
        tasks: in canonical order; those whose `kd_weight` is 0 are left out. Predictions may hold more.
        beta: weight of all its terms, finite and >= 0.

    Raises:
        KdamValueError: no task of a weight above 0, or a beta out of range.
    """

    name: ClassVar[str]
    needs_features: ClassVar[bool] = False
    """Whether `terms` is given the backbone's maps of both models."""

    def __init__(self, tasks: Sequence[Task], beta: float = 1.0) -> None:
        super().__init__()
        tasks = [task for task in tasks if task.kd_weight > 0]
        if not tasks:
            raise KdamValueError(f"method {self.name!r} has no task to match: give one with a kd_weight above 0.")
        if not 0 <= beta < math.inf:
            raise KdamValueError(f"beta is {beta}: a loss weight must be finite and >= 0.")
        self.tasks, self.beta = tuple(tasks), beta

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            METHODS[cls.name] = cls

    @classmethod
    def options(cls) -> list[str]:
        """Names of its arguments but `tasks`."""
        return [key for key in signature(cls).parameters if key != "tasks"]

    def settings(self) -> dict[str, Any]:
        """Arguments it was made with, as plain data: part of what a run computes."""
        return {key: getattr(self, key) for key in self.options()}

    @abstractmethod
    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted terms by name; their sum is the distillation loss.

        Raises:
            KdamValueError: a missing task, or shapes that do not fit.
        """


class LogitMethod(Method):
    """Compares distributions of valid pixels, task by task; a subclass only says how.

    A term is weighted by beta, by the task's `kd_weight`, and by a power of T that makes up for what a softer distribution
    takes from its gradient: the task's `temperature_power`; a term of all tasks as its method says.

    Args:
        tasks, beta: as of `Method`.
        temperature: softmax temperature T of both distributions, > 0.
        scale_by_temperature: multiply the terms by that power of T.
    """

    def __init__(
        self, tasks: Sequence[Task], beta: float = 1.0, temperature: float = 2.0, scale_by_temperature: bool = True
    ) -> None:
        super().__init__(tasks, beta)
        check_temperature("temperature", temperature)
        self.temperature, self.scale_by_temperature = temperature, scale_by_temperature

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        teacher, kept = aligned(self.tasks, batch)
        found = {}
        # autocast would take the products inside a task's rule back to half precision
        with torch.autocast(batch.valid.device.type, enabled=False):
            z, t = (
                {task.name: self.rows(task, maps[task.name], kept[task.name]) for task in self.tasks}
                for maps in (batch.student, teacher)
            )
            for task in self.tasks:
                scale = self.beta * task.kd_weight * self.scale(task.temperature_power)
                for name, term in self.compare(task, z[task.name], t[task.name], batch, kept[task.name]).items():
                    found[f"kd_{name}_{task.name}"] = scale * term
            joint = self.compare_jointly(z, t, batch, kept)
        return found | {f"kd_{name}": self.beta * term for name, term in joint.items()}

    def scale(self, power: float, temperature: float | None = None) -> float:
        """A temperature, by default T, to a power; or 1."""
        return (temperature or self.temperature) ** power if self.scale_by_temperature else 1.0

    def rows(self, task: Task, prediction: Tensor, kept: Tensor) -> Tensor:
        """What is compared of a task: its distribution logits over the temperature at the pixels `kept`, (N, K)."""
        rows = at_least_float32(prediction.permute(0, 2, 3, 1).flatten(0, 2))
        return task.distribution_logits(rows if len(kept) == len(rows) else rows[kept]) / self.temperature

    @abstractmethod
    def compare(self, task: Task, student: Tensor, teacher: Tensor, batch: Batch, kept: Tensor) -> dict[str, Tensor]:
        """Unweighted terms of one task by name, without `kd_` and the task.

        Args:
            task: the task.
            student: its `rows`, (N, K).
            teacher: the same shape.
            batch: what is compared.
            kept: (N,) int64, index of each pixel among all pixels of the batch.
        """

    def compare_jointly(self, student: Maps, teacher: Maps, batch: Batch, kept: Maps) -> dict[str, Tensor]:
        """Terms, by name, of all tasks together, from what `compare` is given of each; none by default."""
        return {}


def check_temperature(name: str, value: float) -> None:
    """Raise KdamValueError unless logits can be divided by it."""
    if not 0 < value < math.inf:
        raise KdamValueError(f"{name} is {value}: logits are divided by it, give a finite value > 0.")


def make_method(name: str, tasks: Sequence[Task], **settings: Any) -> Method | None:
    """The method called `name`, with those of the settings that it has; None for "none"; KdamValueError for an unknown one."""
    if name == "none":
        return None
    if name not in METHODS:
        raise KdamValueError(f"method {name!r} is not known; {did_you_mean(name, ['none', *METHODS])}")
    return METHODS[name](tasks, **{key: value for key, value in settings.items() if key in METHODS[name].options()})


def aligned(tasks: Sequence[Task], batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Task name -> the teacher's predictions at the size of the student's, (B, C, h, w), and the pixels to compare, (N,) int64.

    Raises:
        KdamValueError: a task that one of them lacks, another batch or number of channels, or a mask of another kind.
    """
    found, known, valid = {}, {}, batch.valid
    for name in (task.name for task in tasks):
        for who, predictions in (("student", batch.student), ("teacher", batch.teacher)):
            if name not in predictions:
                raise KdamValueError(
                    f"the {who} predicts {sorted(predictions)}, not {name!r}: distil tasks that both models have."
                )
        s, t = batch.student[name], batch.teacher[name].detach()
        t = t.to(at_least_float32(s).dtype)
        channels = s.shape[1] if s.ndim == 4 else 0
        if s.ndim != 4 or t.ndim != 4 or s.shape[0] != t.shape[0] or t.shape[1] - channels not in (0, 1):
            raise KdamValueError(
                f"teacher predicts {name} of shape {tuple(t.shape)}, student {tuple(s.shape)}: batch and channels must agree; "
                "build both models with the same classes."
            )
        if valid.dtype != torch.bool or valid.shape != (s.shape[0], *s.shape[2:]):
            raise KdamValueError(
                f"{name}: predictions are {tuple(s.shape)}, valid is {valid.dtype} {tuple(valid.shape)}: expected "
                "(B, C, h, w) and bool (B, h, w); bring the mask to the size of the map."
            )
        if t.shape[2:] != s.shape[2:]:
            t = F.interpolate(t, s.shape[2:], mode="bilinear")
        found[name] = t[:, :channels]
        known[name] = valid if t.shape[1] == channels else valid & (t.argmax(1) < channels)
    masks = {id(mask): mask for mask in known.values()}  # most tasks share one, and a device is waited for once
    pixels = {key: mask.flatten().nonzero()[:, 0] for key, mask in masks.items()}
    return found, {name: pixels[id(mask)] for name, mask in known.items()}
