import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification, PreTrainedConfig
from transformers.models.auto.configuration_auto import AutoConfig

from kdam_hf import KdamStudent
from kdam_hf.errors import BackboneWeightsError, CheckpointError
from kdam_hf.presets import PRESETS, make_config
from kdam_hf.tasks import NYUD_V2
from kdam_hf.training import load_backbone_weights, load_model
from kdam_hf.training.pretrained import read_backbone_config


def classifier(kind, folder):
    """What users download: a classification checkpoint of the architecture of a tiny preset."""
    torch.manual_seed(3)
    config = {key: value for key, value in PRESETS[f"tiny-{kind}"].config.items() if key != "out_indices"}
    published = AutoModelForImageClassification.from_config(AutoConfig.for_model(**config))
    published.save_pretrained(folder)
    return published.state_dict()


def student(preset, **options):
    torch.manual_seed(0)
    return KdamStudent(make_config("student", preset, NYUD_V2, **options))


def spoil(folder, part, value=None):
    """Take a weight away, or fill it."""
    weights = load_file(folder / "model.safetensors")
    key = next(k for k in weights if part in k and k.endswith("weight"))
    weights[key] = torch.full_like(weights[key], value or 0)
    save_file({k: v for k, v in weights.items() if k != key or value}, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("kind", ["swin", "convnext"])
def test_weights_of_a_classification_checkpoint_arrive_in_the_backbone(kind, tmp_path):
    source, model = classifier(kind, tmp_path), student(f"tiny-{kind}")
    load_backbone_weights(model, str(tmp_path))
    target = model.encoder.backbone.state_dict()
    shared = {k: source.get(k, source.get(f"{kind}.{k}")) for k in target if k in source or f"{kind}.{k}" in source}
    assert len(shared) > 0.8 * len(target)
    assert all(torch.equal(value, target[key]) for key, value in shared.items())


@pytest.mark.fault(28)
@pytest.mark.parametrize(
    ("published", "preset", "part", "value", "words"),
    [
        ("swin", "tiny-swin", "attention", None, ["missing", "attention"]),
        ("convnext", "tiny-convnext", "dwconv", float("nan"), ["not finite", "dwconv"]),
        ("swin", "tiny-convnext", None, None, ["swin", "convnext"]),
        ("swin", "swin-tiny", None, None, ["size mismatch"]),
    ],
)
def test_backbone_weights_that_do_not_all_arrive_are_an_error(tmp_path, published, preset, part, value, words):
    classifier(published, tmp_path)
    if part:
        spoil(tmp_path, part, value)
    with pytest.raises(BackboneWeightsError) as raised:
        load_backbone_weights(student(preset), str(tmp_path))
    assert all(word in str(raised.value) for word in [str(tmp_path), *words])


def test_the_architecture_is_read_from_a_checkpoint_of_any_version(tmp_path):
    """Published configs hold fields that were dropped since; a model of ours would not load with them."""
    classifier("swin", tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"path_norm": True, "torch_dtype": "float32"}))
    model = student("swin-large", backbone_config=read_backbone_config(str(tmp_path), [1, 2, 3, 4]))
    load_backbone_weights(model, str(tmp_path))
    model.save_pretrained(tmp_path / "m")
    assert load_model(str(tmp_path / "m")).config.backbone_config.embed_dim == 16


@pytest.mark.fault(27, 28)
def test_what_is_no_whole_model_of_ours_does_not_load(tmp_path):
    for name in ("m", "broken"):
        student("tiny-convnext").save_pretrained(tmp_path / name)
    assert type(load_model(str(tmp_path / "m"))) is KdamStudent
    spoil(tmp_path / "m", "decoder.norm")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"not weights")
    classifier("swin", tmp_path / "swin")
    for name, word in (("m", "decoder.norm"), ("nothing", "nothing"), ("broken", "broken"), ("swin", "is a swin")):
        with pytest.raises(CheckpointError) as raised:
            load_model(str(tmp_path / name))
        assert word in str(raised.value)
    with pytest.raises(BackboneWeightsError, match="/nowhere"):
        load_backbone_weights(student("tiny-convnext"), "/nowhere")


def test_a_mistyped_folder_is_told_from_a_hub_id_without_asking_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    student("tiny-resnet").save_pretrained("outputs/student")
    monkeypatch.setattr(PreTrainedConfig, "get_config_dict", lambda name: pytest.fail("looked for it"))
    with pytest.raises(CheckpointError) as raised:
        load_model("outputs/studnet")
    assert all(word in str(raised.value) for word in ("outputs/studnet", "models student"))
