"""`kdam.json`: what a program without this package must know to feed an exported model and to read it out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from kdam_hf.export.check import TOLERANCE, Difference
from kdam_hf.export.graph import INPUT
from kdam_hf.image_processing_kdam import KdamImageProcessor
from kdam_hf.modeling_kdam import STRIDE, KdamPreTrainedModel
from kdam_hf.tasks import task_from_spec

DESCRIPTION = "kdam.json"


def describe(
    model: KdamPreTrainedModel,
    format: str,
    file: str,
    size: tuple[int, int] | None,
    differences: Mapping[str, Difference],
    shapes: Sequence[tuple[int, int, int]],
) -> dict[str, Any]:
    """Plain data.

    Args:
        model: that was exported.
        format: onnx or torch-export.
        file: name of the file beside this description.
        size: (height, width) in pixels of the graph's images; None for any.
        differences: between file and model.
        shapes: (batch, height, width) on which they were found.
    """
    processor = KdamImageProcessor.from_model_config(model.config)
    tasks = [spec | {"legend": task_from_spec(spec).legend()} for spec in model.config.tasks or []]
    return {
        "format": format,
        "file": file,
        "kind": type(model).__name__,
        "input": {"name": INPUT, "dtype": "float32", "shape": ["batch", 3, *(size or ("height", "width"))]},
        "dynamic": ["batch"] if size else ["batch", "height", "width"],
        "image_mean": processor.image_mean,
        "image_std": processor.image_std,
        "resize": processor.size,
        "output_stride": STRIDE,
        "tasks": tasks,
        "check": {
            "tolerance": TOLERANCE,
            "shapes": [list(shape) for shape in shapes],
            "largest_difference": {name: asdict(each) for name, each in differences.items()},
        },
    }
