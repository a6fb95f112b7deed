"""How the terms of a loss become one: by the given weights, by learned variances, or by how fast each task's loss falls.

A weighting has one factor per task. It multiplies what the task's labels and a method add for it, whose own weights stay;
terms of all tasks together keep theirs. A subclass with a `name` is known by it, for `--weighting NAME`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from kdam_hf.distributed import Processes
from kdam_hf.errors import KdamValueError, did_you_mean
from kdam_hf.tasks import Task

WEIGHTINGS: dict[str, type["Weighting"]] = {}
FIXED = "fixed"


class Weighting(nn.Module, ABC):
    """Terms with gradient -> the loss. Parameters are trained without decay; checkpoints keep them and buffers.

    Args:
        tasks: in canonical order.
    """

    name: ClassVar[str]

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.task_names = [task.name for task in tasks]

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            WEIGHTINGS[cls.name] = cls

    @abstractmethod
    def weights(self) -> Tensor:
        """The factor of each task, (K,); with gradient where it is learned."""

    def penalty(self) -> Tensor | float:
        """What the loss of a step has beside the weighted terms, however many batches it accumulates."""
        return 0.0

    def begin_epoch(self, epoch: int) -> None:
        """Called before the first step of an epoch, and again when training goes on in the middle of it."""

    def end_step(self, losses: Tensor, processes: Processes) -> None:
        """Called with the unweighted losses of the tasks, (K,), of this process's share of every step."""

    def forward(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum."""
        losses, rest = self.by_task(terms)
        return self.weights().to(losses) @ losses + rest

    def by_task(self, terms: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The sum of each task's terms, (K,), and that of all others."""
        zero = next(iter(terms.values())).new_zeros(())
        sums = dict.fromkeys([*self.task_names, ""], zero)
        for term, value in terms.items():
            owner = max((name for name in self.task_names if term.endswith(f"_{name}")), key=len, default="")
            sums[owner] = sums[owner] + value
        *losses, rest = sums.values()
        return torch.stack(losses), rest


class Uncertainty(Weighting):
    """Sum of exp(-s) L + s / 2 over tasks, with a learned s, the log of the task's variance; it begins at 0.

    Source:
        Kendall, Gal, Cipolla, CVPR 2018 (arXiv:1705.07115), eq. 10. A constant factor of L only shifts s.
    """

    name = "uncertainty"

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__(tasks)
        self.log_variances = nn.Parameter(torch.zeros(len(tasks)))

    def weights(self) -> Tensor:
        return torch.exp(-self.log_variances)

    def penalty(self) -> Tensor:
        return self.log_variances.sum() / 2


class DynamicWeightAverage(Weighting):
    """K softmax(r / 2), r being a task's loss in the last epoch over that in the one before; 1 in the first two epochs.

    Source:
        Liu, Johns, Davison, CVPR 2019 (arXiv:1803.10704), eq. 7, with temperature 2.
    """

    name = "dwa"
    epoch: Tensor
    sums: Tensor

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__(tasks)
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        # of this epoch, the last one and the one before, which all have the same number of steps
        self.register_buffer("sums", torch.zeros(3, len(tasks)))

    def weights(self) -> Tensor:
        _, last, before = self.sums
        return len(last) * torch.where(before > 0, last / before, 1).div(2).softmax(0)

    def begin_epoch(self, epoch: int) -> None:
        if epoch < self.epoch.item():  # of another training
            self.sums.zero_()
            self.epoch.zero_()
        if epoch > self.epoch.item():
            self.sums.copy_(self.sums.roll(1, 0))
            self.sums[0] = 0
            self.epoch.fill_(epoch)

    def end_step(self, losses: Tensor, processes: Processes) -> None:
        self.sums[0] += processes.mean(losses)


def make_weighting(name: str, tasks: Sequence[Task]) -> Weighting | None:
    """The weighting called `name`, or None for "fixed", the sum of the terms; KdamValueError for an unknown one."""
    if name == FIXED:
        return None
    if name not in WEIGHTINGS:
        raise KdamValueError(f"weighting {name!r} is not known; {did_you_mean(name, [FIXED, *WEIGHTINGS])}")
    return WEIGHTINGS[name](tasks)
