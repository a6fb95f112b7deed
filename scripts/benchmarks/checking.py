"""Checking a data set (`prepare_data.py --check_only`) with one process and with several, in wall time.

The tree holds as many miniature rendered rooms as NYUD-v2 has images, so checking is timed and not the decoding of large files;
with `--data_dir` it is yours.
"""

from argparse import Namespace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.data import write_tree
from benchmarks.harness import race, report
from dataset_loaders import open_dataset
from dataset_loaders.inspection import inspect_split

OPTIONS = {"data_dir": "", "num_images": 1449, "image_height": 85, "image_width": 112, "num_proc": 2}
QUICK = {"num_images": 60, "rounds": 2}


def run(args: Namespace) -> dict[str, Any]:
    """Measure and print."""
    with TemporaryDirectory() as folder:
        tree = Path(args.data_dir) if args.data_dir else write_tree(Path(folder) / "NYUDv2", args)
        dataset = open_dataset("nyud_v2", "train", data_dir=tree)
        names = {"1 process": 1, f"{args.num_proc} processes": args.num_proc}
        checks = {name: partial(inspect_split, dataset, n, progress=False) for name, n in names.items()}
        found = report(f"{len(dataset)} samples", race(checks, args, wall=True), "1 process")
    return {"images": len(dataset), "checks": found}
