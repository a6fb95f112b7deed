"""Measure one part of the project beside what it replaces, in one run.

    python scripts/benchmark.py data --output data_cpu.json
    python scripts/benchmark.py boundaries --output boundaries_cpu.json
    python scripts/benchmark.py boundaries --images DIR/images --edges DIR/edge --output boundaries_cpu.json
    python scripts/benchmark.py loss --device cuda --output loss_cuda.json
    python scripts/benchmark.py all --quick

Prints tables; `--output` writes every number, the settings and the machine to a JSON file. Set OMP_NUM_THREADS=1 for
figures per core. `--quick` takes small settings wherever no other is given, to see that everything works.
"""

import json
import os
import platform
import shlex
import subprocess
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from kdam_hf.errors import KdamError
from kdam_hf.training import run_command
from kdam_hf.training.report import hardware, versions, write_json

SECTIONS = {
    "boundaries": "boundary matching beside the matcher behind published numbers",
    "checking": "checking a data set with one process and with several",
    "data": "reading and augmenting from the training cache beside the usual chain of the field",
    "inference": "students beside their teacher: parameters, GFLOPs, latency in several forms",
    "loss": "the dense objective beside naive CS, KL, CWD and DIST: time, peak memory, errors",
    "step": "parts of a training step, and what each of ours saves of a plain one",
    "teachers": "one multi-task teacher beside one single-task teacher per task",
}
ALL = "all"
OPTIONAL_PACKAGES = (
    *("scipy", "numba", "triton", "scikit-image", "pyedgeeval", "opencv-python-headless"),
    *("onnx", "onnxscript", "onnxruntime"),
)
SETTINGS = ("OMP_NUM_THREADS", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    sections = parser.add_subparsers(dest="section", required=True)
    for name, text in {**SECTIONS, ALL: "one after the other"}.items():
        subparser = sections.add_parser(name, help=text, formatter_class=RawDescriptionHelpFormatter)
        subparser.add_argument("--output", help="JSON file to write")
        subparser.add_argument("--quick", action="store_true", help="small settings wherever no other is given")
        if name in argv[:1] and name != ALL:  # the others are not imported: each may need packages of its own
            section = import_module(f"benchmarks.{name}")
            subparser.description = section.__doc__
            section.add_arguments(subparser)
            if "--quick" in argv:
                subparser.set_defaults(**section.QUICK)
    args = parser.parse_args(argv)
    facts = {"section": args.section, "command": command(argv), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    found = run_all(args.quick) if args.section == ALL else section.run(args)
    if args.output:
        write_json(args.output, {**facts, "machine": machine(), **found})
        print(f"written to {args.output}")
    failed = [name for name, result in found.items() if args.section == ALL and set(result) == {"error"}]
    if failed:
        raise KdamError(f"{', '.join(failed)} failed, see above; the other sections are complete.")


def run_all(quick: bool) -> dict[str, Any]:
    """Every section in a process of its own; section -> what it wrote, or under `error` how it ended."""
    results: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        for name, text in SECTIONS.items():
            print(f"\n==== {name}: {text}\n", flush=True)
            output = Path(folder) / f"{name}.json"
            options = ["--output", str(output), *(["--quick"] if quick else [])]
            code = subprocess.run([sys.executable, __file__, name, *options], check=False).returncode
            results[name] = {"error": f"ended with code {code}"} if code else json.loads(output.read_text())
    return results


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
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
        "amx": torch.cpu._is_amx_tile_supported(),
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
