"""Starts kdam_hf/__main__.py as a file: importing the package, as `python -m kdam_hf` does, loads torch."""

import runpy
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    """The command `kdam`."""
    runpy.run_path(str(Path(find_spec("kdam_hf").origin).with_name("__main__.py")))["main"]()  # type: ignore
