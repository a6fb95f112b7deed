"""JSON as every reader has it: without NaN, which Python writes and others refuse."""

import json
import math
from collections.abc import Mapping
from typing import Any


def to_json(content: Any, sort_keys: bool = False) -> str:
    """Indented text of plain data; NaN and infinity are null."""
    return json.dumps(_finite(content), indent=1, sort_keys=sort_keys, allow_nan=False) + "\n"


def as_scores(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a results.json holds, where a score that nothing defines is null: that is NaN again."""
    return {key: math.nan if value is None else value for key, value in content.items()}


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
