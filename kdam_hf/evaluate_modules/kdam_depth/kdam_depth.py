"""Depth for `evaluate`: RMSE, absRel, log-RMSE and deltas, pooled over a whole split."""

from torch import Tensor

from kdam_hf.evaluate_modules import streaming
from kdam_hf.metrics import DepthErrors


class KdamDepth(streaming.StreamingMetric):
    """Pooled depth errors.

    Args:
        protocol: name of a way of scoring, see `kdam_hf.metrics.protocols`.
        kwargs: those of `evaluate.EvaluationModule`.
    """

    description = (
        "RMSE in metres, log-RMSE, absRel and the shares delta < 1.25, 1.25^2, 1.25^3 in percent, pooled over the labelled "
        "pixels of all images. predictions, references: metres (height, width); a reference of 0, below, NaN or infinity is "
        "not labelled. Settings of evaluate.load: protocol."
    )
    citation = "Eigen, Puhrsch, Fergus, Depth Map Prediction from a Single Image, NeurIPS 2014."

    def __init__(self, protocol: str = "ours", **kwargs: object) -> None:
        super().__init__(DepthErrors(), protocol, **kwargs)

    def layout(self, values: Tensor) -> Tensor:
        """(H, W) -> (1, H, W)."""
        return values[None]
