"""Is it the same? Hashes of files, names and weights, and the differences between two sets of facts.

The questions "same run, same data, same teacher, same score?" are all answered by `differences` of two flat dicts.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lines_sha256(lines: Iterable[str]) -> str:
    """SHA-256 of texts joined by newlines, such as the ids of a split."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def tensors_sha256(module: nn.Module) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def flatten(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with dotted keys, values as JSON has them."""
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.loads(json.dumps(value, default=str))
    return flat


def differences(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    ignore: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> list[str]:
    """`key before -> now` for every key whose values differ; an empty list means the same.

    Args:
        before: facts of what was there, nested or flat.
        now: facts of what is asked for.
        ignore: flat keys that do not count.
        defaults: the value of a key that one side lacks; None if it is not in here either.
    """
    sides = flatten(before), flatten(now)
    default = flatten(defaults or {})
    found = []
    for key in sorted((set(sides[0]) | set(sides[1])) - set(ignore)):
        # an absent list is as good as an empty one
        old, new = (None if value == [] else value for value in (side.get(key, default.get(key)) for side in sides))
        if old != new:
            found.append(f"{key} {old!s:.60} -> {new!s:.60}")
    return found
