"""Sizes: parameters and GFLOPs of teacher and student on every preset, with the four tasks of NYUD-v2, as a table of Markdown.

GFLOPs count 2 x multiply-adds. Models stand on torch's meta device, so nothing is computed and nothing is timed.
"""

from argparse import Namespace
from typing import Any

import torch

from benchmarks.harness import make_model
from kdam_hf.presets import PRESETS
from kdam_hf.training import describe_model

OPTIONS = {"presets": [name for name, backbone in PRESETS.items() if backbone.weights], "height": 480, "width": 640}
QUICK = {"height": 64, "width": 64}


def run(args: Namespace) -> dict[str, Any]:
    """Count and print."""
    args.device, found = "meta", {}
    print("\n| preset | public weights | student, M | GFLOPs | teacher, M | GFLOPs |\n" + 6 * "| --- " + "|")
    for preset in args.presets:
        cells = [f"`{preset}`", f"`{PRESETS[preset].weights}`"]
        for role in ("student", "teacher"):
            with torch.device("meta"):
                size = describe_model(make_model(role, preset, args), args.height, args.width)
            found[f"{preset}, {role}"] = size
            digits = 0 if size["gflops"] >= 10 else 1
            cells += [f"{size['parameters'] / 1e6:.1f}", f"{size['gflops']:.{digits}f}"]
        print(f"| {' | '.join(cells)} |", flush=True)
    return {"models": found}
