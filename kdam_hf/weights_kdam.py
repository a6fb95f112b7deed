"""What makes loading strict: all weights of the architecture in one safetensors file, finite, and nothing else.

Unusual here: the errors are `ValueError`, because this file travels with published models and loads alone.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import cached_file

WEIGHTS = "model.safetensors"
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


def find_weights(name: Any, **options: Any) -> str:
    """The path of `model.safetensors` in a folder or Hub repository.

    Raises:
        OSError: no such folder or repository.
        ValueError: it holds no such file; pickles and lists of shards, which can name any file, are not looked at.
    """
    path = cached_file(str(name), WEIGHTS, _raise_exceptions_for_missing_entries=False, **options)
    if path is None:
        raise ValueError(
            f"{name}: no {WEIGHTS}; expected all weights in this one file, never in a pickle (.bin, .pt). If you trust the "
            "repository, convert it with save_pretrained."
        )
    return path


def refuse_incomplete(name: Any, info: Mapping[str, Any]) -> None:
    """Raise ValueError when the library's loading info tells of weights that did not fit the model."""
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(map(str, info[problem]))
        if keys:
            raise ValueError(
                f"{name}: {len(keys)} {problem.replace('_', ' ')}: {', '.join(keys[:5])}{' ...' if keys[5:] else ''}; expected "
                "exactly the weights of this architecture. The file is not a complete model of its config; save it again."
            )


def refuse_non_finite(name: Any, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError with the weights that hold NaN or infinity; quantised and offloaded ones are not looked at."""
    broken = [
        key
        for key, value in weights.items()
        if type(value) in (Tensor, nn.Parameter)
        and value.is_floating_point()
        and not value.is_meta
        and value.numel()
        # extremes pass NaN on, and are found faster than every value is tested
        and not torch.stack(value.detach().aminmax()).isfinite().all()
    ]
    if broken:
        raise ValueError(
            f"{name}: {len(broken)} weights are not finite: {', '.join(broken[:5])}{' ...' if broken[5:] else ''}. The "
            "training that saved them had diverged; use an earlier checkpoint."
        )
