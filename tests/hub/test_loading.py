"""Published models come back: by id, by tag, from a warm cache without a network; and broken repositories are refused."""

import json

import pytest
import torch
from hub_kit import ID
from huggingface_hub import constants
from transformers import AutoImageProcessor, AutoModel

from kdam_hf import KdamImageProcessor
from kdam_hf.errors import CheckpointError
from kdam_hf.hub import Publication, publish
from kdam_hf.training import load_model


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_a_published_model_and_its_processor_come_back_bit_by_bit(hub, student, publication):
    publish(publication, private=True)
    here, model = AutoModel.from_pretrained(student), AutoModel.from_pretrained(ID)
    assert type(model) is type(here), "the code is that of the package where it is installed"
    assert same(model, here)
    own, processor = KdamImageProcessor.from_model_config(here.config), AutoImageProcessor.from_pretrained(ID)
    for name in ("tasks", "size", "image_mean", "image_std"):
        assert getattr(processor, name) == getattr(own, name)


def test_a_tag_brings_back_what_it_named(hub, own, publication):
    publish(publication, tag="v1")
    before = AutoModel.from_pretrained(ID)
    changed = AutoModel.from_pretrained(own)
    changed.decoder.norm.bias.data += 1
    changed.save_pretrained(own)
    files = publication.files | {"model.safetensors": own / "model.safetensors"}
    publish(Publication(ID, files))
    assert same(AutoModel.from_pretrained(ID), changed)
    assert same(AutoModel.from_pretrained(ID, revision="v1"), before)


@pytest.mark.parametrize("hub_is", ["switched off", "unreachable"])
def test_a_model_that_was_loaded_once_needs_no_network(hub, publication, monkeypatch, hub_is):
    publish(publication)
    online = load_model(ID)
    nowhere = {"HF_HUB_OFFLINE": True} if hub_is == "switched off" else {"ENDPOINT": "http://127.0.0.1:9"}
    if hub_is == "unreachable":
        nowhere["HUGGINGFACE_CO_URL_TEMPLATE"] = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    for name, value in nowhere.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)
    requests = len(hub.log)
    assert same(load_model(ID), online)
    assert len(hub.log) == requests


def test_a_missing_or_hidden_repository_is_named(hub, publication, monkeypatch):
    publish(publication, private=True)
    monkeypatch.delenv("HF_TOKEN")
    for name in ("org/missing", ID):
        with pytest.raises(CheckpointError, match=name):
            load_model(name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda weights: {"model.safetensors": weights[:-1000]}, "model.safetensors"),
        (lambda weights: {"model.safetensors": weights.replace(b"norm.bias", b"norm.bios", 1)}, "norm.bi"),
        (lambda weights: {"model.safetensors": None, "pytorch_model.bin": b"\x80\x04pickle"}, "safetensors"),
        (lambda weights: {"config.json": json.dumps({"model_type": "resnet"}).encode()}, "resnet"),
        (lambda weights: {"config.json": b"{"}, "config"),
    ],
    ids=["truncated", "misspelt", "bin-only", "other-model", "broken-config"],
)
def test_a_damaged_repository_is_refused_and_nothing_of_it_is_run(hub, publication, damage, message):
    files = {path: c if isinstance(c, bytes) else c.read_bytes() for path, c in publication.files.items()}
    files |= damage(files["model.safetensors"])
    hub.put("org/damaged", {path: content for path, content in files.items() if content is not None})
    with pytest.raises(CheckpointError, match=message):
        load_model("org/damaged")
    assert not any(path.endswith((".py", "pytorch_model.bin")) for method, path in hub.log if method == "GET")
