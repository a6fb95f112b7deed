"""Every recipe of a public dataset takes its steps on miniature trees, from data to scores."""

import json

import pytest
from command_kit import SCRIPTS, load
from conftest_kit import Kit

from dataset_loaders import open_dataset
from kdam_hf.training.recipes import read_recipe

FOLDER = SCRIPTS / "recipes"
ROLES = [f"{dataset}_{role}" for dataset in ("nyud_v2", "pascal_context") for role in ("teacher", "student")]
RECIPES = [path for name in ROLES for path in sorted(FOLDER.glob(f"{name}*.yaml"))]
DATASET = {"pascal_edge": "pascal_context"}
# What a miniature on a CPU needs of a recipe made for a GPU and photos.
SMALL = "--backbone_weights none --max_steps 1 --crop_height 40 --crop_width 56 --per_device_train_batch_size 2"
SMALL += " --dataloader_num_workers 0 --logging_steps 1 --save_strategy no --precision fp32"
TINY = {"swin-large": "tiny-swin", "swin-tiny": "tiny-swin", "resnet18": "tiny-resnet", "pvt-v2-b0": "tiny-pvt-v2"}


def execute(name, recipe, root, output, options):
    """The command `name` with a recipe; what it leaves as results."""
    arguments = f"--config {recipe} --data_dir {root} --output_dir {output} --use_cpu --disable_tqdm true {options}"
    load(f"{name}.py").main(arguments.split())
    return json.loads((output / "results.json").read_text())


@pytest.mark.parametrize(
    ("layout", "tasks"),
    [
        ("O", {"semseg", "depth", "normals", "edge"}),
        ("E", {"semseg", "depth", "normals"}),
        ("pascal_edge", {"semseg", "human_parts", "saliency", "normals", "edge"}),
    ],
)
def test_the_smoke_recipe_trains_and_scores_whatever_a_layout_has(layout, tasks, tree, tmp_path):
    config = FOLDER / f"{DATASET.get(layout, 'nyud_v2')}_smoke.yaml"
    found = execute("train", config, tree(layout)[0], tmp_path, "")
    assert {key.split("/")[0] for key in found} - {"meta"} == tasks
    assert found["meta"]["images"] == 3
    assert found["meta"]["steps"] == 4


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_a_public_dataset_takes_its_steps(recipe, tree, tmp_path):
    settings = read_recipe(recipe)
    options = f"--preset {TINY.get(settings['preset'], settings['preset'])} {SMALL}"
    root = tree({"nyud_v2": "B", "pascal_context": "pascal"}[settings["dataset"]])[0]
    if taught := "method" in settings:
        tasks = open_dataset(settings["dataset"], "train", root).tasks
        options += f" --teacher {Kit(tmp_path).saved('teacher', 'teacher', tasks=tasks)}"
    found = execute("distill" if taught else "train", recipe, root, tmp_path / "out", options)
    assert found["meta"]["steps"] == 1


@pytest.mark.parametrize("name", ROLES)
def test_full_recipes_state_the_published_protocol(name):
    settings = read_recipe(FOLDER / f"{name}.yaml")
    assert (settings["max_steps"], settings["total_train_batch_size"]) == ("40000", "8")
    assert (settings["optim"], settings["lr_scheduler_type"]) == ("sgd", "polynomial")
    assert float(settings["learning_rate"]) == 1e-3
    assert float(settings["weight_decay"]) == 5e-4
    size = {"nyud_v2": (448, 576), "pascal_context": (512, 512)}[settings["dataset"]]
    assert (int(settings["crop_height"]), int(settings["crop_width"])) == size
    assert settings["preset"] == ("swin-large" if name.endswith("teacher") else "swin-tiny")
