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


def spoil(folder, part, value=None):
    """Take a weight away, or fill it."""
    weights = load_file(folder / "model.safetensors")
    key = next(k for k in weights if part in k and k.endswith("weight"))
    weights[key] = torch.full_like(weights[key], value or 0)
    save_file({k: v for k, v in weights.items() if k != key or value}, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.fault(28)
@pytest.mark.parametrize(
    ("kind", "value", "problem"), [("swin", None, "missing from"), ("convnext", float("nan"), "not finite")]
)
def test_a_weight_that_is_missing_or_not_finite_is_an_error_that_names_it(tmp_path, kind, value, problem):
    classifier(kind, tmp_path)
    part = "attention" if kind == "swin" else "dwconv"
    spoil(tmp_path, part, value)
    with pytest.raises(BackboneWeightsError, match=problem) as raised:
        load_backbone_weights(student(kind), str(tmp_path))
    assert part in str(raised.value)


@pytest.mark.fault(28)
def test_weights_of_another_kind_or_size_are_refused(tmp_path):
    classifier("swin", tmp_path)
    with pytest.raises(BackboneWeightsError, match=r"swin, .* convnext"):
        load_backbone_weights(student("convnext"), str(tmp_path))
    with pytest.raises(BackboneWeightsError, match="unknown to the checkpoint's architecture"):
        load_backbone_weights(KdamStudent(make_config("student", "swin-tiny", NYUD_V2)), str(tmp_path))


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
def test_what_is_no_whole_model_of_ours_does_not_load(tmp_path):
    student("convnext").save_pretrained(tmp_path / "m")
    assert type(load_model(str(tmp_path / "m"))) is KdamStudent
    spoil(tmp_path / "m", "decoder.norm")
    student("convnext").save_pretrained(tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"not weights")
    classifier("swin", tmp_path / "swin")
    for name, word in (("m", "missing keys"), ("nothing", "no model"), ("broken", "cannot be"), ("swin", "is a swin")):
        with pytest.raises(CheckpointError, match=word):
            load_model(str(tmp_path / name))
    with pytest.raises(BackboneWeightsError, match="/nowhere"):
        load_backbone_weights(student("convnext"), "/nowhere")


def test_a_mistyped_folder_is_told_from_a_hub_id_without_asking_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_config("student", "tiny-resnet", NYUD_V2)
    KdamStudent(config).save_pretrained("outputs/student")
    monkeypatch.setattr("transformers.PreTrainedConfig.get_config_dict", lambda name: pytest.fail("looked for it"))
    with pytest.raises(
        CheckpointError, match=r"'outputs/studnet': outputs is a folder here that holds the models student"
    ):
        load_model("outputs/studnet")
