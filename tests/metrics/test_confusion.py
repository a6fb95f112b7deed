import numpy as np
import pytest
import torch

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.confusion import MeanIoU, confusion_matrix


def reference(prediction, label, num_classes, absent):
    prediction, label = prediction.numpy().ravel(), label.numpy().ravel()
    keep = label != 255
    prediction, label = prediction[keep], label[keep]
    ious = []
    for c in range(num_classes):
        union = np.sum((prediction == c) | (label == c))
        if union:
            ious.append(np.sum((prediction == c) & (label == c)) / union)
        elif absent == "literature":
            ious.append(0.0)
    return {"miou": 100 * np.mean(ious), "pixel_accuracy": 100 * np.mean(prediction == label)}


@pytest.mark.fault(19)
@pytest.mark.parametrize("absent", ["present", "literature"])
@pytest.mark.parametrize("present", [7, 4])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_agrees_with_sets_of_pixels(absent, present, dtype):
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, present + 1, (3, 20, 30), generator=generator)
    label[label == present] = 255
    prediction = torch.randint(0, present, (3, 20, 30), generator=generator)
    metric = MeanIoU(7, absent=absent)
    metric.update(prediction.to(dtype), label.to(dtype))
    assert metric.compute() == pytest.approx(reference(prediction, label, 7, absent), rel=1e-12)


def test_rows_are_labels_and_columns_predictions():
    counts = confusion_matrix(torch.tensor([[1, 1, 0]]), torch.tensor([[0, 1, 255]]), 2)
    assert counts.tolist() == [[0, 1], [0, 1]]


@pytest.mark.fault(19)
def test_class_only_predicted_counts_as_zero_in_both_modes():
    for absent in ("present", "literature"):
        metric = MeanIoU(2, absent=absent)
        metric.update(torch.tensor([[0, 1]]), torch.tensor([[0, 0]]))
        assert metric.compute() == {"miou": 25.0, "pixel_accuracy": 50.0}


def test_prediction_on_ignored_pixels_is_not_looked_at():
    metric = MeanIoU(2)
    metric.update(torch.tensor([[0, 99]]), torch.tensor([[0, 255]]))
    assert metric.compute() == {"miou": 100.0, "pixel_accuracy": 100.0}


@pytest.mark.parametrize(
    ("prediction", "label", "message"), [(0, 2, "label.*2"), (0, -1, "label.*-1"), (2, 0, "prediction.*2")]
)
def test_ids_out_of_range_are_refused(prediction, label, message):
    with pytest.raises(KdamValueError, match=message):
        MeanIoU(2).update(torch.full((2, 2), prediction), torch.full((2, 2), label))


@pytest.mark.fault(19)
def test_class_iou_names_the_absent_class_by_nan():
    metric = MeanIoU(3)
    metric.update(torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 255]]))
    assert metric.class_iou()[:2].tolist() == [50, 50]
    assert metric.class_iou()[2].isnan()
    assert metric.compute()["miou"] == 50


def test_one_class_everywhere_scores_100_whether_others_exist_or_not():
    one = torch.zeros(3, 4, dtype=torch.int64)
    for num_classes, absent, expected in ((1, "literature", 100), (4, "present", 100), (4, "literature", 25)):
        metric = MeanIoU(num_classes, absent=absent)
        metric.update(one, one)
        assert metric.compute() == {"miou": expected, "pixel_accuracy": 100}


def test_floating_ids_and_unknown_modes_are_refused():
    with pytest.raises(KdamValueError, match=r"label is torch\.float32"):
        MeanIoU(2).update(torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, 2))
    with pytest.raises(KdamValueError, match="'zero'"):
        MeanIoU(2, absent="zero")
