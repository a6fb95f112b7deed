"""Heads: a student of four tasks beside one of a single task, on the same backbone, per preset and kind of head."""

from argparse import Namespace
from functools import partial
from typing import Any

import torch

from benchmarks.harness import make_model, race, ratio, report, target
from kdam_hf.configuration_kdam import HEAD_NAMES
from kdam_hf.tasks import NYUD_V2

OPTIONS = {"presets": ["efficientnet-lite0", "resnet18", "pvt-v2-b0", "swin-tiny"], "height": 240, "width": 320}
QUICK = {"presets": ["tiny-efficientnet-lite"], "height": 96, "width": 128, "rounds": 2}
FOUR, ONE = "four tasks", "one task"


@torch.inference_mode()
def run(args: Namespace) -> dict[str, Any]:
    """Measure and print."""
    image = torch.zeros(1, 3, args.height, args.width, device=args.device)
    found, targets = {}, []
    for preset in args.presets:
        for head in HEAD_NAMES:
            kinds = {FOUR: NYUD_V2, ONE: NYUD_V2[:1]}
            models = {name: make_model("student", preset, args, tasks, head=head) for name, tasks in kinds.items()}
            timings = race({name: partial(model.eval(), image) for name, model in models.items()}, args)
            found[f"{preset}, {head}"] = report(f"{preset}, {head}", timings, ONE)
            if head == "separable":
                targets.append(target(f"{preset}, {head}: {FOUR} / {ONE}", ratio(timings, FOUR, ONE), at_most=1.25))
    return {"heads": found, "targets": targets}
