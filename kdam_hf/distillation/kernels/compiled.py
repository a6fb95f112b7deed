"""The match of a band as two compiled loops on the CPU: a block of pixels stays in the first cache from logits to gradient.

Unusual here: the exponential is a polynomial, so that the compiler can vectorise it (relative error below 2e-7). Blocks are
split among threads without the interpreter's lock. What needs log space is left to `rows`, as is all without numba.
Not-a-number would not survive the compiler's liberties: give finite logits.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdam_hf.distillation.kernels import rows as plain
from kdam_hf.distillation.kernels.rows import SMALLEST, Columns, Rows, column_share
from kdam_hf.distributed import Processes
from kdam_hf.jit import compiled, in_threads
from kdam_hf.jit_softmax import BLOCK, block_at, block_count, exp_block

_LIBERTIES = {"reassoc", "contract", "arcp", "nsz", "nnan", "ninf"}
_f = np.float32


@compiled(fastmath=_LIBERTIES, nogil=True)
def _column_sums(z: Any, t: Any, valid: Any, starts: Any, scale: Any, begin: int, end: int, sums: Any) -> None:
    """Blocks `begin` to `end` of z, t (b, K of all tasks, n); sums (3, K) float64."""
    channels, pixels = z.shape[1:]
    e = np.empty((2, channels, BLOCK), np.float32)
    one_over = np.empty((2, BLOCK), np.float32)
    scratch = np.empty(BLOCK, np.float32)
    for block in range(begin, end):
        image, start, count = block_at(block, pixels)
        p, q, peak, over_p, over_q = e[0], e[1], scratch[:count], one_over[0, :count], one_over[1, :count]
        kept = valid[image, start : start + count]
        for k in range(len(starts) - 1):
            exp_block(z[image], start, starts[k], starts[k + 1], p, peak, over_p, scale)
            exp_block(t[image], start, starts[k], starts[k + 1], q, peak, over_q, scale)
            for i in range(count):
                over_p[i] = _f(kept[i]) / over_p[i]
                over_q[i] = _f(kept[i]) / over_q[i]
            for c in range(starts[k], starts[k + 1]):
                p_of_class, q_of_class = p[c], q[c]
                pp, qq, pq = _f(0), _f(0), _f(0)
                for i in range(count):
                    one, other = p_of_class[i] * over_p[i], q_of_class[i] * over_q[i]
                    pp += one * one
                    qq += other * other
                    pq += one * other
                sums[0, c] += pp
                sums[1, c] += qq
                sums[2, c] += pq


@compiled(fastmath=_LIBERTIES, nogil=True)
def _match(
    z: Any,
    t: Any,
    valid: Any,
    starts: Any,
    scale: Any,
    weight: Any,
    scales: Any,
    factor: Any,
    begin: int,
    end: int,
    gradient: Any,
    found: Any,
) -> None:
    """Blocks `begin` to `end`; found[0]: sum of divergences; found[1]: rows whose <p,q> underflows.

    The gradient is for z, times `factor`.
    """
    channels, pixels = z.shape[1:]
    e = np.empty((2, channels, BLOCK), np.float32)
    scratch = np.empty((8, BLOCK), np.float32)
    value, lost = 0.0, 0
    for block in range(begin, end):
        image, start, count = block_at(block, pixels)
        p, q, peak, total = e[0], e[1], scratch[0, :count], scratch[1, :count]
        over_p, over_q, kept = scratch[2, :count], scratch[3, :count], scratch[4, :count]
        pp, qq, pq = scratch[5, :count], scratch[6, :count], scratch[7, :count]
        for i in range(count):
            kept[i] = _f(valid[image, start + i])
            pp[i], qq[i], pq[i] = _f(0), _f(0), _f(0)
        for k in range(len(starts) - 1):
            exp_block(z[image], start, starts[k], starts[k + 1], p, peak, over_p, scale)
            exp_block(t[image], start, starts[k], starts[k + 1], q, peak, over_q, scale)
            for i in range(count):
                over_p[i] = _f(1) / over_p[i]
                over_q[i] = _f(1) / over_q[i]
            for c in range(starts[k], starts[k + 1]):
                p_of_class, q_of_class = p[c], q[c]
                for i in range(count):
                    one, other = p_of_class[i] * over_p[i], q_of_class[i] * over_q[i]
                    p_of_class[i], q_of_class[i] = one, other
                    pp[i] += one * one
                    qq[i] += other * other
                    pq[i] += one * other
        for i in range(count):
            if kept[i] and pq[i] < _f(SMALLEST):
                lost += 1
                kept[i] = _f(0)
            if kept[i]:
                ratio = np.float64(pp[i]) * np.float64(qq[i]) / (np.float64(pq[i]) * np.float64(pq[i]))
                value += max(0.0, np.log(ratio))
                pp[i] = _f(2) * weight / pp[i]
                pq[i] = _f(2) * weight / pq[i]
                kept[i] = factor
        for k in range(len(starts) - 1):
            for i in range(count):
                total[i] = _f(0)
            for c in range(starts[k], starts[k + 1]):
                p_of_class, q_of_class, column_pp, column_pq = p[c], q[c], scales[0, c], scales[1, c]
                for i in range(count):  # q is not needed any more: E takes its place
                    x = p_of_class[i]
                    x *= x * (pp[i] + column_pp) - q_of_class[i] * (pq[i] + column_pq)
                    q_of_class[i] = x
                    total[i] += x
            for c in range(starts[k], starts[k + 1]):
                p_of_class, q_of_class, pull = p[c], q[c], gradient[image, c, start : start + count]
                for i in range(count):
                    pull[i] = (q_of_class[i] - p_of_class[i] * total[i]) * kept[i]
    found[0] += value
    found[1] += lost


def column_sums(rows: Rows) -> list[Tensor]:
    """See `rows.column_sums`."""
    z, t, starts = _side_by_side(rows)
    parts = in_threads(
        block_count(len(z), z.shape[2]),
        lambda begin, end: _filled(
            np.zeros((3, z.shape[1])),
            lambda sums: _column_sums(z, t, _valid(rows), starts, _f(1 / rows.temperature), begin, end, sums),
        ),
    )
    return list(torch.from_numpy(np.sum(parts, 0)).split([x.shape[1] for x in rows.z], 1))


def match_rows(
    rows: Rows, inter: str, columns: Columns | None, processes: Processes, differentiate: bool
) -> tuple[Tensor, list[Tensor]]:
    """See `rows.match_rows`."""
    if columns is not None and not columns.plain:
        return plain.match_rows(rows, inter, columns, processes, differentiate)
    if inter == "per_task" and len(rows.z) > 1:
        return _task_by_task(rows, columns, processes, differentiate)
    z, t, starts = _side_by_side(rows)
    weight = _f(0) if inter == "off" else _f(rows.per_pixel)
    scales = np.zeros((2, z.shape[1]), np.float32)
    if columns is not None:
        scales[:] = np.concatenate([_scales(x, len(rows.z), processes) for x in columns.log_sums], 1)
    numbers = _f(1 / rows.temperature), weight, scales, _f(rows.factor / rows.temperature)
    gradient = np.empty_like(z)
    parts = in_threads(
        block_count(len(z), z.shape[2]),
        lambda begin, end: _filled(
            np.zeros(2),
            lambda found: _match(z, t, _valid(rows), starts, *numbers, begin, end, gradient, found),
        ),
    )
    value, lost = np.sum(parts, 0)
    if lost:
        return plain.match_rows(rows, inter, columns, processes, differentiate)
    gradients = torch.from_numpy(gradient).split([x.shape[1] for x in rows.z], 1) if differentiate else ()
    return rows.per_pixel * float(value) * (inter != "off"), list(gradients)


def _task_by_task(
    rows: Rows, columns: Columns | None, processes: Processes, differentiate: bool
) -> tuple[Tensor, list[Tensor]]:
    """A row of its own per task: the mean of one match per task."""
    count, value, gradients = len(rows.z), rows.per_pixel.new_zeros(()), []
    for k in range(count):
        own = None if columns is None else Columns([columns.log_sums[k]], columns.plain)
        one = replace(rows, z=[rows.z[k]], t=[rows.t[k]], factor=rows.factor / count)
        share, pulls = match_rows(one, "concat", own, processes, differentiate)
        value = value + share / count
        gradients += pulls
    return value, gradients


def _scales(log_sums_3K: Tensor, tasks: int, processes: Processes) -> np.ndarray:
    """(2, K): what p^2 and p q of a class are multiplied by."""
    share = 2 * column_share(log_sums_3K.shape[1], tasks, processes)
    return (share * torch.exp(-log_sums_3K[[0, 2]])).float().numpy()


def _side_by_side(rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All tasks' logits (b, K of all, n), student's and teacher's, and where each task begins and the last ends."""
    starts = np.cumsum([0, *(x.shape[1] for x in rows.z)])
    z, t = (side[0] if len(side) == 1 else torch.cat(list(side), 1) for side in (rows.z, rows.t))
    return z.contiguous().numpy(), t.contiguous().numpy(), starts


def _valid(rows: Rows) -> np.ndarray:
    batch, _, pixels = rows.z[0].shape
    return np.ones((batch, pixels), np.bool_) if rows.valid is None else rows.valid.contiguous().numpy()


def _filled(array: np.ndarray, fill: Callable[[np.ndarray], None]) -> np.ndarray:
    fill(array)
    return array
