"""The commands of the README, typed as a user types them."""

import json

import numpy as np
import pytest
import trees
from command_kit import ROOMS, SCRIPTS, SMALL, launch, run
from PIL import Image

COMMANDS = sorted(path.name for path in SCRIPTS.glob("*.py"))


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Own data on disk, with tasks missing for some images, as options."""
    root = tmp_path_factory.mktemp("own")
    trees.write_tree("folder", root)
    return ["--dataset", "folder", "--data_dir", root]


@pytest.fixture(scope="module")
def teacher(own, tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher")
    run("train.py", *SMALL, *own, "--output_dir", out)
    return out


def scores(path):
    found = json.loads(path.read_text())
    return {key: value for key, value in found.items() if key != "meta"}, found["meta"]


@pytest.mark.parametrize("script", COMMANDS)
def test_a_command_explains_itself_and_refuses_an_unknown_option(script):
    assert "--" in run(script, "--help").stdout
    assert script in ("compare.py", "benchmark.py") or run(script, "--no_such_option", "3", check=False).returncode == 2


def test_own_data_goes_from_teacher_to_student_to_scores_and_pictures(own, teacher, tmp_path):
    student, output, pictures = tmp_path / "student", tmp_path / "r.json", tmp_path / "pictures"
    done = launch("distill.py", *SMALL, *own, "--teacher", teacher, "--output_dir", student, processes=1)
    assert "depth: 5 of 6 images labelled" in done.stdout
    run("evaluate.py", "--model", student, *own, "--split", "val", "--output", output)
    found, meta = scores(output)
    assert {"semseg/miou", "depth/rmse", "normals/mean_angle", "edge/odsf", "edge/maxf"} <= set(found)
    assert meta["images"] == 3
    assert scores(student / "results.json")[0] == pytest.approx(found, rel=1e-4)
    photos = sorted((own[3] / "images").iterdir())[:2]
    run("predict.py", "--model", student, "--images", *photos, "--output_dir", pictures)
    for photo in photos:
        width, height = Image.open(photo).size
        for task in ("semseg", "depth", "normals", "edge"):
            assert np.load(pictures / f"{photo.stem}_{task}.npy").shape[:2] == (height, width)
            assert Image.open(pictures / f"{photo.stem}_{task}.png").size == (width, height)
    assert Image.open(pictures / "contact_sheet.png").width > 4 * 50


def test_single_task_teachers_distil_one_student(own, tmp_path):
    folders = [tmp_path / task for task in ("depth", "normals")]
    for folder in folders:
        run("train.py", *SMALL, *own, "--tasks", folder.name, "--output_dir", folder)
        assert all(key.startswith(folder.name) for key in scores(folder / "results.json")[0])
    student = ["--tasks", "depth", "normals", "--teacher", *folders, "--output_dir", tmp_path / "s"]
    run("distill.py", *SMALL, *own, *student)
    assert scores(tmp_path / "s" / "results.json")[1]["teacher"] == [str(folder) for folder in folders]


@pytest.mark.reliability
def test_two_processes_train_one_model_and_count_every_image_once(own, teacher, tmp_path):
    settings = ["--per_device_train_batch_size", "1", "--teacher", teacher, "--output_dir", tmp_path / "two"]
    launch("distill.py", *SMALL, *own, *settings, processes=2)
    together, meta = scores(tmp_path / "two" / "results.json")
    assert meta["world_size"] == 2, "a launcher that quietly starts one process is not two"
    run("evaluate.py", "--model", tmp_path / "two", *own, "--output", tmp_path / "one.json")
    assert scores(tmp_path / "one.json")[0] == pytest.approx(together, rel=1e-4)


MISTAKES = [
    ("train.py", ["--max_step", "3"], "max_steps"),
    ("train.py", [*SMALL, *ROOMS, "--tasks", "depht"], "depth"),
    ("train.py", [*SMALL, *ROOMS, "--per_device_train_batch_size", "99"], "99"),
    ("distill.py", [*SMALL, *ROOMS], "needs a teacher"),
    ("distill.py", [*SMALL, *ROOMS, "--method", "kld", "--teacher", "x"], "kld"),
    ("distill.py", [*SMALL, *ROOMS, "--teacher", "nowhere"], "nowhere"),
    ("compare.py", ["--teacher_config", "a", "--student_config", "b", "--methods", "kld"], "kld"),
    ("predict.py", ["--model", "m", "--images", "missing.jpg"], "missing.jpg"),
    ("evaluate.py", ["--model", "nowhere"], "nowhere"),
]


@pytest.mark.parametrize(("script", "arguments", "named"), MISTAKES)
def test_a_mistake_on_the_command_line_is_named(script, arguments, named, tmp_path):
    output = ["--output_dir", tmp_path / "out"] if script not in ("predict.py", "evaluate.py") else []
    done = run(script, *arguments, *output, check=False)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr
