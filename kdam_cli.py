"""Runs kdam_hf/__main__.py as a file: importing the package, as `python -m kdam_hf` does, loads torch."""

from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any


def main() -> None:
    """The command `kdam`."""
    package: Any = find_spec("kdam_hf")
    specification: Any = spec_from_file_location("kdam_hf_command", Path(package.origin).with_name("__main__.py"))
    command = module_from_spec(specification)
    specification.loader.exec_module(command)
    command.main()
