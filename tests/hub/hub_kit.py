"""A small trained student with all that a run leaves behind, and processes that see no more than they are given."""

import json
import os
import subprocess
import sys
from pathlib import Path

from conftest_kit import Kit
from PIL import Image

from kdam_hf.io import file_sha256, write_json
from kdam_hf.tasks import NYUD_V2, make_task

ROOT = Path(__file__).parents[2]
ID = "org/kdam-student"
NAMES = ["/m/01g317", "~other", "floor"]  # of classes, some of which look like paths
TASKS = (make_task("semseg", NAMES), *NYUD_V2[1:])
# what evaluate.py and the training scripts write, with invented numbers
SCORE = {"kind": "KdamStudent", "data": "nyud_v2", "split": "val", "images": 654, "protocol": "ours"}
COST = {"hardware": "2 cores", "date": "2026-11-24", "parameters": 76_000, "gflops": 0.5, "gflops_size": [40, 56]}
TRAINING = {"train_images": 795, "train_batch": 8, "seed": 3, "steps": 40, "world_size": 1, "bf16": False, "recipe": {}}
TRAINING |= {"data_dir": "/home/alice/NYUDv2", "versions": {"kdam-hf": "0.1.0"}}
META = SCORE | COST | TRAINING | {"boundaries": "nyud", "notes": ["normals: derived from depth"]}


def results_of(**meta):
    scores = {"semseg/miou": 12.5, "semseg/pixel_accuracy": 40.0, "depth/rmse": 0.9, "normals/mean_angle": float("nan")}
    return scores | {"edge/odsf": 50.0, "meta": META | meta}


def make_student(folder):
    """A student distilled from the teacher beside it, with random weights, and what must not be published."""
    Kit(folder).model(tasks=TASKS, image_size=[40, 56]).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["backbone_config"]["_name_or_path"] = "/home/alice/resnet"
    write_json(folder / "config.json", config)
    teacher, sha256 = folder.parent / "teacher", "f" * 64
    of_teacher = {"kind": "KdamTeacher", "parameters": 6_600_000, "gflops": 3.5, "weights_sha256": sha256}
    write_json(teacher / "results.json", results_of(**of_teacher))
    facts = {"method": "cs", "teacher": [str(teacher)], "teacher_sha256": [sha256], "matching_batch": 8}
    facts |= {"model": str(folder), "weights_sha256": file_sha256(folder / "model.safetensors")}
    write_json(folder / "results.json", results_of(**facts))
    recipe = {"dataset": "nyud_v2", "data_dir": "/home/alice/NYUDv2", "preset": "tiny-resnet", "temperature": 8.0}
    recipe |= {"method": "cs", "beta": 0.5, "output_dir": str(folder), "hub_token": "hf_secret"}
    write_json(folder / "recipe.json", recipe | {"teacher": [str(teacher)], "total_train_batch_size": 8})
    log = [{"loss": 9.0 - k, "kd_inter_task": 0.5, "learning_rate": 0.1, "epoch": k / 10, "step": k} for k in (1, 2, 3)]
    write_json(folder / "checkpoint-3/trainer_state.json", {"log_history": log, "best_model_checkpoint": str(folder)})
    (folder / "checkpoint-2.bak").mkdir()
    for name in ("training_args.bin", "checkpoint-3/optimizer.pt", "notes.txt"):
        (folder / name).write_bytes(b"\x80\x04pickle")
    Image.new("RGB", (30, 20), (90, 90, 90)).save(folder.parent / "contact_sheet.png")
    return folder


def change_results(folder, **meta):
    """Other facts in results.json; None takes one out."""
    results = json.loads((folder / "results.json").read_text())
    merged = (results["meta"] | meta).items()
    results["meta"] = {key: value for key, value in merged if key not in meta or value is not None}
    write_json(folder / "results.json", results)


def run_python(*command, env, cwd=ROOT):
    """A process with the given variables on top of those of this one."""
    command = [sys.executable, *map(str, command)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, cwd=cwd)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
