"""Models from strangers: nothing of theirs runs, and nothing but a complete, finite model loads."""

import json
import pickle
import shutil

import pytest
import torch
from conftest_kit import Canary, Kit
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from kdam_hf import KdamStudent
from kdam_hf.errors import BackboneWeightsError, CheckpointError
from kdam_hf.presets import PRESETS
from kdam_hf.pretrained import read_backbone_config
from kdam_hf.training import load_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A good student on disk; its files are read, never changed."""
    return Kit(tmp_path_factory.mktemp("good")).saved("student")


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the good student."""
    return shutil.copytree(saved, tmp_path / "student")


def change(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refused(folder, message):
    """By our door, and by the library's own with the same words."""
    with pytest.raises(CheckpointError, match=message):
        load_model(str(folder))
    with pytest.raises((ValueError, OSError, StrictDataclassError), match=message):
        AutoModel.from_pretrained(str(folder))


@pytest.mark.fault(27)
def test_a_pickle_under_the_name_of_safetensors_is_never_unpickled(folder, tmp_path):
    canary = tmp_path / "canary"
    (folder / "model.safetensors").write_bytes(pickle.dumps(Canary(canary)))
    refused(folder, "model.safetensors")
    assert not canary.exists()


@pytest.mark.fault(27)
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "training_args.bin", "a list of shards"])
def test_a_repository_of_pickles_only_is_refused_unopened(folder, tmp_path, name):
    canary = tmp_path / "canary"
    torch.save({"decoder.norm.weight": Canary(canary)}, folder / name)
    (folder / "model.safetensors").unlink()
    if name == "a list of shards":
        shards = {"metadata": {}, "weight_map": {"decoder.norm.weight": name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(shards))
    refused(folder, "no model.safetensors")
    assert not canary.exists()


@pytest.mark.fault(27)
def test_the_code_of_a_repository_is_never_run_by_our_door(folder, tmp_path):
    """Published models carry auto_map for those without the package; here it is read over."""
    canary = tmp_path / "canary"
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w')\n")
    change(folder, auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    assert type(load_model(str(folder))) is KdamStudent
    change(folder, model_type="evil")
    with pytest.raises(CheckpointError, match="evil"):
        load_model(str(folder))
    for fields in ({}, {"model_type": "kdam_student", "attn_implementation": "evil/kernel"}):
        change(folder, **fields)
        with pytest.raises(BackboneWeightsError, match=fields.get("attn_implementation", str(folder))):
            read_backbone_config(str(folder), [1, 2, 3, 4])
    assert not canary.exists()


@pytest.mark.fault(27)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("surprise", 1), ("transformers_weights", "../other.safetensors"), ("tasks", {}), ("dtype", "load")),
        *(("_attn_implementation_internal", "evil/kernel"), ("attn_implementation", "evil/kernel")),
        *(("quantization_config", {"quant_method": "evil"}), ("decoder_channels", "16"), ("initializer_range", "0.3")),
        *(("image_std", [0.5, 0.0, 0.5]), ("image_mean", [0.5, float("nan"), 0.5]), ("backbone_config.surprise", 1)),
        *(("backbone_config.auto_map", {}), ("backbone_config.attn_implementation", "evil/kernel")),
        ("backbone_config._attn_implementation_internal", "evil/kernel"),
        ("backbone_config.hidden_sizes", "16"),
    ],
)
def test_a_config_with_unknown_keys_or_wrong_types_is_refused(folder, key, value):
    outer, _, inner = key.partition(".")
    change(folder, **{outer: PRESETS["tiny-resnet"].config | {inner: value} if inner else value})
    refused(folder, inner or outer)


@pytest.mark.fault(27, 34)
@pytest.mark.parametrize(
    ("key", "value"),
    [("name", "../../etc/cron.d/x"), ("name", "a\0b"), ("channels", "5"), ("channels", 0), ("class_names", "abc")],
)
def test_a_task_that_could_leave_a_folder_or_is_of_a_wrong_type_is_refused(folder, key, value):
    tasks = json.loads((folder / "config.json").read_text())["tasks"]
    tasks[0][key] = value
    change(folder, tasks=tasks)
    refused(folder, "letters" if key == "name" else key)


@pytest.mark.fault(28)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("decoder.norm.weight", None),
        ("decoder.more", torch.zeros(2)),
        ("decoder.norm.weight", torch.zeros(3)),
        ("decoder.norm.weight", torch.full((16,), float("nan"))),
        ("decoder.norm.weight", torch.full((16,), float("-inf"))),
        ("decoder.norm.running_var", torch.full((16,), float("nan"))),
    ],
    ids=["missing", "unexpected", "mismatched", "nan", "inf", "statistics of a batch norm"],
)
def test_anything_but_a_complete_finite_model_is_refused(folder, key, value):
    weights = load_file(folder / "model.safetensors") | {key: value}
    save_file({name: w for name, w in weights.items() if w is not None}, folder / "model.safetensors", {"format": "pt"})
    refused(folder, f"1 (missing|unexpected|mismatched|weights).*{key}")


@pytest.mark.fault(27, 28)
@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, 0.999])
def test_weights_that_were_cut_short_are_refused(folder, keep):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    refused(folder, "model.safetensors")
