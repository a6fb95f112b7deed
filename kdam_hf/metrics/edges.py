"""What is reported of the edge task: boundaries matched within a tolerance, and the pixel-exact F beside them."""

from typing import Any

from torch import Tensor

from kdam_hf.metrics.boundary_scores import BoundaryScores
from kdam_hf.metrics.thresholds import EDGE_THRESHOLDS, EdgeF, best_f1, binary_pixels, counts_above


class EdgeScores(BoundaryScores):
    """The values of `BoundaryScores` and the `maxf` of `EdgeF`, NaN without a valid pixel; settings of `BoundaryScores`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.state |= EdgeF().state

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Add probabilities (..., H, W); see `binary_pixels` for what is raised."""
        super().update(prediction, label)
        self.add_state({"pixels": counts_above(binary_pixels(prediction, label), EDGE_THRESHOLDS)})

    def compute(self) -> dict[str, float]:
        """The values of both."""
        return {**super().compute(), "maxf": best_f1(self.state["pixels"])}
