"""Inference: students beside their teacher: parameters, GFLOPs, latency in several forms and the error of each form.

GFLOPs count 2 x multiply-adds, twice what papers often call FLOPs. Weights are random, so an error is that of the arithmetic:
relative, of the worst task, against the same model in float32. int8 is calibrated on the very images it is timed on, which is
the kindest case for its error. `--compile` adds torch.compile, a minute and more per form.
"""

import copy
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import OF_MODELS, SMALL_MODELS, make_batch, make_model, race, report
from kdam_hf.export import OnnxModel, missing_packages, quantize, save_onnx
from kdam_hf.modeling_kdam import KdamPreTrainedModel
from kdam_hf.training import describe_model

OPTIONS = OF_MODELS | {"students": ["resnet18", "pvt-v2-b0", "swin-tiny"], "compile": False}
QUICK = SMALL_MODELS | {"students": ["tiny-resnet"]}
Form = Callable[[Tensor], dict[str, Tensor]]
EAGER, FAST, TEACHER = "eager fp32", "bf16 channels-last", "teacher"


def run(args: Namespace) -> dict[str, Any]:
    """Measure and print."""
    missing = missing_packages() if args.device == "cpu" else ["a CPU (--device cpu)"]
    if missing:
        print(f"ONNX is left out, it needs {', '.join(missing)} (pip install '.[bench]')")
    pixels = make_batch(args)["pixel_values"]
    calls, facts = {}, {"error": {}, "parameters": {}, "gflops": {}}
    with TemporaryDirectory() as folder, torch.inference_mode():
        for name in (TEACHER, *args.students):
            is_student = name != TEACHER
            model = make_model(*(("student", name) if is_student else (TEACHER, args.teacher)), args).eval()
            size = describe_model(model, args.height, args.width)
            forms = torch_forms(model, args.compile and is_student)
            if not missing and is_student:
                forms |= onnx_forms(model, pixels, Path(folder) / name, args.threads)
            expected = forms[EAGER](pixels)
            for form, call in forms.items():
                calls[f"{name}, {form}"] = partial(call, pixels)
                found = call(pixels)
                pairs = [(found[task].detach().double(), x.detach().double()) for task, x in expected.items()]
                own = {"error": max(float((a - x).norm() / x.norm().clamp_min(1e-30)) for a, x in pairs), **size}
                for key, values in facts.items():
                    values[f"{name}, {form}"] = own[key]
        timings = race(calls, args)
    return {"left_out": missing, "forms": report("", timings, f"{TEACHER}, {EAGER}", **facts)}


def torch_forms(model: KdamPreTrainedModel, compiled: bool) -> dict[str, Form]:
    """The model in each form, taking pixels (B, 3, H, W) float32 and returning its predictions."""

    def form(dtype: torch.dtype, layout: torch.memory_format, compiler: Any = lambda x: x) -> Form:
        call = compiler(copy.deepcopy(model).to(dtype).to(memory_format=layout))
        return lambda x: call(x.to(dtype=dtype, memory_format=layout)).predictions

    kinds = {EAGER: (torch.float32, torch.contiguous_format), FAST: (torch.bfloat16, torch.channels_last)}
    forms = {name: form(*kind) for name, kind in kinds.items()}
    return forms | {f"compiled {name}": form(*kind, torch.compile) for name, kind in kinds.items() if compiled}


def onnx_forms(model: KdamPreTrainedModel, pixels: Tensor, path: Path, threads: int) -> dict[str, Form]:
    """The model in ONNX Runtime, in float32 and with products and convolutions in eight bits."""
    plain, int8 = path.with_suffix(".onnx"), path.with_suffix(".int8.onnx")
    with torch.inference_mode(False):
        model = copy.deepcopy(model)  # tensors made in inference mode cannot be traced
    save_onnx(model, (pixels.shape[-2], pixels.shape[-1]), plain)
    quantize(plain, int8, pixels)
    sessions = {"ONNX fp32": OnnxModel(plain, threads), "ONNX int8": OnnxModel(int8, threads)}
    return {name: lambda x, session=session: session(x).predictions for name, session in sessions.items()}
