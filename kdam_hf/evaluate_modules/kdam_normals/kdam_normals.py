"""Surface normals for `evaluate`: mean, median and RMS angle, pooled over a whole split."""

from kdam_hf.evaluate_modules import streaming
from kdam_hf.metrics import NormalErrors


class KdamNormals(streaming.StreamingMetric):
    """Pooled angular errors.

    Args:
        protocol: name of a way of scoring, see `kdam_hf.metrics.protocols`.
        kwargs: those of `evaluate.EvaluationModule`.
    """

    axes = 3
    description = (
        "Mean, median (within 0.005) and RMS angle in degrees, shares under 11.25, 22.5 and 30 degrees in percent, pooled "
        "over the labelled pixels of all images. predictions, references: vectors (3, height, width) of any length; a "
        "reference of (0, 0, 0) or not finite is not labelled. Settings of evaluate.load: protocol."
    )
    citation = "Fouhey, Gupta, Hebert, Data-Driven 3D Primitives for Single Image Understanding, ICCV 2013."

    def __init__(self, protocol: str = "ours", **kwargs: object) -> None:
        super().__init__(NormalErrors(), protocol, **kwargs)
