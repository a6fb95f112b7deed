"""YAML files of users: one mapping, its scalars as they are written, no key twice."""

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from kdam_hf.errors import KdamValueError


def read_yaml(path: str | Path, what: str) -> dict[str, Any]:
    """Keys and values; scalars are texts, so that words such as `off` and `no` stay words.

    Args:
        what: the file, for messages.

    Raises:
        OSError: it cannot be read.
        KdamValueError: not valid YAML in UTF-8, no mapping, or a key twice, of which the first would be lost.
    """
    try:
        loader = yaml.BaseLoader(Path(path).read_text("utf-8"))
        node: Any = loader.get_single_node()
        content = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise KdamValueError(f"{what} is not valid YAML in UTF-8: {error}") from error
    if not isinstance(content, dict):
        raise KdamValueError(f"{what} holds a {type(content).__name__}; expected lines of the form 'key: value'.")
    if twice := [key for key, count in Counter(key.value for key, _ in node.value).items() if count > 1]:
        raise KdamValueError(f"{what} holds {', '.join(twice)} twice; leave one.")
    return content
