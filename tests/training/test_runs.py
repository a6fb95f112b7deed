import json

import pytest

from kdam_hf.errors import CheckpointError, KdamValueError
from kdam_hf.training import DataArguments, ModelArguments, MultiTaskTrainer, build_run, execute
from kdam_hf.training.runs import weights_hash

SETTINGS = {"max_steps": 2, "seed": 0}


def data(**kwargs):
    small = {
        "rooms_train": 4,
        "rooms_val": 2,
        "rooms_height": 40,
        "rooms_width": 56,
        "crop_height": 32,
        "crop_width": 48,
    }
    return DataArguments(**(small | kwargs))


def go(kit, settings=SETTINGS, **args):
    arguments = kit.args("run", save_strategy="steps", save_steps=1, **({"max_steps": 2} | args))
    run = build_run(data(), ModelArguments(preset="tiny-resnet"), arguments, settings)
    trainer = MultiTaskTrainer(run.model, arguments, run.tasks, run.train_dataset, run.eval_dataset)
    return execute(trainer, run, data())


def test_a_run_leaves_a_model_that_knows_the_size_of_its_images(kit):
    metrics = go(kit)
    results = json.loads((kit.root / "run" / "results.json").read_text())
    assert {k: v for k, v in results.items() if k != "meta"} == pytest.approx(metrics)
    assert results["meta"]["world_size"] == 1
    assert results["meta"]["data"] == "synthetic_rooms"
    config = json.loads((kit.root / "run" / "config.json").read_text())
    assert config["image_size"] == [40, 56]


def test_a_folder_with_checkpoints_is_neither_overwritten_nor_adopted(kit):
    go(kit)
    with pytest.raises(CheckpointError, match="checkpoints of an earlier run"):
        go(kit)
    with pytest.raises(CheckpointError, match=r"max_steps 2 -> 3"):
        go(kit, max_steps=3, resume_from_checkpoint="last")


def test_resuming_keeps_what_was_typed_when_the_run_began(kit):
    go(kit)
    go(kit, {**SETTINGS, "report_to": "tensorboard"}, resume_from_checkpoint="last")
    assert json.loads((kit.root / "run" / "recipe.json").read_text()) == {**SETTINGS, "world_size": 1}


def test_a_run_killed_after_its_last_checkpoint_scores_the_same_model_again(kit):
    metrics = go(kit)
    output = kit.root / "run"
    (output / "results.json").unlink()
    (output / "model.safetensors").write_bytes((output / "model.safetensors").read_bytes()[:1000])
    assert go(kit, resume_from_checkpoint="last") == metrics


def test_two_models_have_two_hashes(kit):
    kit.model(seed=0).save_pretrained(kit.root / "a")
    kit.model(seed=1).save_pretrained(kit.root / "b")
    assert weights_hash(kit.root / "a") != weights_hash(kit.root / "b")
    assert weights_hash("org/on-the-hub") is None


def test_an_unknown_role_or_preset_is_refused(kit):
    for model in (ModelArguments(role="tutor"), ModelArguments(preset="swin-tny")):
        with pytest.raises(KdamValueError, match=r"tutor|swin-tny"):
            build_run(data(), model, kit.args(), {})


def test_weights_are_asked_for_only_where_a_preset_has_some(kit):
    with pytest.raises(KdamValueError, match="tiny-resnet has no public weights"):
        build_run(data(), ModelArguments(preset="tiny-resnet", backbone_weights="preset"), kit.args(), {})
