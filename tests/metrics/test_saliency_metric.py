"""Saliency under every setting and protocol, against loops over images and thresholds."""

import inspect

import numpy as np
import pytest
import torch
from metric_cases import computed

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics import PROTOCOLS, MeanIoU, Saliency, under_protocol

SETTINGS = {
    "defaults": {},
    "eight_bits": {"thresholds": tuple(k / 255 for k in range(256))},
    "f1": {"beta_squared": 1.0},
    "strict": {"strict": True},
    "images": {"pooling": "image"},
    "mtl_pytorch": PROTOCOLS["mtl_pytorch"].settings[Saliency],
}
every_setting = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())


def reference(p, label, thresholds=None, beta_squared=0.3, strict=False, pooling="split"):
    split = [(p, label)] if pooling == "split" else zip(p, label, strict=True)
    images = [(p[label != 255].numpy(), label[label != 255].numpy() == 1) for p, label in split if (label != 255).any()]
    best_f = best_iou = 0.0
    for threshold in [k / 20 for k in range(1, 20)] if thresholds is None else thresholds:
        precisions, recalls, ious = [], [], []
        for values, salient in images:
            found = values > threshold if strict else values >= threshold
            both, either = (found & salient).sum(), (found | salient).sum()
            precisions.append(both / max(found.sum(), 1))
            recalls.append(both / max(salient.sum(), 1))
            ious.append(both / either if either else float(pooling == "image"))
        precision, recall = np.mean(precisions), np.mean(recalls)
        if precision + recall:
            f = (1 + beta_squared) * precision * recall / (beta_squared * precision + recall)
            best_f = max(best_f, f)
        best_iou = max(best_iou, np.mean(ious))
    mae = np.mean(np.concatenate([abs(values - salient) for values, salient in images]))
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


@every_setting
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_loops_over_images_and_thresholds(settings, seed):
    assert computed(Saliency(**settings), *case(seed)) == pytest.approx(reference(*case(seed), **settings), rel=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        *({"beta_squared": 0}, {"pooling": "batch"}, {"thresholds": ()}, {"thresholds": (0.5, 0.5)}),
        *({"thresholds": (0.5, 0.4)}, {"thresholds": (-0.1, 0.5)}, {"thresholds": (float("nan"),)}),
    ],
)
def test_settings_without_a_meaning_are_refused(settings):
    with pytest.raises(KdamValueError, match=next(iter(settings))):
        Saliency(**settings)


# ---- protocols ----


def test_every_protocol_says_what_differs_and_whose_it_is_and_is_constructor_arguments_only():
    assert list(PROTOCOLS) == ["ours", "atrc", "invpt", "mtl_pytorch"]
    for protocol in PROTOCOLS.values():
        assert protocol.differs
        assert protocol.source
        for kind, settings in protocol.settings.items():
            assert set(settings) <= set(inspect.signature(kind).parameters)
    with pytest.raises(KdamValueError, match=r"'theirs'.*ours.*atrc"):
        under_protocol(MeanIoU(2), "theirs")


def test_invpt_equals_a_second_sigmoid():
    """Thresholds 0.05 ... 0.95 on sigmoid(p), as that code does by mistake."""
    p, label = case(0)
    metric = under_protocol(Saliency(), "invpt")
    assert computed(metric, p, label)["maxf"] == pytest.approx(reference(p.sigmoid(), label)["maxf"], rel=1e-12)
    assert len(metric.thresholds) == 5


@pytest.mark.parametrize(("low", "high"), [(0.02, 0.06), (0.47, 0.52), (0.92, 0.96)])
def test_the_default_thresholds_run_from_0_05_to_0_95(low, high):
    metric = Saliency()
    metric.update(torch.tensor([[low, high]]), torch.tensor([[0, 1]]))
    assert metric.compute()["maxf"] == 100


def test_the_settings_of_mtl_pytorch_are_those_of_its_code():
    settings = dict(PROTOCOLS["mtl_pytorch"].settings[Saliency])
    assert settings.pop("thresholds") == pytest.approx(np.arange(0.2, 0.91, 0.05))
    assert settings == {"beta_squared": 1, "strict": True, "pooling": "image"}
