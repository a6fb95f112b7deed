import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification, PreTrainedConfig
from transformers.models.auto.configuration_auto import AutoConfig

from kdam_hf import KdamStudent
from kdam_hf.errors import BackboneWeightsError, CheckpointError, KdamValueError
from kdam_hf.presets import PRESETS, make_config
from kdam_hf.pretrained import find_backbone, read_backbone_config, weights_sha256
from kdam_hf.tasks import NYUD_V2
from kdam_hf.training import load_backbone_weights, load_model


def classifier(kind, folder, **config):
    """What users download: a classification checkpoint, of the architecture of a tiny preset unless stated."""
    torch.manual_seed(3)
    config = config or {k: value for k, value in PRESETS[f"tiny-{kind}"].config.items() if k != "out_indices"}
    published = AutoModelForImageClassification.from_config(AutoConfig.for_model(**({"model_type": kind} | config)))
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


FOREIGN = {
    "poolformer": {"depths": [1] * 4, "hidden_sizes": [8, 16, 24, 32]},
    "swin": {"embed_dim": 16, "depths": [1] * 4, "num_heads": [1, 2, 2, 4], "window_size": 4},
    "dinov2": {"hidden_size": 48, "num_attention_heads": 2, "num_hidden_layers": 8},
}


@pytest.mark.parametrize(
    ("kind", "layers"), [("poolformer", None), ("swin", [1, 2, 3, 4]), ("dinov2", [2, 4, 6, 8])], ids=FOREIGN
)
def test_a_published_model_is_a_backbone_by_its_folder(kind, layers, tmp_path):
    """Also those that AutoBackbone does not offer; with the image statistics of its processor."""
    published = classifier(kind, tmp_path, **FOREIGN[kind])
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1] * 3, "image_std": [0.2] * 3}))
    backbone = find_backbone(str(tmp_path))
    torch.manual_seed(0)
    model = KdamStudent(make_config("student", backbone, NYUD_V2)).eval()
    assert backbone.config.get("out_indices") == layers
    assert (model.config.image_mean, model.config.image_std) == ([0.1] * 3, [0.2] * 3)
    load_backbone_weights(model, str(tmp_path))
    source = {key.removeprefix(f"{kind}."): value for key, value in published.items()}
    target = {
        key.removeprefix("model.").removeprefix(f"{kind}."): value
        for key, value in model.encoder.backbone.state_dict().items()
    }
    shared = source.keys() & target.keys()
    assert len(shared) > 0.8 * len(target)
    assert all(torch.equal(source[key], target[key]) for key in shared)
    model.save_pretrained(tmp_path / "student")
    again, x = load_model(str(tmp_path / "student")).eval(), torch.randn(1, 3, 50, 70)
    assert torch.equal(model(x).predictions["depth"], again(x).predictions["depth"])


@pytest.mark.parametrize("preset", ["tiny-swin", "tiny-efficientnet-lite"])
def test_a_student_starts_from_the_backbone_of_a_model_of_ours(preset, tmp_path):
    """Named as its preset or as its weights; also where the published weights of this backbone have other names."""
    published = student(preset, image_mean=[0.1] * 3)
    for weights in published.parameters():
        weights.data += 0.1
    published.save_pretrained(tmp_path)
    backbone = find_backbone(str(tmp_path))
    named = KdamStudent(make_config("student", backbone, NYUD_V2[1:2]))
    assert (named.config.image_mean, backbone.weights) == ([0.1] * 3, str(tmp_path))
    for model in (named, student(preset)):
        load_backbone_weights(model, str(tmp_path))
        loaded, source = (x.encoder.backbone.state_dict() for x in (model, published))
        assert all(torch.equal(loaded[key], source[key]) for key in loaded.keys() | source.keys())
    with pytest.raises(BackboneWeightsError, match="convnext"):
        load_backbone_weights(student("tiny-convnext"), str(tmp_path))
    damaged = json.loads((tmp_path / "config.json").read_text()) | {"decoder_channels": "many"}
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text(json.dumps(damaged))
    with pytest.raises(BackboneWeightsError, match="decoder_channels"):
        find_backbone(str(tmp_path / "damaged"))
    with pytest.raises(BackboneWeightsError, match="size mismatch"):
        load_backbone_weights(student({"tiny-swin": "swin-tiny"}.get(preset, "efficientnet-lite0")), str(tmp_path))


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("swin-tinny", ["swin-tinny", "swin-tiny", "timm/"]),
        ("timm/resnet18", ["timm", "pip install"]),
        ("{folder}", ["gpt2", "no backbone"]),
    ],
)
def test_a_preset_that_is_no_backbone_is_refused(preset, words, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    AutoConfig.for_model("gpt2").save_pretrained(tmp_path)
    with pytest.raises((KdamValueError, BackboneWeightsError)) as caught:
        find_backbone(preset.format(folder=tmp_path))
    assert all(word in str(caught.value) for word in words)


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
def test_what_is_no_model_of_ours_does_not_load(tmp_path):
    classifier("swin", tmp_path / "swin")
    for name, word in (("nothing", "nothing"), ("swin", "is a swin")):
        with pytest.raises(CheckpointError, match=word):
            load_model(str(tmp_path / name))
    with pytest.raises(BackboneWeightsError, match="/nowhere"):
        load_backbone_weights(student("tiny-convnext"), "/nowhere")


def test_a_mistyped_folder_is_told_from_a_hub_id_without_asking_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    student("tiny-resnet").save_pretrained("outputs/student")
    monkeypatch.setattr(PreTrainedConfig, "get_config_dict", lambda name, **_: pytest.fail("looked for it"))
    with pytest.raises(CheckpointError) as raised:
        load_model("outputs/studnet")
    assert all(word in str(raised.value) for word in ("outputs/studnet", "models student"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="empty/student"):
        load_model(str(tmp_path / "empty" / "student"))


def test_a_folder_of_its_owners_name_does_not_hide_a_hub_id(tmp_path, monkeypatch):
    (tmp_path / "org" / "data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="org/model") as raised:
        load_model("org/model")
    assert "folder here" not in str(raised.value)


@pytest.mark.parametrize("preset", ["efficientnet-lite0", "resnet18"])
def test_weights_that_cannot_be_fetched_are_told_from_a_repository_without_any(preset, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BackboneWeightsError, match=r"(OFFLINE|connect).*--backbone_weights none"):
        load_backbone_weights(student(preset), PRESETS[preset].weights)


def test_a_folder_with_an_exported_file_says_what_runs_it(tmp_path):
    student("tiny-resnet").config.save_pretrained(tmp_path)
    (tmp_path / "kdam.json").touch()
    with pytest.raises(CheckpointError, match=f"kdam onnx --model {tmp_path}"):
        load_model(str(tmp_path))


def test_a_model_in_shards_loads_and_is_known_by_all_of_them(tmp_path):
    student("tiny-resnet").save_pretrained(tmp_path, max_shard_size="20KB")
    assert type(load_model(str(tmp_path))) is KdamStudent
    before = weights_sha256(str(tmp_path))
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert weights_sha256(str(tmp_path)) != before
    shard.unlink()
    with pytest.raises(CheckpointError, match=shard.name):
        load_model(str(tmp_path))
