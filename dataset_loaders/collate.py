"""Batches of transformed samples; images of different sizes are padded on the right and bottom.

Padding is no label: it gets the task's own invalid value and `pixel_mask` is False there.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

from kdam_hf.errors import DataIntegrityError
from kdam_hf.tasks import Task


class Collator:
    """Stack samples, as made by `TrainTransform` or `EvalTransform` for `tasks`, into one batch."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tuple(tasks)

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
        views = [pad_view(sample, (height, width), self._tasks) for sample in samples]
        return default_collate([{key: value for key, value in view.items() if key != "id"} for view in views])


def pad_view(view: dict[str, Any], size: tuple[int, int], tasks: Sequence[Task]) -> dict[str, Any]:
    """A transformed sample, no larger than `size` (height, width), at the top left of it; with the labels of `tasks`."""
    rows, columns = view["pixel_mask"].shape
    sides = (0, size[1] - columns, 0, size[0] - rows)

    def padded(tensor: Tensor, **how: Any) -> Tensor:
        return F.pad(tensor, sides, **how) if any(sides) else tensor

    return view | {
        "pixel_values": padded(view["pixel_values"], mode="replicate"),
        "pixel_mask": padded(view["pixel_mask"], value=False),
        "labels": {task.name: padded(view["labels"][task.name], value=task.label.invalid) for task in tasks},
    }
