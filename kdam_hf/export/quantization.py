"""Eight bits: products and convolutions of an ONNX file, with scales that are calibrated on images.

Unusual here: only products and convolutions read eight bits; additions and resizing compute in float32, since some tasks'
last addition cancels. Activations are unsigned and weights signed, one scale per channel, for which x86 has instructions.
"""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdam_hf.errors import ExportError
from kdam_hf.export.graph import INPUT
from kdam_hf.export.onnx_model import OnnxModel, padded
from kdam_hf.export.packages import quiet

OPERATORS = ["Conv", "MatMul", "Gemm"]


def quantize(source: Path, target: Path, images: Iterable[NDArray[np.float32]]) -> None:
    """Write the quantised form of a file, with QDQ nodes.

    Args:
        source: ONNX file in float32.
        target: ONNX file to write.
        images: pixel values (3, H, W) float32 of which the ranges of activations are taken, smallest to largest.

    Raises:
        ExportError: the file cannot be quantised.
        KdamValueError: an image that is larger than a graph of one size takes.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    size = OnnxModel(source).size
    batches = iter([{INPUT: padded(image[None], size)} for image in images])

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, Any] | None:
            return next(batches, None)

    options: dict[str, Any] = {"op_types_to_quantize": OPERATORS, "activation_type": QuantType.QUInt8}
    with quiet(), TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        try:
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            quantize_static(prepared, target, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, **options)
        except Exception as error:  # the runtime's errors share no other base
            raise ExportError(
                f"{source}: ONNX Runtime cannot quantise it ({type(error).__name__}: {str(error)[:300]}); export "
                "without --int8."
            ) from error
