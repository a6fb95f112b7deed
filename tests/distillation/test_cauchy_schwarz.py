import numpy as np
import pytest
import torch

from kdam_hf.distillation.cauchy_schwarz import cauchy_schwarz_divergence
from kdam_hf.errors import KdamValueError


def random_logits(*shape, scale=3.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)


def naive_divergence(log_p, log_q, axis):
    p, q = np.exp(log_p.double().numpy()), np.exp(log_q.double().numpy())
    return -np.log((p * q).sum(axis) ** 2 / ((p * p).sum(axis) * (q * q).sum(axis)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_agrees_with_naive_formula(dtype, tolerance, dim):
    log_p, log_q = random_logits(5, 6, 40, dtype=dtype).log_softmax(2), random_logits(5, 6, 40, seed=1, dtype=dtype)
    ours = cauchy_schwarz_divergence(log_p, log_q, dim).double().numpy()
    np.testing.assert_allclose(ours, naive_divergence(log_p, log_q, dim), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_zero_for_identical_inputs(dtype, scale):
    logits = random_logits(64, 40, scale=scale, dtype=dtype)
    assert (cauchy_schwarz_divergence(logits, logits.clone()) == 0).all()


def test_zero_only_for_proportional_inputs():
    log_p = random_logits(8, 5)
    assert torch.allclose(
        cauchy_schwarz_divergence(log_p, log_p + 1.7), torch.zeros(8, dtype=torch.float64), atol=1e-14
    )
    assert (cauchy_schwarz_divergence(log_p, log_p.roll(1, 1)) > 1e-3).all()


def test_symmetry():
    a, b = random_logits(8, 5), random_logits(8, 5, seed=1)
    assert torch.allclose(cauchy_schwarz_divergence(a, b), cauchy_schwarz_divergence(b, a), rtol=1e-14, atol=0)


def test_shift_of_logits_changes_nothing():
    a, b = random_logits(8, 5), random_logits(8, 5, seed=1)
    expected = cauchy_schwarz_divergence(a.log_softmax(1), b.log_softmax(1))
    assert torch.allclose(cauchy_schwarz_divergence(a + 100, b - 3), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 8.0])
def test_equals_twice_bhattacharyya_at_half_the_temperature(temperature):
    a, b = random_logits(8, 5), random_logits(8, 5, seed=1)
    p, q = (2 * a / temperature).softmax(1), (2 * b / temperature).softmax(1)
    bhattacharyya = -(p * q).sqrt().sum(1).log()
    assert torch.allclose(cauchy_schwarz_divergence(a / temperature, b / temperature), 2 * bhattacharyya, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("order", ["same", "opposite"])
def test_value_and_gradient_finite_at_extreme_logits(dtype, order):
    a = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, 1e4]], dtype=dtype, requires_grad=True)
    b = (a if order == "same" else -a).detach()
    divergence = cauchy_schwarz_divergence(a.log_softmax(1), b)
    divergence.sum().backward()
    assert divergence.dtype == torch.float32
    assert torch.isfinite(divergence).all()
    assert torch.isfinite(a.grad).all()


def test_zero_probabilities_give_finite_value_and_gradient():
    log_p = torch.tensor([0.5, 0.5, 0.0]).log().requires_grad_()
    log_q = torch.tensor([0.0, 0.5, 0.5]).log()
    divergence = cauchy_schwarz_divergence(log_p, log_q)
    divergence.backward()
    assert divergence.item() == pytest.approx(-np.log(0.25))
    assert torch.isfinite(log_p.grad).all()


def test_gradcheck():
    a, b = random_logits(3, 5).requires_grad_(), random_logits(3, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(cauchy_schwarz_divergence, (a, b))


@pytest.mark.parametrize("temperature", [0.5, 2.0, 8.0])
def test_gradient_is_the_closed_form(temperature):
    z, t = random_logits(16, 40).requires_grad_(), random_logits(16, 40, seed=1)
    cauchy_schwarz_divergence(z / temperature, t / temperature).sum().backward()
    a, b = z.detach() / temperature, t / temperature
    expected = 2 / temperature * ((2 * a).softmax(1) - (a + b).softmax(1))
    assert torch.allclose(z.grad, expected, rtol=1e-10, atol=1e-14)
    assert (z.grad.abs().sum(1) <= 4 / temperature).all()


def test_small_divergence_is_never_negative_and_keeps_its_gradient():
    a = random_logits(4096, 40, dtype=torch.float32)
    b = (a + random_logits(4096, 40, scale=1e-4, seed=1, dtype=torch.float32)).requires_grad_()
    raw = torch.logsumexp(2 * a, 1) + torch.logsumexp(2 * b, 1) - 2 * torch.logsumexp(a + b, 1)
    divergence = cauchy_schwarz_divergence(a, b)
    divergence.sum().backward()
    rounded_below_zero = raw < 0
    assert rounded_below_zero.any()
    assert (divergence >= 0).all()
    assert (b.grad[rounded_below_zero].abs().sum(1) > 0).all()


def test_shapes_do_not_broadcast():
    with pytest.raises(KdamValueError, match=r"\(2, 3\).*\(1, 3\)"):
        cauchy_schwarz_divergence(torch.zeros(2, 3), torch.zeros(1, 3))
