"""A model in ONNX Runtime on the CPU: in float32, and with its products and convolutions quantised to eight bits.

Unusual here: it is calibrated on the very images it is timed on, which is the kindest case for its error.
"""

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from kdam_hf.export import OnnxModel, missing_packages, quantize, save_onnx
from kdam_hf.modeling_kdam import KdamPreTrainedModel

__all__ = ["missing_packages", "onnx_forms"]


def onnx_forms(
    model: KdamPreTrainedModel, pixels: Tensor, path: str, threads: int
) -> dict[str, Callable[[Tensor], dict[str, Tensor]]]:
    """Exports the model; the forms take pixels (B, 3, H, W) float32 of the same size.

    Args:
        model: in evaluation mode.
        pixels: to calibrate with.
        path: where files go, without an end.
        threads: of the runtime.
    """
    height, width = pixels.shape[-2:]
    plain, int8 = Path(f"{path}.onnx"), Path(f"{path}.int8.onnx")
    with torch.inference_mode(False):
        model = copy.deepcopy(model)  # tensors made in inference mode cannot be traced
    save_onnx(model, (height, width), plain)
    quantize(plain, int8, pixels)

    def form(file: Path) -> Callable[[Tensor], dict[str, Tensor]]:
        session = OnnxModel(file, threads)
        return lambda x: session(x).predictions

    return {"ONNX fp32": form(plain), "ONNX int8": form(int8)}
