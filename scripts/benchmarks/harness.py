"""Time variants side by side on a shared machine; models with random weights and a batch of rendered rooms to time them on.

Rounds are interleaved and ratios are taken within a round. The clock is processor time on one CPU thread, which other work on
the machine moves less, and wall time otherwise.
"""

import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from math import inf
from statistics import median
from typing import Any

import torch
from accelerate.utils import send_to_device

from dataset_loaders import Collator, TrainTransform, TransformedDataset, open_dataset
from kdam_hf.modeling_kdam import KdamPreTrainedModel, KdamStudent, KdamTeacher
from kdam_hf.presets import make_config
from kdam_hf.tasks import NYUD_V2, Task

OF_MODELS = {"teacher": "swin-base", "height": 448, "width": 576, "batch_size": 1}
SMALL_MODELS = {"teacher": "tiny-swin", "height": 96, "width": 128, "rounds": 2}
"""Options of sections with models, and small values of them."""
Timings = dict[str, list[float]]
"""Variant -> milliseconds, one value per round."""
Spread = dict[str, float]
"""`median`, `min` and `max` over rounds."""


def race(variants: Mapping[str, Callable[[], object]], args: Namespace) -> Timings:
    """Time each variant (name -> work) once per round; the order rotates, and a first round is dropped.

    `args` has `rounds`, `device` and `threads`.
    """
    processor = args.device == "cpu" and args.threads == 1
    clock, names = time.process_time if processor else time.perf_counter, list(variants)
    wait = torch.cuda.synchronize if args.device == "cuda" else lambda: None
    timings: Timings = {name: [] for name in names}
    for number in range(args.rounds + 1):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            wait()
            start = clock()
            variants[name]()
            wait()
            if number:
                timings[name].append(1e3 * (clock() - start))
    return timings


def spread(values: Sequence[float]) -> Spread:
    return {"median": median(values), "min": min(values), "max": max(values)}


def ratio(timings: Timings, over: str, under: str) -> Spread:
    """Time of `over` divided by the time of `under`, round by round."""
    return spread([a / b for a, b in zip(timings[over], timings[under], strict=True)])


def report(title: str, timings: Timings, base: str, **columns: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Print and return, per variant, `ms` of every round, `times_faster` than `base` (a spread), and further columns."""
    found, rows = {}, []
    for name, ms in timings.items():
        more = {key: values[name] for key, values in columns.items()}
        found[name] = {"ms": ms, "times_faster": ratio(timings, base, name), **more}
        rows.append([name, in_words(spread(ms)), in_words(found[name]["times_faster"]), *more.values()])
    print_table([title, "ms", f"times faster than {base}", *columns], rows)
    return found


def target(what: str, found: Spread, at_least: float = -inf, at_most: float = inf) -> dict[str, Any]:
    """A limit for a ratio in full settings, judged by the median; one of the two is given."""
    met = at_least <= found["median"] <= at_most
    limit = f"at least {at_least:g}" if at_least > 0 else f"at most {at_most:g}"
    return {"what": what, **found, "wanted": limit, "met": met}


def in_words(found: Spread) -> str:
    return f"{found['median']:.3g} ({found['min']:.3g} to {found['max']:.3g})"


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns wide enough for their cells; numbers to three digits."""
    cells = [list(header), *([f"{c:.3g}" if isinstance(c, float) else str(c) for c in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    print("", lines[0], "  ".join("-" * width for width in widths), *lines[1:], sep="\n")


def make_model(
    role: str, preset: str, args: Namespace, tasks: Sequence[Task] = NYUD_V2, **options: Any
) -> KdamPreTrainedModel:
    """A model with random weights, the same ones for the same seed; `options` are of its configuration."""
    torch.manual_seed(args.seed)
    config = make_config(role, preset, tasks, image_size=[args.height, args.width], **options)
    return (KdamTeacher if role == "teacher" else KdamStudent)(config).to(args.device)


def make_crops(args: Namespace) -> TransformedDataset:
    """As many rooms as the batch has, at their own size and without augmentation."""
    size = {"height": args.height, "width": args.width, "seed": args.seed}
    names = [task.name for task in NYUD_V2]
    rooms = open_dataset("synthetic_rooms", "train", tasks=names, num_images=args.batch_size, **size)
    config = make_config("student", "tiny-resnet", NYUD_V2)
    view = (args.height, args.width), config.image_mean, config.image_std
    unchanged = {"scale": (1.0, 1.0), "hflip": False, "photometric": False, "seed": args.seed}
    return TransformedDataset(rooms, TrainTransform(NYUD_V2, *view, **unchanged))


def make_batch(args: Namespace) -> dict[str, Any]:
    """The crops as the collator makes a batch of them, on the device."""
    crops = make_crops(args)
    return send_to_device(Collator(NYUD_V2)([crops[0, index] for index in range(len(crops))]), args.device)
