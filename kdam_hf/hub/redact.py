"""Remove local paths and secrets from what is published.

Records of a run: keys that name a place keep ids on the Hub only; under other keys a text that holds an absolute, home or
dotted path, or a `file:` address, is dropped. A bare `a/b` may be a unit or a metric and stays. Secrets go by their keys.
A model's configuration must stay whole, class names such as `/m/01g317` included: only `_name_or_path` is looked at.
"""

import re
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from kdam_hf.io import source_parts

ORIGIN = "_name_or_path"
SECRETS = {"hub_token", "token"}
PLACES = {
    *("model", "teacher", "teacher_cache", "backbone_weights", "single_task", "predictions", "ids"),
    *("resume_from_checkpoint", "images", "unlabeled", ORIGIN),
}
# /home/me, ~/x, C:\x, \\host\x, ./x and ../x, alone or behind a sign as in NAME=/home/me; file:/x and file:///x
_PATH = re.compile(r"""(?:^|[\s=:;,|&@'"`(\[{<>])(?:/(?=\w)|~|\.{1,2}/|[A-Za-z]:[\\/]|\\\\)|\bfile:/""", re.IGNORECASE)
_WORDS = {"preset", "none"}


def redact(value: Any, key: str = "") -> Any:
    """A copy of JSON data under `key` without local paths and secrets; None where nothing is left of a text or list."""
    if isinstance(value, dict):
        kept = {name: redact(item, key if _is_place(key) else name) for name, item in value.items()}
        return {k: item for k, item in kept.items() if k not in SECRETS and (item is not None or value[k] is None)}
    if isinstance(value, (list, tuple)):
        pairs = [(item, redact(item, key)) for item in value]
        items = [after for before, after in pairs if after is not None or before is None]
        return None if value and not items else items
    if isinstance(value, str) and (_PATH.search(value) or (_is_place(key) and not is_hub_name(value))):
        return None
    if isinstance(value, str) and (key == "class_map" or (key == "preset" and _is_folder(value))):
        return None  # of these, other values are data, and names of ours
    return value


def redact_config(value: Any) -> Any:
    """A copy of a config.json without the local folders, at any depth, that it was loaded from."""
    if isinstance(value, dict):
        return {k: redact_config(item) for k, item in value.items() if k != ORIGIN or is_hub_name(str(item))}
    return [redact_config(item) for item in value] if isinstance(value, list) else value


def is_hub_name(text: str) -> bool:
    """Whether `text` is `org/name` or `org/name:configuration` and no folder here, or a word of a recipe such as `preset`."""
    place, _ = source_parts(text)
    return text in _WORDS or (is_repo_id(place) and not Path(place).exists())


def is_repo_id(text: str) -> bool:
    """Whether `text` has the form `org/name`."""
    try:
        validate_repo_id(text)
        return text.count("/") == 1
    except HFValidationError:
        return False


def _is_folder(preset: str) -> bool:
    return "/" in preset and not preset.startswith("timm/") and not is_hub_name(preset)


def _is_place(key: str) -> bool:
    return key in PLACES or key.endswith("_dir")
