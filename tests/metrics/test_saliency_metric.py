"""Saliency under every setting, against loops over images, thresholds and pixels."""

import numpy as np
import pytest
import torch

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics import Saliency

# every one that tells 8-bit maps apart
EIGHT_BITS = tuple(k / 255 for k in range(256))

SETTINGS = {
    "defaults": {},
    "eight_bits": {"thresholds": EIGHT_BITS},
    "f1": {"beta_squared": 1.0},
    "strict": {"strict": True},
    "images": {"pooling": "image"},
    "images_strict_f1": {"pooling": "image", "strict": True, "beta_squared": 1.0, "thresholds": (0.2, 0.5, 0.8)},
}
every_setting = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())


def counts(image, threshold, strict):
    """True positives, false positives and false negatives of a list of (p, g) pixels."""
    tp = fp = fn = 0
    for p, g in image:
        found = p > threshold if strict else p >= threshold
        tp, fp, fn = tp + (found and g), fp + (found and not g), fn + (g and not found)
    return tp, fp, fn


def reference(images, thresholds=None, beta_squared=0.3, strict=False, pooling="split"):
    thresholds = [k / 20 for k in range(1, 20)] if thresholds is None else thresholds
    if pooling == "split":
        images = [[pixel for image in images for pixel in image]]
    images = [image for image in images if image]
    best_f = best_iou = 0.0
    for threshold in thresholds:
        precisions, recalls, ious = [], [], []
        for image in images:
            tp, fp, fn = counts(image, threshold, strict)
            precisions.append(tp / (tp + fp) if tp else 0.0)
            recalls.append(tp / (tp + fn) if tp else 0.0)
            ious.append(tp / (tp + fp + fn) if tp + fp + fn else float(pooling == "image"))
        precision, recall = np.mean(precisions), np.mean(recalls)
        if precision + recall:
            f = (1 + beta_squared) * precision * recall / (beta_squared * precision + recall)
            best_f = max(best_f, f)
        best_iou = max(best_iou, np.mean(ious))
    mae = np.mean([abs(p - g) for image in images for p, g in image])
    return {"maxf": 100 * best_f, "max_miou": 100 * best_iou, "mae": mae}


def case(seed):
    """Images with ties on thresholds; one without salient pixels, one that is all salient, one ignored."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 3, (6, 7, 9), generator=generator)
    label[label == 2] = 255
    label[1], label[2], label[3] = 0, 1, 255
    p = torch.rand(6, 7, 9, generator=generator, dtype=torch.float64)
    p = (p + (label == 1)) / 2
    p[:4] = (20 * p[:4]).round() / 20
    p[1] = 0
    return p, label


def as_lists(p, label):
    images = []
    for image, mask in zip(p.flatten(1).tolist(), label.flatten(1).tolist(), strict=True):
        images.append([(value, g == 1) for value, g in zip(image, mask, strict=True) if g != 255])
    return images


@every_setting
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_loops_over_images_thresholds_and_pixels(settings, seed):
    p, label = case(seed)
    metric = Saliency(**settings)
    metric.update(p, label)
    assert metric.compute() == pytest.approx(reference(as_lists(p, label), **settings), rel=1e-12)


@pytest.mark.parametrize("strict", [False, True])
def test_stored_8_bit_maps_are_told_apart_at_every_level(strict):
    p, label = case(0)
    p = (255 * p).round().to(torch.uint8)
    metric = Saliency(thresholds=EIGHT_BITS, strict=strict)
    # as a stored map is read: float32, divided by 255
    metric.update(p.float() / 255, label)
    flat = [pixel for image in as_lists(p, label) for pixel in image]
    for k in range(256):
        tp, fp, fn = counts(flat, k, strict)
        expected = [tp / (tp + fp) if tp else 0, tp / (tp + fn), tp / (tp + fp + fn)]
        assert metric.curves()[:, k].tolist() == pytest.approx(expected)


def test_image_without_salient_pixels_counts_as_found_only_per_image():
    nothing = torch.zeros(1, 4, 4)
    per_image, pooled = Saliency(pooling="image"), Saliency()
    for metric in (per_image, pooled):
        metric.update(nothing, nothing)
    assert per_image.compute() == {"maxf": 0, "max_miou": 100, "mae": 0}
    assert pooled.compute() == {"maxf": 0, "max_miou": 0, "mae": 0}


@every_setting
def test_curves_of_nothing_are_nan(settings):
    metric = Saliency(**settings)
    assert metric.curves().shape == (3, len(metric.thresholds))
    assert metric.curves().isnan().all()


@pytest.mark.parametrize("settings", [{"beta_squared": 0}, {"pooling": "batch"}, {"thresholds": (0.5, 0.2)}])
def test_settings_without_a_meaning_are_refused(settings):
    with pytest.raises(KdamValueError, match=next(iter(settings))):
        Saliency(**settings)
