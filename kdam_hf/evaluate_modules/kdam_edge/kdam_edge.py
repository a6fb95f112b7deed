"""Boundaries for `evaluate`: odsF, oisF and average precision, matched within a tolerance."""

from kdam_hf.errors import KdamValueError
from kdam_hf.evaluate_modules import streaming
from kdam_hf.metrics import BOUNDARY_PROTOCOLS, BoundaryScores


class KdamEdge(streaming.StreamingMetric):
    """odsF, oisF, AP, precision and recall in percent, and the threshold of odsF.

    Args:
        boundaries: whose tolerance, thresholds, suppression and thinning, a key of `BOUNDARY_PROTOCOLS`.
        protocol: name of a way of scoring, see `kdam_hf.metrics.protocols`.
        kwargs: those of `evaluate.EvaluationModule`.

    Raises:
        KdamValueError: `boundaries` is another word.
    """

    description = (
        "odsF, oisF and AP in percent of boundaries matched one to one within a tolerance. predictions: probabilities "
        "(height, width) in [0, 1]; references: 0, 1 or 255 (ignored). Settings of evaluate.load: boundaries (bsds, nyud or "
        "pascal), protocol."
    )
    citation = "Arbelaez et al., Contour Detection and Hierarchical Image Segmentation, PAMI 2011."

    def __init__(self, boundaries: str = "bsds", protocol: str = "ours", **kwargs: object) -> None:
        if boundaries not in BOUNDARY_PROTOCOLS:
            raise KdamValueError(f"boundaries {boundaries!r} is not known: one of {', '.join(BOUNDARY_PROTOCOLS)}")
        super().__init__(BoundaryScores(**BOUNDARY_PROTOCOLS[boundaries]), protocol, **kwargs)
