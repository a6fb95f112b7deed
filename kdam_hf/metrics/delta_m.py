"""The multi-task gain over single-task models, in percent."""

import math
from collections.abc import Iterable

from kdam_hf.errors import KdamValueError


def delta_m(results: Iterable[tuple[float, float, bool]]) -> float:
    """Mean over tasks of the signed relative gain over a reference, in percent; positive is better, NaN if a value is NaN.

    Args:
        results: one (value, reference, higher_is_better) per task, of its primary metric. For errors, such as depth
            `rmse` and normals `mean_angle`, `higher_is_better` is False and a smaller value is a gain.

    Raises:
        KdamValueError: no task, or a reference that is not a finite number above zero.

    Source:
        Maninis, Radosavovic, Kokkinos, CVPR 2019 (arXiv:1904.08918), average per-task drop.
    """
    gains = []
    for value, reference, higher_is_better in results:
        if not 0 < reference < math.inf:
            raise KdamValueError(
                f"reference {reference} for value {value}: a relative gain needs a finite single-task number above zero"
            )
        gains.append((1 if higher_is_better else -1) * (value - reference) / reference)
    if not gains:
        raise KdamValueError("no task was given: delta_m is a mean over tasks, give at least one")
    return 100 * math.fsum(gains) / len(gains)
