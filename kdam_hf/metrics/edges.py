"""What is reported of the edge task: boundaries matched within a tolerance, and the pixel-exact F beside them."""

from typing import Any

import torch
from torch import Tensor

from kdam_hf.metrics.boundary_scores import BoundaryScores
from kdam_hf.metrics.thresholds import EDGE_THRESHOLDS, EdgeF, binary_pixels, counts_above


class EdgeScores(BoundaryScores):
    """The values of `BoundaryScores` and the `maxf` of `EdgeF`, NaN without a valid pixel.

    Args:
        settings: of `BoundaryScores`.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.state["pixels"] = torch.zeros(2, len(EDGE_THRESHOLDS) + 1, dtype=torch.int64)

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Add probabilities (..., H, W); see `binary_pixels` for what is raised."""
        super().update(prediction, label)
        self._add(pixels=counts_above(binary_pixels(prediction, label), EDGE_THRESHOLDS))

    def compute(self) -> dict[str, float]:
        """The values of both."""
        exact = EdgeF()
        exact.state["counts"] += self.state["pixels"]
        return {**super().compute(), **exact.compute()}
