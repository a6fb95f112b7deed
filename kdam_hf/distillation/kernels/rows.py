"""The CS match on rows of pixels, in closed form: what a band adds to the sums, the value and the gradient.

With a = z / T, b = t / T, P = softmax(a), Q = softmax(b) per pixel, and E = dD / d log P:

    a pixel's row (inter-task), all its channels:   D = log<p,p> + log<q,q> - 2 log<p,q>,  E = 2 (p^2 / <p,p> - p q / <p,q>)
    a class's column (intra-task), all its pixels:  the same
    for the logits of one task:                     dD/dz = (E - P sum_c E) / T

Sums of products are plain where they keep their digits. The few that underflow, because student and teacher agree on
nothing or a class is nowhere probable, are computed in log space.

Shapes: b images, K channels of one task's distribution, n pixels of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdam_hf.distillation.cauchy_schwarz import divergence_of_log_sums
from kdam_hf.distillation.matching import log_sum_over_processes
from kdam_hf.distributed import Processes

SMALLEST = 1e-25
"""Sums of products below this have lost digits to underflow in float32."""


@dataclass(frozen=True)
class Columns:
    """Sums of every class over the batch of all processes.

    Args:
        log_sums: per task (3, K) float64: log<p,p>, log<q,q>, log<p,q>. Their differences are small when student and teacher
            agree, and would drown in the rounding of float32.
        plain: whether the plain sums keep their digits.
    """

    log_sums: list[Tensor]
    plain: bool

    def divergence(self) -> Tensor:
        """Mean over classes, then over tasks; a scalar."""
        return torch.stack([divergence_of_log_sums(*sums_3K).mean() for sums_3K in self.log_sums]).mean()


def columns_of(plain_sums: Sequence[Tensor], processes: Processes) -> Columns | None:
    """The columns from this process's `column_sums`; None where log space is needed, the same on every process."""
    sums = [processes.sum(sums_3K) for sums_3K in plain_sums]
    no_pixel = all(not bool(x.any()) for x in sums)
    if not no_pixel and min(float(x.min()) for x in sums) < SMALLEST:
        return None
    return Columns([(torch.ones_like(x) if no_pixel else x).log() for x in sums], plain=True)


def exact_columns_of(log_sums: Sequence[Tensor], processes: Processes) -> Columns:
    """The columns from this process's `column_log_sums`."""
    return Columns([log_sum_over_processes(sums_3K, processes) for sums_3K in log_sums], plain=False)


@dataclass(frozen=True)
class Rows:
    """Some pixels of a batch.

    Args:
        z: per task the student's distribution logits, (b, K, n).
        t: the teacher's.
        temperature: of both.
        valid: (b, n) bool; None if all are.
        per_pixel: scalar, one over the mean number of valid pixels of the processes.
        factor: of the gradient.
    """

    z: Sequence[Tensor]
    t: Sequence[Tensor]
    temperature: float
    valid: Tensor | None
    per_pixel: Tensor
    factor: float = 1.0

    def scaled(self) -> tuple[list[Tensor], list[Tensor]]:
        """a = z / T and b = t / T."""
        return [x / self.temperature for x in self.z], [x / self.temperature for x in self.t]


def wider(x: Tensor) -> torch.dtype:
    """float64, where the device has it: Apple's does not."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def column_sums(rows: Rows) -> list[Tensor]:
    """Per task the sums of p^2, q^2 and p q over valid pixels, (3, K) float64."""
    found = []
    for a, b in zip(*rows.scaled(), strict=True):
        p, q = a.softmax(1), b.softmax(1)
        if rows.valid is not None:
            p, q = p * rows.valid[:, None], q * rows.valid[:, None]
        found.append(torch.stack([(x * y).sum((0, 2)) for x, y in ((p, p), (q, q), (p, q))]).to(wider(a)))
    return found


def column_log_sums(rows: Rows) -> list[Tensor]:
    """Logarithms of the sums of `column_sums`, without underflow; (3, K) float64."""
    found = []
    for a, b in zip(*rows.scaled(), strict=True):
        log_p, log_q = (_pixels(x.log_softmax(1), rows.valid) for x in (a, b))
        products = (2 * log_p, 2 * log_q, log_p + log_q)
        found.append(torch.stack([torch.logsumexp(x, 0) for x in products]).to(wider(a)))
    return found


def match_rows(
    rows: Rows, inter: str, columns: Columns | None, processes: Processes, differentiate: bool
) -> tuple[Tensor, list[Tensor]]:
    """Value of the inter-task match and gradient of both.

    Args:
        rows: of the band.
        inter: "concat", "per_task" or "off".
        columns: of the intra-task match; None without it.
        processes: those that share the batch.
        differentiate: whether the gradient is wanted.

    Returns:
        The band's share of the inter-task divergence; per task the gradient of inter + intra for `z`, (b, K, n), times
        `rows.factor`.
    """
    a, b = rows.scaled()
    p, q = ([x.softmax(1) for x in side] for side in (a, b))
    groups = row_groups(inter, len(p))
    weight = rows.per_pixel / max(1, len(groups))
    weight_b1n = weight.expand_as(p[0][:, :1]) if rows.valid is None else weight * rows.valid[:, None]
    pulls = [_column_pull(columns, k, p, q, a, b, processes) for k in range(len(p))] if differentiate else []
    value = rows.per_pixel.new_zeros(())
    for group in groups:
        divergence_b1n, over_pp, over_pq, lost_bn = _row_products([p[k] for k in group], [q[k] for k in group])
        exact = None
        if lost_bn.any():
            exact = _exact_rows(*([_pixels(side[k], lost_bn) for k in group] for side in (a, b)))
            divergence_b1n[lost_bn[:, None]] = exact.divergence.flatten()
        value = value + (divergence_b1n * weight_b1n).sum()
        for place, k in enumerate(group if differentiate else []):
            e = (2 * weight_b1n * over_pp * p[k]).sub_(2 * weight_b1n * over_pq * q[k]).mul_(p[k])
            if exact is not None:
                e.movedim(1, 2)[lost_bn] = exact.elasticity[place] * _pixels(weight_b1n, lost_bn)
            pulls[k] += e
    return value, [_to_logits(e, p[k], rows) for k, e in enumerate(pulls)]


def row_groups(inter: str, tasks: int) -> list[list[int]]:
    """Which tasks share a row."""
    return {"concat": [list(range(tasks))], "per_task": [[k] for k in range(tasks)], "off": []}[inter]


def column_share(channels: int, tasks: int, processes: Processes) -> float:
    """Weight of one class. Every process holds the whole value and gradients are averaged, hence their number."""
    return processes.size / (channels * tasks)


def _pixels(x_bKn: Tensor, chosen_bn: Tensor | None) -> Tensor:
    """The chosen pixels, or all, as rows (N, K)."""
    x_bnK = x_bKn.movedim(1, 2)
    return x_bnK.flatten(0, 1) if chosen_bn is None else x_bnK[chosen_bn]


def _to_logits(e_bKn: Tensor, p_bKn: Tensor, rows: Rows) -> Tensor:
    """(E - P sum_c E) / T, zero on padding; in place."""
    if rows.valid is not None:
        e_bKn.masked_fill_(~rows.valid[:, None], 0)  # a product would keep the infinity of a padded pixel
    return e_bKn.addcmul_(p_bKn, e_bKn.sum(1, keepdim=True), value=-1).mul_(rows.factor / rows.temperature)


def _row_products(p: Sequence[Tensor], q: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Divergence, 1 / <p,p> and 1 / <p,q> of rows, (b, 1, n), and (b, n) where <p,q> underflows."""
    pp, qq, pq = (
        torch.stack([(x * y).sum(1, keepdim=True) for x, y in zip(left, right, strict=True)]).sum(0)
        for left, right in ((p, p), (q, q), (p, q))
    )
    lost_b1n = pq < SMALLEST
    pq = pq.masked_fill(lost_b1n, 1)
    divergence = (pp.log() + qq.log() - 2 * pq.log()).clamp_min(0)
    return divergence, 1 / pp, 1 / pq, lost_b1n.squeeze(1)


def _column_pull(
    columns: Columns | None,
    k: int,
    p: Sequence[Tensor],
    q: Sequence[Tensor],
    a: Sequence[Tensor],
    b: Sequence[Tensor],
    processes: Processes,
) -> Tensor:
    """E of the intra-task match of task k, (b, K, n)."""
    if columns is None:
        return torch.zeros_like(p[k])
    share = 2 * column_share(p[k].shape[1], len(p), processes)
    log_pp, _, log_pq = columns.log_sums[k].to(p[k].dtype)[..., None]
    if columns.plain:
        return (share * torch.exp(-log_pp) * p[k]).sub_(share * torch.exp(-log_pq) * q[k]).mul_(p[k])
    log_p, log_q = a[k].log_softmax(1), b[k].log_softmax(1)
    return share * (torch.exp(2 * log_p - log_pp) - torch.exp(log_p + log_q - log_pq))


@dataclass(frozen=True)
class _Exact:
    """Divergence (N, 1) of some rows and E per task (N, K), in log space."""

    divergence: Tensor
    elasticity: list[Tensor]


def _exact_rows(a: Sequence[Tensor], b: Sequence[Tensor]) -> _Exact:
    log_p, log_q = (torch.cat([x.log_softmax(1) for x in side], 1) for side in (a, b))
    log_pp, log_qq, log_pq = (torch.logsumexp(x, 1, keepdim=True) for x in (2 * log_p, 2 * log_q, log_p + log_q))
    e = 2 * (torch.exp(2 * log_p - log_pp) - torch.exp(log_p + log_q - log_pq))
    return _Exact(divergence_of_log_sums(log_pp, log_qq, log_pq), list(e.split([x.shape[1] for x in a], 1)))
