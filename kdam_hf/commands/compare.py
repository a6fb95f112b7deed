"""Train one teacher, distil it into students by several methods and seeds, and compare them.

    kdam compare --teacher_config rooms_teacher --student_config rooms_student --methods none cs --output_dir outputs/demo

Runs `kdam train` and `kdam distill`, prints each command, and hands further options to both. Finished runs of the same
settings are reused, an interrupted one is continued. Writes to output_dir the models, contact_sheet.png (photo, truth,
teacher, students), curves.png (losses; extra `plots`), results.json and results.md; with several seeds these state the 95 %
interval of the difference of each student to `none`, and of the last one to the others, paired by seed. `--help all` lists
every key.
"""

import argparse
import json
import math
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from scipy import stats

from dataset_loaders import DenseDataset
from kdam_hf.commands.distill import GROUPS
from kdam_hf.distillation import METHODS
from kdam_hf.errors import CheckpointError, KdamError, KdamValueError
from kdam_hf.hub.record import training_log
from kdam_hf.io import as_scores, differences, write_json, write_text
from kdam_hf.metrics import delta_m
from kdam_hf.modeling_kdam import KdamPreTrainedModel
from kdam_hf.pretrained import weights_sha256
from kdam_hf.readout_kdam import as_map
from kdam_hf.tasks import Task, with_options
from kdam_hf.training import load_model, parse_recipe
from kdam_hf.training.evaluation import seen_by
from kdam_hf.training.fingerprint import DEFAULTS, INCIDENTAL
from kdam_hf.training.report import hardware
from kdam_hf.training.signals import end_with_parent
from kdam_hf.training.sources import open_split
from kdam_hf.visualization import contact_sheet, legend_picture

LAUNCH = "-m accelerate.commands.launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no"
FIXED = {"method", "seed", "teacher", "output_dir", "config"}
"""Keys that no method has of its own: they are said by the comparison."""
Results = dict[str, Any]


def main(argv: list[str] | None = None) -> None:
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=kind, allow_abbrev=False)
    parser.add_argument("--teacher_config", required=True, help="recipe of the teacher, as of kdam train")
    parser.add_argument("--student_config", required=True, help="recipe of the students, as of kdam distill")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["none", "cs"],
        help="one student each, as in cs:beta=0.5,intra=false, named by what tells it from others of the same method; the last "
        "one is held against all others",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="one student per method and seed")
    parser.add_argument("--show", nargs="+", type=int, default=[0], help="evaluation images on the contact sheet")
    parser.add_argument("--balance", type=int, metavar="STEPS", help="measure the terms' gradients every so many steps")
    parser.add_argument("--output_dir", required=True, type=Path, help="folder to write to")
    args, overrides = parser.parse_known_args(argv)
    root: Path = args.output_dir
    methods = parse_methods(args.methods)
    data = parse_recipe(GROUPS, ["--config", args.student_config, *overrides])[0]
    if len({*args.seeds}) < len(args.seeds) or (args.balance is not None and args.balance < 1):
        raise KdamValueError(
            f"seeds {args.seeds}, balance {args.balance}; expected each seed once, and steps of 1 or more."
        )
    for _, method, own in methods.values():  # before the first of them is trained
        parse_recipe(GROUPS, ["--config", args.student_config, *overrides, *words_of(method, own)])
    held_out = open_split(data, data.eval_split)
    if not 0 <= min(args.show) <= max(args.show) < len(held_out):
        raise KdamValueError(f"show is {args.show}; expected numbers of images, 0 to {len(held_out) - 1}.")
    names = [method for _, method, _ in methods.values()]
    runs = {"teacher": [train("train", args.teacher_config, root / "teacher", overrides)]}
    for label, (text, method, own) in methods.items():
        teacher = None if method == "none" else root / "teacher"
        name = re.sub(r"[^\w.-]+", "-", method if names.count(method) == 1 else text)
        runs[label] = []
        for seed in args.seeds:
            folder = folder_of(root / name, seed, args.seeds)
            options = [*overrides, "--seed", str(seed), *words_of(method, own)]
            options += ["--balance_steps", str(args.balance)] if args.balance else []
            runs[label].append(train("distill", args.student_config, folder, options, teacher))
            if args.balance and method != "none" and not (folder / "balance.json").exists():
                print(f"{folder}: trained without --balance; remove it to measure its terms")

    models = {label: load_model(of[0]["meta"]["model"]).eval() for label, of in runs.items()}
    student = next(model for label, model in models.items() if label != "teacher")
    draw(held_out, models, args.show).save(root / "contact_sheet.png")
    tasks = with_options(held_out.tasks, data.task_options or ())
    keys = {f"{task.name}/{task.primary_metric}": task.higher_is_better for task in tasks}
    summary = {label: summarise(of, runs.get("none", []), keys) for label, of in runs.items()}
    add_differences(summary, keys)
    ratio = latency_ratio(student, models["teacher"], held_out)
    for label in set(summary) - {"teacher"}:  # all students have the architecture that was timed
        for run in (summary[label], *runs[label]):
            run["meta"]["latency_over_teacher"] = round(ratio, 3)
        for run in runs[label]:
            write_json(Path(run["meta"]["model"]) / "results.json", run)
    write_json(root / "results.json", summary)
    rooms = "SYNTHETIC rooms, ray-cast by this project, no photos"
    source = rooms if data.dataset == "synthetic_rooms" else str(data.data_dir)
    text = report(summary, keys, source)
    write_text(root / "results.md", text)
    draw_losses({label: of for label, of in runs.items() if label != "teacher"}, tasks, root / "curves.png")
    written = (path.name for path in sorted(root.iterdir()) if path.is_file())
    print("\n" + text + f"\nWritten to {root}: {', '.join(written)}")


def parse_methods(methods: Sequence[str]) -> dict[str, tuple[str, str, list[tuple[str, str]]]]:
    """By label, each text with its method and options; a label says what tells it from the others of its method.

    `cs:beta=1,kd_weight=edge=0` and `cs:beta=2,kd_weight=edge=0` are labelled `cs:beta=1` and `cs:beta=2`.
    """
    parsed = []
    for text in methods:
        method, _, rest = text.partition(":")
        if method not in ("none", *METHODS):
            raise KdamValueError(f"unknown method {method!r}; expected none, {', '.join(METHODS)}.")
        pairs = [pair.partition("=") for pair in rest.split(",")] if rest else []
        if not all(equals for _, equals, _ in pairs):
            raise KdamValueError(f"method {text!r}; expected a name, or name:key=value,key=value.")
        if fixed := {key for key, _, _ in pairs} & FIXED:
            raise KdamValueError(
                f"method {text!r}: {', '.join(sorted(fixed))} cannot differ between methods; leave it out."
            )
        parsed.append((text, method, [(key, value) for key, _, value in pairs]))
    by_label = {}
    for text, method, own in parsed:
        shared = set.intersection(*(set(pairs) for _, name, pairs in parsed if name == method))
        distinguishing = ",".join(f"{key}={value}" for key, value in own if (key, value) not in shared)
        by_label[f"{method}:{distinguishing}" if distinguishing else method] = (text, method, own)
    if len(by_label) < len(parsed):
        raise KdamValueError(f"methods {' '.join(methods)}: one is named twice; give each once.")
    return by_label


def folder_of(plain: Path, seed: int, seeds: Sequence[int]) -> Path:
    """Where a student is, or goes; that of seed 0 alone has a plain name, and keeps it when seeds are added."""
    numbered = plain.with_name(f"{plain.name}-seed{seed}")
    is_plain = seed == 0 and (plain.exists() or ([*seeds] == [0] and not numbered.exists()))
    return plain if is_plain else numbered


def words_of(method: str, own: Sequence[tuple[str, str]]) -> list[str]:
    """A method with its options, as words of `kdam distill`; one that is given again has several values, as of a list."""
    values = {key: [value for name, value in own if name == key] for key, _ in own}
    return ["--method", method, *(word for key, of in values.items() for word in (f"--{key}", *of))]


def train(command: str, config: str, folder: Path, options: list[str], teacher: Path | None = None) -> Results:
    """Run a training command unless its results are there already; returns results.json."""
    taught = [] if teacher is None else ["--teacher", str(teacher)]
    arguments = ["--config", config, *options, *taught, "--output_dir", str(folder)]
    results = folder / "results.json"
    if results.exists():
        data, *_, settings = parse_recipe(GROUPS, arguments)
        found = reuse(results, settings, data.eval_split, teacher)
        print(f"{folder}: reused")
        return found
    arguments += ["--resume_from_checkpoint", "last"]
    print(f"\n{folder.name}: kdam {command} {' '.join(arguments)}", flush=True)
    words = [sys.executable, *LAUNCH.split(), "-m", "kdam_hf", command, *arguments]
    # killed, this process leaves no training behind
    finished = subprocess.run(words, check=False, preexec_fn=lambda: end_with_parent(signal.SIGTERM))
    if code := finished.returncode:
        raise KdamError(f"kdam {command} ended with code {code}, see above. Run the same command to continue.")
    return as_scores(json.loads(results.read_text("utf-8")))


def reuse(path: Path, settings: dict[str, Any], split: str, teacher: Path | None = None) -> Results:
    """The results of a finished run, refused if it had other settings, another teacher or another score.

    The teacher is known by its weights, so a comparison may be moved; results then say where its models are now.
    """
    try:
        found = as_scores(json.loads(path.read_text("utf-8")))
        teachers = [] if teacher is None else [weights_sha256(str(teacher))]
        now = {"recipe": settings, "protocol": "ours", "split": split, "ids": None, "teacher_sha256": teachers}
        before = {key: found["meta"].get(key) for key in now}
        match = found["meta"].get("distillation", {})  # its defaults then, which may be others now
        before["recipe"] = {key: value for key, value in match.items() if key in DEFAULTS} | before["recipe"]
        places = {"model": str(path.parent)} | ({"teacher": [str(teacher)]} if teacher else {})
        moved = any(found["meta"].get(key) != place for key, place in places.items())
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} does not describe a run ({error!r}); remove it to score it again.") from error
    # a fingerprint has what these came to; here there are recipes alone
    told = {"precision", "num_train_epochs", "total_train_batch_size"}
    ignore = {"recipe.teacher", *(f"recipe.{key}" for key in INCIDENTAL - told)}
    if different := differences(before, now, ignore=ignore, defaults={"recipe": DEFAULTS}):
        remedy = f"Run make clean, remove {path.parent}, or choose another --output_dir."
        raise CheckpointError(f"{path} belongs to a run with other settings: {'; '.join(different)}. {remedy}")
    if moved:
        found["meta"] |= places
        write_json(path, found)
    return found


def summarise(runs: list[Results], none: list[Results], keys: dict[str, bool]) -> Results:
    """One run as it is, several as mean and standard deviation; with the gain of each over `none` of its seed."""
    summary = {**runs[0]}
    if len(runs) > 1:
        columns = {key: [run[key] for run in runs] for key in runs[0] if key != "meta"}
        summary |= {key: statistics.mean(values) for key, values in columns.items()}
        summary |= {f"{key}_std": deviation(values) for key, values in columns.items()}
        summary |= {"meta": runs[0]["meta"] | {"seed": [run["meta"]["seed"] for run in runs]}, "runs": runs}
    if none:  # one teacher stands beside the students of all seeds
        pairs = zip(runs * len(none) if len(runs) == 1 else runs, none, strict=True)
        learned = {key: up for key, up in keys.items() if all(run[key] > 0 for run in none)}
        summary["gains"] = [gain(run, other, learned) for run, other in pairs]
        summary["gain_over_none"] = statistics.mean(summary["gains"])
    return summary


def gain(result: Results, none: Results, keys: dict[str, bool]) -> float:
    """Mean relative gain in percent over those of the keys that the result has; `none` has learned all of them."""
    values = [(result[key], none[key], up) for key, up in keys.items() if key in result]
    return delta_m(values) if values else 0.0


def add_differences(summary: dict[str, Results], keys: dict[str, bool]) -> None:
    """To students of several seeds: of each to `none`, and of the last one to the others, as intervals, paired by seed."""
    students = [label for label, of in summary.items() if "runs" in of and label != "none"]
    pairs = [(label, "none") for label in students if "none" in summary]
    for label, other in [*pairs, *((students[-1], other) for other in students[:-1])]:
        of, to = summary[label], summary[other]
        values = {key: [a[key] - b[key] for a, b in zip(of["runs"], to["runs"], strict=True)] for key in keys}
        if "gains" in of:
            values["gain"] = [a - b for a, b in zip(of["gains"], to["gains"], strict=True)]
        of.setdefault("difference_to", {})[other] = {key: interval(of_seeds) for key, of_seeds in values.items()}


def interval(values: list[float]) -> list[float]:
    """Mean, and the ends of its 95 % interval (Student's t)."""
    mean = statistics.mean(values)
    half = stats.t.ppf(0.975, len(values) - 1) * deviation(values) / len(values) ** 0.5
    return [mean, mean - half, mean + half]


def deviation(values: list[float]) -> float:
    """Standard deviation of a sample; NaN where one is."""
    return statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan


@torch.inference_mode()
def draw(dataset: DenseDataset, models: dict[str, KdamPreTrainedModel], indices: list[int]) -> Image.Image:
    """Contact sheet: photo, truth, every model and a legend; one row per image and task."""
    rows, titles = [], []
    for index in indices:
        sample = dataset[index]
        size, predictions = sample["image"].shape[:2], []
        for model in models.values():
            inputs = seen_by(model.config, dataset, dataset.tasks)[index]
            predictions.append(model(inputs["pixel_values"][None], inputs["pixel_mask"][None]).predictions)
        for task in dataset.tasks:
            known = [of.get(task.name) for of in predictions]  # a teacher may have fewer tasks
            maps = [None if of is None else as_map(task.reader.decode(of, size)[0]) for of in known]
            cells = [None if x is None else task.reader.colours(x) for x in (sample["labels"].get(task.name), *maps)]
            rows.append([sample["image"], *cells, legend_picture(task.reader.legend(), *size)])
            titles.append(f"{task.name} ({sample['id']})")
    return contact_sheet(rows, titles, ["photo", "truth", *models, "legend"])


def draw_losses(runs: dict[str, list[Results]], tasks: Sequence[Task], path: Path) -> None:
    """The supervised loss of each task over the steps that every student logged; nothing without the extra `plots`."""
    try:
        from kdam_hf.plots import MOST_CURVES, loss_figure, save_png
    except ModuleNotFoundError as error:
        print(f"no {path.name}: {error}")
        return
    if len(runs) > MOST_CURVES:
        print(f"no {path.name}: {len(runs)} students, a figure shows {MOST_CURVES}")
        return
    logs = {label: [logged_losses(Path(run["meta"]["model"])) for run in of] for label, of in runs.items()}
    if steps := sorted(set.intersection(*(set(log) for of in logs.values() for log in of))):
        losses = {
            task.name: {
                label: [[log[step][f"loss_{task.name}"] for step in steps] for log in of] for label, of in logs.items()
            }
            for task in tasks
        }
        save_png(loss_figure(steps, losses), path)


def logged_losses(run: Path) -> dict[int, dict[str, float]]:
    """Step -> supervised losses by name, of the log of a run; empty if it left none."""
    return {
        entry["step"]: {key: value for key, value in entry.items() if key.startswith("loss_")}
        for entry in training_log(run) or ()
        if "loss" in entry
    }


@torch.inference_mode()
def latency_ratio(student: KdamPreTrainedModel, teacher: KdamPreTrainedModel, dataset: DenseDataset) -> float:
    """Median over interleaved rounds of student time / teacher time for one image on the CPU."""
    pixel_values, ratios = torch.zeros(1, 3, *dataset[0]["image"].shape[:2]), []
    for _ in range(10):
        times = [time.perf_counter()]
        for model in (student, teacher):
            model(pixel_values)
            times.append(time.perf_counter())
        ratios.append((times[1] - times[0]) / (times[2] - times[1]))
    return statistics.median(ratios[1:])


def report(summary: dict[str, Results], keys: dict[str, bool], source: str) -> str:
    """Markdown: the main metric of every task, and with several seeds the differences of students."""
    header = ["model", *(f"{key} {'↑' if up else '↓'}" for key, up in keys.items()), "gain over none, %"]
    rows, compared = [], []
    for label, result in summary.items():
        meta = result["meta"]
        spread = {k: f" ± {result[f'{k}_std']:.3f}" for k in keys if f"{k}_std" in result}
        scores = [f"{result[k]:.3f}{spread.get(k, '')}" if k in result else "–" for k in keys]
        gained = f"{result['gain_over_none']:+.2f}" if "gain_over_none" in result else ""
        size = f"{meta['parameters'] / 1e6:.2f}", f"{meta['gflops']:.2f}", f"{meta.get('latency_over_teacher', 1):.2f}"
        rows.append([label, *scores, gained, *size])
        for other, by_key in result.get("difference_to", {}).items():
            intervals = [f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" for mean, low, high in by_key.values()]
            compared.append([f"{label} - {other}", *intervals])
    meta, seeds = summary["teacher"]["meta"], max(len(result.get("runs", [0])) for result in summary.values())
    deviation = ", mean ± standard deviation" if seeds > 1 else ""
    text = f"""{table([*header, "parameters, M", "GFLOPs", "latency / teacher"], rows)}
Data: {source}; {meta["train_images"]} training and {meta["images"]} evaluation images. {seeds} seed(s) per \
student{deviation}. {hardware()}, {meta["date"]}.
Gain: mean over tasks of the signed relative difference to `none` (as many steps, no teacher).
Latency: median ratio of interleaved single-image forward passes, CPU.
"""
    if compared:
        header = ["difference", *header[1:-1], "gain, points"][: len(compared[0])]
        text += f"\nDifferences, mean [95 % interval], paired over {seeds} seeds:\n\n{table(header, compared)}\n"
    return text


def table(header: list[str], rows: list[list[str]]) -> str:
    return "".join("| " + " | ".join(row) + " |\n" for row in (header, ["---"] * len(header), *rows))
