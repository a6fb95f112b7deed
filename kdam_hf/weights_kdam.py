"""What makes loading strict: all weights of the architecture in safetensors, finite, and nothing else.

Unusual here: the errors are `ValueError`, because this file travels with published models and loads alone.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import cached_file
from transformers.utils.hub import is_offline_mode

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


def find_weights(name: Any, **options: Any) -> list[str]:
    """The paths of `model.safetensors`, or of its shards in order, in a folder or Hub repository.

    Raises:
        OSError: no such folder or repository, or a shard is missing.
        ValueError: it holds no such file, or a list of shards with other names, which could name any file; pickles are not
            looked at.
    """
    whole, index = (
        cached_file(str(name), file, _raise_exceptions_for_missing_entries=False, **options)
        for file in (WEIGHTS, INDEX)
    )
    if whole is not None:
        return [whole]
    if index is None and is_offline_mode() and not Path(name).is_dir():
        raise OSError(f"{name}: {WEIGHTS} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it.")
    if index is None:
        expected = "expected all weights in this file or its shards, never in a pickle (.bin, .pt)"
        raise ValueError(
            f"{name}: no {WEIGHTS}; {expected}. If you trust the repository, save it again as safetensors."
        )
    try:
        shards = sorted(set(json.loads(Path(index).read_text("utf-8"))["weight_map"].values()))
        strange = [shard for shard in shards if not SHARD.fullmatch(shard)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{name}: no {WEIGHTS}, and {INDEX} lists no shards ({error!r}). Save it again.") from error
    if strange or not shards:
        raise ValueError(
            f"{name}: no {WEIGHTS}, and {INDEX} lists {strange}; expected model-00001-of-00002.safetensors."
        )
    return [cached_file(str(name), shard, **options) for shard in shards]


def refuse_incomplete(name: Any, info: Mapping[str, Any]) -> None:
    """Raise ValueError when the library's loading info tells of weights that did not fit the model."""
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(map(str, info[problem])):
            raise ValueError(
                f"{name}: {len(keys)} {problem.replace('_', ' ')}: {', '.join(keys[:5])}{' ...' if keys[5:] else ''}; expected "
                "exactly the weights of this architecture. The file is not a complete model of its config; save it again."
            )


def refuse_non_finite(name: Any, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError with the weights that hold NaN or infinity; quantised and offloaded ones are not looked at."""
    plain = {key: value for key, value in weights.items() if type(value) in (Tensor, nn.Parameter)}
    looked_at = ((k, x) for k, x in plain.items() if x.is_floating_point() and not x.is_meta and x.numel())
    # extremes pass NaN on, and are found faster than every value is tested
    broken = [key for key, value in looked_at if not torch.stack(value.detach().aminmax()).isfinite().all()]
    if broken:
        some = f"{', '.join(broken[:5])}{' ...' if broken[5:] else ''}"
        remedy = "The training that saved them had diverged; use an earlier checkpoint."
        raise ValueError(f"{name}: {len(broken)} weights are not finite: {some}. {remedy}")
