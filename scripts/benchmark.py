"""Measure one part of the project beside what it replaces, in one run.

    python scripts/benchmark.py data --output data_cpu.json
    python scripts/benchmark.py loss --device cuda --output loss_cuda.json
    python scripts/benchmark.py step --quick

Prints tables; `--output` writes every number, the settings and the machine to a JSON file. Set OMP_NUM_THREADS=1 for
figures per core. `--quick` takes small settings wherever no other is given, to see that everything works.
"""

import os
import shlex
import subprocess
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch
from benchmarks.harness import in_words

from kdam_hf.errors import KdamValueError
from kdam_hf.io import write_json
from kdam_hf.training import run_command
from kdam_hf.training.report import hardware, versions

SECTIONS = {
    "boundaries": "boundary matching beside the matcher behind published numbers",
    "data": "reading and augmenting prepared data beside the usual chain of the field",
    "heads": "a student of four tasks beside one of a single task",
    "inference": "models in several forms: parameters, GFLOPs, latency, error",
    "loss": "the dense objective beside upsampling and eager losses: time and peak memory",
    "sizes": "teacher and student on every preset: parameters, GFLOPs",
    "step": "a training step with a teacher online, replayed and without, beside a plain one",
}
COMMON = {"rounds": 5, "device": "cpu", "threads": 1, "seed": 0}
OPTIONAL_PACKAGES = ("scipy", "pyedgeeval", "opencv-python-headless", "onnx", "onnxscript", "onnxruntime")
ENVIRONMENT = ("OMP_NUM_THREADS", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    args = parse(argv)
    if args.device not in ("cpu", "cuda") or (args.device == "cuda" and not torch.cuda.is_available()):
        raise KdamValueError(f"--device {args.device}: expected cpu, or cuda if there is one; leave it out for the CPU")
    torch.set_num_threads(args.threads)
    settings = {name: value for name, value in vars(args).items() if name not in ("output", "section", "data_dir")}
    print(", ".join(f"{name} {value}" for name, value in settings.items()))
    facts = {"section": args.section, "command": shlex.join(["python", "scripts/benchmark.py", *argv]), **machine()}
    found = import_module(f"benchmarks.{args.section}").run(args)
    for each in [] if args.quick else found.get("targets", []):
        print(f"{each['what']}: {in_words(each)}, wanted {each['wanted']}: {'met' if each['met'] else 'NOT met'}")
    if args.output:
        write_json(args.output, facts | {"settings": settings, **found})
        print(f"written to {args.output}")


def parse(argv: list[str]) -> Namespace:
    """The command line; only the section that is asked for is imported, since each may need packages of its own."""
    kind = RawDescriptionHelpFormatter
    parser = ArgumentParser(description=__doc__, formatter_class=kind)
    sections = parser.add_subparsers(dest="section", required=True)
    subs = {name: sections.add_parser(name, help=text, formatter_class=kind) for name, text in SECTIONS.items()}
    if argv[:1] and argv[0] in subs:
        sub, section = subs[argv[0]], import_module(f"benchmarks.{argv[0]}")
        sub.description = section.__doc__
        sub.add_argument("--output", help="JSON file to write")
        sub.add_argument("--quick", action="store_true", help="small settings wherever no other is given")
        for option, default in (COMMON | section.OPTIONS).items():
            typed: dict[str, Any] = {"type": type(default)}
            if isinstance(default, list):
                typed = {"nargs": "+", "type": type(default[0])}
            elif isinstance(default, bool):
                typed = {"action": "store_true"}
            sub.add_argument(f"--{option}", default=default, help="default: %(default)s", **typed)
        if "--quick" in argv:
            sub.set_defaults(**section.QUICK)
    return parser.parse_args(argv)


def machine() -> dict[str, Any]:
    """Date, commit, processor, load, settings of the environment and versions."""
    installed = {each.name: each.version for each in metadata.distributions()}
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip(),
        "hardware": hardware(),
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "load_average": os.getloadavg(),
        "environment": {name: os.environ.get(name) for name in ENVIRONMENT},
        "versions": versions() | {name: installed.get(name) for name in OPTIONAL_PACKAGES},
    }


if __name__ == "__main__":
    run_command(main)
