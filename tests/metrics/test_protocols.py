"""Protocols repeat what the code of the field computes; each reference is written from its description, in loops."""

import inspect

import numpy as np
import pytest
import torch

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics import PROTOCOLS, DepthErrors, MeanIoU, Saliency, under_protocol


def saliency_case(seed=0):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 2, (4, 12, 15), generator=generator)
    p = (torch.rand(4, 12, 15, generator=generator) + 0.5 * label) / 1.5
    return p, label


def saliency_under(p, label, name):
    metric = under_protocol(Saliency(), name)
    metric.update(p, label)
    return metric.compute()


def test_every_protocol_says_what_differs_and_whose_it_is_and_is_constructor_arguments_only():
    assert list(PROTOCOLS) == ["ours", "atrc", "invpt", "mtl_pytorch"]
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert protocol.differs
        assert protocol.source
        for kind, settings in protocol.settings.items():
            assert set(settings) <= set(inspect.signature(kind).parameters)


def test_ours_changes_nothing_and_other_settings_stay():
    assert under_protocol(Saliency(), "ours").settings() == Saliency().settings()
    metric = under_protocol(MeanIoU(7, ignore_index=9), "atrc")
    assert (metric.num_classes, metric.ignore_index, metric.absent) == (7, 9, "literature")
    assert isinstance(under_protocol(DepthErrors(), "invpt"), DepthErrors)


def test_unknown_protocol_is_refused_with_the_known_ones():
    with pytest.raises(KdamValueError, match=r"'theirs'.*ours.*atrc"):
        under_protocol(MeanIoU(2), "theirs")


@pytest.mark.parametrize("name", ["atrc", "invpt", "mtl_pytorch"])
def test_absent_class_counts_as_zero_in_the_literature(name):
    ids = torch.tensor([[0, 1, 1, 0]])
    metric = under_protocol(MeanIoU(4), name)
    metric.update(ids, ids)
    assert metric.compute()["miou"] == 50


def test_invpt_equals_a_second_sigmoid():
    """Thresholds 0.05 ... 0.95 on sigmoid(p), as that code does by mistake."""
    p, label = saliency_case()
    metric = under_protocol(Saliency(), "invpt")
    metric.update(p, label)
    squashed, g = 1 / (1 + np.exp(-p.double().numpy())), label.numpy() == 1
    best = 0.0
    for threshold in np.arange(1, 20) / 20:
        found = squashed >= threshold
        tp = np.sum(found & g)
        if tp:
            precision, recall = tp / found.sum(), tp / g.sum()
            best = max(best, 1.3 * precision * recall / (0.3 * precision + recall))
    assert metric.compute()["maxf"] == pytest.approx(100 * best, rel=1e-12)
    assert len(metric.thresholds) == 5


def test_mtl_pytorch_averages_images_before_the_maximum():
    p, label = saliency_case(1)
    label[0] = 0
    p[0] = 0
    best_f = best_iou = 0.0
    for threshold in np.linspace(0.2, 0.9, 15):
        precisions, recalls, ious = [], [], []
        for image, mask in zip(p.numpy(), label.numpy() == 1, strict=True):
            found = image > float(threshold)
            tp, union = np.sum(found & mask), np.sum(found | mask)
            precisions.append(tp / max(found.sum(), 1))
            recalls.append(tp / max(mask.sum(), 1))
            ious.append(tp / union if union else 1)
        precision, recall = np.mean(precisions), np.mean(recalls)
        best_f = max(best_f, 2 * precision * recall / (precision + recall))
        best_iou = max(best_iou, np.mean(ious))
    values = saliency_under(p, label, "mtl_pytorch")
    assert values["maxf"] == pytest.approx(100 * best_f, rel=1e-12)
    assert values["max_miou"] == pytest.approx(100 * best_iou, rel=1e-12)
