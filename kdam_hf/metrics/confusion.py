"""Mean intersection over union and pixel accuracy, from one confusion matrix over the whole split."""

import torch
from torch import Tensor

from kdam_hf.configuration_kdam import IGNORE_INDEX
from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.base import Metric, check_maps, ratio

ABSENT = ("present", "literature")


def confusion_matrix(prediction: Tensor, label: Tensor, num_classes: int, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Counts (C, C) int64 of pairs of a label (row) and a prediction (column) over pixels that are not ignored.

    Args:
        prediction: class ids, integer, (..., H, W); not looked at where the label is `ignore_index`.
        label: class ids or `ignore_index`, integer, the same shape.
        num_classes: C; ids are below it.
        ignore_index: label of pixels that do not count.

    Raises:
        KdamValueError: shapes differ; floating ids; an id outside of [0, num_classes).
    """
    check_maps(prediction, label, "(..., H, W)")
    valid = label != ignore_index
    ids = {"label": label, "prediction": prediction}
    for who, given in ids.items():
        if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
            raise KdamValueError(f"{who} is {given.dtype}: class ids must be integers; take the argmax of logits first")
        ids[who] = torch.where(valid, given, 0).long()
        low, high = (int(extreme) for extreme in ids[who].aminmax()) if given.numel() else (0, 0)
        if low < 0 or high >= num_classes:
            raise KdamValueError(
                f"{who} holds class ids from {low} to {high}: expected 0..{num_classes - 1}, and {ignore_index} (ignored) "
                "in the label; check the class list of the dataset"
            )
    # ignored pixels get a bin of their own, so that nothing has to be gathered
    pair = torch.where(valid, ids["label"] * num_classes + ids["prediction"], num_classes**2)
    return torch.bincount(pair.flatten(), minlength=num_classes**2 + 1)[:-1].reshape(num_classes, num_classes)


class MeanIoU(Metric):
    """`miou` and `pixel_accuracy`, both in percent; both NaN when no pixel was valid.

    Args:
        num_classes: as of `confusion_matrix`, like `ignore_index`.
        absent: what becomes of a class that is in no label and no prediction of the split: the mean runs over the
            "present" classes only, or, for "literature", over all with IoU 0 for this one, as the evaluation code behind
            most published numbers does. Another word is a KdamValueError.
    """

    def __init__(self, num_classes: int, ignore_index: int = IGNORE_INDEX, absent: str = "present") -> None:
        if absent not in ABSENT:
            raise KdamValueError(f"absent is {absent!r}: choose one of {ABSENT}")
        if num_classes < 1:
            raise KdamValueError(f"num_classes is {num_classes}: expected 1 or more")
        self.num_classes, self.ignore_index, self.absent = num_classes, ignore_index, absent
        self.state = {"confusion": torch.zeros(num_classes, num_classes, dtype=torch.int64)}

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Add integer class ids (..., H, W); see `confusion_matrix` for what is raised."""
        self.add_state({"confusion": confusion_matrix(prediction, label, self.num_classes, self.ignore_index)})

    def class_iou(self) -> Tensor:
        """Intersection over union per class in percent, (num_classes,) float64; NaN for a class in neither side."""
        confusion = self.state["confusion"]
        hits_C = confusion.diagonal().double()
        return 100 * (hits_C / (confusion.sum(0) + confusion.sum(1) - hits_C))

    def compute(self) -> dict[str, float]:
        """`miou` and `pixel_accuracy` in percent."""
        confusion, iou_C = self.state["confusion"], self.class_iou()
        if self.absent == "literature" and confusion.any():
            iou_C = iou_C.nan_to_num(0)
        return {
            "miou": float(iou_C.nanmean()),
            "pixel_accuracy": 100 * ratio(confusion.trace(), confusion.sum()),
        }
