"""An ONNX file behind what evaluation needs of a model.

A graph of one size takes smaller images too: they are padded on the right and at the bottom, as a batch would be.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdam_hf.errors import ExportError, KdamValueError
from kdam_hf.export.graph import INPUT
from kdam_hf.modeling_kdam import STRIDE, KdamOutput


class OnnxModel:
    """A session of ONNX Runtime on the CPU that is called like a `KdamPreTrainedModel`.

    Args:
        path: the file.
        threads: of the runtime; all cores by default.

    Raises:
        ExportError: no such file, or none that the runtime can load.
        ImportError: onnxruntime is not installed; it comes with the extra `export`.
    """

    training = False

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = options.inter_op_num_threads = threads
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's errors share no other base
            raise ExportError(
                f"{path}: ONNX Runtime cannot load it ({str(error).splitlines()[0]}); export again."
            ) from error
        self.task_names = [output.name for output in self.session.get_outputs()]
        self.size = fixed_size(self.session)

    def __call__(self, pixel_values: Tensor, pixel_mask: Tensor | None = None) -> KdamOutput:
        """Predict all tasks; the mask is left aside, every pixel counts.

        Args:
            pixel_values: (B, 3, H, W) float32, normalised.
            pixel_mask: taken for the sake of the interface.

        Returns:
            `KdamOutput` with predictions (B, C, ceil(H / 4), ceil(W / 4)).

        Raises:
            KdamValueError: an image that is larger than a graph of one size takes.
        """
        height, width = (-(-side // STRIDE) for side in pixel_values.shape[-2:])
        found = self.session.run(None, {INPUT: padded(pixel_values.numpy(), self.size)})
        maps = {name: torch.from_numpy(y[..., :height, :width]) for name, y in zip(self.task_names, found, strict=True)}
        return KdamOutput(predictions=maps)

    def eval(self) -> "OnnxModel":
        """Is always so."""
        return self

    def train(self, mode: bool = True) -> "OnnxModel":
        """Changes nothing: a graph is not trained."""
        return self


def fixed_size(session: Any) -> tuple[int, int] | None:
    """(height, width) in pixels of the images a session takes; None for any."""
    height, width = session.get_inputs()[0].shape[-2:]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def padded(pixels: NDArray[np.float32], size: tuple[int, int] | None) -> NDArray[np.float32]:
    """(B, 3, H, W) with zeros on the right and at the bottom up to `size`; as it is for None.

    Raises:
        KdamValueError: an image that is larger.
    """
    height, width = pixels.shape[-2:]
    if size is None or size == (height, width):
        return pixels
    if height > size[0] or width > size[1]:
        raise KdamValueError(
            f"an image of {height}x{width} pixels for a graph of {size[0]}x{size[1]}; export with --height and --width that "
            "cover every image, or score smaller images."
        )
    return np.pad(pixels, [(0, 0), (0, 0), (0, size[0] - height), (0, size[1] - width)])
