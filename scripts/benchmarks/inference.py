"""Inference: students beside their teacher: parameters, GFLOPs, and latency in several forms.

Unusual here: GFLOPs count 2 x multiply-adds, twice what papers often call FLOPs. Weights are random, so the error that is
printed beside a form is that of its arithmetic: relative, of the worst task, against the same model in float32.
"""

import copy
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from benchmarks.device import Device, add_device_arguments
from benchmarks.harness import claim, settings_of, spread, table
from benchmarks.onnx_form import missing_packages, onnx_forms
from benchmarks.scenes import QUICK_MODELS, add_model_arguments, make_crops, make_model, relative_error
from benchmarks.speed import measure_speed
from kdam_hf.modeling_kdam import KdamPreTrainedModel
from kdam_hf.training import describe_model

Form = Callable[[Tensor], dict[str, Tensor]]
EAGER, FAST = "eager fp32", "bf16 + channels-last"
QUICK = {**QUICK_MODELS, "students": ["tiny-resnet"]}


def add_arguments(parser: ArgumentParser) -> None:
    """Options of this section."""
    parser.add_argument("--students", nargs="+", default=["resnet18", "pvt-v2-b0", "swin-tiny"], help="presets")
    add_model_arguments(parser)
    parser.add_argument("--compile", action="store_true", help="torch.compile too; takes a minute and more per form")
    add_device_arguments(parser, rounds=5)


def run(args: Namespace) -> dict[str, Any]:
    """Measure and print; what is returned holds every number that is printed."""
    device = Device.of(args)
    print(
        f"{args.batch_size} x {args.height} x {args.width}, {args.rounds} rounds, {device.name}, "
        f"threads: {args.threads}, {device.clock}\n"
    )
    missing = missing_packages() if device.name == "cpu" else ["a CPU (--device cpu)"]
    if missing:
        print(f"ONNX is left out, it needs {', '.join(missing)} (pip install '.[bench]')\n")
    crops = make_crops(args)
    pixels = torch.stack([crops[0, index]["pixel_values"] for index in range(len(crops))]).to(args.device)
    names = {"teacher": args.teacher, **{f"student {name}": name for name in args.students}}
    with TemporaryDirectory() as folder, device.used(), torch.inference_mode():
        speed = measure_speed(device)
        calls, errors, facts = {}, {}, {}
        for number, (name, preset) in enumerate(names.items()):
            model = make_model(name.split()[0], preset, args).eval()
            facts[name] = describe_model(model, args.height, args.width)
            forms = torch_forms(model, pixels, args.compile and name != "teacher")
            if not missing and name != "teacher":
                forms |= onnx_forms(model, pixels, os.path.join(folder, str(number)), args.threads)
            expected = forms[EAGER](pixels)
            errors |= {(name, form): relative_error(call(pixels), expected) for form, call in forms.items()}
            calls |= {(name, form): lambda call=call: call(pixels) for form, call in forms.items()}
        timings = device.interleave(calls, args.rounds)
    print_models(facts, timings, device)
    result = {name: print_forms(name, timings, errors, device) for name in names}
    return {"settings": settings_of(args), "clock": device.clock, "speed": speed, "left_out": missing} | {
        "models": facts,
        "forms": result,
    }


def torch_forms(model: KdamPreTrainedModel, pixels: Tensor, compiled: bool) -> dict[str, Form]:
    """The model in each form, taking pixels (B, 3, H, W) float32 and yielding its predictions."""

    def form(dtype: torch.dtype, layout: torch.memory_format, compile_it: bool = False) -> Form:
        copied = copy.deepcopy(model).to(dtype).to(memory_format=layout)
        call = torch.compile(copied) if compile_it else copied
        return lambda x: call(x.to(dtype=dtype, memory_format=layout)).predictions

    nchw, nhwc = torch.contiguous_format, torch.channels_last
    forms = {
        EAGER: form(torch.float32, nchw),
        "channels-last": form(torch.float32, nhwc),
        FAST: form(torch.bfloat16, nhwc),
    }
    if compiled:
        forms["compiled fp32"] = form(torch.float32, nchw, True)
        forms["compiled bf16 + channels-last"] = form(torch.bfloat16, nhwc, True)
    return forms


def print_models(facts: dict[str, Any], timings: dict, device: Device) -> None:
    """Size and cost of each model beside the teacher's; adds the ratios to `facts`."""
    rows = []
    for name, each in facts.items():
        latency = device.ratio(timings, ("teacher", EAGER), (name, EAGER))
        each["teacher_over_this"] = {
            "parameters": facts["teacher"]["parameters"] / each["parameters"],
            "gflops": facts["teacher"]["gflops"] / each["gflops"],
            "latency_eager_fp32": latency,
            "latency_bf16_channels_last": device.ratio(timings, ("teacher", FAST), (name, FAST)),
        }
        over = each["teacher_over_this"]
        rows.append([name, each["parameters"] / 1e6, each["gflops"], over["parameters"], over["gflops"]])
        rows[-1] += [over[key]["median"] for key in ("latency_eager_fp32", "latency_bf16_channels_last")]
    header = [
        "",
        "parameters M",
        "GFLOPs (2 x MAC)",
        "teacher / this: parameters",
        "GFLOPs",
        "latency fp32",
        "latency bf16",
    ]
    print("\n" + table(header, rows))


def print_forms(name: str, timings: dict, errors: dict, device: Device) -> dict[str, Any]:
    """Latency of each form beside the eager one's."""
    found = {}
    for key in (key for key in timings if key[0] == name):
        found[key[1]] = {
            "ms": timings[key],
            "speed_up": device.ratio(timings, (name, EAGER), key),
            "error": errors[key],
        }
    rows = [
        [form, spread(each["ms"][device.clock])["median"], each["speed_up"]["median"], each["error"]]
        for form, each in found.items()
    ]
    print("\n" + table([name, "ms", "times faster than eager", "relative error"], rows))
    for form, each in found.items():
        if form != EAGER:
            print(claim(f"{name}, {form}, times faster", each["speed_up"]))
    return found
