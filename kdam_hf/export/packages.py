"""The packages of the extra `export`, and silence about things that are as they should be."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from kdam_hf.errors import KdamValueError

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def missing_packages() -> list[str]:
    """What would have to be installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def require_packages() -> None:
    """Raise KdamValueError unless ONNX files can be written and run."""
    missing = missing_packages()
    if missing:
        raise KdamValueError(f"ONNX needs {', '.join(missing)}: pip install 'kdam-hf[export]'")


@contextmanager
def quiet() -> Iterator[None]:
    """Without advice on what is meant, such as that torchvision is missing; what was silent before stays so."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
