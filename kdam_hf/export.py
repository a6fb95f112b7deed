"""A model as an ONNX file, held against the model it came from, and a form of it in eight bits.

Unusual here: only products and convolutions of the second form read eight bits; additions and resizing compute in float32,
since some tasks' last addition cancels. onnx, onnxruntime and the exporter are imported where they are used.
"""

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from kdam_hf.errors import ExportError, KdamValueError
from kdam_hf.image_processing_kdam import KdamImageProcessor
from kdam_hf.modeling_kdam import STRIDE, KdamOutput, KdamPreTrainedModel, KdamStudent
from kdam_hf.readout_kdam import readout_of
from kdam_hf.upsampling_kdam import upsample

PIXELS, MASK = "pixel_values", "pixel_mask"
# Backbones whose graph is one for all sizes. Swin chooses windows and shifts by the size of the image, and the position
# embeddings of dinov2 come out wrong in ONNX when they are resized to an open size.
DYNAMIC_SIZE = ("resnet", "convnext", "convnextv2", "pvt_v2", "dinov3_vit", "efficientnet_lite")
EXAMPLE = (2, 100, 140)  # no batch of one and no multiple of 32: tracing would take them for constants
# (batch, height, width) to try: sides that are multiples of 32, barely above one, odd, and less than a patch
OPEN = ((1, 64, 96), (3, 33, 130), (2, 127, 250), (1, 9, 40))
# Rounding of untrained models reaches 2e-4. A wrong graph can be as close as 1e-4 (the pooling of a teacher whose size is
# open), so what is known to go wrong is ruled out by `choose_size`, not here.
TOLERANCE = 1e-3


def missing_packages() -> list[str]:
    """What of the extra `export` would have to be installed."""
    return [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]


def choose_size(model: KdamPreTrainedModel, size: tuple[int, int] | None) -> tuple[int, int] | None:
    """(height, width) in pixels of the images a graph of this model takes, None for any; `size` is what the user asks for.

    Raises:
        KdamValueError: the model needs a fixed size, and nothing says which.
    """
    backbone: Any = model.config.backbone_config
    if size is not None or (isinstance(model, KdamStudent) and backbone.model_type in DYNAMIC_SIZE):
        return size
    if model.config.image_size is None:
        what = f"the graph of a {type(model).__name__} on {backbone.model_type}"
        others = f"Students on {', '.join(DYNAMIC_SIZE)} take any size."
        raise KdamValueError(f"{what} needs a fixed size, and its config has none; give --height and --width. {others}")
    height, width = model.config.image_size
    return height, width


class Decoded(nn.Module):
    """A model whose predictions are what `KdamImageProcessor.post_process` makes of them, but for class ids in few bits."""

    def __init__(self, model: KdamPreTrainedModel) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        self.readers = {task["name"]: readout_of(task) for task in model.config.tasks or []}

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor | None = None) -> KdamOutput:
        """(B, 3, H, W) -> per task (B, H, W), or (B, c, H, W): ids uint8 (uint16 above 256 classes), all else float32."""
        maps = {}
        for name, prediction in self.model(pixel_values, pixel_mask).predictions.items():
            reader = self.readers[name]
            values = reader.values(upsample(prediction, pixel_values.shape[-2:]).movedim(1, -1))
            if values.ndim == 4:
                values = values.squeeze(-1) if values.shape[-1] == 1 else values.movedim(-1, 1)
            few = torch.uint8 if reader.entry["channels"] <= 256 else torch.uint16
            maps[name] = values.to(few) if reader.has_ids else values
        return KdamOutput(predictions=maps)


def save_onnx(model: KdamPreTrainedModel, size: tuple[int, int] | None, path: Path, decode: bool = False) -> None:
    """Write an ONNX file with the inputs that the model reads and one output per task, named after it; the batch is open.

    Args:
        model: in evaluation mode, on the CPU, float32.
        size: (height, width) of its images in pixels; None leaves it open.
        path: where the file goes.
        decode: the outputs are those of `Decoded`.

    Raises:
        ExportError: the model cannot be traced, or holds something that ONNX does not know.
    """
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    from transformers.exporters import OnnxConfig, OnnxExporter

    batch, (height, width) = EXAMPLE[0], size or EXAMPLE[1:]
    mask = torch.ones(batch, height, width, dtype=torch.bool)
    inputs = {PIXELS: torch.zeros(batch, 3, height, width), MASK: mask}
    only_batch = {name: {0: Dim.DYNAMIC} for name in inputs}
    config = OnnxConfig(dynamic=size is None, dynamic_shapes=only_batch if size else None)
    hint = f"try a fixed size (--height, --width), or a student on one of {', '.join(DYNAMIC_SIZE)}, which are known to work"
    backbone: Any = model.config.backbone_config
    failed = f"a {type(model).__name__} on {backbone.model_type} cannot be exported"
    with torch.inference_mode(False), torch.no_grad(), _quiet(failed, hint):
        program = OnnxExporter().export(Decoded(model) if decode else model, inputs, config=config).program
        ClearMetadataAndDocStringPass()(program)  # stack traces, with the folders of this machine
        sides = size or ("height", "width")
        program.graph.inputs[0].shape = onnx_ir.Shape(["batch", 3, *sides])
        program.graph.inputs[1].shape = onnx_ir.Shape(["batch", *sides])
        if not program.graph.inputs[1].uses():  # no student looks at the mask
            program.graph.inputs.pop(1)
        reduced = [-(-side // STRIDE) for side in size] if size else [f"ceil({side} / {STRIDE})" for side in sides]
        for task, output in zip(model.config.tasks or [], program.graph.outputs, strict=True):
            decoded = [*list(output.shape or ())[1:-2], *sides]
            output.name = task["name"]
            output.shape = onnx_ir.Shape(["batch", *(decoded if decode else [task["channels"], *reduced])])
        onnx_ir.save(program, path)


class OnnxModel(nn.Module):
    """An ONNX file on the CPU behind what evaluation needs of a model; `stride` is 1 where its outputs are decoded.

    A graph of one size takes smaller images too: they are padded on the right and at the bottom, as a batch would be.

    Args:
        path: the file.
        threads: of the runtime; all cores by default.

    Raises:
        ExportError: no such file, or none that the runtime can load.
        ImportError: onnxruntime is not installed; it comes with the extra `export`.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = options.inter_op_num_threads = threads
        with _quiet(f"{path}: ONNX Runtime cannot load it", "export again"):
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        self.input_names, self.task_names = ([each.name for each in side] for side in (inputs, outputs))
        height, width = inputs[0].shape[-2:]
        self.stride = 1 if outputs[0].shape[-2:] == [height, width] else STRIDE
        self.size = (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def inputs(self, pixels: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Pixels (B, 3, H, W) and, if the graph reads it, their mask, all true for None, with zeros up to its size.

        Raises:
            KdamValueError: an image that is larger.
        """
        height, width = pixels.shape[-2:]
        mask = torch.ones(len(pixels), height, width, dtype=torch.bool) if mask is None else mask
        below, right = (self.size[0] - height, self.size[1] - width) if self.size else (0, 0)
        if below < 0 or right < 0:
            remedy = "export with --height and --width that cover every image, or score smaller images"
            raise KdamValueError(f"an image of {height}x{width} pixels for a graph of {self.size}; {remedy}.")
        given = {PIXELS: pixels, MASK: mask}
        return {name: F.pad(given[name], (0, right, 0, below)) for name in self.input_names}

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor | None = None) -> KdamOutput:
        """Predict all tasks; see `KdamPreTrainedModel.forward`, and `Decoded` for decoded ones."""
        height, width = (-(-side // self.stride) for side in pixel_values.shape[-2:])
        feed = {name: tensor.numpy() for name, tensor in self.inputs(pixel_values, pixel_mask).items()}
        found = zip(self.task_names, self.session.run(None, feed), strict=True)
        return KdamOutput(predictions={name: torch.from_numpy(y[..., :height, :width]) for name, y in found})


def quantize(source: Path, target: Path, images: Iterable[Tensor]) -> None:
    """Write the form in eight bits of a float32 file: unsigned activations, signed weights with one scale per output channel.

    The ranges of activations, smallest to largest, are taken of `images`: pixel values (3, H, W) float32.

    Raises:
        ExportError: the file cannot be quantised.
        KdamValueError: an image that is larger than a graph of one size takes.
    """
    import onnx_ir
    from onnxruntime.quantization import QuantType
    from transformers.exporters import OnnxRuntimeQuantizer, OnnxRuntimeStaticConfig
    from transformers.exporters.configs import ExportFormat

    session = OnnxModel(source)
    samples = [session.inputs(image[None]) for image in images]
    operators = ["Conv", "MatMul", "Gemm"]
    config = OnnxRuntimeStaticConfig(op_types_to_quantize=operators, activation_type=QuantType.QUInt8, per_channel=True)
    with _quiet(f"{source}: ONNX Runtime cannot quantise it", "leave --int8 out"):
        quantizer = OnnxRuntimeQuantizer(config, samples)
        onnx_ir.save(quantizer.quantize(onnx_ir.load(source), samples[0], ExportFormat.ONNX), target)


def checked_shapes(size: tuple[int, int] | None, trained_at: Iterable[int] | None) -> list[tuple[int, int, int]]:
    """(batch, height, width) that are tried, for a graph of one `size` or of any, and a model `trained_at` some size."""
    if size is not None:
        return [(batch, *size) for batch in (1, 3)]
    height, width = trained_at or OPEN[0][1:]
    return list(dict.fromkeys([*OPEN, (1, height, width)]))


def largest_differences(
    model: nn.Module, exported: nn.Module, shapes: Iterable[tuple[int, int, int]], processor: Any = None
) -> dict[str, float]:
    """Run a model and what was exported of it on the same normal noise; where there are several images, one is padded.

    Args:
        model: in evaluation mode.
        exported: an `OnnxModel`.
        shapes: (batch, height, width) to try.
        processor: a `KdamImageProcessor` whose `post_process` gives what decoded outputs are held against.

    Returns:
        Per task the largest difference, as a share of the largest value of a prediction; of class ids the share of pixels.

    Raises:
        ExportError: a difference above `TOLERANCE`, something that is not finite, or another shape than the model's.
    """
    generator = torch.Generator().manual_seed(0)
    found: dict[str, float] = {}
    for batch, height, width in shapes:
        pixels = torch.randn(batch, 3, height, width, generator=generator)
        mask = torch.ones(batch, height, width, dtype=torch.bool)
        mask[1:2, :, width - width // 3 :] = False
        with torch.no_grad():
            expected, got = model(pixels, mask).predictions, exported(pixels, mask).predictions
        if processor is not None:
            maps = processor.post_process({"predictions": expected}, [(height, width)] * batch)
            expected = {name: torch.stack([each[name] for each in maps]) for name in expected}
        for name, truth in expected.items():
            share, own = math.nan, got[name].to(truth.dtype)
            if own.shape == truth.shape and truth.is_floating_point():
                share = float((own - truth).abs().max() / truth.abs().max().clamp_min(1e-30))
            elif own.shape == truth.shape:
                share = float((own != truth).double().mean())
            if not share <= TOLERANCE:
                raise ExportError(
                    f"{name}: for {tuple(pixels.shape)} the exported graph yields {tuple(got[name].shape)}, the model "
                    f"{tuple(truth.shape)}, {share:.2g} of the largest value apart; expected one shape, and at most "
                    f"{TOLERANCE:g}. Nothing was written. If its size is open, try --height and --width."
                )
            found[name] = max(found.get(name, 0.0), share)
    return found


def describe(model: KdamPreTrainedModel, exported: OnnxModel) -> dict[str, Any]:
    """What a program without this package must know to feed an exported model and to read it, for `kdam.json`."""
    processor = KdamImageProcessor.from_model_config(model.config)
    sides = list(exported.size or ("height", "width"))
    mask = {"mask": {"name": MASK, "dtype": "bool", "shape": ["batch", *sides]}}
    readers = map(readout_of, model.config.tasks or [])
    return {
        "kind": type(model).__name__,
        "input": {"name": PIXELS, "dtype": "float32", "shape": ["batch", 3, *sides]},
        **(mask if MASK in exported.input_names else {}),
        "dynamic": ["batch"] if exported.size else ["batch", *sides],
        "image_mean": processor.image_mean,
        "image_std": processor.image_std,
        "resize": processor.size,
        "output_stride": exported.stride,
        "decoded": exported.stride == 1,
        "tasks": [{**reader.entry, "legend": reader.legend(), "values": reader.words} for reader in readers],
    }


@contextlib.contextmanager
def _quiet(failed: str, remedy: str) -> Iterator[None]:
    """Any error as an `ExportError`, without progress and advice of the tracer, such as that torchvision is missing."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    except Exception as error:  # those of tracer, exporter and runtime share no other base
        raise ExportError(f"{failed} ({type(error).__name__}: {str(error).strip()[:300]}); {remedy}.") from error
    finally:
        logging.disable(before)
