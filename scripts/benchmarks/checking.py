"""Checking a data set (`prepare_data.py --check_only`) with one process and with several, by the clock on the wall.

The tree is one of miniature rendered rooms, as many as NYUD-v2 has images, so that what is timed is the checking and not
the decoding of large files; with --data_dir it is yours.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.data import write_tree
from benchmarks.harness import claim, interleave, ratio, settings_of, spread, table
from dataset_loaders import open_dataset
from dataset_loaders.inspection import inspect_split

QUICK = {"num_images": 100, "rounds": 2}


def add_arguments(parser: ArgumentParser) -> None:
    """Options of this section."""
    parser.add_argument("--data_dir", help="NYUD-v2 in any layout; rendered rooms when left out")
    parser.add_argument("--num_images", type=int, default=1449)
    parser.add_argument("--image_height", type=int, default=85, help="of rendered rooms")
    parser.add_argument("--image_width", type=int, default=112, help="of rendered rooms")
    parser.add_argument("--num_proc", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)


def run(args: Namespace) -> dict[str, Any]:
    """Measure and print."""
    with TemporaryDirectory() as folder:
        tree = Path(args.data_dir) if args.data_dir else write_tree(Path(folder) / "NYUDv2", args)
        dataset = open_dataset("nyud_v2", "train", data_dir=tree)

        def check(num_proc: int) -> int:
            inspect_split(dataset, num_proc, progress=False)
            return len(dataset)

        names = {1: "1 process", args.num_proc: f"{args.num_proc} processes"}
        timings = interleave({name: lambda number, n=n: check(n) for n, name in names.items()}, args.rounds)
    gain = ratio(timings, names[1], names[args.num_proc], "wall_ms")
    print(f"\n{len(dataset)} samples checked, {args.rounds} rounds")
    print(table(["", "ms per sample (wall)"], [[name, spread(t["wall_ms"])["median"]] for name, t in timings.items()]))
    print(claim(f"images/s, {args.num_proc} processes over one", gain))
    return {"settings": settings_of(args, "data_dir"), "timings": timings, "ratio_wall": gain}
