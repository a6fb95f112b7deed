"""Training on data sets of `datasets`: one command over foreign columns, streams that are resumed exactly, data in memory."""

import importlib
import json
import shutil

import families_kit
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, List
from datasets import Image as Picture
from PIL import Image
from safetensors.torch import load_file

import kdam_hf
from dataset_loaders import rows
from kdam_hf.errors import CheckpointError, KdamValueError

distill = importlib.import_module("kdam_hf.commands.distill").main
COMMAND = (
    "kdam distill --dataset hub --data_dir user/ds --teacher depth --output_dir out --student tiny-resnet --max_steps 2 "
    "--crop_height 32 --crop_width 32 --save_steps 1 --logging_steps 1 --use_cpu true"
)
SHARES = ["--train_split", "train[:16]", "--eval_split", "train[16:]"]


def photos(count):
    rng, classes = np.random.default_rng(0), List(ClassLabel(names=["wall", "floor"]))
    noise = {"pixel_values": rng.integers(0, 255, (count, 32, 40, 3), np.uint8)}
    noise["label"] = rng.integers(0, 2, (count, 32, 40), np.uint8)
    cells = {name: [Image.fromarray(array) for array in arrays] for name, arrays in noise.items()}
    columns = {"pixel_values": Picture(), "label": Picture(), "label_classes": classes}
    return Dataset.from_dict(cells | {"label_classes": [[0, 1]] * count}, Features(columns))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with the teacher `depth` and `user/ds`, a data set in Parquet with row groups of three."""
    families_kit.save("depth-anything-metric", tmp_path / "depth")
    photos(18).to_parquet(tmp_path / "user/ds/train-00000-of-00001.parquet", batch_size=3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rows, "TOGETHER_BYTES", 30_000)
    return tmp_path


def test_one_command_learns_labels_from_foreign_columns_and_depth_from_a_teacher(home):
    photos(2).to_parquet("user/ds/validation-00000-of-00001.parquet")
    assert len(COMMAND) <= 220
    distill([*COMMAND.split()[2:], "--cpu_threads", "1"])
    results = json.loads((home / "out/results.json").read_text())
    assert np.isfinite(results["semseg/miou"])  # of the labels
    config = json.loads((home / "out/config.json").read_text())
    assert [task["name"] for task in config["tasks"]] == ["semseg", "depth"]
    assert config["tasks"][0]["class_names"] == ["wall", "floor"]
    assert results["meta"]["teachers"][0]["tasks"] == ["depth"]
    log = json.loads((home / "out/checkpoint-2/trainer_state.json").read_text())["log_history"][0]
    assert log["loss_semseg"] > 0 == log["loss_depth"]
    assert log["kd_inter_task"] > 0


def test_a_stopped_stream_goes_on_to_the_same_weights_and_not_as_stored_data(home):
    def run(*options):
        distill([*COMMAND.split()[2:], *SHARES, "--cpu_threads", "1", *options])
        return load_file("out/model.safetensors")

    whole = run("--streaming", "true")
    shutil.rmtree("out/checkpoint-2")
    with pytest.raises(CheckpointError, match="runs_sha256"):
        run("--resume_from_checkpoint", "last")
    resumed = run("--streaming", "true", "--dataloader_num_workers", "1", "--resume_from_checkpoint", "last")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


KEYS = {"preset": "tiny-resnet", "crop_height": 32, "crop_width": 32, "max_steps": 1, "use_cpu": True, "cpu_threads": 1}


def test_data_in_memory_train_and_are_scored_by_the_same_rules(home):
    own = DatasetDict(train=photos(8), val=photos(2)).rename_columns({"label": "gt", "label_classes": "gt_classes"})
    with pytest.raises(KdamValueError, match="gt"):
        kdam_hf.train(data=own, output_dir="memory", **KEYS)
    trained = kdam_hf.train(data=own, columns=["semseg=gt"], output_dir="memory", **KEYS)
    scores = kdam_hf.evaluate(data=own, columns=["semseg=gt"], model=trained, output="scores.json")
    assert scores["semseg/miou"] == pytest.approx(trained.metrics["semseg/miou"])
    with pytest.raises(KdamValueError, match=r"train\[:90%\]"):
        kdam_hf.train(data=own["train"], columns=["semseg=gt"], output_dir="one", **KEYS)
    for wrong in ({"data": [1]}, {"data": own, "data_dir": "user/ds"}):
        with pytest.raises(KdamValueError, match="data"):
            kdam_hf.distill(**wrong, output_dir="wrong", teacher="depth")
