"""The match of a band in Triton kernels: each reads a logit once from memory and keeps it in registers.

Unusual here: where a row is one task, its products are made in the pass that writes the gradient, so the match moves
five times the bytes of the logits: two reads for the column sums, two more and one write. A row over several tasks reads
them once more. What needs log space is left to `rows`. Runs on CUDA; with TRITON_INTERPRET=1 also on the CPU, slowly.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kdam_hf.distillation.kernels import rows as plain
from kdam_hf.distillation.kernels.rows import SMALLEST, Columns, Rows, column_share, row_groups
from kdam_hf.distributed import Processes

ROWS = 64  # per program: 128 bytes of a bfloat16 plane
WARPS = 8


@triton.jit
def _softmax(x: Any, inside: Any) -> Any:
    """Softmax along axis 1 over the channels that are `inside`; 0 elsewhere."""
    x = tl.where(inside, x, float("-inf"))
    e = tl.where(inside, tl.exp(x - tl.max(x, 1)[:, None]), 0.0)
    return e / tl.sum(e, 1)[:, None]


@triton.jit
def _places(row: Any, channel: Any, channels: Any, pixels: Any) -> Any:
    """Where rows and channels lie in planes (b, K, n)."""
    image = row // pixels
    return (image * channels * pixels + row - image * pixels)[:, None] + channel[None, :] * pixels


@triton.jit
def _distributions(
    z_pointer: Any, t_pointer: Any, row: Any, channel: Any, count: Any, channels: Any, pixels: Any, scale: Any
) -> Any:
    """P and Q of some rows, zero beyond the last row and channel."""
    here = channel[None, :] < channels
    inside = here & (row < count)[:, None]
    at = _places(row, channel, channels, pixels)
    z = tl.load(z_pointer + at, mask=inside, other=0.0).to(tl.float32)
    t = tl.load(t_pointer + at, mask=inside, other=0.0).to(tl.float32)
    return _softmax(z * scale, here), _softmax(t * scale, here)


@triton.jit
def _column_kernel(
    z_pointer: Any,
    t_pointer: Any,
    valid_pointer: Any,
    sums_pointer: Any,
    count: Any,
    channels: Any,
    pixels: Any,
    scale: Any,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Sums of p^2, q^2 and p q over the valid rows of each program, (programs, 3, K)."""
    program = tl.program_id(0).to(tl.int64)
    row, channel = program * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    valid = (tl.load(valid_pointer + row, mask=row < count, other=0) != 0)[:, None]
    p, q = _distributions(z_pointer, t_pointer, row, channel, count, channels, pixels, scale)
    p, q = tl.where(valid, p, 0.0), tl.where(valid, q, 0.0)
    target = sums_pointer + program * 3 * channels + channel
    tl.store(target, tl.sum(p * p, 0), mask=channel < channels)
    tl.store(target + channels, tl.sum(q * q, 0), mask=channel < channels)
    tl.store(target + 2 * channels, tl.sum(p * q, 0), mask=channel < channels)


@triton.jit
def _product_kernel(
    z_pointer: Any,
    t_pointer: Any,
    products_pointer: Any,
    count: Any,
    channels: Any,
    pixels: Any,
    scale: Any,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Adds one task's <p,p>, <q,q> and <p,q> to the products (3, N) of the rows."""
    row, channel = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    p, q = _distributions(z_pointer, t_pointer, row, channel, count, channels, pixels, scale)
    target, mask = products_pointer + row, row < count
    tl.store(target, tl.load(target, mask=mask) + tl.sum(p * p, 1), mask=mask)
    tl.store(target + count, tl.load(target + count, mask=mask) + tl.sum(q * q, 1), mask=mask)
    tl.store(target + 2 * count, tl.load(target + 2 * count, mask=mask) + tl.sum(p * q, 1), mask=mask)


@triton.jit
def _gradient_kernel(
    z_pointer: Any,
    t_pointer: Any,
    weight_pointer: Any,
    products_pointer: Any,
    column_scales_pointer: Any,
    gradient_pointer: Any,
    count: Any,
    channels: Any,
    pixels: Any,
    scale: Any,
    factor: Any,
    smallest: Any,
    OWN_ROW: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Gradient for one task's logits (b, K, n). With OWN_ROW the products of the rows are made here and stored, else read."""
    row, channel = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    p, q = _distributions(z_pointer, t_pointer, row, channel, count, channels, pixels, scale)
    target, mask, here = products_pointer + row, row < count, channel < channels
    if OWN_ROW:
        pp, qq, pq = tl.sum(p * p, 1), tl.sum(q * q, 1), tl.sum(p * q, 1)
        tl.store(target, pp, mask=mask)
        tl.store(target + count, qq, mask=mask)
        tl.store(target + 2 * count, pq, mask=mask)
    else:
        pp = tl.load(target, mask=mask, other=1.0)
        pq = tl.load(target + 2 * count, mask=mask, other=1.0)
    weight = tl.load(weight_pointer + row, mask=mask, other=0.0)
    # a row without weight is padding or has no inter-task term; its products may be anything
    over_pp = tl.where(weight > 0, 2 * weight / tl.maximum(pp, smallest), 0.0)
    over_pq = tl.where(weight > 0, 2 * weight / tl.maximum(pq, smallest), 0.0)
    column_pp = tl.load(column_scales_pointer + channel, mask=here, other=0.0)
    column_pq = tl.load(column_scales_pointer + channels + channel, mask=here, other=0.0)
    e = p * (p * (over_pp[:, None] + column_pp[None, :]) - q * (over_pq[:, None] + column_pq[None, :]))
    gradient = (e - p * tl.sum(e, 1)[:, None]) * factor
    at = _places(row, channel, channels, pixels)
    tl.store(gradient_pointer + at, gradient, mask=mask[:, None] & here[None, :])


def column_sums(rows: Rows) -> list[Tensor]:
    """See `rows.column_sums`."""
    found = []
    for z, t in zip(*_contiguous(rows), strict=True):
        programs = triton.cdiv(z.shape[0] * z.shape[2], ROWS)
        sums = z.new_empty(programs, 3, z.shape[1], dtype=torch.float32)
        _launch(_column_kernel, z, t, _valid(rows), sums, scale=1 / rows.temperature)
        found.append(sums.sum(0, dtype=torch.float64))
    return found


def match_rows(
    rows: Rows, inter: str, columns: Columns | None, processes: Processes, differentiate: bool
) -> tuple[Tensor, list[Tensor]]:
    """See `rows.match_rows`."""
    if columns is not None and not columns.plain:
        return plain.match_rows(rows, inter, columns, processes, differentiate)
    z, t = _contiguous(rows)
    groups = row_groups(inter, len(z))
    weight = (rows.per_pixel / max(1, len(groups))).float().expand(z[0][:, 0].shape).contiguous()
    if rows.valid is not None:
        weight = weight * rows.valid
    value, gradients, lost = rows.per_pixel.new_zeros(()), [torch.empty_like(x) for x in z], weight.new_zeros(())
    for group in groups or [[k] for k in range(len(z))]:
        products = weight.new_zeros(3, *weight.shape)
        own_row = len(group) == 1
        if not own_row:
            for k in group:
                _launch(_product_kernel, z[k], t[k], products, scale=1 / rows.temperature)
        for k in group:
            _gradient(
                z[k],
                t[k],
                weight if groups else weight * 0,
                products,
                gradients[k],
                rows,
                own_row,
                _column_scales(columns, k, z, processes),
            )
        if groups:
            pp, qq, pq = products
            inside = weight > 0
            lost += (inside & (pq < SMALLEST)).sum()
            divergence = (pp.log() + qq.log() - 2 * pq.log()).clamp_min(0)
            value = value + torch.where(inside, divergence * weight, 0).sum()
    if lost > 0:
        return plain.match_rows(rows, inter, columns, processes, differentiate)
    if rows.valid is not None:
        gradients = [gradient.masked_fill_(~rows.valid[:, None], 0) for gradient in gradients]
    return value, gradients if differentiate else []


def _launch(kernel: Any, z: Tensor, *tensors: Tensor, **numbers: Any) -> None:
    batch, channels, pixels = z.shape
    sizes = {"BLOCK_N": ROWS, "BLOCK_K": triton.next_power_of_2(channels), "num_warps": WARPS}
    rows = batch * pixels
    kernel[(triton.cdiv(rows, ROWS),)](z, *tensors, rows, channels, pixels, **numbers, **sizes)


def _gradient(
    z: Tensor, t: Tensor, weight: Tensor, products: Tensor, gradient: Tensor, rows: Rows, own_row: bool, scales: Tensor
) -> None:
    scale = 1 / rows.temperature
    numbers = {"scale": scale, "factor": rows.factor * scale, "smallest": SMALLEST, "OWN_ROW": own_row}
    _launch(_gradient_kernel, z, t, weight, products, scales, gradient, **numbers)


def _column_scales(columns: Columns | None, k: int, z: list[Tensor], processes: Processes) -> Tensor:
    """(2, K): what p^2 and p q of a class are multiplied by."""
    if columns is None:
        return z[k].new_zeros(2, z[k].shape[1], dtype=torch.float32)
    share = 2 * column_share(z[k].shape[1], len(z), processes)
    return (share * torch.exp(-columns.log_sums[k][[0, 2]])).float().contiguous()


def _contiguous(rows: Rows) -> tuple[list[Tensor], list[Tensor]]:
    return [x.contiguous() for x in rows.z], [x.contiguous() for x in rows.t]


def _valid(rows: Rows) -> Tensor:
    valid = torch.ones_like(rows.z[0][:, 0], dtype=torch.bool) if rows.valid is None else rows.valid
    return valid.to(torch.uint8).contiguous()
