"""The metrics as modules of the `evaluate` library: `evaluate.load(module_path("depth"))`.

Unusual here: each folder `kdam_<task>` is a whole metric repository (module and card) that `evaluate` copies and loads by
path, so the folders are data of this package and not packages themselves. Nothing here imports `evaluate` before it is used.
"""

from pathlib import Path

from kdam_hf.errors import KdamValueError

_ROOT = Path(__file__).parent
_PREFIX = "kdam_"


def module_path(task: str) -> str:
    """Folder of the `evaluate` module for a task, for `evaluate.load` or for uploading as a metric repository.

    Raises:
        KdamValueError: no module for this task.
    """
    available = sorted(folder.name.removeprefix(_PREFIX) for folder in _ROOT.glob(f"{_PREFIX}*"))
    if task not in available:
        raise KdamValueError(f"no evaluate module for {task!r}; expected one of {', '.join(available)}")
    return str(_ROOT / f"{_PREFIX}{task}")


__all__ = ["module_path"]
