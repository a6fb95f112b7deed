"""Step: one training step of a student beside a plain float32 step.

The plain step runs the teacher in float32, upsamples every map and matches at full resolution with eager operations. Ours is
that of `DistillationTrainer`: without a teacher, with predictions replayed from a teacher cache on disk, and with the
teacher online. Random weights, rendered rooms. `--compile` adds ours with its objective under torch.compile.
"""

from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import logging

from benchmarks import loss
from benchmarks.harness import OF_MODELS, SMALL_MODELS, make_batch, make_crops, make_model, race, ratio, report, target
from kdam_hf.distillation import make_method
from kdam_hf.tasks import NYUD_V2
from kdam_hf.teachers.teaching import plan_teaching
from kdam_hf.training import (
    DistillationArguments,
    DistillationTrainer,
    FrozenTeacher,
    KdamTrainingArguments,
    fill_cache,
    load_model,
)
from kdam_hf.training.arguments import use_bf16

OPTIONS = OF_MODELS | {"student": "resnet18", "temperature": 2.0, "beta": 1.0, "compile": False}
QUICK = SMALL_MODELS | {"student": "tiny-resnet"}
PLAIN, UNDISTILLED, REPLAYED, ONLINE = "plain, float32", "ours, undistilled", "ours, replayed", "ours, online"


def run(args: Namespace) -> dict[str, Any]:
    """Measure and print."""
    logging.disable_progress_bar()
    bf16 = use_bf16("auto", args.device == "cpu")
    with TemporaryDirectory() as folder:
        steps = make_steps(args, bf16, Path(folder))
        first = {name: float(step()) for name, step in steps.items()}
        timings = race(steps, args)
    title = f"{args.student}, {args.teacher}, {'bf16' if bf16 else 'fp32'}"
    found = report(title, timings, PLAIN, first_loss=first)
    targets = [
        target("replayed / undistilled", ratio(timings, REPLAYED, UNDISTILLED), at_most=1.05),
        target("plain / online", ratio(timings, PLAIN, ONLINE), at_least=2.6),
    ]
    return {"bf16": bf16, "steps": found, "targets": targets}


def make_steps(args: Namespace, bf16: bool, folder: Path) -> dict[str, Callable[[], Tensor]]:
    """Variant -> one optimizer step that returns its loss; all from one set of weights and one batch."""
    crops, batch = make_crops(args), make_batch(args)
    settings = {"temperature": args.temperature, "beta": args.beta}
    teacher, path = make_model("teacher", args.teacher, args).eval(), str(folder / "teacher")
    teacher.save_pretrained(path)
    student = partial(make_model, "student", args.student, args)
    frozen = FrozenTeacher([load_model(path)], student().config, bf16).to(args.device)
    quiet = {"disable_tqdm": True, "report_to": "none", "use_cpu": args.device == "cpu", "cpu_threads": args.threads}
    training = KdamTrainingArguments(str(folder), per_device_train_batch_size=args.batch_size, **quiet)
    cached = DistillationArguments([path], teacher_cache=str(folder / "cache"), teacher_views=1)
    cache = fill_cache(cached, plan_teaching([path], NYUD_V2), crops, student().config, training)

    def replay() -> dict[str, Any]:
        records = [cache.read(0, index)[1] for index in range(len(crops))]
        maps = {name: torch.stack([record[name] for record in records]) for name in records[0]}
        return {"teacher": {name: x.to(args.device) for name, x in maps.items()}}

    def plain_loss(model: nn.Module) -> Tensor:
        inputs = batch["pixel_values"], batch["pixel_mask"]
        with torch.no_grad():
            taught = teacher(*inputs).predictions
        return loss.objective(NYUD_V2, model(*inputs).predictions, batch, taught, **settings)

    def ours(taught: FrozenTeacher | None, source: Callable[[], Mapping[str, Any]], compiled: bool) -> Any:
        method = make_method("none" if taught is None else "cs", NYUD_V2, **settings)
        trainer = DistillationTrainer(student(), training, NYUD_V2, crops, teacher=taught, method=method)
        if compiled:
            trainer.objective.compile()
        model = trainer.accelerator.prepare_model(trainer.model)
        check = partial(trainer.on_pre_optimizer_step, None, None, None)
        return partial(step, *optimized(model), lambda x: trainer.compute_loss(x, {**batch, **source()}), check)

    steps = {PLAIN: partial(step, *optimized(student()), plain_loss)}
    for compiled in (False, True)[: 1 + args.compile]:
        for name, taught, source in ((UNDISTILLED, None, dict), (REPLAYED, frozen, replay), (ONLINE, frozen, dict)):
            steps[name + ", compiled objective" * compiled] = ours(taught, source, compiled)
    return steps


def optimized(model: nn.Module) -> tuple[nn.Module, torch.optim.Optimizer]:
    """With the published optimizer of the field, and so small a rate that every round computes on the same numbers."""
    return model.train(), torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4)


def step(model: nn.Module, optimizer: Any, loss_of: Callable[[nn.Module], Tensor], check: Any = lambda: None) -> Tensor:
    """One optimizer step; the loss before it."""
    loss = loss_of(model)
    loss.backward()
    check()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()
