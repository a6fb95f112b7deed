import json
import shutil

import numpy as np
import pytest
import trees
from conftest_kit import Made

from dataset_loaders import MixedDataset, SubsetDataset, open_dataset
from dataset_loaders.builders import as_table
from kdam_hf.errors import CheckpointError, KdamValueError
from kdam_hf.io import file_sha256
from kdam_hf.photos_kdam import PhotoHeader
from kdam_hf.teachers import TeacherSource
from kdam_hf.teachers.teaching import Teaching
from kdam_hf.training import DataArguments, ModelArguments, MultiTaskTrainer, SourceArguments, build_run, execute
from kdam_hf.training import runs as module
from kdam_hf.training.sources import open_split, typical_predictions, typical_size

SETTINGS = {"max_steps": 2, "seed": 0}


def data(**kwargs):
    small = {"rooms_train": 4, "rooms_val": 2, "rooms_height": 40, "rooms_width": 56}
    return DataArguments(**(small | {"crop_height": 32, "crop_width": 48} | kwargs))


def go(kit, settings=SETTINGS, options=(), **args):
    arguments = kit.args("run", **({"max_steps": 2, "save_strategy": "steps", "save_steps": 1} | args))
    run = build_run(data(task_options=list(options)), ModelArguments(preset="tiny-resnet"), arguments, settings)
    trainer = MultiTaskTrainer(run.model, arguments, run.tasks, run.train_dataset, run.eval_dataset)
    return execute(trainer, run, data())


def test_a_run_leaves_a_model_that_knows_the_size_of_its_images_and_the_scores_of_its_weights(kit):
    metrics = go(kit, options=["semseg.class_weights=balanced"])
    results = json.loads((kit.root / "run" / "results.json").read_text())
    labels = [sample["labels"]["semseg"] for sample in open_split(data(), "train")]
    counts = np.bincount(np.concatenate([label[label != 255] for label in labels]))
    weights = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1)) * (counts > 0)
    found = results["meta"]["settings"]["tasks.semseg.class_weights"]
    assert found[: len(weights)] == pytest.approx(weights.tolist(), rel=1e-5)
    assert not any(found[len(weights) :])
    assert {k: v for k, v in results.items() if k != "meta"} == pytest.approx(metrics)
    assert (results["meta"]["world_size"], results["meta"]["data"]) == (1, "synthetic_rooms")
    assert results["meta"]["weights_sha256"] == file_sha256(kit.root / "run" / "model.safetensors")
    config = json.loads((kit.root / "run" / "config.json").read_text())
    assert config["image_size"] == results["meta"]["image_size"] == [40, 56]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        (((900, 90), (40, 56), (48, 64), (48, 56), (40, 64)), (48, 64)),
        (((48, 64), (64, 48), (48, 64)), (48, 64)),  # the shape of most, not one between both
        (((64, 48), (64, 48), (48, 64)), (64, 48)),
    ],
)
def test_the_size_of_the_images_is_the_median_of_a_hundred_headers(sizes, expected):
    looks = []

    def header(index):
        looks.append(index)
        return PhotoHeader(*sizes[index % len(sizes)])

    assert typical_size(Made(ids=("",) * 50 * len(sizes), photo_header=header)) == expected
    assert len(looks) == 100


def test_heads_start_at_labels_however_many_photos_stand_beside_them():
    rooms = open_dataset("synthetic_rooms", "train", num_images=4, height=40, width=56)
    photos = SubsetDataset(open_dataset("synthetic_rooms", "val", num_images=400), [f"val-{k:07d}" for k in range(400)])
    mixed = MixedDataset(rooms, photos, rooms.tasks, 0.5)
    assert typical_predictions(mixed, rooms.tasks) == typical_predictions(rooms, rooms.tasks) != {}


def test_the_scale_of_depth_is_a_task_option_of_every_door_and_prepared_data_keep_theirs(tmp_path):
    millimetres = trees.write_tree("folder", tmp_path / "own", 1, 1)["val"][0].labels["depth"]
    table = as_table(open_dataset("folder", "val", tmp_path / "own"))
    table.to_parquet(tmp_path / "hub" / "val-00000-of-00001.parquet")

    def depth(name, folder, *options, **more):
        data = SourceArguments(name, str(tmp_path / folder), task_options=list(options), **more)
        return open_split(data, "val")[0]["labels"]["depth"]

    for name, folder in (("folder", "own"), ("hub", "hub")):
        np.testing.assert_allclose(depth(name, folder), millimetres, rtol=1e-5)
        np.testing.assert_allclose(depth(name, folder, "depth.scale=5000"), millimetres / 5, rtol=1e-5)
    description = json.loads((tmp_path / "own/dataset.json").read_text())
    description["tasks"]["depth"] = {"scale": 500}
    (tmp_path / "own/dataset.json").write_text(json.dumps(description))
    expected = depth("folder", "own", cache_dir=str(tmp_path / "prepared"))
    np.testing.assert_allclose(expected, 2 * millimetres, atol=0.51e-3)
    for options in ((), ("depth.scale=500",), ("depth.loss_weight=2",)):
        np.testing.assert_array_equal(depth("folder", "prepared", *options), expected)
    for options in (("depth.scale=5000",), ("depth.scale=0",)):
        with pytest.raises(KdamValueError, match=r"500.*prepare again"):
            depth("folder", "prepared", *options)
    with pytest.raises(KdamValueError, match="scale"):
        depth("folder", "own", "depth.scale=-1")


def test_the_score_is_that_of_the_saved_weights_and_needs_no_folder_that_every_node_sees(kit, monkeypatch):
    expected = go(kit)
    shutil.rmtree(kit.root / "run")
    monkeypatch.setattr(MultiTaskTrainer, "save_model", lambda *args, **kwargs: None)
    monkeypatch.setattr(module, "describe_run", lambda *args: {})
    monkeypatch.setattr(module, "results_table", lambda *args: "")
    assert go(kit, save_strategy="no") == expected


def test_a_folder_with_checkpoints_is_neither_overwritten_nor_adopted(kit):
    go(kit)
    with pytest.raises(CheckpointError, match="checkpoints of an earlier run"):
        go(kit)
    for folder in (kit.root / "run").glob("checkpoint-*"):
        shutil.rmtree(folder)
    with pytest.raises(CheckpointError, match="a model or"):
        go(kit)


def test_a_run_killed_after_its_last_checkpoint_scores_the_same_model_again_and_keeps_what_was_typed(kit):
    metrics = go(kit)
    output = kit.root / "run"
    (output / "results.json").unlink()
    (output / "model.safetensors").write_bytes((output / "model.safetensors").read_bytes()[:1000])
    assert go(kit, {**SETTINGS, "report_to": "tensorboard"}, resume_from_checkpoint="last") == metrics
    assert json.loads((output / "recipe.json").read_text()) == {**SETTINGS, "world_size": 1}


@pytest.mark.parametrize(
    ("model", "word"),
    [
        ({"role": "tutor"}, "tutor"),
        ({"preset": "swin-tny"}, "swin-tny"),
        ({"preset": "tiny-resnet", "backbone_weights": "preset"}, "tiny-resnet"),
    ],
)
def test_an_unknown_role_or_preset_and_weights_that_are_not_published_are_refused(kit, model, word):
    with pytest.raises(KdamValueError, match=word):
        build_run(data(), ModelArguments(**model), kit.args(), {})


def test_crops_are_drawn_as_the_keys_say(kit):
    rooms = {"rooms_train": 4, "rooms_height": 40, "rooms_width": 56}
    given = DataArguments(**rooms, crop_height=32, crop_width=48, scale_min=0.7, hflip=False)
    train, args = open_split(given, "train"), kit.args(data_seed=3)
    *_, crops = module.training_crops(train, given, ModelArguments(preset="tiny-resnet"), args)
    asked = {"crop": [32, 48], "scale": [0.7, 2.0], "hflip": False, "photometric": True, "seed": 3}
    assert crops.transform.settings == crops.transform.settings | asked


def test_a_licence_is_asked_about_before_the_first_step(kit, monkeypatch):
    source = TeacherSource("org/teacher", (), None, "0" * 64, {"license": "cc-by-nc-4.0"})
    found = kit.rooms, kit.rooms, None, Teaching((source,), kit.tasks)
    monkeypatch.setattr(module, "open_splits", lambda *args: found)
    with pytest.raises(KdamValueError, match="cc-by-nc"):
        build_run(data(), ModelArguments(preset="tiny-resnet"), kit.args(push_to_hub=True, hub_model_id="org/x"), {})
