"""Batches of transformed samples; images of different sizes are padded on the right and bottom.

Padding is no label: it gets the task's own invalid value and `pixel_mask` is False there.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kdam_hf.errors import DataIntegrityError
from kdam_hf.tasks import Task


class Collator:
    """Stack samples, as made by `TrainTransform` or `EvalTransform`, into one batch.

    Args:
        tasks: the tasks of the labels.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._invalid = [(task.name, task.label.invalid) for task in tasks]

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """B samples of sizes up to (H, W) -> one batch.

        Returns:
            `pixel_values` float32 (B, 3, H, W), padded by repeating the border; `pixel_mask` bool (B, H, W), False there;
            `labels` {task: (B, ..., H, W)}; `index` int64 (B,); `teacher` {task: (B, C, h, w)} if the samples have it.

        Raises:
            DataIntegrityError: an image holds NaN or infinity; names the sample.
        """
        for sample in samples:
            if not sample["pixel_values"].sum().isfinite():
                raise DataIntegrityError(
                    f"sample {sample['id']!r} (index {sample['index']}): pixel_values holds NaN or infinity; expected finite "
                    "numbers. Check this image and the transform."
                )
        sizes = [sample["pixel_values"].shape[-2:] for sample in samples]
        height, width = (max(side) for side in zip(*sizes, strict=True))

        def stack(tensors: list[Tensor], value: float) -> Tensor:
            return torch.stack([_pad(tensor, height, width, value=value) for tensor in tensors])

        batch = {
            "pixel_values": torch.stack([_pad(x["pixel_values"], height, width, mode="replicate") for x in samples]),
            "pixel_mask": stack([sample["pixel_mask"] for sample in samples], False),
            "labels": {name: stack([s["labels"][name] for s in samples], invalid) for name, invalid in self._invalid},
            "index": torch.tensor([sample["index"] for sample in samples]),
        }
        if "teacher" in samples[0]:
            names = samples[0]["teacher"]
            batch["teacher"] = {name: torch.stack([sample["teacher"][name] for sample in samples]) for name in names}
        return batch


def _pad(tensor: Tensor, height: int, width: int, **how: Any) -> Tensor:
    """(..., h, w) -> (..., height, width), the content at the top left."""
    h, w = tensor.shape[-2:]
    return tensor if (h, w) == (height, width) else F.pad(tensor, (0, width - w, 0, height - h), **how)
