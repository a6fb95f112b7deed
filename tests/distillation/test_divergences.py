"""Each divergence against its formula in float64, and what it must be whatever its inputs."""

import numpy as np
import pytest
import torch
from cases import REFERENCES, ThreadedProcesses

from kdam_hf.distillation import DIVERGENCES, cauchy_schwarz
from kdam_hf.errors import KdamValueError


def logs(*shape, scale=3.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).log_softmax(-1).to(dtype)


every_divergence = pytest.mark.parametrize("name", DIVERGENCES)


@every_divergence
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 5e-6)])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_it_agrees_with_its_formula(name, dtype, tolerance, dim):
    log_p, log_q = logs(5, 6, 40, dtype=dtype), logs(5, 6, 40, seed=1, dtype=dtype)
    ours = DIVERGENCES[name](log_p, log_q, dim).double().numpy()
    p, q = (np.exp(x.double().numpy()) for x in (log_p, log_q))
    np.testing.assert_allclose(ours, REFERENCES[name](p, q, dim), rtol=tolerance, atol=tolerance)


@every_divergence
def test_its_gradient_is_that_of_finite_differences(name):
    a, b = logs(3, 5).requires_grad_(), logs(3, 5, seed=1)
    assert torch.autograd.gradcheck(lambda x: DIVERGENCES[name](x, b), (a,))


@every_divergence
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_it_is_zero_for_equal_inputs_and_at_least_single_precision(name, dtype):
    log_p = logs(64, 40, dtype=dtype)
    found = DIVERGENCES[name](log_p, log_p.clone())
    assert found.abs().max() < 1e-6
    assert found.dtype == torch.promote_types(dtype, torch.float32)


@pytest.mark.fault(17)
@every_divergence
def test_an_axis_without_any_element_gives_zero_with_a_gradient_path(name):
    empty = torch.zeros(0, 4, requires_grad=True)
    found = DIVERGENCES[name](empty, torch.zeros(0, 4), 0)
    found.sum().backward()
    assert torch.equal(found.detach(), torch.zeros(4))


@every_divergence
def test_shapes_do_not_broadcast(name):
    with pytest.raises(KdamValueError, match=r"\(2, 3\).*\(1, 3\)"):
        DIVERGENCES[name](torch.zeros(2, 3), torch.zeros(1, 3))


# ---- the divergence of the paper -------------------------------------------------------------------------------------


def test_it_is_symmetric_keeps_its_value_when_a_side_is_rescaled_and_is_zero_only_for_proportional_inputs():
    a, b = logs(8, 5), logs(8, 5, seed=1)
    torch.testing.assert_close(cauchy_schwarz(a, b), cauchy_schwarz(b, a), rtol=1e-13, atol=0)
    torch.testing.assert_close(cauchy_schwarz(a + 100, b - 3), cauchy_schwarz(a, b), rtol=1e-10, atol=1e-12)
    assert cauchy_schwarz(a, a + 1.7).abs().max() < 1e-14
    assert (cauchy_schwarz(a, a.roll(1, 1)) > 1e-3).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sign", [1, -1])
def test_where_sums_underflow_log_space_takes_over(dtype, sign):
    a = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, 1e4], [-200.0, -300.0, -200.0]], dtype=dtype, requires_grad=True)
    b = (sign * a).detach()
    found = cauchy_schwarz(a, b)
    found.sum().backward()
    torch.testing.assert_close(found, cauchy_schwarz(a.double(), b.double()).float(), rtol=1e-4, atol=1e-4)
    assert torch.isfinite(a.grad).all()


def test_a_small_divergence_is_never_negative_and_keeps_its_gradient():
    a = logs(4096, 40, dtype=torch.float32)
    b = (a + 1e-4 * logs(4096, 40, seed=1, dtype=torch.float32)).requires_grad_()
    found = cauchy_schwarz(a, b)
    found.sum().backward()
    assert (found >= 0).all()
    assert (found == 0).any(), "rounding has taken some below zero"
    assert (b.grad[found == 0].abs().sum(1) > 0).all()


def test_sums_among_subnormal_numbers_have_lost_digits_and_are_taken_in_log_space():
    a, b = logs(64, 5, scale=0.1), logs(64, 5, scale=0.1, seed=1)
    for shift in (-44, -46, -48):
        found = cauchy_schwarz((a + shift).float(), (b + shift).float())
        torch.testing.assert_close(found.double(), cauchy_schwarz(a, b), rtol=0, atol=5e-5)


def test_where_sums_underflow_processes_that_share_the_axis_agree_with_one():
    a, b = logs(6, 5, dtype=torch.float32), logs(6, 5, seed=1, dtype=torch.float32)
    a[:2], b[:2] = a[:2] - 103, b[:2] - 102  # the peaks of the two differ
    a, b = a - 100, b - 100
    shares, processes = (slice(0, 2), slice(2, 6)), ThreadedProcesses(2)
    for part in processes.run(lambda rank: cauchy_schwarz(a[shares[rank]], b[shares[rank]], 0, processes)):
        torch.testing.assert_close(part, cauchy_schwarz(a.double(), b.double(), 0).float(), rtol=1e-4, atol=1e-5)
