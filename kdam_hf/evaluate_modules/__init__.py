"""The metrics as a module of the `evaluate` library: `evaluate.load(module_path(), "depth")`.

Unusual here: the folder `kdam` is a whole metric repository (module and card) that `evaluate` copies and loads by path, so it
is data of this package and not a package itself. Nothing here imports `evaluate` before it is used.
"""

from pathlib import Path


def module_path() -> str:
    """Folder of the module, for `evaluate.load` or for uploading as a metric repository."""
    return str(Path(__file__).parent / "kdam")


__all__ = ["module_path"]
