"""Train one teacher, distil it into students by several methods and seeds, and compare them.

    python scripts/compare.py --teacher_config scripts/recipes/rooms_teacher.yaml \
        --student_config scripts/recipes/rooms_student.yaml --methods none cs --output_dir outputs/demo

A method may carry its own options, and stand there twice: `--methods none cs:beta=0.02 cs:beta=0.5,intra=false`. Runs
train.py and distill.py as a user would (each command is printed); further options are handed to both. What is already
there is reused, an interrupted run is continued. Leaves under output_dir the models, contact_sheet.png (photo, truth,
teacher, students), results.json and results.md.
"""

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset_loaders import DenseDataset, EvalTransform
from kdam_hf.distillation import METHODS
from kdam_hf.errors import CheckpointError, KdamError, KdamValueError
from kdam_hf.metrics import delta_m
from kdam_hf.modeling_kdam import KdamPreTrainedModel
from kdam_hf.readout_kdam import as_map
from kdam_hf.tasks import Task, with_options
from kdam_hf.training import (
    DataArguments,
    KdamTrainingArguments,
    StudentArguments,
    load_model,
    parse_recipe,
    run_command,
)
from kdam_hf.training.arguments import DistillationArguments
from kdam_hf.training.identity import differences
from kdam_hf.training.report import hardware, write_json
from kdam_hf.training.runs import open_split, weights_hash
from kdam_hf.training.signals import end_with_parent
from kdam_hf.visualization import contact_sheet, legend_picture

SCRIPTS = Path(__file__).parent
LAUNCH = ["-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no"]
Results = dict[str, Any]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--teacher_config", required=True, help="recipe for train.py")
    parser.add_argument("--student_config", required=True, help="recipe for distill.py")
    parser.add_argument("--methods", nargs="+", default=["none", "cs"], help="one student each")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="one student per method and seed")
    parser.add_argument(
        "--show", nargs="+", type=int, default=[0], help="images of the evaluation split on the contact sheet"
    )
    parser.add_argument("--output_dir", required=True, type=Path, help="folder to write to")
    args, overrides = parser.parse_known_args(argv)
    root: Path = args.output_dir

    teacher = train("train.py", args.teacher_config, root / "teacher", overrides)
    students: dict[str, list[Results]] = {}
    parsed = [(text, *split_method(text)) for text in args.methods]
    names = [method for _, method, _ in parsed]
    for text, method, own in parsed:
        label = method if names.count(method) == 1 else text
        for seed in args.seeds:
            name = re.sub(r"[^\w.]+", "-", label)
            folder = root / (name if len(args.seeds) == 1 else f"{name}-seed{seed}")
            options = [*overrides, "--method", method, "--seed", str(seed), *own]
            if method != "none":
                options += ["--teacher", str(root / "teacher")]
            students.setdefault(label, []).append(train("distill.py", args.student_config, folder, options))

    groups = (DataArguments, StudentArguments, DistillationArguments, KdamTrainingArguments)
    data = parse_recipe(groups, ["--config", args.student_config, *overrides])[0]
    held_out = open_split(data, data.eval_split)
    models = {name: load_model(str(folder)).eval() for name, folder in shown(root, students).items()}
    draw(held_out, models, args.show).save(root / "contact_sheet.png")
    ratio = latency_ratio(models[next(iter(students))], models["teacher"], held_out)
    for run in (run for runs in students.values() for run in runs):  # all have the architecture that was timed
        run["meta"]["latency_over_teacher"] = round(ratio, 3)
        write_json(Path(run["meta"]["model"]) / "results.json", run)
    summary = {"teacher": teacher} | {method: over_seeds(runs) for method, runs in students.items()}
    write_json(root / "results.json", summary)
    tasks = with_options(held_out.tasks, data.task_options or ())
    report = table(summary, tasks, ratio, data, len(args.seeds))
    (root / "results.md").write_text(report)
    print("\n" + report + f"\nWritten to {root}: contact_sheet.png, results.json, results.md")


def split_method(text: str) -> tuple[str, list[str]]:
    """`kl:beta=0.02,temperature=4` -> ("kl", ["--beta", "0.02", "--temperature", "4"])."""
    method, _, rest = text.partition(":")
    if method not in METHODS:
        raise KdamValueError(f"unknown method {method!r}; expected {', '.join(METHODS)}.")
    pairs = [pair.split("=") for pair in rest.split(",")] if rest else []
    if any(len(pair) != 2 for pair in pairs):
        raise KdamValueError(f"method {text!r}; expected a name, or name:key=value,key=value.")
    return method, [word for key, value in pairs for word in (f"--{key}", value)]


def train(script: str, config: str, folder: Path, options: list[str]) -> Results:
    """Run a training script unless its results are there already; returns results.json."""
    arguments = ["--config", config, *options, "--output_dir", str(folder)]
    results = folder / "results.json"
    if results.exists():
        found = read_results(results)
        groups = (DataArguments, StudentArguments, DistillationArguments, KdamTrainingArguments)
        data, *_, settings = parse_recipe(groups, arguments)
        check_same_run(folder, found["meta"], settings)
        check_same_score(folder, found["meta"], data.eval_split)
        print(f"{folder}: reused")
        return found
    arguments += ["--resume_from_checkpoint", "last"]
    print(f"\n{folder.name}: accelerate launch scripts/{script} {' '.join(arguments)}", flush=True)
    finished = subprocess.run(
        [sys.executable, *LAUNCH, str(SCRIPTS / script), *arguments],
        check=False,
        preexec_fn=lambda: end_with_parent(signal.SIGTERM),  # killed, this script leaves no training behind
    )
    if finished.returncode:
        raise KdamError(
            f"{script} ended with code {finished.returncode}; see its message above. Run the same command again to continue."
        )
    return json.loads(results.read_text())


def read_results(path: Path) -> Results:
    """A results.json that says how its model was trained."""
    try:
        found = json.loads(path.read_text())
        complete = "recipe" in found["meta"]
    except (ValueError, LookupError, TypeError):
        complete = False
    if not complete:
        raise CheckpointError(
            f"{path} does not say with which settings its model was trained; remove it, and the run is scored again, or choose "
            "another --output_dir."
        )
    return found


def check_same_run(folder: Path, meta: Results, settings: dict[str, Any]) -> None:
    """Refuse a run with other settings or another teacher."""
    different = differences(meta["recipe"], settings)
    if different:
        raise CheckpointError(
            f"{folder} holds a run with other settings: {'; '.join(different)}. Run make clean or choose another --output_dir."
        )
    teachers = meta.get("teacher", [])
    if [weights_hash(name) for name in teachers] != meta.get("teacher_sha256", []):
        raise CheckpointError(f"{folder} learned from another {', '.join(teachers)}; remove it, or run make clean.")


def check_same_score(folder: Path, meta: Results, split: str) -> None:
    """Refuse a score that does not stand beside those measured here."""
    if "protocol" not in meta:
        raise CheckpointError(
            f"{folder} was scored by an earlier version, with other metrics; run make clean or choose another --output_dir."
        )
    for key, wanted in (("protocol", "ours"), ("split", split), ("ids", None)):
        if meta.get(key, wanted) != wanted:
            raise CheckpointError(
                f"{folder} was scored with {key} {meta[key]}, the others with {wanted}; remove {folder / 'results.json'}, and "
                "the run is scored again."
            )


def shown(root: Path, students: dict[str, list[Results]]) -> dict[str, Path]:
    """The teacher and one student per method."""
    return {"teacher": root / "teacher"} | {method: Path(runs[0]["meta"]["model"]) for method, runs in students.items()}


def over_seeds(runs: list[Results]) -> Results:
    """One run as it is; several as mean and standard deviation of every metric."""
    if len(runs) == 1:
        return runs[0]
    keys = [key for key in runs[0] if key != "meta"]
    means = {key: statistics.mean(run[key] for run in runs) for key in keys}
    spreads = {f"{key}_std": statistics.stdev(run[key] for run in runs) for key in keys}
    return {**means, **spreads, "meta": runs[0]["meta"] | {"seed": [run["meta"]["seed"] for run in runs]}, "runs": runs}


@torch.inference_mode()
def draw(dataset: DenseDataset, models: dict[str, KdamPreTrainedModel], indices: list[int]) -> Any:
    """Contact sheet: photo, truth, every model and a legend; one row per image and task."""
    rows, titles = [], []
    for index in indices:
        sample = dataset[index]
        height, width = sample["image"].shape[:2]
        predictions = {}
        for name, model in models.items():
            inputs = EvalTransform(dataset.tasks, model.config.image_mean, model.config.image_std)(sample, 0, index)
            predictions[name] = model(inputs["pixel_values"][None], inputs["pixel_mask"][None]).predictions
        for task in dataset.tasks:
            truth = sample["labels"].get(task.name)
            cells = [sample["image"], None if truth is None else task.render(truth)]
            cells += [task.render(decoded(task, predictions[name][task.name], height, width)) for name in models]
            rows.append([*cells, legend_picture(task.legend(), height, width)])
            titles.append(f"{task.name} ({sample['id']})")
    return contact_sheet(rows, titles, ["photo", "truth", *models, "legend"])


def decoded(task: Task, prediction: torch.Tensor, height: int, width: int) -> np.ndarray:
    """A stride-4 prediction (1, C, h, w) as a raw map of the image's size."""
    return as_map(task.decode(prediction, (height, width))[0])


@torch.inference_mode()
def latency_ratio(
    student: KdamPreTrainedModel, teacher: KdamPreTrainedModel, dataset: DenseDataset, rounds: int = 9
) -> float:
    """Median over interleaved rounds of student time / teacher time for one image on the CPU."""
    pixel_values = torch.zeros(1, 3, *dataset[0]["image"].shape[:2])
    ratios = []
    for _ in range(rounds + 1):
        seconds = []
        for model in (student, teacher):
            start = time.perf_counter()
            model(pixel_values)
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios[1:])


def gain_over(result: Results, none: Results, keys: list[tuple[str, bool]]) -> str:
    """Mean relative gain in percent, over the tasks that `none` has learned at all."""
    values = [(result[key], none[key], up) for key, up in keys if none[key] > 0]
    return f"{delta_m(values):+.2f}" if values else "n/a"


def table(summary: dict[str, Results], tasks: tuple[Task, ...], ratio: float, data: DataArguments, seeds: int) -> str:
    """Markdown table of the main metric of every task."""
    keys = [(f"{task.name}/{task.primary_metric}", task.higher_is_better) for task in tasks]
    header = [
        "model",
        *(f"{key} {'↑' if up else '↓'}" for key, up in keys),
        "gain over none, %",
        "parameters, M",
        "GFLOPs",
        "latency / teacher",
    ]
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    for name, result in summary.items():
        cells = [name]
        for key, _ in keys:
            cells.append(f"{result[key]:.3f}" + (f" ± {result[key + '_std']:.3f}" if f"{key}_std" in result else ""))
        gain = gain_over(result, summary["none"], keys) if "none" in summary else ""
        meta = result["meta"]
        cells += [
            gain,
            f"{meta['parameters'] / 1e6:.2f}",
            f"{meta['gflops']:.2f}",
            "1" if name == "teacher" else f"{ratio:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    meta = summary["teacher"]["meta"]
    what = (
        "SYNTHETIC rooms, ray-cast by this project, no photos"
        if data.dataset == "synthetic_rooms"
        else f"{data.data_dir}"
    )
    lines += [
        "",
        f"Data: {what}; {meta['train_images']} training and {meta['images']} evaluation images. {seeds} seed(s) per student"
        f"{', mean ± standard deviation' if seeds > 1 else ''}. {hardware()}, {meta['date']}.",
        "Gain: mean over tasks of the signed relative difference to `none` (as many steps, no teacher).",
        "Latency: median ratio of interleaved single-image forward passes, CPU.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_command(main)
