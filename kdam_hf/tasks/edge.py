"""Boundaries: one logit per pixel, class-weighted binary cross-entropy, matched as the pair edge / not edge."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kdam_hf.distributed import LOCAL, Processes
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.jit import HAS_NUMBA
from kdam_hf.metrics.base import Metric
from kdam_hf.metrics.boundaries import BOUNDARY_PROTOCOLS
from kdam_hf.metrics.edges import EdgeScores
from kdam_hf.metrics.thresholds import EdgeF
from kdam_hf.tasks.base import (
    Label,
    Task,
    at_least_float32,
    expect_2d,
    per_valid_pixel,
)

IGNORE_INDEX = 255
BOUNDARIES = (*BOUNDARY_PROTOCOLS, "none")


@dataclass(frozen=True)
class Edge(Task):
    """Raw label uint8 (H, W) in {0, 1, 255}, tensor label float32 (1, H, W); 255 = ignore.

    Args:
        positive_weight: weight of edge pixels; the others get the rest to 1. 0.95 in most recent code of the field.
        boundaries: protocol of odsF, a key of `BOUNDARY_PROTOCOLS`; "none" leaves it out. The default suits what a network
            predicts: maps with broad responses, whose non-maxima must be suppressed; "bsds" takes them as they are.

    Raises:
        KdamValueError: unknown `boundaries`.
    """

    name: str = "edge"
    loss_weight: float = 50.0
    positive_weight: float = 0.95
    boundaries: str = field(default="pascal", metadata={"choices": BOUNDARIES})

    kind: ClassVar[str] = "edge"
    file_options: ClassVar[dict[str, type]] = {"ignore_index": int, "edge_value": int}

    def __post_init__(self) -> None:
        if self.boundaries not in BOUNDARIES:
            raise KdamValueError(
                f"{self.name}: boundaries {self.boundaries!r} is not known: choose one of {', '.join(BOUNDARIES)}."
            )

    @property
    def primary_metric(self) -> str:
        """odsF, or what there is without it."""
        return "maxf" if self.boundaries == "none" else "odsf"

    @property
    def channels(self) -> int:
        """One logit."""
        return 1

    @property
    def readout(self) -> str:
        """Probability of an edge."""
        return "sigmoid"

    def loss_weights(self, label: Tensor, mask: Tensor, processes: Processes = LOCAL) -> Tensor:
        """One over the labelled pixels."""
        return per_valid_pixel(mask[:, None] & (label != IGNORE_INDEX), processes)

    def loss_share(self, prediction: Tensor, label: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
        """Weighted binary cross-entropy over labelled pixels."""
        valid = mask[:, None] & (label != IGNORE_INDEX)
        logits = at_least_float32(prediction[valid])
        target = label[valid].to(logits)
        weight = torch.where(target > 0, self.positive_weight, 1 - self.positive_weight)
        return F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum") * weights

    def distribution_logits(self, prediction: Tensor) -> Tensor:
        """(z, 0): softmax of it is (sigmoid(z), 1 - sigmoid(z)); (B, 2, h, w)."""
        z = at_least_float32(prediction)
        return torch.cat([z, torch.zeros_like(z)], dim=1)

    def metric(self) -> Metric:
        """odsF, oisF and AP under the task's protocol, and the best pixel-exact F."""
        if self.boundaries == "none":
            return EdgeF()
        if not HAS_NUMBA:
            warnings.warn(
                "odsF is counted without numba, some hundred times slower: pip install 'kdam-hf[fast]', or leave odsF out "
                f"with the task option {self.name}.boundaries=none.",
                stacklevel=2,
            )
        return EdgeScores(**BOUNDARY_PROTOCOLS[self.boundaries])

    def scoring(self) -> dict[str, str]:
        """The protocol of odsF."""
        return {"boundaries": self.boundaries}

    def figure(self, metric: Any, model: str) -> Any:
        """Precision-recall curve behind odsF."""
        if self.boundaries == "none":
            return None
        from kdam_hf.plots import precision_recall_figure  # needs matplotlib

        precision, recall, _ = metric.curve()
        return precision_recall_figure({model: (precision, recall)}, self.name, f_name="odsF")

    def unlabelled(self, height: int, width: int) -> Label:
        """All 255."""
        return np.full((height, width), IGNORE_INDEX, np.uint8)

    def from_file(self, array: Label, options: Mapping[str, Any], where: str) -> Label:
        """Two conventions: {0, 1} with `ignore_index`, or an 8-bit mask {0, 255} in which 255 is the edge.

        A file that holds a 1 follows the first; `edge_value` in dataset.json settles it for the whole dataset.
        """
        array = expect_2d(array, self, where)
        values = {float(v) for v in np.unique(array)}
        edge_value = options.get("edge_value", 1 if 1 in values else 255)
        ignore = None if edge_value == 255 else options.get("ignore_index", IGNORE_INDEX)
        unknown = values - {0, edge_value, ignore}
        if unknown:
            raise DataIntegrityError(
                f"{where}: edge label holds {sorted(unknown)[:8]}; expected 0 and {edge_value}, ignore {ignore}."
            )
        label = (array == edge_value).astype(np.uint8)
        if ignore is not None:
            label[array == ignore] = IGNORE_INDEX
        return label

    def check(self, label: Label, where: str) -> None:
        """Only 0, 1 and 255."""
        unknown = set(np.unique(label).tolist()) - {0, 1, IGNORE_INDEX}
        if unknown:
            raise DataIntegrityError(
                f"{where}: edge label holds {sorted(unknown)[:8]}; expected 0, 1 or {IGNORE_INDEX} (ignore)."
            )

    def valid(self, label: Label) -> NDArray[np.bool_]:
        """Where it is not 255."""
        return label != IGNORE_INDEX

    def _value_statistics(self, values: Label) -> dict[str, Any]:
        return {"counts": tuple(np.bincount(values, minlength=2).tolist())}

    def to_tensor(self, label: Label) -> Tensor:
        """float32 (1, H, W)."""
        return torch.from_numpy(label.astype(np.float32))[None]
