"""What holds for every metric: merging, splitting, ignored pixels, refusals."""

import math

import pytest
import torch

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics import PROTOCOLS, DepthErrors, EdgeF, MeanIoU, NormalErrors, Saliency, under_protocol


def normals(*shape):
    return torch.nn.functional.normalize(torch.randn(*shape), dim=1)


def class_ids():
    label = torch.randint(0, 7, (6, 9, 11))
    return torch.randint(0, 6, (6, 9, 11)), torch.where(label == 6, 255, label)


def depths():
    label = 10 * torch.rand(6, 1, 9, 11)
    return 10 * torch.rand(6, 1, 9, 11), torch.where(label < 2, 0, label)


def vectors():
    label = normals(6, 3, 9, 11)
    return normals(6, 3, 9, 11), torch.where(torch.rand(6, 1, 9, 11) < 0.2, 0, label)


def binary():
    label = torch.randint(0, 3, (6, 9, 11))
    return torch.rand(6, 9, 11), torch.where(label == 2, 255, label)


CASES = {
    "miou": (lambda: MeanIoU(6), class_ids, 255),
    "miou_literature": (lambda: MeanIoU(6, absent="literature"), class_ids, 255),
    "depth": (DepthErrors, depths, 0),
    "normals": (NormalErrors, vectors, 0),
    **{
        f"saliency_{name}": (lambda name=name: under_protocol(Saliency(), name), binary, 255)
        for name, protocol in PROTOCOLS.items()
        if name == "ours" or Saliency in protocol.settings
    },
    "edge": (EdgeF, binary, 255),
}
every_metric = pytest.mark.parametrize(("make", "data", "invalid"), CASES.values(), ids=CASES.keys())


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def value_of(metric, *batches):
    for prediction, label in batches:
        metric.update(prediction, label)
    return metric.compute()


@every_metric
def test_value_does_not_depend_on_how_images_are_batched(make, data, invalid):
    prediction, label = data()
    whole = value_of(make(), (prediction, label))
    halves = value_of(make(), (prediction[:1], label[:1]), (prediction[1:], label[1:]))
    images = value_of(make(), *zip(prediction, label, strict=True))
    assert not any(math.isnan(value) for value in whole.values())
    assert halves == pytest.approx(whole, rel=1e-12)
    assert images == pytest.approx(whole, rel=1e-12)


@every_metric
def test_merged_parts_equal_the_whole(make, data, invalid):
    prediction, label = data()
    first, second = make(), make()
    first.update(prediction[:2], label[:2])
    second.update(prediction[2:], label[2:])
    untouched = second.compute()
    first.merge(second)
    assert first.compute() == pytest.approx(value_of(make(), (prediction, label)), rel=1e-12)
    assert second.compute() == untouched


@every_metric
def test_value_does_not_depend_on_the_order_of_images(make, data, invalid):
    prediction, label = data()
    order = torch.randperm(len(prediction))
    assert value_of(make(), (prediction[order], label[order])) == pytest.approx(
        value_of(make(), (prediction, label)), rel=1e-12
    )


@every_metric
def test_sum_of_the_states_of_processes_equals_the_whole(make, data, invalid):
    """As `evaluate_model` does over processes, one of which had no image."""
    prediction, label = data()
    shares = [make(), make(), make()]
    shares[0].update(prediction[::2], label[::2])
    shares[1].update(prediction[1::2], label[1::2])
    total = make()
    for name in total.state:
        total.state[name] = torch.stack([share.state[name] for share in shares]).sum(0)
    assert total.compute() == pytest.approx(value_of(make(), (prediction, label)), rel=1e-12)


@every_metric
def test_reset_and_changed_settings_start_empty(make, data, invalid):
    metric, fresh = make(), make()
    expected = value_of(metric, data())
    assert all(not value.any() for value in metric.with_settings().state.values())
    assert metric.compute() == expected
    metric.reset()
    assert all(math.isnan(value) for value in metric.compute().values())
    metric.merge(fresh)


@every_metric
def test_state_is_additive_and_of_constant_size(make, data, invalid):
    metric = make()
    before = {name: (value.shape, value.dtype) for name, value in metric.state.items()}
    metric.update(*data())
    assert {name: (value.shape, value.dtype) for name, value in metric.state.items()} == before
    assert all(dtype in (torch.int64, torch.float64) for _, dtype in before.values())


@pytest.mark.fault(17)
@every_metric
def test_no_valid_pixel_gives_nan_and_changes_nothing(make, data, invalid):
    prediction, label = data()
    nothing = (prediction, torch.full_like(label, invalid))
    assert all(math.isnan(value) for value in make().compute().values())
    assert all(math.isnan(value) for value in value_of(make(), nothing).values())
    assert value_of(make(), nothing, (prediction, label)) == value_of(make(), (prediction, label))


@every_metric
def test_no_image_and_no_pixel_change_nothing(make, data, invalid):
    prediction, label = data()
    metric = make()
    for nothing in ((prediction[:0], label[:0]), (prediction[..., :0], label[..., :0])):
        metric.update(*nothing)
    assert all(not value.any() for value in metric.state.values())


@pytest.mark.fault(12, 18)
@pytest.mark.parametrize(("make", "data", "invalid"), [case for name, case in CASES.items() if "miou" not in name])
def test_nan_on_ignored_pixels_does_no_harm_and_on_valid_pixels_is_refused(make, data, invalid):
    prediction, label = data()
    expected = value_of(make(), (prediction, label))
    ignored = label == invalid
    assert value_of(make(), (torch.where(ignored, torch.nan, prediction), label)) == expected
    for value in (torch.nan, torch.inf):
        spoilt = prediction.clone()
        spoilt.view(-1)[int((~ignored).flatten().nonzero()[0])] = value
        with pytest.raises(KdamValueError, match="NaN or Inf"):
            make().update(spoilt, label)


@pytest.mark.fault(20)
@every_metric
def test_shapes_that_would_broadcast_are_refused_with_both(make, data, invalid):
    prediction, label = data()
    with pytest.raises(KdamValueError) as caught:
        make().update(prediction[:, None], label)
    assert str(tuple(prediction[:, None].shape)) in str(caught.value)
    assert str(tuple(label.shape)) in str(caught.value)


def test_other_kinds_and_other_settings_do_not_merge():
    with pytest.raises(KdamValueError, match=r"EdgeF.*Saliency"):
        Saliency().merge(EdgeF())
    with pytest.raises(KdamValueError, match=r"num_classes.*3.*num_classes.*2"):
        MeanIoU(2).merge(MeanIoU(3))
    with pytest.raises(KdamValueError, match="absent"):
        MeanIoU(2).merge(MeanIoU(2, absent="literature"))
    with pytest.raises(KdamValueError, match="thresholds"):
        Saliency().merge(under_protocol(Saliency(), "invpt"))
