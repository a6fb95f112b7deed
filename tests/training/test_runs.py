import json
import shutil

import numpy as np
import pytest

from kdam_hf.errors import CheckpointError, KdamValueError
from kdam_hf.io import file_sha256
from kdam_hf.pretrained import weights_sha256
from kdam_hf.training import DataArguments, ModelArguments, MultiTaskTrainer, build_run, execute
from kdam_hf.training import runs as module
from kdam_hf.training.sources import typical_size

SETTINGS = {"max_steps": 2, "seed": 0}


def data(**kwargs):
    small = {"rooms_train": 4, "rooms_val": 2, "rooms_height": 40, "rooms_width": 56}
    return DataArguments(**(small | {"crop_height": 32, "crop_width": 48} | kwargs))


def go(kit, settings=SETTINGS, **args):
    arguments = kit.args("run", **({"max_steps": 2, "save_strategy": "steps", "save_steps": 1} | args))
    run = build_run(data(), ModelArguments(preset="tiny-resnet"), arguments, settings)
    trainer = MultiTaskTrainer(run.model, arguments, run.tasks, run.train_dataset, run.eval_dataset)
    return execute(trainer, run, data())


def test_a_run_leaves_a_model_that_knows_the_size_of_its_images_and_the_scores_of_its_weights(kit):
    metrics = go(kit)
    results = json.loads((kit.root / "run" / "results.json").read_text())
    assert {k: v for k, v in results.items() if k != "meta"} == pytest.approx(metrics)
    assert (results["meta"]["world_size"], results["meta"]["data"]) == (1, "synthetic_rooms")
    assert results["meta"]["weights_sha256"] == file_sha256(kit.root / "run" / "model.safetensors")
    assert json.loads((kit.root / "run" / "config.json").read_text())["image_size"] == [40, 56]


def test_the_size_of_the_images_is_their_median_not_that_of_the_first():
    class Photos:
        sizes = ((900, 90), (40, 56), (48, 64), (48, 56), (40, 64))
        reads = 0

        def __len__(self):
            return 5 * len(self.sizes)

        def __getitem__(self, index):
            self.reads += 1
            return {"image": np.zeros((*self.sizes[index % 5], 3), np.uint8)}

    photos = Photos()
    assert typical_size(photos) == (48, 64)
    assert photos.reads == 25
    assert typical_size(photos) == (48, 64)


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
    with pytest.raises(CheckpointError, match=r"max_steps 2 -> 3"):
        go(kit, max_steps=3, resume_from_checkpoint="last")


def test_a_run_killed_after_its_last_checkpoint_scores_the_same_model_again_and_keeps_what_was_typed(kit):
    metrics = go(kit)
    output = kit.root / "run"
    (output / "results.json").unlink()
    (output / "model.safetensors").write_bytes((output / "model.safetensors").read_bytes()[:1000])
    assert go(kit, {**SETTINGS, "report_to": "tensorboard"}, resume_from_checkpoint="last") == metrics
    assert json.loads((output / "recipe.json").read_text()) == {**SETTINGS, "world_size": 1}


def test_a_teacher_is_known_by_its_file_of_weights(kit, monkeypatch):
    for seed in (0, 1):
        kit.model(seed=seed).save_pretrained(kit.root / str(seed))
    assert weights_sha256(str(kit.root / "0")) == file_sha256(kit.root / "0" / "model.safetensors")
    assert weights_sha256(str(kit.root / "0")) != weights_sha256(str(kit.root / "1"))
    cached = str(kit.root / "1" / "model.safetensors")
    monkeypatch.setattr("kdam_hf.weights_kdam.cached_file", lambda *args, **kwargs: cached)
    assert weights_sha256("org/on-the-hub") == file_sha256(cached)


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
