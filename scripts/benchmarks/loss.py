"""Loss: upsampling, cross-entropy and a match with the teacher, forward and backward, from stride-4 logits.

Unusual here: everything is measured twice, under the allocator's default settings and tuned to keep what is freed, each in
a process of its own; with the same numbers the value and gradient of every form of CS are held against float64.
"""

import json
import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from benchmarks.bandwidth import measure_bandwidth
from benchmarks.device import Device, add_device_arguments
from benchmarks.harness import claim, settings_of, table
from benchmarks.loss_variants import DIST, NAIVE, OURS, backends, differentiate, make_problem, our_loss, variants
from benchmarks.targets import print_targets, target

MORE_THAN_ALL = str(16 << 30)  # with 1 GiB the naive forms, which hold more, would be trimmed now and then
TUNED = {"MALLOC_MMAP_THRESHOLD_": MORE_THAN_ALL, "MALLOC_TRIM_THRESHOLD_": MORE_THAN_ALL}
ALLOCATORS: dict[str, dict[str, str]] = {"default": {}, "tuned": TUNED}
TIME_LIMITS = {"default": 0.3, "tuned": 0.5}
QUICK = {"batch_size": 1, "height": 224, "width": 288, "rounds": 3}


def add_arguments(parser: ArgumentParser) -> None:
    """Options of this section."""
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--classes", type=int, default=40)
    parser.add_argument("--height", type=int, default=448, help="of the full map; a multiple of 4")
    parser.add_argument("--width", type=int, default=576, help="of the full map; a multiple of 4")
    parser.add_argument("--temperature", type=float, default=8.0)
    parser.add_argument("--beta", type=float, default=0.5, help="the match is multiplied by beta T^2")
    add_device_arguments(parser, rounds=5)


def run(args: Namespace) -> dict[str, Any]:
    """Measure and print; what is returned holds every number that is printed."""
    device = Device.of(args)
    settings = settings_of(args, "quick")
    print(
        f"{args.batch_size} x {args.classes} x {args.height} x {args.width}, T = {args.temperature:g}, "
        f"{args.rounds} rounds, {device.name}, threads: {args.threads}, {device.clock}"
    )
    allocators = ALLOCATORS if device.name == "cpu" else {"default": {}}
    measured = {name: summary(in_child(settings, extra), device, name) for name, extra in allocators.items()}
    with device.used():
        found_errors = errors(settings)
        cuda = measure_bandwidth(settings, device, args.rounds) if device.name == "cuda" else None
    ours = OURS.format(backends(device.name)[-1])
    found = targets(measured, found_errors, ours, device) if device.name == "cpu" else []
    found += cuda.pop("targets") if cuda else []
    print_targets(found, args.quick)
    return {"settings": settings, "clock": device.clock, "ours": ours} | {
        "allocators": measured,
        "errors": found_errors,
        "bandwidth": cuda,
        "targets": found,
    }


def in_child(settings: dict[str, Any], extra: dict[str, str]) -> dict[str, Any]:
    """What `loss_child` measures with these variables of the environment and none of the allocator's own."""
    environment = {name: value for name, value in os.environ.items() if name not in TUNED}
    environment |= {"OMP_NUM_THREADS": str(settings["threads"])} | extra
    command = [sys.executable, "-m", "benchmarks.loss_child", json.dumps(settings)]
    folder = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def summary(measured: dict[str, Any], device: Device, allocator: str) -> dict[str, Any]:
    """Adds ratios to what was measured, and prints them."""
    timings, peaks = measured["timings"], measured["peak_mib"]
    ratios = {name: device.ratio(timings, name, NAIVE) for name in timings}
    memory = {name: peak / peaks[NAIVE] for name, peak in peaks.items()}
    rows = [
        [
            name,
            device.median(timings, name),
            f"{r['median']:.3g} ({r['min']:.3g} to {r['max']:.3g})",
            peaks[name],
            memory[name],
        ]
        for name, r in ratios.items()
    ]
    print(f"\nallocator: {allocator}")
    print(table(["forward and backward", "ms", "time / naive CS", "peak MiB", "peak / naive CS"], rows))
    return {**measured, "time_over_naive": ratios, "peak_over_naive": memory}


def errors(settings: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Of the value, relative, and of the gradient, relative to its largest element; against float64."""
    problem = make_problem(settings)
    exact = differentiate(lambda z: our_loss(z, problem, settings, True, "reference"), problem.student.double())
    found = {}
    for name, loss in variants(problem, settings).items():
        if name == NAIVE or name in (OURS.format(backend) for backend in backends(settings["device"])):
            value, gradient = differentiate(loss, problem.student)
            found[name] = {
                "value": float((value - exact[0]).abs() / exact[0].abs()),
                "gradient": float((gradient - exact[1]).abs().max() / exact[1].abs().max()),
            }
    rows = [[name, each["value"], each["gradient"]] for name, each in found.items()]
    print("\n" + table(["CS against float64", "error of the value", "of the gradient"], rows))
    return found


def targets(measured: dict[str, Any], found_errors: dict[str, Any], ours: str, device: Device) -> list[dict[str, Any]]:
    """Those of the CPU."""
    found = []
    for allocator, each in measured.items():
        against_dist = device.ratio(each["timings"], DIST, ours)
        print(f"{allocator} allocator, {claim(f'time of DIST over {ours}', against_dist)}")
        found += [
            target(f"{allocator}: time / naive CS", each["time_over_naive"][ours], at_most=TIME_LIMITS[allocator]),
            target(f"{allocator}: peak memory / naive CS", each["peak_over_naive"][ours], at_most=0.2),
            target(f"{allocator}: time of DIST / ours", against_dist, at_least=4),
        ]
    found += [target(f"error of the {part}", error, at_most=1e-5) for part, error in found_errors[ours].items()]
    return found
