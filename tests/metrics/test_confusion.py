import numpy as np
import pytest
import torch
from metric_cases import computed

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.confusion import MeanIoU, confusion_matrix


def reference(prediction, label, num_classes, absent):
    prediction, label = prediction.numpy()[label != 255], label.numpy()[label != 255]
    ious = []
    for c in range(num_classes):
        union = np.sum((prediction == c) | (label == c))
        if union or absent == "literature":
            ious.append(np.sum((prediction == c) & (label == c)) / max(union, 1))
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
    values = computed(MeanIoU(7, absent=absent), prediction.to(dtype), label.to(dtype))
    assert values == pytest.approx(reference(prediction, label, 7, absent), rel=1e-12)


def test_rows_are_labels_columns_predictions_and_ignored_pixels_are_not_looked_at():
    counts = confusion_matrix(torch.tensor([[1, 1, 99]]), torch.tensor([[0, 1, 255]]), 2)
    assert counts.tolist() == [[0, 1], [0, 1]]


@pytest.mark.fault(19)
@pytest.mark.parametrize("absent", ["present", "literature"])
def test_class_only_predicted_counts_as_zero_in_both_modes(absent):
    values = computed(MeanIoU(2, absent=absent), [[0, 1]], [[0, 0]])
    assert values == {"miou": 25.0, "pixel_accuracy": 50.0}


@pytest.mark.fault(19)
def test_class_iou_names_the_absent_class_by_nan():
    metric = MeanIoU(3)
    assert computed(metric, [[0, 0, 1, 1]], [[0, 1, 1, 255]])["miou"] == 50
    np.testing.assert_array_equal(metric.class_iou(), [50, 50, np.nan])


def test_unknown_treatment_of_absent_classes_is_refused():
    with pytest.raises(KdamValueError, match="'zero'"):
        MeanIoU(2, absent="zero")
