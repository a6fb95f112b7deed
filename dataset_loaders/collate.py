"""Batches of transformed samples; images of different sizes are padded on the right and bottom.

Padding is no label: it gets the task's own invalid value and `pixel_mask` is False there.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kdam_hf.errors import DataIntegrityError
from kdam_hf.tasks import Task


class Collator:
    """Stack samples, as made by `TrainTransform` or `EvalTransform` for `tasks`, into one batch."""

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
                    f"sample {sample['id']!r} (index {sample['index']}): pixel_values holds NaN or infinity; check this image "
                    "and the transform."
                )
        sizes = [sample["pixel_values"].shape[-2:] for sample in samples]
        height, width = (max(side) for side in zip(*sizes, strict=True))

        def stack(tensors: Iterable[Tensor], **how: Any) -> Tensor:
            padding = ((t, (0, width - t.shape[-1], 0, height - t.shape[-2])) for t in tensors)
            return torch.stack([F.pad(tensor, sides, **how) if any(sides) else tensor for tensor, sides in padding])

        batch = {
            "pixel_values": stack((sample["pixel_values"] for sample in samples), mode="replicate"),
            "pixel_mask": stack((sample["pixel_mask"] for sample in samples), value=False),
            "labels": {
                name: stack((sample["labels"][name] for sample in samples), value=invalid)
                for name, invalid in self._invalid
            },
            "index": torch.tensor([sample["index"] for sample in samples]),
        }
        if "teacher" in samples[0]:
            names = samples[0]["teacher"]
            batch["teacher"] = {name: torch.stack([sample["teacher"][name] for sample in samples]) for name in names}
        return batch
