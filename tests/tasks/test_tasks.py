"""The contract of tasks: losses, distributions, colours, and what a published config keeps of them."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kdam_hf.errors import KdamValueError
from kdam_hf.tasks import (
    NYUD_V2,
    PASCAL_CONTEXT,
    TASK_NAMES,
    Depth,
    Edge,
    Normals,
    make_task,
    select_tasks,
    task_from_spec,
)
from kdam_hf.tasks.normals import fibonacci_sphere, unit_vectors
from kdam_hf.tasks.relative_depth import RelativeDepth, normalised_inverse_depth

H, W = 6, 10
TASKS = {name: make_task(name, "abcde" if name == "semseg" else ()) for name in TASK_NAMES}
every_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())


def raw_label(task, rng):
    if isinstance(task, Depth):
        return rng.uniform(0.8, 9, (H, W)).astype(np.float32)
    if isinstance(task, Normals):
        n = rng.normal(size=(H, W, 3))
        return (n / np.linalg.norm(n, axis=-1, keepdims=True)).astype(np.float32)
    return rng.integers(0, max(task.channels, 2), (H, W)).astype(np.uint8)


def batch(task, seed=0):
    rng = np.random.default_rng(seed)
    label = torch.stack([task.label.to_tensor(raw_label(task, rng)) for _ in range(2)])
    prediction = torch.randn(2, task.channels, H, W, generator=torch.Generator().manual_seed(0))
    if isinstance(task, Depth):
        prediction = prediction.abs() + 0.1
    return prediction.requires_grad_(), label, torch.ones(2, H, W, dtype=torch.bool)


def reference_loss(task, prediction, label, mask):
    """The published losses in plain float64 numpy, pixel by pixel."""
    p, y = prediction.detach().double().numpy(), label.double().numpy()
    total, count = 0.0, 0
    salient = (y[mask.numpy()] == 1).mean() if task.name == "saliency" else None
    for b, i, j in np.argwhere(mask.numpy()):
        q, v = p[b, :, i, j], y[b, ..., i, j]
        if task.name in ("depth", "relative_depth"):
            total += abs(q[0] - v[0])
        elif task.name == "normals":
            total += np.abs(q / np.linalg.norm(q) - v).sum()
        elif task.name == "edge":
            total += 0.95 * math.log(1 + math.exp(-q[0])) if v[0] else 0.05 * math.log(1 + math.exp(q[0]))
        else:
            weight = 1 if salient is None else 1 - salient if v else salient
            total += weight * (np.log(np.exp(q).sum()) - q[int(v)])
        count += 1
    return total / count


@every_task
def test_a_loss_agrees_with_its_definition(task):
    prediction, label, mask = batch(task)
    mask[:, :, 7:] = False
    expected = reference_loss(task, prediction, label, mask)
    assert task.loss(prediction, label, mask).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e-5])
@pytest.mark.parametrize("name", ["semseg", "human_parts"])
def test_class_weights_mean_what_they_do_in_torch(name, scale):
    """The sum of weighted losses over the sum of the weights of the counted pixels, whatever that is."""
    weights = [scale * weight for weight in (1.0, 0.5, 0.0, 4.0, 2.0, 0.1, 3.0)][: TASKS[name].channels]
    task = replace(TASKS[name], class_weights=tuple(weights))
    prediction, label, mask = batch(task)
    mask[:, :, 7:], label[0, 0] = False, 255
    target = label.masked_fill(~mask, 255)
    expected = F.cross_entropy(prediction.double(), target, torch.tensor(weights).double(), ignore_index=255)
    assert task.loss(prediction, label, mask).item() == pytest.approx(expected.item(), rel=1e-5)


def test_balanced_weights_give_every_class_that_occurs_the_same_share_of_the_loss():
    counts = torch.tensor([30.0, 10.0, 0.0, 5.0, 0.0], dtype=torch.float64)
    weights = torch.tensor(TASKS["semseg"].balanced_weights(counts), dtype=torch.float64)
    torch.testing.assert_close(weights * counts, torch.where(counts > 0, 15.0, 0.0).double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("weights", [(1.0,), (0.0,) * 5, (1.0, 1.0, 1.0, 1.0, -1.0), (1.0,) * 4 + (math.inf,), "even"])
def test_class_weights_that_cannot_be_meant_are_refused(weights):
    with pytest.raises(KdamValueError, match="class_weights"):
        replace(TASKS["semseg"], class_weights=weights)
    with pytest.raises(KdamValueError, match="class_weights"):
        replace(TASKS["saliency"], class_weights="balanced")


@pytest.mark.fault(17)
@every_task
def test_a_batch_without_any_label_gives_zero_loss_and_zero_gradient(task):
    prediction, label, mask = batch(task)
    label[:] = task.label.invalid
    loss = task.loss(prediction, label, mask)
    loss.backward()
    assert loss.item() == 0
    assert prediction.grad.abs().sum() == 0


@pytest.mark.fault(18)
@every_task
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("hidden", ["padded", "unlabelled"])
def test_what_stands_under_padding_or_where_nothing_is_labelled_does_no_harm(task, value, hidden):
    """Not even times zero may it reach a sum or a gradient."""
    prediction, label, mask = batch(task, seed=1)
    if hidden == "padded":
        mask[:, :2] = False
    else:
        label[..., :2, :] = task.label.invalid
    clean = task.loss(prediction, label, mask)
    spoilt = prediction.detach().clone()
    spoilt[:, :, :2] = value
    if label.is_floating_point() and (hidden == "padded" or (isinstance(task, Depth) and value != math.inf)):
        label[..., :2, :] = value  # a depth that is not a number is a hole
    loss = task.loss(spoilt.requires_grad_(), label, mask)
    loss.backward()
    assert loss.item() == clean.item()
    assert spoilt.grad.isfinite().all()
    assert spoilt.grad[:, :, :2].abs().sum() == 0


@pytest.mark.fault(20)
@every_task
def test_shapes_that_would_only_broadcast_are_refused(task):
    prediction, label, mask = batch(task)
    for given in ((prediction[..., :-1], label, mask), (prediction, label, mask[:, None])):
        with pytest.raises(KdamValueError, match=task.name):
            task.loss(*given)


@every_task
def test_every_task_has_a_proper_distribution_per_pixel(task):
    logits = task.distribution_logits(batch(task)[0].movedim(1, -1))
    assert logits.shape[:-1] == (2, H, W)
    assert logits.shape[-1] >= 2
    assert logits.softmax(-1).std(dim=(0, 1, 2)).max() > 1e-3, "a constant distribution teaches nothing"


def test_depth_distribution_falls_linearly_from_the_nearest_bin_of_log_one_plus_metres():
    metres = np.array([0.1, 1.0, 2.5, 10.0, 200.0])
    found = Depth().distribution_logits(torch.from_numpy(metres)[:, None]).numpy()
    centres = np.linspace(np.log(1.1), np.log(201), 22)  # about a quarter apart
    np.testing.assert_allclose(found, -abs(np.log1p(metres)[:, None] - centres) * 4, atol=1e-4)
    assert Depth(max=10.0).distribution_logits(torch.ones(1, 1)).shape == (1, 10)
    assert Depth(softness=0.125).distribution_logits(torch.ones(1, 1)).shape == (1, 43)
    for low, high in ((2.0, 1.0), (-1.0, 1.0), (0.1, float("inf"))):
        with pytest.raises(KdamValueError):
            Depth(min=low, max=high)
    for kind, softness in product((Depth, RelativeDepth), (0.0, float("inf"))):
        with pytest.raises(KdamValueError):
            kind(softness=softness)


def test_heads_start_where_a_constant_prediction_is_best():
    generator = np.random.default_rng(0)
    assert Depth().start(np.float32([1, 2, 9])) == [2]
    assert Normals().start(np.zeros((3, 3))) is None
    edges = (generator.random(4000) < 0.1).astype(np.uint8)
    logit = torch.tensor(Edge().start(edges)).requires_grad_()
    weights = torch.where(torch.from_numpy(edges) > 0, 0.95, 0.05)
    loss = F.binary_cross_entropy_with_logits(logit.expand(4000), torch.from_numpy(edges).float(), weights)
    assert torch.autograd.grad(loss, logit)[0].abs() < 1e-4
    assert np.isfinite(Edge().start(np.zeros(5)) + Edge(positive_weight=1.0).start(np.ones(5))).all()


def test_normals_distribution_is_kappa_times_cosine_over_even_directions():
    centres = fibonacci_sphere(64).double()
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(64).double(), rtol=0, atol=1e-6)
    assert centres.mean(0).norm() < 0.02
    assert (centres @ centres.T - 2 * torch.eye(64)).max() < math.cos(math.radians(18))
    n = F.normalize(torch.randn(5, 3), dim=1)
    logits = Normals().distribution_logits(n * 7)
    np.testing.assert_allclose(logits.numpy(), 16 * (n.double() @ centres.T).numpy(), atol=1e-4)


def test_edge_distribution_is_sigmoid_and_its_complement():
    z = torch.randn(3, 3, 1)
    assert torch.allclose(Edge().distribution_logits(z).softmax(-1)[..., :1], z.sigmoid())


def test_task_sets_of_the_field_are_in_canonical_order_with_published_weights():
    assert list(TASK_NAMES) == ["semseg", "human_parts", "saliency", "depth", "normals", "edge", "relative_depth"]
    published = [("semseg", 40, 1), ("depth", 1, 1), ("normals", 3, 10), ("edge", 1, 50)]
    assert [(t.name, t.channels, t.loss_weight) for t in NYUD_V2] == published
    published = [("semseg", 21, 1), ("human_parts", 7, 2), ("saliency", 2, 5), ("normals", 3, 10), ("edge", 1, 50)]
    assert [(t.name, t.channels, t.loss_weight) for t in PASCAL_CONTEXT] == published


@every_task
def test_a_task_survives_its_trip_through_a_published_config(task):
    again = task_from_spec(task.spec())
    assert type(again) is type(task)
    assert again.spec() == task.spec()


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(KdamValueError, match=r"'seg'.*semseg"):
        make_task("seg")
    with pytest.raises(KdamValueError, match=r"depht.*depth"):
        select_tasks(NYUD_V2, ["depht"])
    assert [t.name for t in select_tasks(NYUD_V2, ["edge", "semseg"])] == ["semseg", "edge"]


def test_short_vectors_are_not_stretched_without_bound():
    found = unit_vectors(torch.tensor([[3e-3, 0.0, 4e-3], [3.0, 0.0, 4.0]]), dim=-1)
    torch.testing.assert_close(found, torch.tensor([[0.3, 0.0, 0.4], [0.6, 0.0, 0.8]]))


def test_of_a_normalised_map_the_median_is_0_and_the_mean_deviation_1():
    values = torch.tensor([[[[1.0, 2.0, 3.0, 10.0, 4.0]]], [[[5.0, 5.0, 5.0, 6.0, 9.0]]]])
    found = normalised_inverse_depth(values)
    torch.testing.assert_close(found[0, 0, 0], torch.tensor([-1.0, -0.5, 0.0, 3.5, 0.5]) / 1.1)
    torch.testing.assert_close(found.flatten(1).abs().mean(1), torch.ones(2))


def test_relative_depth_is_normalised_and_averaged_over_labelled_pixels_alone():
    metric = RelativeDepth().metric()
    label = torch.tensor([[[10.0, 20, 30, 50, torch.nan, torch.nan]]])
    metric.update(torch.tensor([[[0.0, 1, 2, 3, 900, -7]]]), label)
    p, q = (np.array(x) - sorted(x)[1] for x in ([0.0, 1, 2, 3], [10.0, 20, 30, 50]))
    assert metric.compute()["mae"] == pytest.approx(np.abs(p / np.abs(p).mean() - q / np.abs(q).mean()).mean())


def test_relative_depth_is_matched_over_bins_from_minus_4_to_8_half_a_unit_apart():
    values = np.array([-4.0, -0.3, 1.0, 8.0])
    found = RelativeDepth().distribution_logits(torch.from_numpy(values)[:, None]).numpy()
    np.testing.assert_allclose(found, -abs(values[:, None] - np.linspace(-4, 8, 25)) * 2, atol=1e-5)
