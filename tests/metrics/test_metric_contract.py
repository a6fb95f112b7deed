"""What holds for every metric, each a parameter: adding up, order, empty input, NaN, shapes, refusals."""

import math

import pytest
import torch
from metric_cases import binary, class_ids, depths, vectors

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics import (
    PROTOCOLS,
    BoundaryScores,
    DepthErrors,
    EdgeF,
    MeanIoU,
    NormalErrors,
    Saliency,
    under_protocol,
)

BOUNDARIES = {"thresholds": 9, "max_dist": 0.1}


# name -> (an empty metric, predictions and labels, value of an invalid label)
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
    "boundaries": (lambda: BoundaryScores(**BOUNDARIES), binary, 255),
}
every_metric = pytest.mark.parametrize(("make", "data", "invalid"), CASES.values(), ids=CASES.keys())


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def filled(metric, *batches):
    for prediction, label in batches:
        metric.update(prediction, label)
    return metric


@every_metric
def test_value_depends_neither_on_batches_nor_on_the_order_of_images(make, data, invalid):
    prediction, label = data()
    whole = filled(make(), (prediction, label)).compute()
    assert not any(math.isnan(value) for value in whole.values())
    order = torch.randperm(len(prediction))
    for batches in (
        [(prediction[:1], label[:1]), (prediction[1:], label[1:])],
        zip(prediction, label, strict=True),
        [(prediction[order], label[order])],
    ):
        assert filled(make(), *batches).compute() == pytest.approx(whole, rel=1e-12)


@every_metric
def test_state_is_a_sum_of_constant_size_that_shares_of_processes_add_up_to(make, data, invalid):
    """Also where one of the processes had no image."""
    prediction, label = data()
    shares = [filled(make(), (prediction[k::2], label[k::2])) for k in range(2)] + [make()]
    summed = shares[0].with_settings()
    assert not any(value.any() for value in summed.state.values())
    for name, value in summed.state.items():
        assert value.dtype in (torch.int64, torch.float64)
        summed.state[name] = torch.stack([share.state[name] for share in shares]).sum(0)
        assert (summed.state[name].shape, summed.state[name].dtype) == (value.shape, value.dtype)
    expected = filled(make(), (prediction, label)).compute()
    assert summed.compute() == pytest.approx(expected, rel=1e-12)


@pytest.mark.fault(17)
@every_metric
def test_no_valid_pixel_gives_nan_and_changes_nothing(make, data, invalid):
    prediction, label = data()
    nothing = (prediction, torch.full_like(label, invalid))
    assert all(math.isnan(value) for value in filled(make(), nothing).compute().values())
    assert filled(make(), nothing, (prediction, label)).compute() == filled(make(), (prediction, label)).compute()
    for empty in ((prediction[:0], label[:0]), (prediction[..., :0], label[..., :0])):
        assert not any(value.any() for value in filled(make(), empty).state.values())


@pytest.mark.fault(12, 18)
@pytest.mark.parametrize(("make", "data", "invalid"), [case for name, case in CASES.items() if "miou" not in name])
def test_nan_on_ignored_pixels_does_no_harm_and_on_valid_pixels_is_refused(make, data, invalid):
    prediction, label = data()
    ignored = label == invalid
    harmless = torch.where(ignored, torch.nan, prediction)
    assert filled(make(), (harmless, label)).compute() == filled(make(), (prediction, label)).compute()
    for value in (torch.nan, torch.inf):
        spoilt = prediction.clone()
        spoilt.view(-1)[int((~ignored).flatten().nonzero()[0])] = value
        with pytest.raises(KdamValueError, match="NaN or Inf"):
            make().update(spoilt, label)


@pytest.mark.fault(20)
@every_metric
def test_shapes_that_would_broadcast_are_refused_with_both(make, data, invalid):
    prediction, label = data()
    for given in (prediction[:, None], prediction[..., :1]):
        with pytest.raises(KdamValueError) as caught:
            make().update(given, label)
        assert str(tuple(given.shape)) in str(caught.value)
        assert str(tuple(label.shape)) in str(caught.value)


MAPS = {DepthErrors: torch.ones(1, 4, 4), NormalErrors: torch.ones(3, 4, 4)}


@pytest.mark.parametrize(
    ("make", "prediction", "label", "given"),
    [  # what is no class id, no probability, has another number of channels, or holds the integers of a file
        *((CASES["miou"][0], [[0]], [[other]], ("label", f"{other}")) for other in (6, -1)),
        (CASES["miou"][0], [[6]], [[0]], ("prediction", "6")),
        (CASES["miou"][0], [[0]], [[0.0]], ("label", "float32")),
        (CASES["miou"][0], [[True]], [[0]], ("prediction", "bool")),
        *((kind, [[-2.0, 3.0]], [[0, 1]], ("-2", "3")) for kind in (Saliency, EdgeF)),
        *((kind, [[0, 1]], [[0, 1]], ("int64",)) for kind in (Saliency, EdgeF)),
        *((kind, [[0.0, 1.0]], [[0, 254]], ("254",)) for kind in (Saliency, EdgeF)),
        *(
            (kind, maps.repeat(2, 1, 1), maps.repeat(2, 1, 1), (f"({2 * len(maps)}, 4, 4)", ", H, W"))
            for kind, maps in MAPS.items()
        ),
        *((kind, maps, maps.to(torch.uint16), ("uint",)) for kind, maps in MAPS.items()),
        *((kind, maps.byte(), maps, ("uint",)) for kind, maps in MAPS.items()),
    ],
)
def test_maps_that_a_metric_cannot_count_are_refused_with_what_was_given(make, prediction, label, given):
    with pytest.raises(KdamValueError) as caught:
        make().update(torch.as_tensor(prediction), torch.as_tensor(label))
    assert all(word in str(caught.value) for word in given)
