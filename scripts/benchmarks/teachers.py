"""Teachers: one multi-task teacher beside one single-task teacher per task, on the same backbone.

Unusual here: both sides run as a `FrozenTeacher` runs them in training; in float32 and, as it does by default where the
device is fast at it, in bfloat16 and channels-last.
"""

from argparse import ArgumentParser, Namespace
from functools import partial
from typing import Any

from benchmarks.device import Device, add_device_arguments
from benchmarks.harness import claim, settings_of, table
from benchmarks.scenes import QUICK_MODELS, add_model_arguments, make_crops, make_model
from benchmarks.targets import print_targets, target
from dataset_loaders import Collator
from kdam_hf.presets import make_config
from kdam_hf.tasks import NYUD_V2
from kdam_hf.training import FrozenTeacher

ONE, MANY = "one multi-task teacher", f"{len(NYUD_V2)} single-task teachers"
QUICK = QUICK_MODELS


def add_arguments(parser: ArgumentParser) -> None:
    """Options of this section."""
    add_model_arguments(parser)
    add_device_arguments(parser, rounds=5)


def run(args: Namespace) -> dict[str, Any]:
    """Measure and print; what is returned holds every number that is printed."""
    device = Device.of(args)
    print(
        f"{args.teacher}, {args.batch_size} x {args.height} x {args.width}, {args.rounds} rounds, {device.name}, "
        f"threads: {args.threads}, {device.clock}"
    )
    crops = make_crops(args)
    batch = Collator(NYUD_V2)([crops[0, index] for index in range(len(crops))])
    inputs = [batch[name].to(args.device) for name in ("pixel_values", "pixel_mask")]
    groups = {ONE: [NYUD_V2], MANY: [[task] for task in NYUD_V2]}
    memory, timings, ratios = {}, {}, {}
    for precision in ("fp32", "bf16"):
        teachers = {name: frozen(args, tasks, precision == "bf16") for name, tasks in groups.items()}
        memory[precision] = {name: weight_mib(teacher) for name, teacher in teachers.items()}
        with device.used():
            calls = {name: partial(teacher, *inputs) for name, teacher in teachers.items()}
            timings[precision] = device.interleave(calls, args.rounds)
        ratios[precision] = device.ratio(timings[precision], ONE, MANY)
        rows = [[name, device.median(timings[precision], name), memory[precision][name]] for name in teachers]
        print("\n" + table([precision, "forward ms", "weights MiB"], rows))
        print(claim(f"time of {ONE} over {MANY}", ratios[precision]))
    weights = memory["fp32"][ONE] / memory["fp32"][MANY]
    found = [target(f"time of {ONE} / {MANY}, {name}", each, at_most=0.3) for name, each in ratios.items()]
    found.append(target(f"weights of {ONE} / {MANY}", weights, at_most=0.26))
    print_targets(found, args.quick)
    return {"settings": settings_of(args), "clock": device.clock} | {
        "weights_mib": memory,
        "timings": timings,
        "time_ratio": ratios,
        "targets": found,
    }


def frozen(args: Namespace, groups: list, bf16: bool) -> FrozenTeacher:
    """A teacher for each group of tasks, as one."""
    student = make_config("student", "tiny-resnet", NYUD_V2)
    models = [make_model("teacher", args.teacher, args, tasks) for tasks in groups]
    return FrozenTeacher(models, student, bf16).to(args.device)


def weight_mib(teacher: FrozenTeacher) -> float:
    """Parameters and buffers."""
    return sum(x.numel() * x.element_size() for x in (*teacher.parameters(), *teacher.buffers())) / 2**20
