"""What a run leaves behind: facts about the model and a flat results.json."""

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kdam_hf.modeling_kdam import KdamPreTrainedModel

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
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return f"{os.cpu_count()} cores, {names[0] if names else platform.machine()}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def write_results(path: str | Path, metrics: Mapping[str, float], meta: Mapping[str, Any]) -> None:
    """Write `{"semseg/miou": ..., ..., "meta": {...}}`, complete or not at all."""
    write_json(path, {**metrics, "meta": {**meta, "versions": versions()}})


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON through a temporary file, so that a reader never sees half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".json.tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, path)
