"""Published models come back: by id, by tag, from a warm cache without a network; and broken repositories are refused."""

import json
import struct

import pytest
import torch
from huggingface_hub import constants
from transformers import AutoImageProcessor, AutoModel

from kdam_hf.errors import CheckpointError
from kdam_hf.hub import publish
from kdam_hf.training import load_model

ID = "org/kdam-student"


def bits(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_a_published_model_and_its_processor_come_back_bit_by_bit(hub, student, publication):
    publish(publication, private=True)
    here, there = (auto.from_pretrained(student) for auto in (AutoModel, AutoImageProcessor))
    model, processor = (auto.from_pretrained(ID) for auto in (AutoModel, AutoImageProcessor))
    assert type(model) is type(here), "the code is that of the package where it is installed"
    assert same(bits(model), bits(here))
    facts = ("tasks", "size", "image_mean", "image_std")
    assert [getattr(processor, name) for name in facts] == [getattr(there, name) for name in facts]


def test_a_tag_brings_back_what_it_named(hub, student, publication):
    publish(publication, tag="v1")
    before = bits(AutoModel.from_pretrained(ID))
    changed = AutoModel.from_pretrained(student)
    changed.decoder.norm.bias.data += 1
    folder = student.parent / "changed"
    changed.save_pretrained(folder)
    files = publication.files | {"model.safetensors": folder / "model.safetensors"}
    publish(type(publication)(ID, files, has_results=True))
    assert not same(bits(AutoModel.from_pretrained(ID)), before)
    assert same(bits(AutoModel.from_pretrained(ID, revision="v1")), before)


def test_a_model_that_was_loaded_once_needs_no_network(hub, publication, monkeypatch):
    publish(publication)
    online = bits(load_model(ID))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    requests = len(hub.log)
    assert same(bits(load_model(ID)), online)
    assert len(hub.log) == requests
    with pytest.raises(CheckpointError, match="no model at 'org/other'"):
        load_model("org/other")


def test_an_unreachable_hub_still_serves_what_is_in_the_cache(hub, publication, monkeypatch):
    publish(publication)
    online = bits(load_model(ID))
    hub.__exit__()
    assert same(bits(load_model(ID)), online)


def test_a_missing_or_hidden_repository_is_named(hub, publication, monkeypatch):
    with pytest.raises(CheckpointError, match="no model at 'org/missing'"):
        load_model("org/missing")
    publish(publication, private=True)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(CheckpointError, match=f"no model at '{ID}'"):
        load_model(ID)


def flipped(weights):
    """The same file with a name of its header misspelt: readable, but not this model."""
    size = struct.unpack("<Q", weights[:8])[0]
    header = weights[8 : 8 + size].replace(b'"decoder.norm.bias"', b'"decoder.norm.bios"')
    return weights[:8] + header + weights[8 + size :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda files: {"model.safetensors": files["model.safetensors"][:-1000]}, "cannot be read|incomplete|header"),
        (lambda files: {"model.safetensors": b"\x80\x04pickle"}, "cannot be read|header"),
        (lambda files: {"model.safetensors": flipped(files["model.safetensors"])}, "decoder.norm.bi"),
        (lambda files: {"model.safetensors": None, "pytorch_model.bin": b"\x80\x04pickle"}, "safetensors"),
        (lambda files: {"config.json": json.dumps({"model_type": "resnet"}).encode()}, "is a resnet"),
        (lambda files: {"config.json": b"{"}, "JSON|json|config"),
    ],
    ids=["truncated", "pickle", "misspelt", "bin-only", "other-model", "broken-config"],
)
def test_a_damaged_repository_is_refused_and_nothing_of_it_is_run(hub, publication, damage, message):
    files = {path: c if isinstance(c, bytes) else c.read_bytes() for path, c in publication.files.items()}
    files |= damage(files)
    hub.put("org/damaged", {path: content for path, content in files.items() if content is not None})
    with pytest.raises(CheckpointError, match=message):
        load_model("org/damaged")
    assert not any(path.endswith((".py", "pytorch_model.bin")) for method, path in hub.log if method == "GET")
