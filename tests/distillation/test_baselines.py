import math

import numpy as np
import pytest
import torch

from kdam_hf.distillation.baselines import cwd, dist, kl
from kdam_hf.distributed import Processes
from kdam_hf.errors import KdamValueError

CHANNELS = {"semseg": 5, "edge": 2}
BASELINES = {
    "kl": kl,
    "dist_inter": lambda *args: dist(*args)[0],
    "dist_intra": lambda *args: dist(*args)[1],
    "cwd": cwd,
}
every_baseline = pytest.mark.parametrize("baseline", BASELINES.values(), ids=BASELINES.keys())


def random_maps(seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (2 * torch.randn(3, channels, 4, 3, generator=generator, dtype=torch.float64)).to(dtype)
        for name, channels in CHANNELS.items()
    }


def random_valid():
    valid = torch.rand(3, 4, 3, generator=torch.Generator().manual_seed(7)) > 0.3
    valid[2] = False
    return valid


def with_grad(maps):
    return {name: logits.clone().requires_grad_() for name, logits in maps.items()}


def softmax(values):
    exponentials = [math.exp(value) for value in values]
    return [value / math.fsum(exponentials) for value in exponentials]


def kl_divergence(q, p):
    return math.fsum(b * math.log(b / a) for a, b in zip(p, q, strict=True))


def rows(logits, valid, temperature):
    return [
        softmax([float(x) / temperature for x in logits[image, :, height, width]])
        for image, height, width in np.argwhere(valid.numpy())
    ]


def reference_kl(student, teacher, valid, temperature):
    tasks = []
    for name in student:
        pairs = zip(rows(teacher[name], valid, temperature), rows(student[name], valid, temperature), strict=True)
        tasks.append(np.mean([kl_divergence(q, p) for q, p in pairs]))
    return np.mean(tasks)


def correlation_distance(a, b):
    a, b = a - a.mean(), b - b.mean()
    # the published code adds 1e-8 to the product of the norms, which shows for soft distributions
    return 1 - (a * b).sum() / (math.sqrt((a * a).sum()) * math.sqrt((b * b).sum()) + 1e-8)


def reference_dist(student, teacher, valid, temperature):
    inter, intra = [], []
    for name in student:
        p, q = np.array(rows(student[name], valid, temperature)), np.array(rows(teacher[name], valid, temperature))
        inter.append(np.mean([correlation_distance(a, b) for a, b in zip(p, q, strict=True)]))
        intra.append(np.mean([correlation_distance(a, b) for a, b in zip(p.T, q.T, strict=True)]))
    return np.mean(inter), np.mean(intra)


def reference_cwd(student, teacher, valid, temperature):
    tasks = []
    for name in student:
        terms = []
        for image in range(len(valid)):
            pixels = np.argwhere(valid[image].numpy())
            for channel in range(CHANNELS[name] if len(pixels) else 0):
                q, p = (
                    softmax([float(maps[name][image, channel, y, x]) / temperature for y, x in pixels])
                    for maps in (teacher, student)
                )
                terms.append(kl_divergence(q, p))
        tasks.append(np.mean(terms))
    return np.mean(tasks)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_agrees_with_plain_loops(temperature, dtype, tolerance):
    student, teacher, valid = random_maps(0, dtype), random_maps(1, dtype), random_valid()
    inputs = (student, teacher, valid, temperature)
    assert kl(*inputs).item() == pytest.approx(reference_kl(*inputs), rel=tolerance)
    assert cwd(*inputs).item() == pytest.approx(reference_cwd(*inputs), rel=tolerance)
    assert [term.item() for term in dist(*inputs)] == pytest.approx(reference_dist(*inputs), rel=tolerance)


@every_baseline
def test_zero_for_identical_inputs(baseline):
    maps = random_maps(0)
    assert baseline(maps, maps, random_valid(), 2.0).item() == pytest.approx(0, abs=1e-6)


@every_baseline
def test_gradcheck(baseline):
    student, teacher, valid = random_maps(0), random_maps(1), random_valid()

    def loss(*logits):
        return baseline(dict(zip(CHANNELS, logits, strict=True)), teacher, valid, 2.0)

    assert torch.autograd.gradcheck(loss, tuple(logits.requires_grad_() for logits in student.values()))


@every_baseline
def test_padding_has_exactly_zero_gradient_and_its_nan_does_no_harm(baseline):
    student, teacher, valid = random_maps(0), random_maps(1), random_valid()
    clean = baseline(student, teacher, valid, 2.0)
    for maps in (student, teacher):
        for logits in maps.values():
            logits.movedim(1, -1)[~valid] = torch.nan
    student = with_grad(student)
    loss = baseline(student, teacher, valid, 2.0)
    loss.backward()
    assert loss.item() == clean.item()
    for logits in student.values():
        gradient = logits.grad.movedim(1, -1)
        assert (gradient[~valid] == 0).all()
        assert torch.isfinite(gradient).all()


@pytest.mark.fault(17)
@every_baseline
def test_no_valid_pixel_gives_zero_with_a_gradient_path(baseline):
    student = with_grad(random_maps(0))
    loss = baseline(student, random_maps(1), torch.zeros(3, 4, 3, dtype=torch.bool), 2.0)
    loss.backward()
    assert loss.item() == 0
    assert all((logits.grad == 0).all() for logits in student.values())


@every_baseline
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_finite_at_extreme_logits(baseline, dtype):
    teacher = {name: 1e4 * logits.sign() for name, logits in random_maps(1, dtype).items()}
    student = with_grad({name: -logits for name, logits in teacher.items()})
    loss = baseline(student, teacher, random_valid(), 1.0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert all(torch.isfinite(logits.grad).all() for logits in student.values())


@every_baseline
def test_constant_distributions_are_finite(baseline):
    student = with_grad({name: torch.zeros_like(logits) for name, logits in random_maps(0).items()})
    loss = baseline(student, random_maps(1), random_valid(), 1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(logits.grad).all() for logits in student.values())


@pytest.mark.parametrize("baseline", [kl, BASELINES["dist_inter"], cwd])
def test_shards_average_to_the_joint_batch(baseline):
    student, teacher, valid = random_maps(0), random_maps(1), random_valid()

    class TwoShards(Processes):
        """Knows the count of the joint batch beforehand: images with a pixel for cwd, else pixels."""

        def mean(self, x):
            joint = valid.flatten(1).any(1).sum() if baseline is cwd else valid.sum()
            return torch.full_like(x, float(joint) / 2)

    values = []
    for part in (slice(0, 1), slice(1, 3)):
        shards = [{name: logits[part] for name, logits in maps.items()} for maps in (student, teacher)]
        values.append(baseline(*shards, valid[part], 2.0, TwoShards(2)))
    assert sum(values).item() / 2 == pytest.approx(baseline(student, teacher, valid, 2.0).item(), rel=1e-12)


@every_baseline
def test_shapes_that_do_not_fit_are_refused(baseline):
    student, teacher, valid = random_maps(0), random_maps(1), random_valid()
    with pytest.raises(KdamValueError, match=r"\(3, 5, 4, 3\).*\(3, 2, 3\)"):
        baseline(student, teacher, valid[:, :2], 1.0)
    with pytest.raises(KdamValueError, match=r"\(3, 5, 4, 3\).*\(3, 4, 4, 3\)"):
        baseline(student, {**teacher, "semseg": teacher["semseg"][:, 1:]}, valid, 1.0)
