"""A model as a graph: traced by `torch.export`, written as an ONNX file or as a program of PyTorch.

Unusual here: every size is left open while tracing, and the guards that tracing adds are dropped. They record how strides
happened to look for the example (a batch of more than one, say), not what the graph can do; `check` tries that out.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbolic_shapes

from kdam_hf.errors import ExportError, KdamValueError
from kdam_hf.export.packages import quiet
from kdam_hf.modeling_kdam import STRIDE, KdamPreTrainedModel, KdamStudent

INPUT = "pixel_values"
AXES = {0: "batch", 2: "height", 3: "width"}
# Backbones whose graph is one for all sizes. Swin chooses windows and shifts by the size of the image, and the position
# embeddings of dinov2 come out wrong in ONNX when they are resized to an open size.
DYNAMIC_SIZE = ("resnet", "convnext", "convnextv2", "pvt_v2", "dinov3_vit")
# no batch of one and no multiple of 32: tracing would take them for constants
EXAMPLE = (2, 100, 140)


class Predictions(nn.Module):
    """A model that takes images alone, all pixels valid, and returns a plain dict."""

    def __init__(self, model: KdamPreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> task: (B, C, ceil(H / 4), ceil(W / 4))."""
        batch, _, height, width = pixel_values.shape
        # without a mask the model looks whether it has to pad, which would fix the size
        mask = pixel_values.new_ones(batch, height, width, dtype=torch.bool)
        return self.model(pixel_values, mask).predictions


def choose_size(model: KdamPreTrainedModel, size: tuple[int, int] | None) -> tuple[tuple[int, int] | None, str]:
    """The size a graph of this model is for, and why.

    Args:
        model: to export.
        size: (height, width) that the user asks for, in pixels.

    Returns:
        (height, width), or None for any size; and a sentence for the user.

    Raises:
        KdamValueError: the model needs a fixed size, and nothing says which.
    """
    if size is not None:
        return size, "as asked for"
    backbone: Any = model.config.backbone_config
    if isinstance(model, KdamStudent) and backbone.model_type in DYNAMIC_SIZE:
        return None, f"a student on {backbone.model_type} takes any size"
    what = "the attention of a teacher" if not isinstance(model, KdamStudent) else f"the backbone {backbone.model_type}"
    if model.config.image_size is None:
        raise KdamValueError(
            f"the graph of this model needs a fixed size, because of {what}, and its config does not say which it was "
            "trained at; give --height and --width."
        )
    height, width = model.config.image_size
    return (height, width), f"{what} does not allow an open size; the size of training is taken"


def trace(model: KdamPreTrainedModel, size: tuple[int, int] | None) -> ExportedProgram:
    """The graph of a model, for any batch.

    Args:
        model: in evaluation mode, on the CPU, float32.
        size: (height, width) of its images in pixels; None leaves it open.

    Raises:
        ExportError: the model cannot be traced.
    """
    batch, *example = EXAMPLE
    open_axes = AXES if size is None else {0: AXES[0]}
    with _tracing():
        pixels = torch.zeros(batch, 3, *(example if size is None else size))
        shapes = {INPUT: dict.fromkeys(open_axes, Dim.DYNAMIC)}
        try:
            program = torch.export.export(Predictions(model).eval(), (pixels,), dynamic_shapes=shapes)
        except Exception as error:  # of many kinds, most of them internal to the tracer
            raise ExportError(_reason(model, "torch.export", error)) from error
    program._guards_code = []
    return program


def save_program(program: ExportedProgram, path: Path) -> None:
    """Write a `.pt2` file; `torch.export.load(path).module()` maps pixel values to a dict of predictions."""
    with quiet():
        torch.export.save(program, path)


def save_onnx(program: ExportedProgram, path: Path, model: KdamPreTrainedModel) -> None:
    """Write an ONNX file with the input `pixel_values` and one output per task, named after it.

    Args:
        program: as made by `trace`.
        path: where the file goes.
        model: that was traced.

    Raises:
        ExportError: the graph holds something that ONNX does not know.
    """
    names = {axis: name for axis, name in AXES.items() if not isinstance(_input_shape(program)[axis], int)}
    options: dict[str, Any] = {"dynamo": True, "verbose": False, "external_data": False}
    with _tracing():
        try:
            torch.onnx.export(
                program,
                (),
                path,
                input_names=[INPUT],
                output_names=model.config.task_names,
                dynamic_shapes={INPUT: names},
                **options,
            )
        except Exception as error:  # of many kinds, most of them internal to the exporter
            raise ExportError(_reason(model, "torch.onnx.export", error)) from error
    _name_output_axes(path, [names.get(axis) for axis in range(4)])


@contextmanager
def _tracing() -> Iterator[None]:
    """Sizes are traced as if none was 0 or 1, whatever the example's; attention is laid out otherwise with gradients."""
    open_sizes = symbolic_shapes.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    with quiet(), torch.inference_mode(False), torch.no_grad(), open_sizes:
        yield


def _input_shape(program: ExportedProgram) -> Sequence[Any]:
    (name,) = program.graph_signature.user_inputs
    return next(node.meta["val"].shape for node in program.graph.nodes if node.name == name)


def _name_output_axes(path: Path, names: Sequence[str | None]) -> None:
    """Replace the formulas of the tracer, with its own operators, by words."""
    import onnx

    graph = onnx.load(path)
    for output in graph.graph.output:
        for axis, name in enumerate(names):
            if name is not None:
                dim = output.type.tensor_type.shape.dim[axis]
                dim.dim_param = name if axis == 0 else f"ceil({name} / {STRIDE})"
    onnx.save(graph, path)


def _reason(model: KdamPreTrainedModel, step: str, error: Exception) -> str:
    backbone: Any = model.config.backbone_config
    first = next(iter(str(error).strip().splitlines()), "")
    return (
        f"{step} failed on a {type(model).__name__} with backbone {backbone.model_type} "
        f"({type(error).__name__}: {first[:300]}); try a fixed size (--height, --width), or a student on one of "
        f"{', '.join(DYNAMIC_SIZE)}, which are known to work."
    )
