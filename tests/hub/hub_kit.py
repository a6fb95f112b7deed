"""A small trained student with all that a run leaves behind, and processes that see no more than they are given."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from kdam_hf import KdamImageProcessor, KdamStudent
from kdam_hf.hub.record import sha256
from kdam_hf.presets import make_config
from kdam_hf.tasks import NYUD_V2

ROOT = Path(__file__).parents[2]


def results_of(**meta):
    """What evaluate.py or a training script writes, with invented numbers."""
    facts = {
        "kind": "KdamStudent",
        "data": "nyud_v2",
        "split": "val",
        "images": 654,
        "protocol": "ours",
        "boundaries": "nyud",
    }
    facts |= {"hardware": "2 cores", "date": "2026-11-24", "parameters": 76_000, "gflops": 0.5, "gflops_size": [40, 56]}
    facts |= {
        "train_images": 795,
        "seed": 3,
        "steps": 40,
        "world_size": 1,
        "bf16": False,
        "data_dir": "/home/alice/NYUDv2",
    }
    facts |= {"versions": {"kdam-hf": "0.1.0"}, "notes": ["normals: derived from depth"], "recipe": {}}
    scores = {"semseg/miou": 12.5, "semseg/pixel_accuracy": 40.0, "depth/rmse": 0.9, "normals/mean_angle": float("nan")}
    return scores | {"edge/odsf": 50.0, "meta": facts | meta}


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def make_student(folder):
    """A student distilled from the teacher beside it, as compare.py leaves one, with random weights."""
    torch.manual_seed(0)
    model = KdamStudent(make_config("student", "tiny-resnet", NYUD_V2, image_size=[40, 56])).eval()
    model.save_pretrained(folder)
    KdamImageProcessor.from_model_config(model.config).save_pretrained(folder)
    teacher = folder.parent / "teacher"
    write_json(teacher / "results.json", results_of(kind="KdamTeacher", parameters=6_600_000, gflops=3.5))
    (teacher / "model.safetensors").write_bytes(b"weights of the teacher")
    facts = {"method": "cs", "teacher": [str(teacher)], "teacher_sha256": [sha256(teacher / "model.safetensors")]}
    facts |= {"model": str(folder), "weights_sha256": sha256(folder / "model.safetensors"), "matching_batch": 8}
    write_json(folder / "results.json", results_of(**facts))
    write_json(folder.parent / "results.json", {folder.name: results_of(**facts)})
    recipe = {
        "dataset": "nyud_v2",
        "data_dir": "/home/alice/NYUDv2",
        "preset": "tiny-resnet",
        "temperature": 8.0,
        "beta": 0.5,
    }
    recipe |= {"method": "cs", "output_dir": str(folder), "hub_token": "hf_secret", "per_device_train_batch_size": 8}
    write_json(folder / "recipe.json", recipe | {"teacher": [str(teacher)], "task_options": ["edge.loss_weight=2"]})
    log = [{"step": k, "epoch": k / 10, "loss": 9.0 - k, "kd_inter_task": 0.5, "learning_rate": 0.1} for k in (1, 2, 3)]
    write_json(
        folder / "checkpoint-3" / "trainer_state.json", {"log_history": log, "best_model_checkpoint": str(folder)}
    )
    for name in ("training_args.bin", "checkpoint-3/optimizer.pt", "notes.txt"):
        (folder / name).write_bytes(b"\x80\x04pickle")
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(folder.parent / "contact_sheet.png")
    return folder


def run_python(code_or_script, *arguments, env=None, check=True):
    """A process of this interpreter with the given variables on top; code, or a script of the repository."""
    is_script = str(code_or_script).endswith(".py")
    command = [str(ROOT / code_or_script)] if is_script else ["-c", code_or_script]
    done = subprocess.run(
        [sys.executable, *command, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        cwd=ROOT,
    )
    assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done
