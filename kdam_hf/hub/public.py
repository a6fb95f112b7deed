"""What may leave the machine: records of a run without the places where it was carried out.

Records follow two rules. Keys that name a place lose any value that is not an id on the Hub; elsewhere, any text is left
out that holds a path from the root, from home, or from `.` or `..`, at its start or behind a blank or a sign, or an address
`file:`. A bare `a/b` under other keys stays, as it may be a unit or a metric. Secrets are left out by their keys.

The configuration of a model follows another: it holds names that users chose, a class `/m/01g317` among them, and must stay
whole. Only what it was loaded from is left out.
"""

import re
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

ORIGIN = "_name_or_path"
SECRETS = {"hub_token", "token"}
PLACES = {
    *("model", "data_dir", "teacher", "backbone_weights", "output_dir", "cache_dir", "teacher_cache", "single_task"),
    *("resume_from_checkpoint", "logging_dir", "predictions", "ids", ORIGIN),
}
# /home/me, ~/x, C:\x, \\host\x, ./x and ../x, alone or behind a sign as in NAME=/home/me; file:/x and file:///x
_PATH = re.compile(r"""(?:^|[\s=:;,|&@'"`(\[{<>])(?:/(?=\w)|~|\.{1,2}/|[A-Za-z]:[\\/]|\\\\)|\bfile:/""", re.IGNORECASE)
_WORDS = {"preset", "none"}


def public(value: Any, key: str = "") -> Any:
    """A copy of JSON data that names no place on this machine and no secret; entries that do are gone.

    Args:
        value: dicts, lists, texts, numbers.
        key: the key it stands under.
    """
    if isinstance(value, dict):
        kept = {name: public(item, name if key not in PLACES else key) for name, item in value.items()}
        return {
            name: item
            for name, item in kept.items()
            if name not in SECRETS and (item is not None or value[name] is None)
        }
    if isinstance(value, (list, tuple)):
        kept_items = [(item, public(item, key)) for item in value]
        items = [after for before, after in kept_items if after is not None or before is None]
        return None if value and not items else items
    if isinstance(value, str) and (_PATH.search(value) or (key in PLACES and not is_public_name(value))):
        return None
    return value


def public_config(value: Any) -> Any:
    """A copy of a config.json without the folders, at any depth, that it was loaded from; nothing else is changed.

    Args:
        value: dicts, lists, texts, numbers.
    """
    if isinstance(value, dict):
        return {
            name: public_config(item) for name, item in value.items() if name != ORIGIN or is_public_name(str(item))
        }
    return [public_config(item) for item in value] if isinstance(value, list) else value


def is_public_name(text: str) -> bool:
    """Whether `text` names something on the Hub (`org/name`, and no folder here), or is a word of a recipe."""
    if text in _WORDS:
        return True
    if text.count("/") != 1 or Path(text).exists():
        return False
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return True
