"""Semantic segmentation for `evaluate`: mIoU and pixel accuracy of a whole split."""

from kdam_hf.evaluate_modules import streaming
from kdam_hf.metrics import MeanIoU


class KdamSemseg(streaming.StreamingMetric):
    """mIoU and pixel accuracy, in percent.

    Args:
        num_classes: number of classes.
        ignore_index: label of pixels that do not count.
        protocol: name of a way of scoring, see `kdam_hf.metrics.protocols`.
        kwargs: those of `evaluate.EvaluationModule`.
    """

    value_type = "int32"
    description = (
        "mIoU and pixel accuracy in percent, from one confusion matrix over all images. predictions, references: class ids "
        "(height, width); references may hold ignore_index (255). Settings of evaluate.load: num_classes (required), "
        "ignore_index, protocol."
    )
    citation = "Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010."

    def __init__(self, num_classes: int, ignore_index: int = 255, protocol: str = "ours", **kwargs: object) -> None:
        super().__init__(MeanIoU(num_classes, ignore_index), protocol, **kwargs)
