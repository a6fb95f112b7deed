"""An ONNX file behind the interface of a model, and its form in eight bits."""

import logging

import numpy as np
import onnx
import pytest
import torch

from kdam_hf.errors import ExportError, KdamValueError
from kdam_hf.export import OnnxModel, quantize, require_packages
from kdam_hf.export.onnx_model import padded
from kdam_hf.export.packages import quiet

OPEN, FIXED = ("student", "tiny-resnet", None), ("student", "tiny-swin", (72, 104))


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(3, height, 64)).astype(np.float32) for height in (48, 64, 80)]


@pytest.fixture(scope="module")
def quantized(graphs, photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    quantize(graphs(*OPEN)[2], path, photos)
    return path


def relative_errors(session, model, pixels):
    with torch.no_grad():
        truth = model(pixels).predictions
    return {
        name: float((y - truth[name]).norm() / truth[name].norm()) for name, y in session(pixels).predictions.items()
    }


def test_a_graph_of_one_size_pads_smaller_images_and_cuts_their_predictions(graphs):
    session = OnnxModel(graphs(*FIXED)[2])
    assert session.size == (72, 104)
    small = torch.randn(2, 3, 41, 66)
    whole = torch.zeros(2, 3, 72, 104)
    whole[..., :41, :66] = small
    expected = session(whole).predictions
    for name, got in session(small).predictions.items():
        assert got.shape[-2:] == (11, 17)
        assert torch.equal(got, expected[name][..., :11, :17])
    with pytest.raises(KdamValueError, match="73x104 pixels for a graph of 72x104"):
        session(torch.zeros(1, 3, 73, 104))


def test_an_open_graph_takes_images_as_they_are(graphs):
    session = OnnxModel(graphs(*OPEN)[2], threads=1)
    assert session.size is None
    pixels = np.ones((1, 3, 5, 7), np.float32)
    assert padded(pixels, session.size) is pixels
    assert session(torch.from_numpy(pixels)).predictions["depth"].shape == (1, 1, 2, 2)


def test_a_file_that_is_none_is_named(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    for name in ("model.onnx", "absent.onnx"):
        with pytest.raises(ExportError, match=name):
            OnnxModel(tmp_path / name)


def test_eight_bits_predict_nearly_the_same_at_any_size_and_batch(graphs, quantized):
    model, session = graphs(*OPEN)[0], OnnxModel(quantized)
    for shape in ((1, 3, 48, 64), (2, 3, 41, 75)):
        errors = relative_errors(session, model, torch.randn(shape, generator=torch.Generator().manual_seed(0)))
        assert all(1e-5 < error < 0.2 for error in errors.values()), errors


def test_convolutions_take_eight_bits_with_a_scale_per_channel_of_the_weights(quantized):
    graph = onnx.load(quantized).graph
    made_by = {output: node for node in graph.node for output in node.output}
    scales = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        inputs = [made_by[name] for name in node.input[:2]]
        assert [each.op_type for each in inputs] == ["DequantizeLinear"] * 2
        assert scales[inputs[1].input[1]].ndim == 1


def test_calibration_decides_the_ranges(graphs, photos, quantized, tmp_path):
    """Ranges that are taken from images a hundred times darker cut off what bright ones hold."""
    model, _, path = graphs(*OPEN)
    quantize(path, tmp_path / "dark.onnx", [photo / 100 for photo in photos])
    pixels = torch.from_numpy(photos[1][None])
    good, bad = (relative_errors(OnnxModel(file), model, pixels) for file in (quantized, tmp_path / "dark.onnx"))
    assert all(bad[name] > 3 * good[name] for name in good), (good, bad)


def test_a_file_that_cannot_be_quantised_says_so(photos, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ExportError, match=r"model\.onnx"):
        quantize(tmp_path / "model.onnx", tmp_path / "int8.onnx", photos)


def test_what_was_silent_before_stays_silent_while_others_are_hushed():
    before = logging.root.manager.disable
    try:
        for given, inside in ((logging.NOTSET, logging.WARNING), (logging.CRITICAL, logging.CRITICAL)):
            logging.disable(given)
            with quiet():
                assert logging.root.manager.disable == inside
            assert logging.root.manager.disable == given
    finally:
        logging.disable(before)


def test_missing_packages_are_named_with_the_extra_that_brings_them(monkeypatch):
    require_packages()
    monkeypatch.setattr("kdam_hf.export.packages.find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(KdamValueError, match=r"needs onnxscript: pip install 'kdam-hf\[export\]'"):
        require_packages()
