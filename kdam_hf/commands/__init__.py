"""What the commands of `kdam` run: one module each; its docstring and the texts of its options are the first screen of help."""

from dataclasses import field
from typing import Any


def option(default: Any, text: str, **more: Any) -> Any:
    """A field of a dataclass of options, with its help; `more` is for argparse."""
    return field(default=default, metadata={"help": text, **more})


def required(text: str) -> Any:
    """One without a default."""
    return field(metadata={"help": text})
