"""Graphs compute what their models do, at every batch and size they say they take."""

import onnx
import pytest
import torch
from export_kit import tiny

from kdam_hf.errors import ExportError, KdamValueError
from kdam_hf.export import (
    OnnxModel,
    checked_shapes,
    choose_size,
    largest_differences,
    refuse_differences,
    save_program,
    trace,
)

OPEN = [("student", "tiny-resnet", None), ("student", "tiny-convnext", None)]
FIXED = [("student", "tiny-swin", (72, 104)), ("teacher", "tiny-resnet", (72, 104))]


@pytest.mark.parametrize("form", [*OPEN, *FIXED], ids=lambda form: f"{form[0]} {form[1]}")
def test_an_onnx_file_computes_what_the_model_does(graphs, form):
    model, _, path = graphs(*form)
    session = OnnxModel(path)
    found = largest_differences(model, lambda x: session(x).predictions, checked_shapes(form[-1], (40, 56)))
    assert list(found) == model.config.task_names
    refuse_differences(found)
    assert max(each.relative for each in found.values()) < 1e-4


@pytest.mark.parametrize("form", [OPEN[1], FIXED[0]], ids=lambda form: f"{form[0]} {form[1]}")
def test_a_program_is_read_back_and_takes_one_image_as_well_as_several(graphs, form, tmp_path):
    """Tracing saw a batch of two whose size is no multiple of 32; guards of that must not stay."""
    model, program, _ = graphs(*form)
    save_program(program, tmp_path / "model.pt2")
    module = torch.export.load(tmp_path / "model.pt2").module()
    found = largest_differences(model, module, checked_shapes(form[-1], None))
    assert max(each.relative for each in found.values()) < 1e-4


def test_axes_are_named_and_only_the_open_ones(graphs):
    def axes(values):
        return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}

    graph = onnx.load(graphs(*OPEN[0])[2]).graph
    assert axes(graph.input) == {"pixel_values": ["batch", 3, "height", "width"]}
    rest = ["ceil(height / 4)", "ceil(width / 4)"]
    assert axes(graph.output) == {
        name: ["batch", c, *rest] for name, c in (("semseg", 3), ("depth", 1), ("normals", 3))
    }
    graph = onnx.load(graphs(*FIXED[1])[2]).graph
    assert axes(graph.input) == {"pixel_values": ["batch", 3, 72, 104]}
    assert axes(graph.output)["depth"] == ["batch", 1, 18, 26]


def test_a_file_holds_standard_operators_only(graphs):
    for form in (OPEN[0], FIXED[0]):
        model = onnx.load(graphs(*form)[2])
        onnx.checker.check_model(model)
        assert {node.domain for node in model.graph.node} == {""}


def test_students_on_listed_backbones_take_any_size_others_that_of_training():
    assert choose_size(tiny("student", "tiny-resnet"), None)[0] is None
    assert choose_size(tiny("student", "tiny-resnet"), (64, 96))[0] == (64, 96)
    for role, preset, reason in (("student", "tiny-swin", "backbone swin"), ("teacher", "tiny-resnet", "teacher")):
        size, why = choose_size(tiny(role, preset, image_size=[40, 56]), None)
        assert size == (40, 56)
        assert reason in why
        with pytest.raises(KdamValueError, match="--height and --width"):
            choose_size(tiny(role, preset), None)


def test_a_model_that_cannot_be_traced_is_named_with_the_reason():
    model = tiny("student", "tiny-resnet")
    model.encoder.register_forward_hook(lambda *args: bool(args[1][0].sum() > 0))
    with pytest.raises(ExportError, match=r"KdamStudent with backbone resnet \(.*\); try a fixed size"):
        trace(model, (64, 96))
