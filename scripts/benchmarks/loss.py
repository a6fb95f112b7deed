"""Loss: supervised losses and a match with the teacher, forward and backward from stride-4 logits; time and peak memory.

The opponent upsamples every map to full resolution and computes cross-entropy and Cauchy-Schwarz with eager operations. The
teacher's logits are the student's plus noise, as late in training. Peak memory counts what the process grows by, on Linux or
CUDA; freed memory is given back before each measurement. `--tasks` are those of NYUD-v2.
"""

import ctypes
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import plain
from benchmarks.harness import race, ratio, report, spread, target
from benchmarks.models import make_batch
from kdam_hf.distillation import METHODS, make_method
from kdam_hf.objective import Objective
from kdam_hf.tasks import NYUD_V2

OPTIONS = {"height": 448, "width": 576, "batch_size": 4, "tasks": ["semseg"], "temperature": 4.0, "beta": 0.5}
QUICK = {"batch_size": 1, "height": 96, "width": 128, "rounds": 2}
USUAL, USUAL_SMALL, CS = "upsample, eager losses, CS", "the same, CS at stride 4", "ours, cs"
CLEAR_REFS = Path("/proc/self/clear_refs")


def run(args: Namespace) -> dict[str, Any]:
    """Measure and print."""
    small = Namespace(**vars(args) | {"batch_size": 1, "height": 64, "width": 64})
    for call in make_losses(small).values():
        call()  # loads code, which would be counted otherwise
    losses = make_losses(args)
    peaks = {name: peak_mib(call, args.device) for name, call in losses.items()}
    timings = race(losses, args)
    found = report("forward and backward", timings, USUAL, peak_mib=peaks)
    targets = [target("time of ours, cs / upsample, eager losses, CS", ratio(timings, CS, USUAL), at_most=0.5)]
    if peaks[USUAL]:
        targets.append(target("peak memory of the same", spread([peaks[CS] / peaks[USUAL]]), at_most=0.2))
    return {"losses": found, "targets": targets}


def make_losses(args: Namespace) -> dict[str, Callable[[], tuple[Tensor, dict[str, Tensor]]]]:
    """Variant -> computes the loss and its gradient on the same random logits and rendered labels."""
    batch, generator = make_batch(args), torch.Generator().manual_seed(args.seed)
    tasks = tuple(task for task in NYUD_V2 if task.name in args.tasks)
    student, teacher = {}, {}
    for task in tasks:
        shape = args.batch_size, task.channels, args.height // 4, args.width // 4
        logits, noise = (torch.randn(shape, generator=generator).to(args.device) for _ in range(2))
        student[task.name], teacher[task.name] = 3 * logits, 3 * logits + noise
    settings = {"temperature": args.temperature, "beta": args.beta}
    usual = partial(plain.objective, tasks, **settings)
    variants = {USUAL: usual, USUAL_SMALL: partial(usual, match_full=False)}

    def ours(objective: Objective, maps: plain.Maps, batch: dict[str, Any], teacher: plain.Maps) -> Tensor:
        return objective.total(objective(maps, batch["labels"], batch["pixel_mask"], teacher))

    for name in ("none", *(name for name, method in METHODS.items() if not method.needs_features)):
        variants[f"ours, {name}"] = partial(ours, Objective(tasks, make_method(name, tasks, **settings)))

    def differentiate(loss: Callable[..., Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        leaves = {name: x.detach().requires_grad_() for name, x in student.items()}
        value = loss(leaves, batch, teacher)
        value.backward()
        return value.detach(), {name: x.grad for name, x in leaves.items()}

    return {name: partial(differentiate, loss) for name, loss in variants.items()}


def peak_mib(call: Callable[[], object], device: str) -> float | None:
    """MiB this process grows by at the peak of a call; None where that cannot be measured."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if not CLEAR_REFS.exists():
        return None
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that the allocator kept would be used again unseen
    CLEAR_REFS.write_text("5")  # the peak restarts from what is held now
    status, peaks = Path("/proc/self/status"), []
    for step in (lambda: None, call):
        step()
        peaks.append(int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024)
    return peaks[1] - peaks[0]
