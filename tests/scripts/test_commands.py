"""The commands of the README, typed as a user types them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_kit import ROOMS, SMALL, launch, run
from PIL import Image

from dataset_loaders.synthetic_rooms import CLASS_NAMES, SyntheticRooms


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Own data on disk: photos of odd sizes, 16-bit depth, 8-bit normals, and a task missing for some images."""
    root = tmp_path_factory.mktemp("own")
    for folder in ("images", "semseg", "depth", "normals", "edge"):
        (root / folder).mkdir()
    for split, count in (("train", 6), ("val", 3)):
        names = []
        for k in range(count):
            rooms = SyntheticRooms(split, count, height=41 + k, width=57 - k)
            sample, name = rooms[k], f"{split}{k}"
            labels = sample["labels"]
            Image.fromarray(sample["image"]).save(root / "images" / f"{name}.jpg", quality=95)
            Image.fromarray(labels["semseg"]).save(root / "semseg" / f"{name}.png")
            Image.fromarray((labels["depth"] * 1000).round().astype(np.uint16)).save(root / "depth" / f"{name}.png")
            Image.fromarray(((labels["normals"] + 1) * 127.5).round().astype(np.uint8)).save(
                root / "normals" / f"{name}.png"
            )
            if k % 2 == 0:
                Image.fromarray(labels["edge"] * 255).save(root / "edge" / f"{name}.png")
            names.append(name)
        (root / f"{split}.txt").write_text("\n".join(names) + "\n")
    tasks = {
        "semseg": {"num_classes": len(CLASS_NAMES), "class_names": list(CLASS_NAMES)},
        "depth": {},
        "normals": {},
        "edge": {},
    }
    (root / "dataset.json").write_text(json.dumps({"name": "own", "tasks": tasks}))
    return root


@pytest.fixture(scope="module")
def teacher(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher")
    launch("train.py", *SMALL, "--dataset", "folder", "--data_dir", tree, "--output_dir", out, processes=1)
    return out


def flat_keys(path):
    results = json.loads(Path(path).read_text())
    return set(results) - {"meta"}, results


def test_own_data_goes_from_teacher_to_student_to_scores_and_pictures(tree, teacher, tmp_path):
    student, scores, pictures = tmp_path / "student", tmp_path / "r.json", tmp_path / "pictures"
    own = ["--dataset", "folder", "--data_dir", tree]
    matched = ["--teacher", teacher, "--method", "cs", "--output_dir", student]
    trained = launch("distill.py", *SMALL, *own, *matched, processes=1).stdout
    assert "edge: 3 of 6 images labelled" in trained
    assert "| semseg | **miou** ↑ |" in trained
    assert f"Model and results.json written to {student}" in trained
    launch("evaluate.py", "--model", student, *own, "--split", "val", "--output", scores)
    keys, results = flat_keys(scores)
    assert {"semseg/miou", "depth/rmse", "normals/mean_angle", "edge/odsf", "edge/maxf"} <= keys
    assert results["meta"]["images"] == 3
    trained = flat_keys(student / "results.json")[1]
    assert {k: trained[k] for k in keys} == pytest.approx({k: results[k] for k in keys}, rel=1e-4)
    photos = [tree / "images" / "val0.jpg", tree / "images" / "val1.jpg"]
    run("predict.py", "--model", student, "--images", *photos, "--output_dir", pictures)
    for photo in photos:
        width, height = Image.open(photo).size
        for task in ("semseg", "depth", "normals", "edge"):
            assert np.load(pictures / f"{photo.stem}_{task}.npy").shape[:2] == (height, width)
            assert Image.open(pictures / f"{photo.stem}_{task}.png").size == (width, height)
    assert Image.open(pictures / "contact_sheet.png").width > 4 * 50


def test_single_task_teachers_distil_one_student(tree, tmp_path):
    own, folders = [*SMALL, "--dataset", "folder", "--data_dir", tree, "--tasks"], []
    for task in ("depth", "normals"):
        folders.append(tmp_path / task)
        run("train.py", *own, task, "--output_dir", folders[-1])
        assert all(key.startswith(task) for key in flat_keys(folders[-1] / "results.json")[0])
    run("distill.py", *own, "depth", "normals", "--teacher", *folders, "--output_dir", tmp_path / "s")
    assert flat_keys(tmp_path / "s" / "results.json")[1]["meta"]["teacher"] == [str(f) for f in folders]


@pytest.mark.reliability
def test_two_processes_train_one_model_and_count_every_image_once(teacher, tree, tmp_path):
    own = ["--dataset", "folder", "--data_dir", tree, "--per_device_train_batch_size", "1"]
    matched = ["--teacher", teacher, "--method", "cs", "--output_dir", tmp_path / "two"]
    done = launch("distill.py", *SMALL, *own, *matched, processes=2)
    results = flat_keys(tmp_path / "two" / "results.json")[1]
    assert results["meta"]["world_size"] == 2, "a launcher that quietly starts one process is not two"
    assert "processes: 2" in done.stdout
    run("evaluate.py", "--model", tmp_path / "two", *own[:4], "--output", tmp_path / "one.json")
    keys, alone = flat_keys(tmp_path / "one.json")
    assert {k: results[k] for k in keys} == pytest.approx({k: alone[k] for k in keys}, rel=1e-4)


def test_comparison_leaves_models_table_sheet_and_results_and_is_reused(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("dataset: synthetic_rooms\nuse_cpu: true\n")
    arguments = ["--teacher_config", recipe, "--student_config", recipe, "--methods", "none", "cs:beta=0.1"]
    arguments += ["--output_dir", tmp_path / "out", *SMALL, *ROOMS]
    launch("compare.py", *arguments)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results) == ["teacher", "none", "cs"]
    for result in results.values():
        assert {
            "semseg/miou",
            "human_parts/miou",
            "saliency/maxf",
            "depth/rmse",
            "normals/mean_angle",
            "edge/odsf",
            "edge/maxf",
            "meta",
        } <= set(result)
    assert Image.open(tmp_path / "out" / "contact_sheet.png").width > 5 * 56
    table = (tmp_path / "out" / "results.md").read_text()
    assert "SYNTHETIC" in table
    assert "edge/odsf ↑" in table
    again = run("compare.py", *arguments)
    assert again.stdout.count("reused") == 3
    other = run("compare.py", *arguments, "--max_steps", "2", check=False)
    assert other.returncode != 0
    assert "other settings: max_steps" in other.stderr


MISTAKES = [
    ("train.py", ["--max_step", "3"], "did you mean 'max_steps'"),
    ("train.py", [*SMALL, *ROOMS, "--tasks", "depht"], "Did you mean depth?"),
    ("train.py", [*SMALL, *ROOMS, "--per_device_train_batch_size", "99"], "fewer than one batch of 99"),
    ("distill.py", [*SMALL, *ROOMS], "needs a teacher"),
    ("distill.py", [*SMALL, *ROOMS, "--method", "kld", "--teacher", "x"], "kld"),
    ("distill.py", [*SMALL, *ROOMS, "--teacher", "nowhere"], "no model at 'nowhere'"),
    ("predict.py", ["--model", "m", "--images", "missing.jpg"], "missing.jpg"),
    ("evaluate.py", ["--model", "nowhere"], "no model at 'nowhere'"),
]


@pytest.mark.parametrize(("script", "arguments", "message"), MISTAKES)
def test_a_mistake_on_the_command_line_gets_a_clear_error(script, arguments, message, tmp_path):
    if script in ("train.py", "distill.py"):
        arguments = [*arguments, "--output_dir", tmp_path / "out"]
    done = run(script, *arguments, check=False)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_model_of_more_tasks_than_the_data_is_told_how_to_score_the_common_ones(teacher, tree, tmp_path):
    data = shutil.copytree(tree, tmp_path / "data")
    description = json.loads((data / "dataset.json").read_text())
    del description["tasks"]["depth"]
    (data / "dataset.json").write_text(json.dumps(description))
    own = ["--model", teacher, "--dataset", "folder", "--data_dir", data, "--output", tmp_path / "r.json"]
    done = run("evaluate.py", *own, check=False)
    assert "predicts semseg, depth, normals, edge: unknown task depth" in done.stderr
    assert "Score those that both have with --tasks" in done.stderr


def test_a_mistake_is_one_message_without_a_traceback():
    done = launch("evaluate.py", "--model", "nowhere", check=False)
    assert done.returncode == 2
    assert "no model at 'nowhere'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_teacher_of_other_classes_is_refused(teacher, tmp_path):
    done = run("distill.py", *SMALL, *ROOMS, "--teacher", teacher, "--output_dir", tmp_path / "out", check=False)
    assert "has the task human_parts but the teacher only knows" in done.stderr
