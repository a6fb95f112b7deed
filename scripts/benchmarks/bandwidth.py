"""The pure CS kernels on bfloat16 rows beside a copy on the same device: how near they come to the memory's limit.

Unusual here: the floor is stated in bytes. With N the bytes of the student's full-resolution logits, the column sums read
2 N, and value and gradient read 2 N and write N; no arrangement of the two passes moves less than these 5 N.
"""

from importlib import import_module
from typing import Any

import torch
from kdam_hf.distillation.kernels.rows import Rows, columns_of

from benchmarks.device import Device
from benchmarks.harness import spread, table
from benchmarks.loss_variants import OUR_CROSS_ENTROPY, OURS, Settings, differentiate, make_problem, variants
from benchmarks.targets import target
from kdam_hf.distributed import LOCAL

COPY, SUMS, GRADIENT, BOTH = "copy", "column sums", "value and gradient", "column sums, value and gradient"
BANDED, BANDED_ALONE = "from stride-4 logits, cross-entropy and CS", "from stride-4 logits, cross-entropy alone"
TIMES_N = {COPY: 2, SUMS: 2, GRADIENT: 3, BOTH: 5}
CALLS = 20  # per measurement: one alone is shorter than the way to the device and back


def measure_bandwidth(settings: Settings, device: Device, rounds: int, calls: int = CALLS) -> dict[str, Any]:
    """Achieved GB/s of each kernel, and its share of the copy's.

    Args:
        settings: of the problem.
        device: that Triton compiles for.
        rounds: that count.
        calls: of each kernel a round.
    """
    engine = import_module("kdam_hf.distillation.kernels.triton_rows")
    rows = _rows(settings)
    columns = columns_of(engine.column_sums(rows), LOCAL)
    target_of_copy = torch.empty_like(rows.z[0])

    def both() -> None:
        engine.match_rows(rows, "concat", columns_of(engine.column_sums(rows), LOCAL), LOCAL, True)

    kernels = {
        COPY: lambda: target_of_copy.copy_(rows.z[0]),
        SUMS: lambda: engine.column_sums(rows),
        GRADIENT: lambda: engine.match_rows(rows, "concat", columns, LOCAL, True),
        BOTH: both,
    }
    problem = make_problem(settings)
    student = problem.student.bfloat16()
    losses = variants(problem, settings)
    for name, ours in ((BANDED, OURS.format("triton")), (BANDED_ALONE, OUR_CROSS_ENTROPY)):
        kernels[name] = lambda loss=losses[ours]: differentiate(loss, student)
    timings = device.interleave(kernels, rounds, repeat=calls)
    size = rows.z[0].numel() * rows.z[0].element_size()
    achieved = {name: 1e-6 * times * size / device.median(timings, name) for name, times in TIMES_N.items()}
    shares = {  # bytes per ms over those of the copy, within each round
        name: {key: times / TIMES_N[COPY] * value for key, value in device.ratio(timings, COPY, name).items()}
        for name, times in TIMES_N.items()
    }
    lines = [
        [name, spread(timings[name][device.clock])["median"], achieved.get(name, "-"), _share(shares.get(name))]
        for name in kernels
    ]
    print(f"\npure CS kernels on {tuple(rows.z[0].shape)} bfloat16 logits, N = {size / 2**20:.0f} MiB")
    print(table(["", "ms", "GB/s of the least bytes", "of the copy's"], lines))
    targets = [
        target("CS kernels, share of the copy's bandwidth at 5 N bytes", shares[BOTH], at_least=0.7),
        target(
            "cross-entropy and CS from stride-4 logits / CS kernels", device.ratio(timings, BANDED, BOTH), at_most=1
        ),
    ]
    return {"timings": timings, "bytes_of_N": size, "gb_per_s": achieved, "share_of_copy": shares, "targets": targets}


def _rows(settings: Settings) -> Rows:
    batch, pixels = settings["batch_size"], settings["height"] * settings["width"]
    generator = torch.Generator(settings["device"]).manual_seed(settings["seed"])
    shape = batch, settings["classes"], pixels
    z = 3 * torch.randn(shape, generator=generator, device=settings["device"])
    t = z + torch.randn(shape, generator=generator, device=settings["device"])
    per_pixel = torch.tensor(1 / (batch * pixels), device=settings["device"])
    return Rows([z.bfloat16()], [t.bfloat16()], settings["temperature"], None, per_pixel)


def _share(share: dict[str, float] | None) -> str:
    return "-" if share is None else f"{share['median']:.3g} ({share['min']:.3g} to {share['max']:.3g})"
