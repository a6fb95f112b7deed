"""What the device can do at all: matrix products, convolutions and copies, the floors of everything else here."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from benchmarks.device import Device
from benchmarks.harness import spread, table

SIDE, CHANNELS, MAP = 1024, 256, (56, 72)


@torch.inference_mode()
def measure_speed(device: Device, rounds: int = 5) -> dict[str, float]:
    """Medians: GFLOP/s (2 x multiply-adds) of products and 3x3 convolutions, GB/s (read + written) of a copy."""
    variants: dict[str, Callable[[], object]] = {}
    for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        a = torch.randn(SIDE, SIDE, device=device.name).to(dtype)
        variants[f"matrix product {name}"] = lambda a=a: a @ a
        x = torch.randn(1, CHANNELS, *MAP, device=device.name).to(dtype)
        w = torch.randn(CHANNELS, CHANNELS, 3, 3, device=device.name).to(dtype)
        for layout, form in (("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)):
            pair = x.to(memory_format=form), w.to(memory_format=form)
            variants[f"convolution {name} {layout}"] = lambda pair=pair: F.conv2d(*pair, padding=1)
    source = torch.ones(1 << 26, device=device.name)
    target = torch.empty_like(source)
    variants["copy"] = lambda: target.copy_(source)
    work = {"matrix": 2e-9 * SIDE**3, "convolution": 18e-9 * CHANNELS**2 * MAP[0] * MAP[1], "copy": 8e-9 * len(source)}
    timings = device.interleave(variants, rounds, repeat=10 if device.name == "cuda" else 1)
    found = {name: work[name.split()[0]] / (1e-3 * spread(timings[name][device.clock])["median"]) for name in variants}
    print(table(["floor", "GFLOP/s, GB/s of the copy"], [[name, value] for name, value in found.items()]))
    return found
