"""Step: the parts of one training step, and what a plain step costs beside ours, online, replayed and without a teacher.

Unusual here: the objective of ours is that of `DistillationTrainer`, called as it calls it. The loss is differentiated
down to the student's predictions first and the student afterwards, which is what backpropagation does anyway; so the clock
can be read between the two. Random weights; rendered rooms; the teacher's predictions are replayed from a real cache.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

from benchmarks import plain_step
from benchmarks.device import Device, add_device_arguments
from benchmarks.harness import Timings, claim, settings_of, spread, table
from benchmarks.scenes import QUICK_MODELS, add_model_arguments, make_crops, make_model, relative_error
from benchmarks.speed import measure_speed
from benchmarks.targets import print_targets, target
from dataset_loaders import Collator, TransformedDataset
from kdam_hf.configuration_kdam import KdamConfig
from kdam_hf.distillation import DistillationCriterion
from kdam_hf.modeling_kdam import KdamPreTrainedModel
from kdam_hf.tasks import NYUD_V2
from kdam_hf.training import (
    DistillationArguments,
    DistillationTrainer,
    FrozenTeacher,
    KdamTrainingArguments,
    fill_cache,
    load_model,
)
from kdam_hf.training.arguments import use_bf16

Maps = dict[str, Tensor]
Objective = Callable[[Maps, Maps | None], Tensor]
PARTS = ("teacher", "student forward", "dense losses", "student backward", "optimizer")
PLAIN, PLAIN_ALONE = "plain, online", "plain, no teacher"
ONLINE, ONLINE_FULL = "ours, online", "ours, online, full resolution"
CACHED, CACHED_FULL = "ours, cached", "ours, cached, full resolution"
ALONE = "ours, no teacher"
RUNGS = {  # where the teacher's predictions come from, and the objective
    PLAIN: ("plain", "plain"),
    PLAIN_ALONE: ("nobody", "plain"),
    ONLINE_FULL: ("online", "full"),
    ONLINE: ("online", "stride4"),
    CACHED_FULL: ("cached", "full"),
    CACHED: ("cached", "stride4"),
    ALONE: ("nobody", "none"),
}
QUICK = {**QUICK_MODELS, "student": "tiny-resnet"}


def add_arguments(parser: ArgumentParser) -> None:
    """Options of this section."""
    parser.add_argument("--student", default="resnet18", help="preset of the student")
    add_model_arguments(parser)
    parser.add_argument("--temperature", type=float, default=8.0)
    parser.add_argument("--beta", type=float, default=0.5)
    add_device_arguments(parser, rounds=5)


def run(args: Namespace) -> dict[str, Any]:
    """Measure and print; what is returned holds every number that is printed."""
    device = Device.of(args)
    bf16 = use_bf16("auto", use_cpu=args.device == "cpu")
    print(
        f"{args.student} student, {args.teacher} teacher, {args.batch_size} x {args.height} x {args.width}, "
        f"{', '.join(task.name for task in NYUD_V2)}; ours in {'bf16' if bf16 else 'fp32'}, {args.rounds} rounds, "
        f"{device.name}, threads: {args.threads}, {device.clock}\n"
    )
    logging.disable_progress_bar()
    with TemporaryDirectory() as folder, device.used():
        speed = measure_speed(device)
        variants = make_variants(args, bf16, Path(folder))
        agreement = losses(variants)
        parts: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
        timings = device.interleave(
            {name: partial(timed, variant, device, parts[name]) for name, variant in variants.items()}, args.rounds
        )
    parts = {name: rounds[1:] for name, rounds in parts.items()}
    print_parts(timings, parts, device)
    gains = {name: device.ratio(timings, PLAIN, name) for name in timings if name != PLAIN}
    for name, gain in gains.items():
        print(claim(f"time of a plain online step over {name}", gain))
    found = targets(timings, device)
    print_targets(found, args.quick)
    return {"settings": settings_of(args), "clock": device.clock, "bf16": bf16, "speed": speed} | {
        "losses": agreement,
        "timings": timings,
        "parts_ms": parts,
        "gains": gains,
        "targets": found,
    }


def targets(timings: Timings, device: Device) -> list[dict[str, Any]]:
    """Those of the device."""
    cpu = device.name == "cpu"
    ladder = {ONLINE: 2.6, ONLINE_FULL: 2.6, CACHED: 6.0} if cpu else {}
    return [
        *(target(f"{PLAIN} / {name}", device.ratio(timings, PLAIN, name), at_least=k) for name, k in ladder.items()),
        *(
            target(f"{name} / {ALONE}", device.ratio(timings, name, ALONE), at_most=1.05 if cpu else 1.1)
            for name in (CACHED, CACHED_FULL)
        ),
    ]


class Variant:
    """A student in training, its own optimizer, and where its teacher and its loss come from.

    Args:
        student: trained from now on.
        batch: a batch of the collator, on the device.
        teach: -> the teacher's predictions, or None.
        objective: student's and teacher's predictions -> loss.
        ours: keep the student channels-last, as our trainer does; otherwise contiguous and float32.
        bf16: autocast the student to bfloat16, if it is `ours`.
    """

    def __init__(
        self,
        student: KdamPreTrainedModel,
        batch: Mapping[str, Any],
        teach: Callable[[], Maps | None],
        objective: Objective,
        ours: bool,
        bf16: bool,
    ) -> None:
        layout = torch.channels_last if ours else torch.contiguous_format
        self.student = student.to(memory_format=layout).train()
        self.pixels = batch["pixel_values"].contiguous(memory_format=layout)
        self.mask = batch["pixel_mask"]
        self.teach, self.objective, self.bf16 = teach, objective, ours and bf16
        # the published optimizer of the field; so small a rate that every round computes on the same numbers
        self.optimizer = torch.optim.SGD(self.student.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4)

    def predict(self) -> Maps:
        """Stride-4 predictions of the student, float32."""
        with torch.autocast(self.pixels.device.type, torch.bfloat16, enabled=self.bf16):
            return self.student(self.pixels, self.mask).predictions


def timed(variant: Variant, device: Device, rounds: list[dict[str, float]]) -> None:
    """One step; appends the milliseconds of its parts to `rounds`."""
    times: dict[str, float] = {}

    @contextmanager
    def part(name: str) -> Iterator[None]:
        start = device.now()
        yield
        times[name] = device.now() - start

    with part("teacher"):
        taught = variant.teach()
    with part("student forward"):
        predictions = variant.predict()
    with part("dense losses"):
        leaves = {name: x.detach().requires_grad_() for name, x in predictions.items()}
        variant.objective(leaves, taught).backward()
    with part("student backward"):
        torch.autograd.backward(list(predictions.values()), [x.grad for x in leaves.values()])
    with part("optimizer"):
        variant.optimizer.step()
        variant.optimizer.zero_grad()
    rounds.append(times)


def make_variants(args: Namespace, bf16: bool, folder: Path) -> dict[str, Variant]:
    """All rungs of the ladder, from one set of weights and one batch."""
    crops = make_crops(args)
    batch = on_device(Collator(NYUD_V2)([crops[0, index] for index in range(len(crops))]), args.device)
    teacher = make_model("teacher", args.teacher, args).eval()
    teacher.save_pretrained(folder / "teacher")
    config = make_model("student", args.student, args).config
    frozen = FrozenTeacher([load_model(str(folder / "teacher"))], config, bf16).to(args.device)
    training = KdamTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=args.batch_size,
        use_cpu=args.device == "cpu",
        cpu_threads=args.threads,
        disable_tqdm=True,
        report_to="none",
    )

    def plain(predictions: Maps, taught: Maps | None) -> Tensor:
        settings = batch["labels"], batch["pixel_mask"], args.temperature, args.beta * args.temperature**2
        return plain_step.objective(NYUD_V2, predictions, taught, *settings)

    def ours(student: KdamPreTrainedModel, kind: str) -> Objective:
        method, resolution = ("none", "stride4") if kind == "none" else ("cs", kind)
        criterion = DistillationCriterion(NYUD_V2, method, args.temperature, args.beta, resolution=resolution)
        own = None if method == "none" else frozen
        trainer = DistillationTrainer(student, training, NYUD_V2, crops, teacher=own, criterion=criterion)
        return lambda predictions, taught: trainer.objective(predictions, {**batch, "teacher": taught}).total

    teachers = {
        "plain": partial(plain_step.teach, teacher, batch),
        "online": partial(frozen, batch["pixel_values"], batch["pixel_mask"]),
        "cached": replayed(args, folder, crops, config, training),
        "nobody": lambda: None,
    }
    variants = {}
    for name, (source, kind) in RUNGS.items():
        student = make_model("student", args.student, args)
        objective = plain if kind == "plain" else ours(student, kind)
        variants[name] = Variant(student, batch, teachers[source], objective, ours=kind != "plain", bf16=bf16)
    return variants


def replayed(
    args: Namespace, folder: Path, crops: TransformedDataset, config: KdamConfig, training: KdamTrainingArguments
) -> Callable[[], Maps]:
    """Runs the teacher once; what is returned reads its predictions from disk, as training does."""
    distillation = DistillationArguments(
        teacher=[str(folder / "teacher")], teacher_cache=str(folder / "cache"), teacher_views=1
    )
    cache = fill_cache(distillation, crops, NYUD_V2, config, training)

    def read() -> Maps:
        records = [cache.read(0, index)[1] for index in range(len(crops))]
        return on_device({name: torch.stack([record[name] for record in records]) for name in records[0]}, args.device)

    return read


def on_device(x: Any, device: str) -> Any:
    """Tensors of a dict of dicts, moved."""
    if isinstance(x, dict):
        return {name: on_device(value, device) for name, value in x.items()}
    return x.to(device) if isinstance(x, Tensor) else x


def losses(variants: Mapping[str, Variant]) -> dict[str, dict[str, float]]:
    """Loss of each rung before any step, and how far its predictions and its teacher's are from the plain ones."""
    found, plain, plain_taught = {}, variants[PLAIN].predict(), variants[PLAIN].teach()
    for name, variant in variants.items():
        predictions, taught = variant.predict(), variant.teach()
        found[name] = {
            "loss": float(variant.objective(predictions, taught).detach()),
            "student_error": relative_error(predictions, plain),
            "teacher_error": relative_error(taught, plain_taught) if taught is not None else 0.0,
        }
    rows = [[name, *each.values()] for name, each in found.items()]
    print("\n" + table(["", "loss", "error of the student's predictions", "of the teacher's"], rows))
    return found


def print_parts(timings: Timings, parts: Mapping[str, list[dict[str, float]]], device: Device) -> None:
    """Milliseconds of each step, and the share of each part in it; medians over rounds."""
    rows = []
    for name, rounds in parts.items():
        shares = [spread([100 * each[part] / sum(each.values()) for each in rounds])["median"] for part in PARTS]
        rows.append([name, device.median(timings, name), *(f"{share:.1f} %" for share in shares)])
    print("\n" + table(["step", "ms", *PARTS], rows))
