"""Figures hold the data they were given, at the places where a reader looks for it."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics import DepthErrors, NormalErrors

pytest.importorskip("matplotlib")

from kdam_hf.plots import COLORS, confusion_figure, error_figure, precision_recall_figure, save_png

PRECISION = np.array([0.3, 0.6, 0.9, np.nan])
RECALL = np.array([0.9, 0.6, 0.2, 0.0])
CONFUSION = [[6, 2, 0], [1, 3, 0], [0, 0, 0]]
NAMES = ("wall", "floor", "lamp")
EDGES, COUNTS = np.arange(11.0), [4, 3, 2, 1, 0, 0, 0, 0, 0, 0]


def figures():
    return {
        "curves": precision_recall_figure({"a": (PRECISION, RECALL), "b": (RECALL, PRECISION)}, "Boundaries", "odsF"),
        "confusion": confusion_figure(CONFUSION, NAMES, "Semantic segmentation"),
        "errors": error_figure(EDGES, {"a": COUNTS, "b": COUNTS[::-1]}, (1, 3), "error", " m", "Depth"),
    }


def lines_named(axes, start):
    return [line for line in axes.get_lines() if line.get_label().startswith(start)]


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


@pytest.mark.parametrize("name", ["curves", "confusion", "errors"])
def test_file_is_a_png_that_fits_a_page_and_is_not_blank(tmp_path, name):
    path = tmp_path / "new" / f"{name}.png"
    save_png(figures()[name], path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert all(400 <= side <= 1400 for side in image.size)
        assert len(image.convert("RGB").getcolors(1 << 20)) > 50
    assert path.stat().st_size < 300_000


def test_curves_run_through_their_points_and_mark_the_best():
    figure = precision_recall_figure({"student": (PRECISION, RECALL)}, f_name="odsF")
    axes = figure.axes[0]
    (curve,) = lines_named(axes, "student")
    assert curve.get_xdata().tolist() == [0.9, 0.6, 0.2]
    assert curve.get_ydata().tolist() == [0.3, 0.6, 0.9]
    assert curve.get_label() == "student  odsF 60.0"
    assert any(line.get_xydata().tolist() == [[0.6, 0.6]] for line in axes.get_lines())
    assert axes.get_xlim() == axes.get_ylim() == (0, 1)


def test_thresholds_that_find_nothing_are_left_out_of_a_curve():
    figure = precision_recall_figure({"a": ([0.5, 0.8, 0, np.nan], [0.9, 0.4, 0, 0]), "b": ([0, 0], [0, 0])})
    (a,), (b,) = (lines_named(figure.axes[0], label) for label in "ab")
    assert a.get_xydata().tolist() == [[0.9, 0.5], [0.4, 0.8]]
    assert b.get_label() == "b  F 0.0"


def test_every_iso_line_has_one_f_and_is_named():
    figure = precision_recall_figure({"a": (PRECISION, RECALL)})
    lines = lines_named(figure.axes[0], "_F ")
    assert len(lines) == 9
    for line in lines:
        r, p = line.get_xydata().T
        assert 2 * p * r / (p + r) == pytest.approx(np.full(len(r), float(line.get_label()[3:])))
        assert line.get_label()[3:] in texts(figure)


def test_models_differ_in_colour_and_in_line_style():
    figure = precision_recall_figure({f"model {k}": (PRECISION, RECALL) for k in range(len(COLORS))})
    lines = lines_named(figure.axes[0], "model")
    assert len({line.get_color() for line in lines}) == len(COLORS)
    # line styles are written into the drawn dashes
    assert len({str(line._unscaled_dash_pattern) for line in lines}) == len(COLORS)


def test_cells_are_shares_of_their_row_and_classes_without_pixels_are_left_empty():
    figure = confusion_figure(torch.tensor(CONFUSION), NAMES)
    (image,) = figure.axes[0].images
    shown = image.get_array()
    assert shown[:2].tolist() == [[75, 25, 0], [25, 75, 0]]
    assert shown.mask[2].all()
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == list(NAMES)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list(NAMES)
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells[(1, 0)] == "25"
    iou = [tick.get_text() for tick in axes.child_axes[0].get_yticklabels()]
    assert iou == [f"{100 * 6 / 9:.1f}", f"{100 * 3 / 6:.1f}", "–"]


def test_large_matrices_carry_no_numbers_and_grow_slowly():
    names = [f"class {k}" for k in range(40)]
    figure = confusion_figure(np.eye(40) * 7, names)
    assert not [text for text in figure.axes[0].texts if text.get_text().isdigit()]
    assert all(side < 14 for side in figure.get_size_inches())


def test_shares_below_limits_are_read_off_the_counts():
    figure = error_figure(EDGES, {"student": COUNTS}, (1, 3), "error", " m")
    top, bottom = figure.axes
    (curve,) = lines_named(bottom, "student")
    assert curve.get_label() == "student  40.0 / 90.0"
    assert np.interp([1, 2, 3], *curve.get_xydata().T).tolist() == [40, 70, 90]
    assert any(line.get_xydata().tolist() == [[1, 40], [3, 90]] for line in bottom.get_lines())
    assert "% below 1 m / 3 m" in texts(figure)
    values, edges, _ = top.patches[0].get_data()
    assert values[:4].tolist() == [40, 30, 20, 10]
    assert edges[:5].tolist() == [0, 1, 2, 3, 4]


def test_several_models_are_drawn_at_the_centres_of_bins():
    top = error_figure(EDGES, {"a": COUNTS, "b": COUNTS[::-1]}, (1, 3), "error").axes[0]
    first = top.get_lines()[0]
    assert first.get_xdata()[:2].tolist() == [0.5, 1.5]
    assert first.get_ydata()[:2].tolist() == [40, 30]


def test_metrics_and_figures_agree_on_the_shares():
    generator = torch.Generator().manual_seed(0)
    depth, normals = DepthErrors(), NormalErrors()
    g = 5 * torch.rand(1, 40, 50, generator=generator) + 0.5
    depth.update(g * torch.exp(torch.randn(g.shape, generator=generator) / 3), g)
    n = torch.randn(3, 40, 50, generator=generator)
    normals.update(n + torch.randn(n.shape, generator=generator), n)
    for metric, limits, keys, log in (
        (depth, (1.25, 1.25**2, 1.25**3), ("delta1", "delta2", "delta3"), True),
        (normals, (11.25, 22.5, 30), ("within_11.25", "within_22.5", "within_30"), False),
    ):
        edges, counts = metric.error_histogram()
        bottom = error_figure(edges, {"m": counts}, limits, "error", log=log).axes[1]
        shown = [float(share) for share in lines_named(bottom, "m")[0].get_label()[3:].split(" / ")]
        assert shown == pytest.approx([metric.compute()[key] for key in keys], abs=0.051)
        assert bottom.get_xscale() == ("log" if log else "linear")


def test_figures_leave_no_global_state():
    import matplotlib
    from matplotlib import _pylab_helpers

    before = dict(matplotlib.rcParams)
    for figure in figures().values():
        figure.savefig(io.BytesIO(), format="png")
    assert dict(matplotlib.rcParams) == before
    assert not _pylab_helpers.Gcf.figs


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({}, "0 curves"),
        ({f"{k}": (PRECISION, RECALL) for k in range(8)}, "8 curves"),
        ({"a": (PRECISION, RECALL[:2])}, r"a: precision is \(4,\), recall \(2,\)"),
        ({"a": (100 * PRECISION, RECALL)}, "not percent"),
        ({"a": ([np.nan], [0.5])}, "at one threshold"),
    ],
)
def test_curves_that_cannot_be_drawn_are_refused(curves, message):
    with pytest.raises(KdamValueError, match=message):
        precision_recall_figure(curves)


@pytest.mark.parametrize("confusion", [[[1, 2]], [[1, -1], [0, 1]], [[1, np.nan], [0, 1]], [1, 2]])
def test_matrices_that_are_no_counts_are_refused(confusion):
    with pytest.raises(KdamValueError, match="2 class names"):
        confusion_figure(confusion, ("a", "b"))


@pytest.mark.parametrize(
    ("edges", "histograms", "limits", "message"),
    [
        (EDGES, {}, (1,), "0 histograms"),
        (EDGES, {"a": COUNTS[:3]}, (1,), "expected 10 counts"),
        (EDGES, {"a": np.zeros(10)}, (1,), "no valid pixel"),
        (EDGES, {"a": -np.ones(10)}, (1,), "counts"),
        (EDGES[::-1], {"a": COUNTS}, (1,), "ascending"),
        (EDGES, {"a": COUNTS}, (1.5,), "1.5 is no edge"),
        (EDGES, {"a": COUNTS}, (), "no limit"),
    ],
)
def test_histograms_that_cannot_be_read_are_refused(edges, histograms, limits, message):
    with pytest.raises(KdamValueError, match=message):
        error_figure(edges, histograms, limits, "error")
