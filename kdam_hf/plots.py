"""Figures of metrics: precision-recall curves, confusion matrices, error histograms. Needs the extra `plots` (matplotlib).

Unusual here: figures are built without pyplot, so nothing global is set and nothing has to be closed; colours are those of
Okabe and Ito, told apart by readers with any colour vision, and every curve also has a line style of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdam_hf.errors import KdamValueError

try:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("plots need matplotlib: pip install 'kdam-hf[plots]'") from error

Floats = NDArray[np.float64]

# Okabe and Ito, "Color Universal Design" (2008), without the yellow that vanishes on white
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
GREY, LIGHT = "#5A5A5A", "#C8C8C8"
DPI = 150
LARGEST_WITH_NUMBERS = 25
VISIBLE_BINS = 100
# how many narrow bins may be joined into a visible one: widths stay round numbers
STEPS = tuple(first * 10**power for power in range(8) for first in (1, 2, 5))


def precision_recall_figure(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]], title: str = "", f_name: str = "F"
) -> Figure:
    """Precision over recall of one or more models with lines of equal F1; the best point of each model is marked.

    Args:
        curves: label -> (precision, recall), both (K,) in [0, 1], one entry per threshold; both 0, or NaN, where a
            threshold finds nothing, which leaves the point out.
        title: above the axes.
        f_name: what the best F1 is called in the legend, such as "odsF".

    Raises:
        KdamValueError: no curve, more than 7, arrays of other shapes, values outside of [0, 1], or only NaN.
    """
    _check_number(curves, "curves")
    figure, axes = _figure(5.6, 5.4 + 0.2 * len(curves), title)
    _iso_f_lines(axes)
    for k, (label, (precision, recall)) in enumerate(curves.items()):
        p, r = _finite_points(label, precision, recall)
        f = np.divide(2 * p * r, p + r, out=np.zeros_like(p), where=p + r > 0)
        best = int(f.argmax())
        name = f"{label}  {f_name} {100 * f[best]:.1f}"
        axes.plot(r, p, color=COLORS[k], linestyle=STYLES[k], linewidth=1.8, label=name, zorder=3)
        axes.plot(r[best], p[best], "o", color=COLORS[k], markersize=7, markeredgecolor="white", zorder=4)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="recall", ylabel="precision", aspect="equal")
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_yticks(np.linspace(0, 1, 6))
    # outside: whatever the curves, it hides none of them
    figure.legend(loc="outside lower center", ncols=1 if len(curves) < 4 else 2, frameon=False, handlelength=3.5)
    return figure


def confusion_figure(confusion: ArrayLike, class_names: Sequence[str], title: str = "") -> Figure:
    """A confusion matrix, each row divided by its sum, and the IoU of each class beside it.

    Args:
        confusion: (C, C) counts; row: label, column: prediction (`metrics.confusion.confusion_matrix`).
        class_names: C names.
        title: above the axes.

    Raises:
        KdamValueError: not square, negative or not finite, or another number of names.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    size = len(class_names)
    if counts.shape != (size, size) or not size or not np.isfinite(counts).all() or counts.min() < 0:
        raise KdamValueError(
            f"confusion is {counts.shape} for {size} class names: expected counts, one row and one column per name"
        )
    labelled, hits = counts.sum(1), counts.diagonal()
    union = labelled + counts.sum(0) - hits
    shares = np.divide(100 * counts, labelled[:, None], out=np.full_like(counts, np.nan), where=labelled[:, None] > 0)
    iou = np.divide(100 * hits, union, out=np.full(size, np.nan), where=union > 0)

    inches = (0.42 if size <= LARGEST_WITH_NUMBERS else 0.24) * max(size, 4)
    figure, axes = _figure(inches + 3.2, inches + 1.8, title, layout="compressed")
    # square roots: a confusion of a few percent is what the reader looks for
    image = axes.imshow(np.ma.masked_invalid(shares), cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    axes.set_facecolor("#E6E6E6")
    axes.set_xticks(range(size), class_names, rotation=90)
    axes.set_yticks(range(size), class_names)
    axes.set(xlabel="predicted", ylabel="labelled")
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    if size <= LARGEST_WITH_NUMBERS:
        _write_shares(axes, shares)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(size), [_percent(value) for value in iou])
    right.tick_params(length=0, labelsize=9)
    right.spines[:].set_visible(False)
    axes.annotate("IoU, %", (1, 1), (4, 4), xycoords="axes fraction", textcoords="offset points", fontsize=9)
    bar = figure.colorbar(
        image,
        ax=axes,
        shrink=min(1.0, 3 / inches),
        pad=0.02,
        label="% of the pixels with this label",
        ticks=[0, 1, 5, 20, 50, 100],
    )
    bar.outline.set_visible(False)
    return figure


def error_figure(
    edges: ArrayLike,
    histograms: Mapping[str, ArrayLike],
    limits: Sequence[float],
    axis: str,
    unit: str = "",
    title: str = "",
    log: bool = False,
) -> Figure:
    """How errors are distributed: a histogram above, the share of pixels below each error underneath, read off at limits.

    Args:
        edges: (K + 1,) ascending edges of the bins.
        histograms: label of a model -> (K,) counts, as `error_histogram` of `DepthErrors` and `NormalErrors` gives them.
        limits: errors whose share is marked, each one an edge, such as 11.25, 22.5 and 30 degrees.
        axis: what the error is, such as "angle to the true normal".
        unit: written behind each error, such as "°" or " m".
        title: above the axes.
        log: logarithmic error axis, for ratios.

    Raises:
        KdamValueError: no model, more than 7, other shapes, edges not ascending, no pixel, no limit, or one that
            is no edge.
    """
    _check_number(histograms, "histograms")
    edges_K1 = np.asarray(edges, dtype=np.float64)
    counts = {label: _counts(label, histogram, edges_K1) for label, histogram in histograms.items()}
    at_limits = [_edge_index(edges_K1, limit) for limit in limits]
    if not at_limits:
        raise KdamValueError("no limit given: name at least one error below which the share of pixels is read off")
    end, step = _visible_bins(counts.values(), at_limits)
    starts = np.arange(0, end + 1, step)

    figure, (top, bottom) = _figure(6.4, 5.8, title, rows=(3, 2))
    for k, (label, counts_K) in enumerate(counts.items()):
        share = 100 * np.add.reduceat(counts_K[:end], starts[:-1]) / counts_K.sum()
        below = 100 * np.concatenate([[0], counts_K.cumsum()]) / counts_K.sum()
        line = {"color": COLORS[k], "linestyle": STYLES[k], "linewidth": 1.8}
        if len(counts) == 1:
            top.stairs(share, edges_K1[starts], fill=True, color=COLORS[k], alpha=0.35)
            top.stairs(share, edges_K1[starts], color=COLORS[k], linewidth=1.2)
        else:
            top.plot(_centres(edges_K1[starts], log), share, **line)
        name = f"{label}  " + " / ".join(f"{value:.1f}" for value in below[at_limits])
        bottom.plot(edges_K1[: end + 1], below[: end + 1], label=name, **line)
        bottom.plot(limits, below[at_limits], "o", color=COLORS[k], markersize=6, markeredgecolor="white", zorder=4)
    width = "bin" if log else _number(edges_K1[step] - edges_K1[0], unit)
    top.set_ylabel(f"% of the pixels per {width}")
    bottom.set(ylabel="% of the pixels below", xlabel=axis, ylim=(0, 104))
    for axes in (top, bottom):
        _mark_limits(axes, limits, (edges_K1[0], edges_K1[end]), unit, log)
    top.set_ylim(bottom=0)
    top.tick_params(labelbottom=False)
    heading = "% below " + " / ".join(_number(limit, unit) for limit in limits)
    handles, names = bottom.get_legend_handles_labels()
    top.legend(handles, names, title=heading, loc="upper right", framealpha=0.95, edgecolor=LIGHT, handlelength=3.5)
    return figure


def save_png(figure: Figure, path: str | Path) -> None:
    """Write a figure as a PNG of 150 dots per inch, making its folder if need be."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, format="png", bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})


def _figure(
    width: float,
    height: float,
    title: str,
    rows: Sequence[int] = (1,),
    layout: Literal["constrained", "compressed"] = "constrained",
) -> tuple[Figure, Any]:
    """A figure of width x height inches with one axes, or with axes above each other in the proportion of `rows`."""
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), 1, sharex=len(rows) > 1, gridspec_kw={"height_ratios": rows})
    for each in np.atleast_1d(axes):
        each.spines[["top", "right"]].set_visible(False)
        each.spines[["left", "bottom"]].set_color(GREY)
        each.tick_params(color=GREY, labelsize=9)
    if title:
        np.atleast_1d(axes)[0].set_title(title, loc="left", fontsize=11, weight="bold", pad=12)
    return figure, axes


def _check_number(models: Mapping[str, object], what: str) -> None:
    if not 1 <= len(models) <= len(COLORS):
        raise KdamValueError(f"{len(models)} {what} given: a figure shows 1 to {len(COLORS)}; make several figures")


def _finite_points(label: str, precision: ArrayLike, recall: ArrayLike) -> tuple[Floats, Floats]:
    p, r = np.asarray(precision, dtype=np.float64), np.asarray(recall, dtype=np.float64)
    if p.ndim != 1 or p.shape != r.shape:
        raise KdamValueError(
            f"{label}: precision is {p.shape}, recall {r.shape}: expected one value of each per threshold"
        )
    known = ~(np.isnan(p) | np.isnan(r))
    p, r = p[known], r[known]
    if not p.size or min(p.min(), r.min()) < 0 or max(p.max(), r.max()) > 1:
        raise KdamValueError(f"{label}: expected precision and recall in [0, 1] at one threshold at least; not percent")
    found = p + r > 0
    return (p[found], r[found]) if found.any() else (p[:1], r[:1])


def _iso_f_lines(axes: Axes) -> None:
    """Lines of equal F = 2 P R / (P + R) at 0.1 ... 0.9, each named where it leaves the unit square."""
    for f in np.arange(1, 10) / 10:
        r = np.linspace(f / (2 - f), 1, 200)
        axes.plot(r, f * r / (2 * r - f), color=LIGHT, linewidth=0.8, zorder=1, label=f"_F {f:.1f}")
        axes.text(1.012, f / (2 - f), f"{f:.1f}", color=GREY, fontsize=7.5, va="center", zorder=1)
    axes.text(1.012, 1.0, "F", color=GREY, fontsize=7.5, va="center", style="italic")


def _write_shares(axes: Axes, shares: Floats) -> None:
    for (row, column), value in np.ndenumerate(shares):
        if value >= 0.5:  # smaller ones would fill the matrix with zeros
            color = "white" if value > 35 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color, fontsize=8)


def _counts(label: str, histogram: ArrayLike, edges_K1: Floats) -> Floats:
    counts_K = np.asarray(histogram, dtype=np.float64)
    if edges_K1.ndim != 1 or len(edges_K1) < 2 or not (np.diff(edges_K1) > 0).all():
        raise KdamValueError(f"edges are {edges_K1.shape}: expected two or more ascending numbers")
    if counts_K.shape != (len(edges_K1) - 1,) or not np.isfinite(counts_K).all() or counts_K.min() < 0:
        raise KdamValueError(
            f"{label}: histogram is {counts_K.shape}: expected {len(edges_K1) - 1} counts, one per bin"
        )
    if not counts_K.any():
        raise KdamValueError(f"{label}: the histogram is empty; no valid pixel was scored")
    return counts_K


def _edge_index(edges_K1: Floats, limit: float) -> int:
    nearest = int(np.abs(edges_K1 - limit).argmin())
    if not np.isclose(edges_K1[nearest], limit):
        raise KdamValueError(f"limit {limit} is no edge of the histogram: the share below it is not known exactly")
    return nearest


def _visible_bins(counts: Iterable[Floats], at_limits: Sequence[int]) -> tuple[int, int]:
    """How many bins to show, which is most pixels of every model and some room behind the last limit; how many to join."""
    counts = list(counts)
    most = [int(np.searchsorted(counts_K.cumsum(), 0.98 * counts_K.sum())) + 1 for counts_K in counts]
    wanted = max(*most, round(1.3 * max(at_limits)))
    step = next(step for step in STEPS if wanted <= step * VISIBLE_BINS)
    return min(-(-wanted // step), len(counts[0]) // step) * step, step


def _centres(edges: Floats, log: bool) -> Floats:
    return np.sqrt(edges[1:] * edges[:-1]) if log else (edges[1:] + edges[:-1]) / 2


def _mark_limits(axes: Axes, limits: Sequence[float], ends: tuple[float, float], unit: str, log: bool) -> None:
    for limit in limits:
        axes.axvline(limit, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axes.yaxis.grid(color="#EBEBEB", zorder=0)
    axes.set_axisbelow(True)
    axes.set_xlim(*ends)
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator([ends[0], *limits]))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value, unit)))


def _number(value: float, unit: str) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") + unit


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.1f}"
