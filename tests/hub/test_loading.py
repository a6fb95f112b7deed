"""Published models come back: by id, by tag, from a warm cache without a network; and broken repositories are refused."""

import families_kit
import pytest
import torch
from hub_kit import ID
from huggingface_hub import constants
from transformers import AutoImageProcessor, AutoModel

from kdam_hf import KdamImageProcessor
from kdam_hf.errors import CheckpointError
from kdam_hf.hub.publication import publish
from kdam_hf.teachers import find_teacher
from kdam_hf.training import load_model


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_a_published_model_comes_back_bit_by_bit_and_a_tag_brings_back_what_it_named(hub, own, publication):
    publish(ID, publication, private=True, tag="v1")
    here, there = AutoModel.from_pretrained(own), AutoModel.from_pretrained(ID)
    assert type(there) is type(here), "the code is that of the package where it is installed"
    assert same(there, here)
    mine, processor = KdamImageProcessor.from_model_config(here.config), AutoImageProcessor.from_pretrained(ID)
    for name in ("tasks", "size", "image_mean", "image_std"):
        assert getattr(processor, name) == getattr(mine, name)
    here.decoder.norm.bias.data += 1
    here.save_pretrained(own)
    publish(ID, publication | {"model.safetensors": own / "model.safetensors"})
    assert same(AutoModel.from_pretrained(ID), here)
    assert same(AutoModel.from_pretrained(ID, revision="v1"), there)
    first, last = find_teacher(f"{ID}@v1"), find_teacher(ID)
    assert (first.sha256 == last.sha256, same(first.load(), there), same(last.load(), here)) == (False, True, True)
    assert first.facts["revision"] == hub.repositories[ID].tags["v1"]


def test_what_a_teacher_of_a_tag_reads_is_of_its_commit_which_is_recorded(hub, tmp_path):
    folder = families_kit.save("oneformer", tmp_path / "oneformer")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    tagged = hub.put("org/oneformer", files)
    hub.name("org/oneformer", "v1", tagged)
    last = hub.put("org/oneformer", {}, gone=[name for name in files if name.startswith("tokenizer")])
    first = find_teacher("org/oneformer@v1")
    assert [first.facts["revision"], find_teacher("org/oneformer").facts["revision"]] == [tagged, last]
    assert first.load().extra_inputs(2)["task_inputs"].shape == (2, 77)


def test_a_model_that_was_loaded_once_needs_no_network_and_a_missing_one_is_named(hub, publication, monkeypatch):
    publish(ID, publication)
    nowhere = {"ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": False}
    nowhere["HUGGINGFACE_CO_URL_TEMPLATE"] = nowhere["ENDPOINT"] + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in nowhere.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # the client of the first Hub it saw
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between attempts
    assert same(load_model(ID), load_model(hub.folder(ID) / "snapshots" / hub.repositories[ID].commits[-1][0]))
    with pytest.raises(CheckpointError, match="org/missing"):
        load_model("org/missing")


TASKS = (b"[1]", b'[{"name": "depth"}]', b'[{"name": "depth", "kind": "depth"}]')


def test_a_damaged_repository_is_refused_and_nothing_of_it_is_run(hub, publication):
    files = {path: c if isinstance(c, bytes) else c.read_bytes() for path, c in publication.items()}
    ran = {"modeling_kdam.py": b"raise SystemExit('its code was run')"}
    damaged = {"cut": {"model.safetensors": files["model.safetensors"][:-1000]}, "other": {"config.json": b"{}"}}
    damaged["pickle"] = {"model.safetensors": None, "pytorch_model.bin": b"\x80\x04pickle"}
    of_tasks = {"list": b"[]"} | {
        f"tasks{k}": b'{"model_type": "kdam_student", "tasks": %s}' % x for k, x in enumerate(TASKS)
    }
    damaged |= {name: {"config.json": content} for name, content in of_tasks.items()}
    for name, damage in damaged.items():
        hub.put(f"org/{name}", {path: x for path, x in (files | ran | damage).items() if x is not None})
        for load in (load_model, lambda name: find_teacher(name).load()):
            with pytest.raises(CheckpointError, match=f"org/{name}"):
                load(f"org/{name}")
