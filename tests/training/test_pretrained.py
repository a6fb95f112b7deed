import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ConvNextConfig, ConvNextForImageClassification, SwinConfig, SwinForImageClassification

from kdam_hf import KdamStudent
from kdam_hf.errors import BackboneWeightsError, CheckpointError
from kdam_hf.presets import PRESETS, make_config
from kdam_hf.tasks import NYUD_V2
from kdam_hf.training import load_backbone_weights, load_model
from kdam_hf.training.pretrained import read_backbone_config


def classifier(kind, folder):
    """What users download: a classification checkpoint of the architecture of a tiny preset."""
    torch.manual_seed(3)
    config = {k: v for k, v in PRESETS[f"tiny-{kind}"].config.items() if k not in ("model_type", "out_indices")}
    model = {
        "swin": (SwinConfig, SwinForImageClassification),
        "convnext": (ConvNextConfig, ConvNextForImageClassification),
    }[kind]
    published = model[1](model[0](**config))
    published.save_pretrained(folder)
    return published


def student(kind):
    torch.manual_seed(0)
    return KdamStudent(make_config("student", f"tiny-{kind}", NYUD_V2))


@pytest.mark.parametrize("kind", ["swin", "convnext"])
def test_weights_of_a_classification_checkpoint_arrive_in_the_backbone(kind, tmp_path):
    published = classifier(kind, tmp_path)
    model = student(kind)
    load_backbone_weights(model, str(tmp_path))
    source, target = published.state_dict(), model.encoder.backbone.state_dict()
    same = {k: k if k in source else f"{kind}.{k}" for k in target}
    shared = [k for k in target if same[k] in source]
    assert len(shared) > 0.8 * len(target)
    assert all(torch.equal(source[same[k]], target[k]) for k in shared)


@pytest.mark.fault(28)
def test_a_missing_weight_is_an_error_that_names_it(tmp_path):
    classifier("swin", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    gone = next(k for k in weights if "attention" in k and "weight" in k)
    save_file({k: v for k, v in weights.items() if k != gone}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackboneWeightsError, match="missing from the checkpoint"):
        load_backbone_weights(student("swin"), str(tmp_path))


@pytest.mark.fault(28)
def test_weights_of_another_kind_or_size_are_refused(tmp_path):
    classifier("swin", tmp_path)
    with pytest.raises(BackboneWeightsError, match="holds a swin, the model has a convnext"):
        load_backbone_weights(student("convnext"), str(tmp_path))
    other = KdamStudent(make_config("student", "swin-tiny", NYUD_V2))
    with pytest.raises(BackboneWeightsError, match="unknown to the checkpoint's architecture"):
        load_backbone_weights(other, str(tmp_path))


@pytest.mark.fault(28)
def test_weights_that_are_not_finite_are_refused(tmp_path):
    classifier("convnext", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    key = next(k for k in weights if "dwconv.weight" in k)
    weights[key][0] = float("nan")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackboneWeightsError, match="not finite"):
        load_backbone_weights(student("convnext"), str(tmp_path))


def test_the_architecture_is_read_from_the_checkpoint(tmp_path):
    classifier("swin", tmp_path)
    config = read_backbone_config(str(tmp_path), [1, 2, 3, 4])
    model = KdamStudent(make_config("student", "swin-large", NYUD_V2, backbone_config=config))
    load_backbone_weights(model, str(tmp_path))
    assert model.encoder.backbone.config.embed_dim == 16


def test_what_an_older_library_wrote_beside_the_architecture_is_left_behind(tmp_path):
    """Published configs hold fields that were dropped since; a model of ours would not load with them."""
    classifier("swin", tmp_path / "published")
    path = tmp_path / "published" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"path_norm": True, "torch_dtype": "float32"}))
    config = read_backbone_config(str(tmp_path / "published"), [1, 2, 3, 4])
    assert "path_norm" not in config
    KdamStudent(make_config("student", "swin-large", NYUD_V2, backbone_config=config)).save_pretrained(tmp_path / "m")
    assert load_model(str(tmp_path / "m")).config.backbone_config.embed_dim == 16


@pytest.mark.fault(27, 28)
def test_incomplete_or_foreign_models_do_not_load(tmp_path):
    model = student("convnext")
    model.save_pretrained(tmp_path / "m")
    assert type(load_model(str(tmp_path / "m"))) is KdamStudent
    weights = load_file(tmp_path / "m" / "model.safetensors")
    weights.pop("decoder.norm.weight")
    save_file(weights, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="missing keys"):
        load_model(str(tmp_path / "m"))
    with pytest.raises(CheckpointError, match="no model at"):
        load_model(str(tmp_path / "nothing"))
    classifier("swin", tmp_path / "swin")
    with pytest.raises(CheckpointError, match="is a swin"):
        load_model(str(tmp_path / "swin"))


@pytest.mark.fault(27)
def test_unreadable_weights_are_named(tmp_path):
    model = student("convnext")
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(str(tmp_path))
    with pytest.raises(BackboneWeightsError, match="no backbone at '/nowhere'"):
        load_backbone_weights(model, "/nowhere")


def test_a_mistyped_folder_is_told_from_a_hub_id_without_asking_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_config("student", "tiny-resnet", NYUD_V2)
    KdamStudent(config).save_pretrained("outputs/student")
    monkeypatch.setattr("transformers.PreTrainedConfig.get_config_dict", lambda name: pytest.fail("looked for it"))
    with pytest.raises(
        CheckpointError, match=r"'outputs/studnet': outputs is a folder here that holds the models student"
    ):
        load_model("outputs/studnet")
