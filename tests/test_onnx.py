"""ONNX files compute what their models do, at every batch and size they say they take, and nearly so in eight bits."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from kdam_hf import KdamImageProcessor, KdamStudent, KdamTeacher, export
from kdam_hf.errors import ExportError, KdamValueError
from kdam_hf.export import OnnxModel, checked_shapes, choose_size, largest_differences, quantize, save_onnx
from kdam_hf.modeling_kdam import KdamOutput
from kdam_hf.presets import make_config
from kdam_hf.tasks import make_task

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

TASKS = (make_task("semseg", ["wall", "floor", "lamp"]), make_task("depth"), make_task("normals"))
OPEN, FIXED = (KdamStudent, "tiny-resnet", None), (KdamTeacher, "tiny-swin", (72, 104))
SHAPES = [(1, 8, 8), (2, 8, 12)]


def tiny(cls, preset, **options):
    torch.manual_seed(0)
    return cls(make_config(cls.config_class.model_type.removeprefix("kdam_"), preset, TASKS, **options)).eval()


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """(class, preset, size) -> model and the path of its ONNX file, written once."""
    made = {}

    def get(form):
        if form not in made:
            model, path = tiny(*form[:2]), tmp_path_factory.mktemp("graphs") / "model.onnx"
            save_onnx(model, form[2], path)
            made[form] = model, path
        return made[form]

    return get


@pytest.fixture(scope="module")
def photos():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, height, 64, generator=generator) for height in (48, 64, 80)]


@pytest.fixture(scope="module")
def quantized(graphs, photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    quantize(graphs(OPEN)[1], path, photos)
    return path


@pytest.mark.parametrize("form", [OPEN, FIXED], ids=["open", "fixed"])
def test_a_file_computes_what_the_model_does_also_where_a_batch_is_padded(graphs, form):
    model, path = graphs(form)
    found = largest_differences(model, OnnxModel(path), checked_shapes(form[-1], (40, 56)))
    assert list(found) == model.config.task_names
    assert max(found.values()) < 1e-4


def axes(values):
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def test_axes_are_named_only_the_open_ones_and_only_a_teacher_takes_a_mask(graphs):
    graph = onnx.load(graphs(OPEN)[1]).graph
    assert axes(graph.input) == {"pixel_values": ["batch", 3, "height", "width"]}
    rest = ["ceil(height / 4)", "ceil(width / 4)"]
    assert axes(graph.output) == {
        name: ["batch", c, *rest] for name, c in (("semseg", 3), ("depth", 1), ("normals", 3))
    }
    graph = onnx.load(graphs(FIXED)[1]).graph
    assert axes(graph.input) == {"pixel_values": ["batch", 3, 72, 104], "pixel_mask": ["batch", 72, 104]}
    assert axes(graph.output)["depth"] == ["batch", 1, 18, 26]


def test_decoded_outputs_are_those_of_the_processor_in_few_bytes_at_the_size_of_the_input(tmp_path):
    many = TASKS[0].spec() | {"name": "many", "channels": 300, "class_names": [f"class {k}" for k in range(300)]}
    config = tiny(*OPEN[:2]).config
    config.tasks = [*config.tasks, many]
    model, path = KdamStudent(config).eval(), tmp_path / "model.onnx"
    save_onnx(model, None, path, decode=True)
    file, processor = OnnxModel(path), KdamImageProcessor(tasks=config.tasks)
    found = largest_differences(model, file, checked_shapes(None, (40, 56)), processor=processor)
    assert max(found.values()) < 1e-4
    between = {"semseg": [], "depth": [], "normals": [3], "many": []}
    expected = {name: ["batch", *c, "height", "width"] for name, c in between.items()}
    assert axes(onnx.load(path).graph.output) == expected
    maps = file(torch.randn(2, 3, 37, 50)).predictions
    assert all(x.shape[-2:] == (37, 50) for x in maps.values())
    assert [x.dtype for x in maps.values()] == [torch.uint8, torch.float32, torch.float32, torch.uint16]
    model.decoder.heads["semseg"][-1].bias.data[0] += 100
    with pytest.raises(ExportError, match="semseg: "):
        largest_differences(model, file, SHAPES, processor=processor)


@pytest.mark.parametrize("form", [OPEN, FIXED], ids=["open", "fixed"])
def test_a_file_holds_standard_operators_and_no_place_of_this_machine(graphs, form):
    path = graphs(form)[1]
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert {node.domain for node in model.graph.node} == {""}
    folders = {Path(export.__file__).parent, Path(torch.__file__).parent}
    assert not [folder for folder in folders if str(folder).encode() in path.read_bytes()]


def test_students_on_listed_backbones_take_any_size_others_that_of_training():
    assert choose_size(tiny(KdamStudent, "tiny-resnet", image_size=[40, 56]), None) is None
    assert choose_size(tiny(KdamStudent, "tiny-resnet"), (64, 96)) == (64, 96)
    for cls, preset in ((KdamStudent, "tiny-swin"), (KdamTeacher, "tiny-resnet")):
        assert choose_size(tiny(cls, preset, image_size=[40, 56]), None) == (40, 56)
        with pytest.raises(KdamValueError, match="--height and --width"):
            choose_size(tiny(cls, preset), None)


def test_a_model_that_cannot_be_traced_is_named(tmp_path):
    model = tiny(KdamStudent, "tiny-resnet")
    model.encoder.register_forward_hook(lambda *args: bool(args[1][0].sum() > 0))
    with pytest.raises(ExportError, match="KdamStudent on resnet"):
        save_onnx(model, (64, 96), tmp_path / "model.onnx")


def test_a_graph_of_one_size_pads_smaller_images_and_cuts_their_predictions(graphs):
    session = OnnxModel(graphs(FIXED)[1], threads=1)
    small, whole = torch.randn(2, 3, 41, 66), torch.zeros(2, 3, 72, 104)
    whole[..., :41, :66] = small
    mask = torch.zeros(2, 72, 104, dtype=torch.bool)
    mask[..., :41, :66] = True
    expected = session(whole, mask).predictions
    for name, got in session(small).predictions.items():
        assert torch.equal(got, expected[name][..., :11, :17])
    with pytest.raises(KdamValueError, match=r"73x104 .*\(72, 104\)"):
        session(torch.zeros(1, 3, 73, 104))


@pytest.mark.parametrize("use", [OnnxModel, lambda path: quantize(path, path.with_name("int8.onnx"), [])])
def test_a_file_that_is_no_graph_is_named(use, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    for name in ("model.onnx", "absent.onnx"):
        with pytest.raises(ExportError, match=name):
            use(tmp_path / name)


class Model(nn.Module):
    """Two tasks whose largest values are 2 and 10 at any size, changed by `change`."""

    def __init__(self, change=lambda predictions: None):
        super().__init__()
        self.change = change

    def forward(self, pixels, mask=None):
        means = pixels.mean(1, keepdim=True)
        means = means / means.abs().max()
        predictions = {"a": 2 * means, "b": 10 * means}
        self.change(predictions)
        return KdamOutput(predictions=predictions)


def test_the_largest_difference_over_all_shapes_is_kept_as_a_share_of_the_largest_value(monkeypatch):
    def change(predictions):
        predictions["b"] = predictions["b"] + (0.5 if len(predictions["b"]) == 2 else 0.25)

    pair = Model(), Model(change)
    with pytest.raises(ExportError, match=r"b: .*0\.025"):
        largest_differences(*pair, SHAPES)
    monkeypatch.setattr(export, "TOLERANCE", 0.06)
    assert largest_differences(*pair, [*SHAPES, (1, 4, 4)]) == {"a": 0, "b": pytest.approx(0.05)}


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_what_is_not_finite_or_of_another_shape_is_refused(number):
    spoilt = Model(lambda predictions: predictions["a"][0, 0, 0].fill_(number))
    cut = Model(lambda predictions: predictions.update(b=predictions["b"][..., :-1]))
    for pair, words in (
        ((spoilt, Model()), "a: "),
        ((Model(), spoilt), "a: "),
        ((Model(), cut), r"b: .*\(1, 1, 8, 7\)"),
    ):
        with pytest.raises(ExportError, match=words):
            largest_differences(*pair, SHAPES)


def test_shapes_of_an_open_graph_lie_on_both_sides_of_what_tracing_saw():
    shapes = checked_shapes(None, [240, 320])
    assert (1, 240, 320) in shapes
    assert {batch == 1 for batch, _, _ in shapes} == {True, False}
    assert {height % 32 == 0 and width % 32 == 0 for _, height, width in shapes} == {True, False}
    assert {shape[1:] for shape in checked_shapes((64, 96), [240, 320])} == {(64, 96)}


def relative_errors(path, model, pixels):
    with torch.no_grad():
        truth, got = model(pixels).predictions, OnnxModel(path)(pixels).predictions
    return {name: float((got[name] - truth[name]).norm() / truth[name].norm()) for name in truth}


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
    model, path = graphs(OPEN)
    quantize(path, tmp_path / "dark.onnx", [photo / 100 for photo in photos])
    good, bad = (relative_errors(file, model, photos[1][None]) for file in (quantized, tmp_path / "dark.onnx"))
    assert all(bad[name] > 3 * good[name] for name in good), (good, bad)
