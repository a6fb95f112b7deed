"""push_to_hub during the training: the same repository that publish.py makes, at the end or with every checkpoint."""

import json
from types import SimpleNamespace

import pytest
from conftest_kit import ROOMS, SMALL

from kdam_hf.commands import train as script
from kdam_hf.errors import HubError, KdamValueError
from kdam_hf.training import KdamTrainingArguments, load_model
from kdam_hf.training.resumable_trainer import ResumableTrainer

ID = "org/pushed"
TINY = "--max_steps 1 --save_steps 1 --tasks semseg depth --precision fp32 --push_to_hub"


def train(output, *options):
    script.main([*SMALL, *ROOMS, *TINY.split(), "--hub_model_id", ID, "--output_dir", str(output), *options])


def test_at_the_end_one_commit_holds_the_model_with_its_scores(hub, tmp_path):
    train(tmp_path / "run", "--hub_private_repo", "true", "--hub_token", "owner")
    assert hub.messages(ID) == ["initial commit", "End of training"]
    assert hub.repositories[ID].private
    files = hub.files(ID)
    assert json.loads(files["results.json"])["depth/rmse"] > 0
    assert "depth/rmse ↓" in files["README.md"].decode()
    assert "SYNTHETIC" in files["README.md"].decode()
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    assert load_model(ID).config.task_names == ["semseg", "depth"]
    for name in ("recipe.json", "results.json"):
        assert "owner" not in (tmp_path / "run" / name).read_text(), "the token was written to disk"


def test_every_save_is_a_commit_of_a_model_that_loads_and_a_push_that_fails_on_the_way_ends_nothing(hub, tmp_path):
    hub.faults["commit"] = 1
    with pytest.warns(UserWarning, match="503"):
        train(tmp_path / "run", "--max_steps", "2", "--hub_strategy", "every_save")
    assert hub.messages(ID) == ["initial commit", "Training in progress, step 2", "End of training"]
    files = hub.files(ID, hub.repositories[ID].commits[1][0])
    assert "step 2 of 2, not scored yet" in files["README.md"].decode()
    assert not {"results.json", "optimizer.pt", "rng_state.pth"} & set(files)
    assert {"README.md", "recipe.json", "configuration_kdam.py"} <= set(files)
    assert files["model.safetensors"] == hub.files(ID)["model.safetensors"]


def test_a_push_that_fails_at_the_end_says_how_to_publish_what_is_complete(hub, tmp_path):
    hub.faults["commit"] = 1
    with pytest.raises(HubError, match="publish it with kdam publish --model"):
        train(tmp_path / "run")
    assert (tmp_path / "run" / "results.json").exists()


def test_a_wrong_token_ends_the_run_before_its_first_step(hub, tmp_path):
    with pytest.raises(HubError, match="401"):
        train(tmp_path / "run", "--hub_token", "forged")
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_what_cannot_be_pushed_is_refused_at_once(tmp_path):
    settings = {"output_dir": str(tmp_path), "use_cpu": True, "push_to_hub": True, "hub_model_id": ID}
    wrong = {"hub_model_id": (None, "no-owner"), "hub_strategy": ("checkpoint", "all_checkpoints")}
    for key, value in ((key, value) for key, values in (wrong | {"hub_revision": ["dev"]}).items() for value in values):
        with pytest.raises(KdamValueError, match=value or "org/name"):
            KdamTrainingArguments(**(settings | {key: value}))
    with pytest.raises(KdamValueError, match="dev"):  # asked for in code
        ResumableTrainer.push_to_hub(SimpleNamespace(), revision="dev")
