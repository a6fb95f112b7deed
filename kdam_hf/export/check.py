"""What was exported against the model it came from, on several batches and sizes."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdam_hf.errors import ExportError
from kdam_hf.modeling_kdam import KdamPreTrainedModel

# Rounding of untrained models reaches 2e-4. A wrong graph can be as close as 1e-4 (the pooling of a teacher whose size is
# open), so what is known to go wrong is ruled out by `graph.choose_size`, not here.
TOLERANCE = 1e-3
# (batch, height, width): sides that are multiples of 32, barely above one, odd, and less than a patch
OPEN = ((1, 64, 96), (3, 33, 130), (2, 127, 250), (1, 9, 40))


@dataclass(frozen=True)
class Difference:
    """The largest difference in one task.

    Args:
        absolute: in the unit of the prediction: logits, metres, components of unit vectors.
        relative: to the largest value that the model predicts.
        shape: (batch, height, width) where the relative one is largest.
    """

    absolute: float
    relative: float
    shape: tuple[int, int, int]


def checked_shapes(size: tuple[int, int] | None, trained_at: Iterable[int] | None) -> list[tuple[int, int, int]]:
    """(batch, height, width) that are tried.

    Args:
        size: (height, width) of the graph; None for one of any size.
        trained_at: (height, width) of the images the model was trained on, if known.
    """
    if size is not None:
        return [(batch, *size) for batch in (1, 3)]
    if trained_at is None:
        return list(OPEN)
    height, width = trained_at
    return [*OPEN, (1, height, width)]


def largest_differences(
    model: KdamPreTrainedModel,
    exported: Callable[[Tensor], Mapping[str, Tensor]],
    shapes: Iterable[tuple[int, int, int]],
    seed: int = 0,
) -> dict[str, Difference]:
    """Run both on the same normal noise.

    Args:
        model: in evaluation mode.
        exported: pixel values (B, 3, H, W) float32 -> predictions by task.
        shapes: (batch, height, width) to try.
        seed: of the noise.

    Returns:
        Per task the largest difference over all shapes; infinite where something is not finite.

    Raises:
        ExportError: another shape than the model's.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Difference] = {}
    for batch, height, width in shapes:
        pixels = torch.randn(batch, 3, height, width, generator=generator)
        with torch.no_grad():
            expected, got = model(pixels).predictions, exported(pixels)
        for name, truth in expected.items():
            if got[name].shape != truth.shape:
                raise ExportError(
                    f"{name}: for {tuple(pixels.shape)} the exported graph yields {tuple(got[name].shape)}, the model "
                    f"{tuple(truth.shape)}. Nothing was written. If its size is open, try --height and --width."
                )
            absolute = (got[name] - truth).abs().max().nan_to_num(math.inf).item()
            largest = truth.abs().max().item()
            relative = absolute / max(largest, 1e-30) if math.isfinite(largest) else math.inf
            before = found.get(name, Difference(0.0, -1.0, (0, 0, 0)))
            where = (batch, height, width) if relative > before.relative else before.shape
            found[name] = Difference(max(before.absolute, absolute), max(before.relative, relative), where)
    return found


def refuse_differences(found: Mapping[str, Difference], tolerance: float = TOLERANCE) -> None:
    """Raise ExportError when a task differs by more than `tolerance` of its largest value."""
    worst = max(found, key=lambda name: found[name].relative)
    difference = found[worst]
    if difference.relative > tolerance:
        raise ExportError(
            f"{worst}: the exported graph differs from the model by {difference.absolute:.2g}, {difference.relative:.2g} of "
            f"the largest value, on a batch of {difference.shape[0]} at {difference.shape[1]}x{difference.shape[2]}; expected "
            f"at most {tolerance:g}. Nothing was written. If its size is open, try --height and --width."
        )
