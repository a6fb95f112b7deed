"""Teachers: one multi-task teacher beside one single-task teacher per task, on the same backbone.

Both run as a `FrozenTeacher` runs in training: in float32, and in bfloat16 and channels-last.
"""

from argparse import Namespace
from functools import partial
from typing import Any

from benchmarks.harness import race, ratio, report, spread, target
from benchmarks.models import OPTIONS, QUICK, make_batch, make_model
from kdam_hf.presets import make_config
from kdam_hf.tasks import NYUD_V2
from kdam_hf.training import FrozenTeacher

__all__ = ["OPTIONS", "QUICK", "run"]
ONE, MANY = "one multi-task teacher", f"{len(NYUD_V2)} single-task teachers"


def run(args: Namespace) -> dict[str, Any]:
    """Measure and print."""
    batch, student = make_batch(args), make_config("student", "tiny-resnet", NYUD_V2)
    found, targets = {}, []
    for precision in ("fp32", "bf16"):
        calls, mib = {}, {}
        for name, groups in {ONE: [NYUD_V2], MANY: [[task] for task in NYUD_V2]}.items():
            models = [make_model("teacher", args.teacher, args, tasks) for tasks in groups]
            teacher = FrozenTeacher(models, student, precision == "bf16").to(args.device)
            calls[name] = partial(teacher, batch["pixel_values"], batch["pixel_mask"])
            mib[name] = sum(x.numel() * x.element_size() for x in teacher.state_dict().values()) / 2**20
        timings = race(calls, args)
        found[precision] = report(f"{args.teacher}, {precision}", timings, MANY, weights_mib=mib)
        targets.append(target(f"time of {ONE} / {MANY}, {precision}", ratio(timings, ONE, MANY), at_most=0.3))
    targets.append(target(f"weights of {ONE} / {MANY}", spread([mib[ONE] / mib[MANY]]), at_most=0.26))
    return {"teachers": found, "targets": targets}
