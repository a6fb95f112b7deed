import math

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
from kdam_hf.tasks.normals import fibonacci_sphere

H, W = 6, 10


def raw_label(task, rng):
    if isinstance(task, Depth):
        return rng.uniform(0.8, 9, (H, W)).astype(np.float32)
    if isinstance(task, Normals):
        n = rng.normal(size=(H, W, 3))
        return (n / np.linalg.norm(n, axis=-1, keepdims=True)).astype(np.float32)
    return rng.integers(0, max(task.channels, 2), (H, W)).astype(np.uint8)


def batch(task, rng, invalid=False):
    raws = [task.label.unlabelled(H, W) if invalid else raw_label(task, rng) for _ in range(2)]
    label = torch.stack([task.label.to_tensor(raw) for raw in raws])
    prediction = torch.randn(2, task.channels, H, W, generator=torch.Generator().manual_seed(0))
    if isinstance(task, Depth):
        prediction = prediction.abs() + 0.1
    return prediction.requires_grad_(), label, torch.ones(2, H, W, dtype=torch.bool)


def reference_loss(task, prediction, label, mask):
    """The published losses in plain float64 numpy, pixel by pixel."""
    p, y, m = prediction.detach().double().numpy(), label.double().numpy(), mask.numpy()
    total, count = 0.0, 0
    counts = (
        [sum(((y[b] == c) & m[b]).sum() for b in range(len(y))) for c in range(2)] if task.name == "saliency" else None
    )
    for b, i, j in np.ndindex(m.shape):
        if not m[b, i, j]:
            continue
        if task.name == "depth":
            if y[b, 0, i, j] <= 0:
                continue
            total += abs(p[b, 0, i, j] - y[b, 0, i, j])
        elif task.name == "normals":
            if not y[b, :, i, j].any():
                continue
            v = p[b, :, i, j]
            total += np.abs(v / np.linalg.norm(v) - y[b, :, i, j]).sum()
        elif task.name == "edge":
            if y[b, 0, i, j] == 255:
                continue
            q = 1 / (1 + math.exp(-p[b, 0, i, j]))
            total -= 0.95 * math.log(q) if y[b, 0, i, j] else 0.05 * math.log(1 - q)
        else:
            c = int(y[b, i, j])
            if c == 255:
                continue
            weight = 1 - counts[c] / sum(counts) if counts else 1
            z = p[b, :, i, j]
            total += weight * (np.log(np.exp(z).sum()) - z[c])
        count += 1
    return total / max(count, 1)


def test_losses_agree_with_their_definitions(all_tasks):
    rng = np.random.default_rng(0)
    for task in all_tasks:
        prediction, label, mask = batch(task, rng)
        mask[:, :, 7:] = False
        assert task.loss(prediction, label, mask).item() == pytest.approx(
            reference_loss(task, prediction, label, mask), rel=1e-5
        ), task.name


@pytest.mark.fault(17)
def test_a_batch_without_any_label_gives_zero_loss_and_zero_gradient(all_tasks):
    for task in all_tasks:
        prediction, label, mask = batch(task, np.random.default_rng(0), invalid=True)
        loss = task.loss(prediction, label, mask)
        loss.backward()
        assert loss.item() == 0, task.name
        assert prediction.grad.abs().sum() == 0, task.name


@pytest.mark.fault(18)
def test_padding_and_nan_under_the_mask_have_no_gradient(all_tasks):
    for task in all_tasks:
        prediction, label, mask = batch(task, np.random.default_rng(1))
        mask[:, 3:] = False
        with torch.no_grad():
            if label.is_floating_point():
                label[..., 3:, :] = float("nan")
        task.loss(prediction, label, mask).backward()
        assert prediction.grad[:, :, 3:].abs().sum() == 0, task.name
        assert prediction.grad.isfinite().all(), task.name


@pytest.mark.fault(18)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_prediction_that_is_not_finite_where_nothing_is_labelled_does_no_harm(all_tasks, value):
    """Depth has holes: what stands there must not reach a sum, not even times zero, nor a gradient."""
    for task in all_tasks:
        prediction, label, mask = batch(task, np.random.default_rng(1))
        blank = task.label.to_tensor(task.label.unlabelled(H, W))
        label[..., :2, :] = blank[..., :2, :]
        clean = task.loss(prediction, label, mask)
        spoilt = prediction.detach().clone()
        spoilt[:, :, :2] = value
        spoilt.requires_grad_()
        loss = task.loss(spoilt, label, mask)
        loss.backward()
        assert loss.item() == clean.item(), task.name
        assert spoilt.grad.isfinite().all(), task.name
        assert spoilt.grad[:, :, :2].abs().sum() == 0, task.name


@pytest.mark.fault(18)
def test_a_depth_that_is_not_a_number_is_a_hole():
    task = Depth()
    prediction = torch.ones(1, 1, 2, 2, requires_grad=True)
    label = torch.tensor([[[[float("nan"), 2.0], [0.0, -1.0]]]])
    loss = task.loss(prediction, label, torch.ones(1, 2, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 1
    assert prediction.grad.flatten().tolist() == [0, -1, 0, 0]


def test_every_task_has_a_proper_distribution_per_pixel(all_tasks):
    for task in all_tasks:
        prediction, *_ = batch(task, np.random.default_rng(2))
        logits = task.distribution_logits(prediction.movedim(1, -1))
        assert logits.shape[:-1] == (2, H, W)
        assert logits.shape[-1] >= 2, task.name
        assert logits.softmax(-1).std(dim=(0, 1, 2)).max() > 1e-3, (
            f"{task.name}: a constant distribution teaches nothing"
        )


def test_depth_distribution_peaks_at_the_nearest_log_bin():
    metres, centres = np.array([0.7, 1.0, 2.5, 10.0]), np.geomspace(0.7, 10, 40)
    logits = Depth().distribution_logits(torch.from_numpy(metres)[:, None])
    step = np.log(10 / 0.7) / 39
    expected = -((np.log(metres)[:, None] - np.log(centres)) ** 2) / (2 * step**2)
    np.testing.assert_allclose(logits.numpy(), expected, atol=1e-3)


def test_normals_distribution_is_kappa_times_cosine_over_even_directions():
    centres = fibonacci_sphere(64).double()
    assert torch.allclose(centres.norm(dim=1), torch.ones(64, dtype=torch.float64), atol=1e-6)
    assert centres.mean(0).norm() < 0.02
    cosines = centres @ centres.T - 2 * torch.eye(64)
    assert cosines.max() < math.cos(math.radians(18))
    n = F.normalize(torch.randn(5, 3), dim=1)
    logits = Normals().distribution_logits(n * 7)
    np.testing.assert_allclose(logits.numpy(), 32 * (n.double() @ centres.T).numpy(), atol=1e-4)


def test_edge_distribution_is_sigmoid_and_its_complement():
    z = torch.randn(3, 3, 1)
    assert torch.allclose(Edge().distribution_logits(z).softmax(-1)[..., :1], z.sigmoid())


def test_two_flips_are_the_identity_and_normals_mirror_x(all_tasks):
    rng = np.random.default_rng(3)
    for task in all_tasks:
        raw = raw_label(task, rng)
        np.testing.assert_array_equal(task.label.hflip(task.label.hflip(raw)), raw)
    raw = np.zeros((1, 2, 3), np.float32)
    raw[0, 0] = (0.6, 0, 0.8)
    np.testing.assert_allclose(Normals().label.hflip(raw)[0, 1], (-0.6, 0, 0.8))


def test_depth_is_divided_by_the_scale_and_other_labels_are_kept(all_tasks):
    rng = np.random.default_rng(4)
    for task in all_tasks:
        raw = raw_label(task, rng)
        np.testing.assert_allclose(task.label.rescale(raw, 2.0), raw / 2 if task.name == "depth" else raw)


def test_rendering_gives_colours_of_the_same_size_and_marks_invalid_pixels(all_tasks):
    rng = np.random.default_rng(5)
    for task in all_tasks:
        raw = raw_label(task, rng)
        rgb = task.render(raw)
        assert rgb.shape == (H, W, 3)
        assert rgb.dtype == np.uint8
        invalid = task.render(task.label.unlabelled(H, W))
        assert len(np.unique(invalid.reshape(-1, 3), axis=0)) == 1, task.name
        assert task.legend()


@pytest.mark.fault(20)
def test_shapes_that_would_only_broadcast_are_refused(all_tasks):
    for task in all_tasks:
        prediction, label, mask = batch(task, np.random.default_rng(0))
        with pytest.raises(KdamValueError, match=task.name):
            task.loss(prediction[..., :-1], label, mask)
        with pytest.raises(KdamValueError, match=task.name):
            task.loss(prediction, label, mask[:, None])


def test_human_parts_without_a_person_are_ignored():
    task = make_task("human_parts")
    assert (task.label.to_tensor(np.zeros((2, 2), np.uint8)) == 255).all()
    assert task.label.to_tensor(np.array([[0, 3]], np.uint8)).tolist() == [[0, 3]]


def test_task_sets_of_the_field_are_in_canonical_order_with_published_weights():
    assert [t.name for t in NYUD_V2] == ["semseg", "depth", "normals", "edge"]
    assert [t.name for t in PASCAL_CONTEXT] == ["semseg", "human_parts", "saliency", "normals", "edge"]
    weights = {t.name: t.loss_weight for t in (*NYUD_V2, *PASCAL_CONTEXT)}
    assert weights == {"semseg": 1, "human_parts": 2, "saliency": 5, "depth": 1, "normals": 10, "edge": 50}
    assert [t.channels for t in NYUD_V2] == [40, 1, 3, 1]
    assert [t.channels for t in PASCAL_CONTEXT] == [21, 7, 2, 3, 1]


def test_a_task_survives_its_trip_through_a_published_config(all_tasks):
    for task in all_tasks:
        again = task_from_spec(task.spec())
        assert type(again) is type(task)
        assert again.spec() == task.spec()


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(KdamValueError, match=r"'seg'.*semseg"):
        make_task("seg")
    with pytest.raises(KdamValueError, match=r"depht.*depth"):
        select_tasks(NYUD_V2, ["depht"])
    assert [t.name for t in select_tasks(NYUD_V2, ["edge", "semseg"])] == ["semseg", "edge"]
    assert set(TASK_NAMES) == {"semseg", "human_parts", "saliency", "depth", "normals", "edge"}


def test_labels_of_one_column_survive_a_flip(all_tasks):
    for task in all_tasks:
        assert task.label.to_tensor(task.label.hflip(task.label.unlabelled(3, 1))).shape[-2:] == (3, 1)
