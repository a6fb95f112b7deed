"""What a run leaves behind: facts about the model, a flat results.json and a table of it."""

import math
import os
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kdam_hf.io import write_json
from kdam_hf.metrics import PROTOCOLS
from kdam_hf.modeling_kdam import KdamPreTrainedModel
from kdam_hf.tasks import Task

PACKAGES = ("kdam-hf", "torch", "transformers", "accelerate", "datasets", "numpy", "pillow")


@torch.inference_mode()
def describe_model(model: KdamPreTrainedModel, height: int, width: int) -> dict[str, Any]:
    """Size and cost of a model.

    Returns:
        `parameters`; `gflops` of one image of height x width pixels, counted as 2 x multiply-adds; `gflops_size`.
    """
    was_training = model.training
    model.eval()
    # fused attention on the CPU would not be counted
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(torch.zeros(1, 3, height, width, device=model.device))
    model.train(was_training)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflops": round(counter.get_total_flops() / 1e9, 3),
        "gflops_size": [height, width],
    }


def versions() -> dict[str, str]:
    """Python and the packages that numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def hardware() -> str:
    """The device a number was measured on, in words."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    path = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*: (.*)$", path.read_text("utf-8") if path.exists() else "", re.MULTILINE)
    return f"{os.cpu_count()} cores, {named[1] if named else platform.machine()}"


def write_results(path: str | Path, metrics: Mapping[str, float], meta: Mapping[str, Any]) -> None:
    """Write `{"semseg/miou": ..., ..., "meta": {...}}`, complete or not at all."""
    write_json(path, {**metrics, "meta": {**meta, "versions": versions()}})


def results_table(metrics: Mapping[str, float], meta: Mapping[str, Any], tasks: Sequence[Task]) -> str:
    """Markdown: every `task/metric`, those that papers report first in bold, and what was scored under which settings."""
    better = {f"{task.name}/{task.primary_metric}": "↑" if task.higher_is_better else "↓" for task in tasks}
    lines = ["| task | metric | value |", "| --- | --- | --- |"]
    for key, value in metrics.items():
        task, _, name = key.rpartition("/")
        number = "–" if math.isnan(value) else f"{value:.3f}"
        first = f"**{name}** {better[key]} | **{number}**" if key in better else f"{name} | {number}"
        lines.append(f"| {task or 'all'} | {first} |")
    protocol = PROTOCOLS[meta["protocol"]]
    settings = [f"{name} `{meta[name]}`" for name in ("protocol", "boundaries") if name in meta]
    whose = f"model `{meta['model']}`" if "model" in meta else f"predictions in `{meta['predictions']}`"
    listed = f", those of `{meta['ids']}`" if meta.get("ids") else ""
    lines += [
        "",
        f"{whose[0].upper()}{whose[1:]}; {meta['images']} images of {meta['data']} {meta['split']}{listed}; "
        f"{', '.join(settings)}. {meta['hardware']}, {meta['date']}.",
    ]
    if any(key.startswith("agreement/") for key in metrics):
        photos = f" Held-out photos: {meta['held_out_photos']}." if "held_out_photos" in meta else ""
        lines.append(f"`agreement/`: against the teacher's decisions, where there are no labels; not accuracy.{photos}")
    if meta["protocol"] != "ours":
        lines.append(f"Protocol `{meta['protocol']}`: {protocol.differs} (against `ours`). Source: {protocol.source}.")
    for task, path in meta.get("single_task", {}).items():
        lines.append(f"Reference of delta_m for {task}: `{path}`.")
    return "\n".join(lines) + "\n"
