"""What the backends share: the task's side of the objective, the settings of the match, and the result.

Shapes: B batch, C channels of a prediction, h w stride-4 map, H W full resolution (H <= 4 h, W <= 4 w).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from kdam_hf.distributed import Processes

STRIDE = 4


class DenseTask(Protocol):
    """What the objective needs of a task."""

    @property
    def name(self) -> str:
        """The key of this task in every mapping."""

    @property
    def loss_weight(self) -> float:
        """Factor of the supervised loss."""

    def loss_weights(self, label: Tensor, mask: Tensor, processes: Processes) -> Tensor:
        """What the loss of any part of the batch needs to know of the labels of the whole."""

    def loss_share(self, prediction: Tensor, label: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
        """What a part of the batch, (b, C, h, w) of any images and rows, adds to the loss."""

    def distribution_logits(self, prediction: Tensor) -> Tensor:
        """(B, C, H, W) prediction -> (B, K, H, W) logits of a distribution per pixel, pixel by pixel."""


@dataclass(frozen=True)
class Match:
    """The CS match of a batch.

    Args:
        teacher: task name -> (B, C, h, w) float, finite.
        temperature: of both distributions.
        weight: of both terms, beta and T^2 included.
        inter: "concat", "per_task" or "off".
        intra: whether there is an intra-task term.
    """

    teacher: Mapping[str, Tensor]
    temperature: float
    weight: float
    inter: str
    intra: bool


@dataclass(frozen=True)
class Problem:
    """One batch: everything but the student's predictions.

    Args:
        tasks: in canonical order.
        labels: task name -> label at full resolution, as the task's `to_tensor` makes it.
        mask: (B, H, W) bool, False on padding.
        match: with the teacher; None for supervised losses alone.
        processes: those that share the batch.
    """

    tasks: Sequence[DenseTask]
    labels: Mapping[str, Tensor]
    mask: Tensor
    match: Match | None
    processes: Processes


class DenseLoss(NamedTuple):
    """A loss and what it consists of.

    Args:
        total: scalar, with gradient.
        terms: named, weighted parts whose sum is `total`, detached.
    """

    total: Tensor
    terms: dict[str, Tensor]
