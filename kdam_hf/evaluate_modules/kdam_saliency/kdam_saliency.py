"""Saliency for `evaluate`: maxF, max-mIoU and mean absolute error of a whole split."""

from kdam_hf.evaluate_modules import streaming
from kdam_hf.metrics import Saliency


class KdamSaliency(streaming.StreamingMetric):
    """maxF and max-mIoU in percent, mean absolute error as a fraction.

    Args:
        protocol: name of a way of scoring, see `kdam_hf.metrics.protocols`.
        kwargs: those of `evaluate.EvaluationModule`.
    """

    description = (
        "maxF (beta^2 = 0.3) and max-mIoU of the salient class in percent over thresholds 0.05, 0.10 ... 0.95, and mean "
        "absolute error. predictions: probabilities (height, width) in [0, 1], after softmax or sigmoid; references: 0, 1 or "
        "255 (ignored). Settings of evaluate.load: protocol."
    )
    citation = "Achanta et al., Frequency-tuned Salient Region Detection, CVPR 2009."

    def __init__(self, protocol: str = "ours", **kwargs: object) -> None:
        super().__init__(Saliency(), protocol, **kwargs)
