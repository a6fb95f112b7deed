"""A model in ONNX Runtime on the CPU: in float32, and with its products and convolutions quantised to eight bits.

Unusual here: it is calibrated on the very images it is timed on, which is the kindest case for its error. Activations are
unsigned and weights signed, for which x86 has instructions; additions stay in float32, some tasks' last one cancels.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from kdam_hf.modeling_kdam import KdamPreTrainedModel

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def missing_packages() -> list[str]:
    """What would have to be installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


@contextmanager
def quiet() -> Iterator[None]:
    """Without advice on things that are as they should be, such as that torchvision is missing."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


class Flat(nn.Module):
    """Predictions as a tuple, in the order of the model's tasks."""

    def __init__(self, model: KdamPreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> (B, C, H / 4, W / 4) of each task."""
        return tuple(self.model(pixel_values).predictions.values())


def onnx_forms(
    model: KdamPreTrainedModel, pixels: Tensor, path: str, threads: int
) -> dict[str, Callable[[Tensor], dict[str, Tensor]]]:
    """Exports the model; the forms take pixels (B, 3, H, W) float32 of the same shape.

    Args:
        model: in evaluation mode.
        pixels: to export and calibrate with.
        path: where files go, without an end.
        threads: of the runtime.
    """
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{"pixel_values": image.numpy()[None]} for image in pixels]

        def get_next(self):
            return self.left.pop() if self.left else None

    plain, prepared, int8 = f"{path}.onnx", f"{path}.prepared.onnx", f"{path}.int8.onnx"
    with quiet(), torch.inference_mode(False), torch.no_grad():
        options = {"input_names": ["pixel_values"], "external_data": False, "dynamo": True, "verbose": False}
        torch.onnx.export(Flat(model).eval(), (pixels.clone(),), plain, **options)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)  # every shape is fixed
        options = {"op_types_to_quantize": ["Conv", "MatMul", "Gemm"], "activation_type": QuantType.QUInt8}
        quantize_static(prepared, int8, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, **options)

    def form(file: str) -> Callable[[Tensor], dict[str, Tensor]]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

        def call(x: Tensor) -> dict[str, Tensor]:
            found = session.run(None, {"pixel_values": x.numpy()})
            return {name: torch.from_numpy(y) for name, y in zip(model.config.task_names, found, strict=True)}

        return call

    return {"ONNX fp32": form(plain), "ONNX int8": form(int8)}
