"""Human part segmentation for `evaluate`: mIoU over background and parts."""

from kdam_hf.evaluate_modules import streaming
from kdam_hf.metrics import MeanIoU


class KdamHumanParts(streaming.StreamingMetric):
    """mIoU and pixel accuracy, in percent.

    Args:
        num_classes: number of parts and background; 7 on PASCAL-Context.
        ignore_index: label of pixels that do not count.
        protocol: name of a way of scoring, see `kdam_hf.metrics.protocols`.
        kwargs: those of `evaluate.EvaluationModule`.
    """

    value_type = "int32"
    description = (
        "mIoU over background and body parts, and pixel accuracy, in percent, from one confusion matrix over all images. "
        "predictions, references: part ids (height, width), 0 is background; references may hold ignore_index (255), and "
        "hold nothing else where nobody is in the image. Settings of evaluate.load: num_classes (7), ignore_index, protocol."
    )
    citation = "Chen et al., Detect What You Can, CVPR 2014 (labels); Maninis et al., CVPR 2019 (the seven classes)."

    def __init__(self, num_classes: int = 7, ignore_index: int = 255, protocol: str = "ours", **kwargs: object) -> None:
        super().__init__(MeanIoU(num_classes, ignore_index), protocol, **kwargs)
