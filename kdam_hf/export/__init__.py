"""Models as files that run without this package: ONNX, in float32 and in eight bits, and programs of `torch.export`.

`trace` makes a graph of a model, `save_onnx` and `save_program` write it, `largest_differences` holds what was written
against the model, `quantize` makes eight bits of it, `OnnxModel` lets evaluation run it, `describe` says how to feed it.
"""

from kdam_hf.export.check import TOLERANCE, Difference, checked_shapes, largest_differences, refuse_differences
from kdam_hf.export.description import DESCRIPTION, describe
from kdam_hf.export.graph import DYNAMIC_SIZE, INPUT, choose_size, save_onnx, save_program, trace
from kdam_hf.export.onnx_model import OnnxModel
from kdam_hf.export.packages import missing_packages, require_packages
from kdam_hf.export.quantization import quantize

__all__ = [
    "DESCRIPTION",
    "DYNAMIC_SIZE",
    "INPUT",
    "TOLERANCE",
    "Difference",
    "OnnxModel",
    "checked_shapes",
    "choose_size",
    "describe",
    "largest_differences",
    "missing_packages",
    "quantize",
    "refuse_differences",
    "require_packages",
    "save_onnx",
    "save_program",
    "trace",
]
