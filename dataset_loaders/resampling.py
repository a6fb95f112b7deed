"""Cut a window out of an image or a label and resize it, in one pass from the source to the result.

Unusual here: there are two implementations, loops compiled by numba and plain NumPy for where it is not installed. Both
do the same float32 operations in the same order, so they give the same bits; the loops are several times faster, as
nothing is written in between. Shapes: H W source, h w result, T taps of the filter.
"""

from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdam_hf.jit import HAS_NUMBA, compiled

Floats = NDArray[np.float32]
_BAND = 32  # rows; what is written in between stays in the cache
# Unsigned: an index that could be negative is not vectorised.
_ONE, _TWO, _THREE, _FOUR, _FIVE = (np.uintp(k) for k in range(1, 6))


class Taps(NamedTuple):
    """Where each result along one axis comes from: `first` source index (n,) and `weights` (T, n) of it and the next."""

    first: NDArray[np.intp]
    weights: Floats

    def reversed(self) -> "Taps":
        """The same results, the last one first."""
        return Taps(self.first[::-1].copy(), self.weights[:, ::-1].copy())


def bilinear_taps(start: float, extent: float, count: int, size: int) -> Taps:
    """A triangle around the centre of each result; it widens, which is antialiasing, when the window shrinks.

    Args:
        start: of the window on an axis of `size` pixels.
        extent: of the window.
        count: results.
        size: of the source; what lies outside has no weight.
    """
    ratio = extent / count
    radius = max(1.0, ratio)
    taps = min(size, ceil(2 * radius))
    centres = start + (np.arange(count) + 0.5) * ratio - 0.5
    first = np.clip(np.floor(centres - radius).astype(np.intp) + 1, 0, size - taps)
    distances = np.abs(first + np.arange(taps)[:, None] - centres)
    weights = np.maximum(0, 1 - distances / radius)
    return Taps(first, (weights / weights.sum(0)).astype(np.float32))


def nearest_indices(start: int, extent: float, count: int) -> NDArray[np.intp]:
    """The source pixel under the centre of each result; none is below `start` or beyond `start + extent`."""
    return start + ((np.arange(count) + 0.5) * (extent / count)).astype(np.intp)


def resize_label(
    label: NDArray[Any],
    ys: NDArray[np.intp],
    xs: NDArray[np.intp],
    size: tuple[int, int] | None = None,
    fill: float = 0,
) -> NDArray[Any]:
    """The raw values at rows `ys` and columns `xs`; (H, W) or (H, W, C) -> (h, w) or (h, w, C), plane by plane in memory.

    Args:
        label: what is not C-contiguous is copied first.
        ys: (h,), not falling.
        xs: (w,), not falling or not rising.
        size: (height, width) of a larger result, in which they lie at the top left; (h, w) for None.
        fill: the value of the rest.

    Raises:
        IndexError: rows or columns that the label has not.
    """
    pixels = np.ascontiguousarray(label).reshape(*label.shape[:2], -1)
    _expect_inside(label.shape, ys, xs, 1, 1)
    planes: NDArray[Any] = _canvas(pixels.shape[2], (len(ys), len(xs)), size, label.dtype, fill)
    if HAS_NUMBA:
        _gather(pixels, ys, xs, planes)
    else:
        planes[:, : len(ys), : len(xs)] = _gather_plain(pixels, ys, xs)
    return planes[0] if label.ndim == 2 else planes.transpose(1, 2, 0)


def resize_image(
    image: NDArray[np.uint8],
    rows: Taps,
    columns: Taps,
    colors: Floats,
    limits: Floats,
    size: tuple[int, int] | None = None,
) -> Floats:
    """Resize, then map the colours and clip them; (3, h, w).

    Args:
        image: (H, W, 3); what is not C-contiguous is copied first.
        rows: taps of the h rows.
        columns: taps of the w columns.
        colors: (3, 4) affine map of RGB.
        limits: (3, 2) lowest and highest result of each channel.
        size: (height, width) of a larger result, in which it lies at the top left; the rest is 0. (h, w) for None.

    Raises:
        IndexError: rows or columns that the image has not.
    """
    image = np.ascontiguousarray(image)
    _expect_inside(image.shape, rows.first, columns.first, len(rows.weights), len(columns.weights))
    # Only the columns that count are touched.
    left, right = int(columns.first.min()), int(columns.first.max()) + len(columns.weights)
    columns = Taps(columns.first - left, columns.weights)
    out: Floats = _canvas(3, (len(rows.first), len(columns.first)), size, np.dtype(np.float32), 0)
    if HAS_NUMBA and min(len(rows.weights), len(columns.weights)) > 1:
        positions = (3 * columns.first).astype(np.uintp)
        lines, ends = image.reshape(len(image), -1), (3 * left, 3 * right)
        _resize(lines, *ends, *rows, positions, columns.weights, colors, limits, out)
    else:
        _resize_plain(image[:, left:right], rows, columns, colors, limits, out)
    return out


def _canvas(
    planes: int, used: tuple[int, int], size: tuple[int, int] | None, dtype: np.dtype[Any], fill: float
) -> NDArray[Any]:
    """Memory (planes, *size), set to `fill` but for the part at the top left that will be used."""
    canvas = np.empty((planes, *(size or used)), dtype)
    if canvas.shape[1:] != used:
        canvas[:, used[0] :], canvas[:, :, used[1] :] = fill, fill
    return canvas


def count_ids(label: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each id 0..255 occurs in a C-contiguous label; (256,)."""
    if not HAS_NUMBA:
        return np.bincount(label.ravel(), minlength=256)
    counts = np.zeros((4, 256), np.int64)
    _count(label.reshape(-1), counts)
    return counts.sum(0)


def _expect_inside(shape: tuple[int, ...], ys: NDArray[np.intp], xs: NDArray[np.intp], down: int, right: int) -> None:
    """The compiled loops check nothing themselves; `down` and `right` are the taps."""
    top, bottom, left, end = ys[0], ys[-1] + down, min(xs[0], xs[-1]), max(xs[0], xs[-1]) + right
    if min(top, left) < 0 or bottom > shape[0] or end > shape[1]:
        raise IndexError(
            f"window of rows {top}:{bottom} and columns {left}:{end}, of a source of {shape[0]}x{shape[1]}"
        )


# ---- plain --------------------------------------------------------------------------------------------------------------


def _gather_plain(pixels: NDArray[Any], ys: NDArray[np.intp], xs: NDArray[np.intp]) -> NDArray[Any]:
    """(H, W, C) -> (C, h, w); columns, the slow half, are picked on whichever side has fewer rows."""
    planes = pixels[ys[0] : ys[-1] + 1].transpose(2, 0, 1)
    ys = ys - ys[0]
    if len(ys) > planes.shape[1]:
        return planes.take(xs, axis=2).take(ys, axis=1)
    return planes.take(ys, axis=1).take(xs, axis=2)


def _resize_plain(
    image: NDArray[np.uint8], rows: Taps, columns: Taps, colors: Floats, limits: Floats, out: Floats
) -> None:
    out = out[:, : len(rows.first), : len(columns.first)]
    for top in range(0, len(rows.first), _BAND):
        first, weights = rows.first[top : top + _BAND], rows.weights[:, top : top + _BAND, None, None]
        lines = image[first] * weights[0]
        for t in range(1, len(weights)):
            lines += image[first + t] * weights[t]
        planes = np.ascontiguousarray(lines.transpose(2, 0, 1))
        rgb = planes.take(columns.first, axis=2) * columns.weights[0]
        for t in range(1, len(columns.weights)):
            rgb += planes.take(columns.first + t, axis=2) * columns.weights[t]
        for channel, (red, green, blue, offset) in enumerate(colors):
            values = rgb[0] * red + rgb[1] * green + rgb[2] * blue + offset
            np.clip(values, *limits[channel], out=out[channel, top : top + _BAND])


# ---- compiled -----------------------------------------------------------------------------------------------------------


@compiled
def _gather(pixels: Any, ys: Any, xs: Any, out: Any) -> None:
    """pixels (H, W, C) -> the top left of out (C, >= h, >= w); a row that comes again is copied."""
    channels = pixels.shape[2]
    lines = pixels.reshape(pixels.shape[0], pixels.shape[1] * channels)
    positions = (xs * channels).astype(np.uintp)
    for i in range(len(ys)):
        if i > 0 and ys[i] == ys[i - 1]:
            for c in range(channels):
                out[c, i] = out[c, i - 1]
            continue
        line = lines[ys[i]]
        for c in range(channels):
            row, shift = out[c, i], np.uintp(c)
            for j in range(len(positions)):
                row[j] = line[positions[j] + shift]


@compiled
def _resize(
    lines: Any, left: int, right: int, tops: Any, row_weights: Any, positions: Any, column_weights: Any, colors: Any,
    limits: Any, out: Any,
) -> None:  # fmt: skip
    """lines (H, 3 W), of which left..right count -> the top left of out (3, >= h, >= w).

    What lies in between is one line and one row, which stay in the cache.
    """
    width = len(positions)
    line = np.empty(right - left, np.float32)
    rgb = np.empty((3, width), np.float32)
    for i in range(len(tops)):
        top = tops[i]
        _blend_lines(lines[top, left:right], lines[top + 1, left:right], row_weights[0, i], row_weights[1, i], line)
        for t in range(2, len(row_weights)):
            _add_line(lines[top + t, left:right], row_weights[t, i], line)
        _blend_columns(line, positions, column_weights[0], column_weights[1], rgb[0], rgb[1], rgb[2])
        for t in range(2, len(column_weights)):
            _add_columns(line[3 * t :], positions, column_weights[t], rgb[0], rgb[1], rgb[2])
        for c in range(3):
            _map_colors(rgb[0], rgb[1], rgb[2], colors[c], limits[c, 0], limits[c, 1], out[c, i])


@compiled
def _count(ids: Any, counts: Any) -> None:
    """Into four tables (4, 256): neighbours are mostly equal, and would wait for each other."""
    for k in range(len(ids)):
        counts[k % 4, ids[k]] += 1


@compiled
def _blend_lines(upper: Any, lower: Any, upper_weight: Any, lower_weight: Any, line: Any) -> None:
    for x in range(len(line)):
        line[x] = np.float32(upper[x]) * upper_weight + np.float32(lower[x]) * lower_weight


@compiled
def _add_line(source: Any, weight: Any, line: Any) -> None:
    for x in range(len(line)):
        line[x] += np.float32(source[x]) * weight


@compiled
def _blend_columns(
    line: Any, positions: Any, left_weights: Any, right_weights: Any, red: Any, green: Any, blue: Any
) -> None:
    for j in range(len(red)):
        p, left, right = positions[j], left_weights[j], right_weights[j]
        red[j] = line[p] * left + line[p + _THREE] * right
        green[j] = line[p + _ONE] * left + line[p + _FOUR] * right
        blue[j] = line[p + _TWO] * left + line[p + _FIVE] * right


@compiled
def _add_columns(line: Any, positions: Any, weights: Any, red: Any, green: Any, blue: Any) -> None:
    for j in range(len(red)):
        p, weight = positions[j], weights[j]
        red[j] += line[p] * weight
        green[j] += line[p + _ONE] * weight
        blue[j] += line[p + _TWO] * weight


@compiled
def _map_colors(red: Any, green: Any, blue: Any, color: Any, lowest: Any, highest: Any, out: Any) -> None:
    a, b, c, d = color[0], color[1], color[2], color[3]
    for j in range(len(red)):
        value = red[j] * a + green[j] * b + blue[j] * c + d
        value = lowest if value < lowest else value
        out[j] = highest if value > highest else value
