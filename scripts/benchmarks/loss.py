"""Loss: supervised losses and a match with the teacher, forward and backward from stride-4 logits; time and peak memory.

The opponent upsamples every map to full resolution and computes cross-entropy and Cauchy-Schwarz with eager operations. The
teacher's logits are the student's plus noise, as late in training. Peak memory counts what the process grows by, on Linux or
CUDA; freed memory is given back before each measurement. `--tasks` are those of NYUD-v2.
"""

import ctypes
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.harness import make_batch, race, ratio, report, spread, target
from kdam_hf.distillation import METHODS, make_method
from kdam_hf.objective import Objective
from kdam_hf.tasks import NYUD_V2, Task

OPTIONS = {"height": 448, "width": 576, "batch_size": 4, "tasks": ["semseg"], "temperature": 2.0, "beta": 1.0}
QUICK = {"batch_size": 1, "height": 96, "width": 128, "rounds": 2}
USUAL, USUAL_SMALL, CS = "upsample, eager losses, CS", "the same, CS at stride 4", "ours, cs"
Maps = Mapping[str, Tensor]
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
    usual = partial(objective, tasks, **settings)
    variants = {USUAL: usual, USUAL_SMALL: partial(usual, match_full=False)}

    def ours(objective: Objective, maps: Maps, batch: dict[str, Any], teacher: Maps) -> Tensor:
        return objective.total(objective(maps, batch["labels"], batch["pixel_mask"], teacher))

    for name in ("none", *(name for name, method in METHODS.items() if not method.needs_features)):
        variants[f"ours, {name}"] = partial(ours, Objective(tasks, make_method(name, tasks, **settings)))

    def differentiate(loss: Callable[..., Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        leaves = {name: x.detach().requires_grad_() for name, x in student.items()}
        value = loss(leaves, batch, teacher)
        value.backward()
        return value.detach(), {name: x.grad for name, x in leaves.items()}

    return {name: partial(differentiate, loss) for name, loss in variants.items()}


def objective(
    tasks: Sequence[Task],
    predictions: Maps,
    batch: Mapping[str, Any],
    teacher: Maps,
    temperature: float = 2.0,
    beta: float = 1.0,
    match_full: bool = True,
    inter_temperature: float = 1.0,
) -> Tensor:
    """What ours replaces, plainly: supervised losses, and beta times CS of full-resolution or stride-4 maps (B, C, h, w).

    The supervised losses and distributions are those of the tasks, so both sides compute the same. Every pixel is valid.
    """

    def distribution_logits(task: Task, maps: Maps) -> Tensor:
        return task.distribution_logits(maps[task.name].movedim(1, -1)).movedim(-1, 1)

    full, labels, mask = upsample(predictions), batch["labels"], batch["pixel_mask"]
    losses = [task.loss_weight * task.loss(full[task.name], labels[task.name], mask) for task in tasks]
    rows: tuple[list[Tensor], list[Tensor]] = ([], [])
    for task in tasks:
        with torch.no_grad():
            t = distribution_logits(task, upsample(teacher) if match_full else teacher)
        z = distribution_logits(task, full if match_full else predictions)
        p, q = ((logits / temperature).softmax(1) for logits in (z, t))
        weights = task.column_weights(q.sum((0, 2, 3)))
        columns = cauchy_schwarz(p, q, (0, 2, 3)) @ (weights / weights.sum())
        losses.append(beta * task.kd_weight * temperature**task.temperature_power * columns)
        for side, logits in zip(rows, (z, t), strict=True):
            side.append(task.kd_weight**0.5 * (logits / inter_temperature).softmax(1))
    power = max(task.temperature_power for task in tasks)
    losses.append(beta * inter_temperature**power * cauchy_schwarz(*(torch.cat(side, 1) for side in rows), 1).mean())
    return torch.stack(losses).sum()


def upsample(maps: Maps) -> dict[str, Tensor]:
    """(B, C, h, w) at stride 4 -> (B, C, 4 h, 4 w)."""
    options = {"scale_factor": 4, "mode": "bilinear", "align_corners": False}
    return {name: F.interpolate(x, **options) for name, x in maps.items()}


def cauchy_schwarz(p: Tensor, q: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """D = -log( <p,q>^2 / (<p,p> <q,q>) ) of probabilities (B, C, h, w): of rows along 1, of columns along the others.

    Source: Xu, Yang, Zhang, ICCV 2023 (doi 10.1109/ICCV51070.2023.01970).
    """
    return -torch.log((p * q).sum(dim) ** 2 / ((p * p).sum(dim) * (q * q).sum(dim)))


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
