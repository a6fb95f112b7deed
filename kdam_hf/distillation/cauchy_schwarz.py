"""The Cauchy-Schwarz divergence in log space.

Unusual here: there is no epsilon. Three log-sum-exps along the matched axis are exact where the quotient of sums under-
or overflows; a very small divergence that rounds to less than zero is repaired in the value, never in the gradient.
"""

import torch
from torch import Tensor

from kdam_hf.errors import KdamValueError


def cauchy_schwarz_divergence(log_p: Tensor, log_q: Tensor, dim: int = -1) -> Tensor:
    """D(p, q) = -log( <p, q>^2 / (<p, p> <q, q>) ), from log p and log q.

    Symmetric, >= 0, zero iff p is proportional to q, unchanged when p or q is rescaled: along a class axis plain logits
    over the temperature do as well as log-probabilities. Probabilities of exactly zero (log p = -inf) are allowed as
    long as p and q overlap somewhere; for disjoint supports D is +inf.

    Args:
        log_p: logarithms of non-negative values, any shape, floating.
        log_q: the same shape as `log_p`.
        dim: the matched axis, of at least one element.

    Returns:
        The divergence in nats, the shape of `log_p` without `dim`; float64 for float64 inputs, else float32.

    Raises:
        KdamValueError: the shapes differ.

    Source:
        Xu, Yang, Zhang, ICCV 2023 (doi 10.1109/ICCV51070.2023.01970) for its use in distillation;
        D = LSE(2 log p) + LSE(2 log q) - 2 LSE(log p + log q), docs of this project.
    """
    if log_p.shape != log_q.shape:
        raise KdamValueError(
            f"log_p has shape {tuple(log_p.shape)}, log_q {tuple(log_q.shape)}: they are compared element by element "
            "and do not broadcast; give both the same shape"
        )
    log_p, log_q = at_least_float32(log_p), at_least_float32(log_q)
    return divergence_of_log_sums(
        torch.logsumexp(2 * log_p, dim), torch.logsumexp(2 * log_q, dim), torch.logsumexp(log_p + log_q, dim)
    )


def divergence_of_log_sums(log_pp: Tensor, log_qq: Tensor, log_pq: Tensor) -> Tensor:
    """D from log<p,p>, log<q,q>, log<p,q> (one shape, float32 or float64), clamped at zero with the gradient kept.

    The three terms cancel when p is close to q, and rounding may leave -1e-7. A plain clamp would stop the gradient
    there, so only the value is clamped (straight through).
    """
    divergence = log_pp + log_qq - 2 * log_pq
    return divergence - divergence.detach().clamp_max(0)


def at_least_float32(x: Tensor) -> Tensor:
    """`x` (any shape) in float32, or in float64 if it is float64: half precision loses small divergences."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
