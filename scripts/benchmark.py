"""Measure one part of the project beside what it replaces, in one run.

    python scripts/benchmark.py data --output data_cpu.json
    python scripts/benchmark.py boundaries --output boundaries_cpu.json
    python scripts/benchmark.py boundaries --images DIR/images --edges DIR/edge --output boundaries_cpu.json

Prints tables; `--output` writes every number, the settings and the machine to a JSON file. Set OMP_NUM_THREADS=1 for
figures per core.
"""

import os
import platform
import shlex
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from datetime import UTC, datetime
from importlib import import_module, metadata
from typing import Any

from kdam_hf.training import run_command
from kdam_hf.training.report import hardware, versions, write_json

SECTIONS = {
    "boundaries": "boundary matching beside the matcher behind published numbers",
    "checking": "checking a data set with one process and with several",
    "data": "reading and augmenting from the training cache beside the usual chain of the field",
}
OPTIONAL_PACKAGES = ("scipy", "numba", "scikit-image", "pyedgeeval", "opencv-python-headless")
SETTINGS = ("OMP_NUM_THREADS", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    sections = parser.add_subparsers(dest="section", required=True)
    for name, text in SECTIONS.items():
        subparser = sections.add_parser(name, help=text, formatter_class=RawDescriptionHelpFormatter)
        if name in argv[:1]:  # the others are not imported: each may need packages of its own
            section = import_module(f"benchmarks.{name}")
            subparser.description = section.__doc__
            section.add_arguments(subparser)
        subparser.add_argument("--output", help="JSON file to write")
    args = parser.parse_args(argv)
    facts = {"section": args.section, "command": command(argv), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    result = {**facts, "machine": machine(), **section.run(args)}
    if args.output:
        write_json(args.output, result)
        print(f"written to {args.output}")


def command(argv: list[str]) -> str:
    """What was typed, without the folder the script lies in."""
    return shlex.join(["python", "scripts/benchmark.py", *argv])


def machine() -> dict[str, Any]:
    """Processor, cores, load, settings of the environment and versions."""
    installed = {package: _version(package) for package in OPTIONAL_PACKAGES}
    return {
        "hardware": hardware(),
        "platform": platform.machine(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "environment": {name: os.environ.get(name) for name in SETTINGS},
        "versions": versions() | installed,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    run_command(main)
