"""Rows 3 and 4: a checkpoint that is not as it was written is passed over by name, and refused when asked for."""

import json
import os

import pytest
import torch
from conftest_kit import Canary
from fault_kit import DAMAGES, copy_tree, trainer_in

from kdam_hf.errors import CheckpointError
from kdam_hf.io import tensors_sha256
from kdam_hf.training.checkpointing import MANIFEST, newest_sealed, rotate, verify

FILES = (
    *("config.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "running_sums.json"),
    *("trainer_state.json", "training_args.json"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("damage")
    trainer = trainer_in(root)
    trainer.train()
    return root / "run", tensors_sha256(trainer.model)


@pytest.fixture
def run(trained, tmp_path):
    return copy_tree(trained[0], tmp_path / "run")


def test_a_checkpoint_holds_all_that_decides_how_training_goes_on_and_no_pickled_arguments(trained):
    manifest = verify(trained[0] / "checkpoint-3")
    assert set(manifest["files"]) == set(FILES)
    assert manifest["step"] == 3
    assert not list(trained[0].rglob("training_args.bin"))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.fault(3, 4)
def test_a_damaged_checkpoint_is_passed_over_and_its_bad_file_named(run, name, damage, capsys):
    DAMAGES[damage](run / "checkpoint-3" / name)
    assert newest_sealed(run)[0] == run / "checkpoint-2"
    printed = capsys.readouterr().out
    assert printed.startswith("skipped")
    assert f"checkpoint-3/{name}: " in printed
    with pytest.raises(CheckpointError, match=f"checkpoint-3/{name}: "):
        verify(run / "checkpoint-3")


@pytest.mark.parametrize("field", ["step", "objective", "files"])
@pytest.mark.fault(3)
def test_a_manifest_whose_content_was_changed_is_no_seal(run, field):
    path = run / "checkpoint-3" / MANIFEST
    content = json.loads(path.read_text())
    content[field] = {}
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="its own checksum does not fit"):
        verify(run / "checkpoint-3")


@pytest.mark.fault(3)
def test_after_damage_training_ends_in_the_same_weights(trained, run):
    DAMAGES["flipped"](run / "checkpoint-3" / "optimizer.pt")
    again = trainer_in(run.parent)
    again.train(resume_from_checkpoint="last")
    assert tensors_sha256(again.model) == trained[1]
    verify(run / "checkpoint-3")  # replaced by a good one


@pytest.mark.fault(3)
def test_a_damaged_checkpoint_that_was_asked_for_is_an_error_and_nothing_is_loaded(run):
    DAMAGES["flipped"](run / "checkpoint-2" / "model.safetensors")
    trainer = trainer_in(run.parent)
    before = tensors_sha256(trainer.model)
    with pytest.raises(CheckpointError, match=r"checkpoint-2/model\.safetensors: SHA-256"):
        trainer.train(resume_from_checkpoint=str(run / "checkpoint-2"))
    assert tensors_sha256(trainer.model) == before
    with pytest.raises(CheckpointError, match=r"elsewhere/manifest\.json: No such file"):
        trainer.train(resume_from_checkpoint=str(run.parent / "elsewhere"))


@pytest.mark.fault(3)
def test_checkpoints_that_are_all_damaged_are_not_taken_for_none(run):
    for folder in run.glob("checkpoint-*"):
        DAMAGES["missing"](folder / MANIFEST)
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        trainer_in(run.parent).train(resume_from_checkpoint="last")


@pytest.mark.fault(27)
def test_a_pickle_that_was_added_to_a_checkpoint_is_refused_unread(run):
    canary = run.parent / "canary"
    torch.save(Canary(canary), run / "checkpoint-3" / "optimizer.bin")
    with pytest.raises(CheckpointError, match=r"optimizer\.bin: not listed"):
        trainer_in(run.parent).train(resume_from_checkpoint=str(run / "checkpoint-3"))
    assert not canary.exists()


@pytest.mark.fault(4)
def test_a_checkpoint_without_optimizer_state_is_no_place_to_go_on_from(tmp_path):
    trainer_in(tmp_path, save_only_model=True).train()
    with pytest.raises(CheckpointError, match=r"without optimizer\.pt, rng_state\.pth"):
        trainer_in(tmp_path).train(resume_from_checkpoint="last")


@pytest.mark.fault(2)
def test_rotation_counts_only_sealed_checkpoints_and_never_takes_the_last_one(run):
    (run / "checkpoint-99").mkdir()
    DAMAGES["missing"](run / "checkpoint-2" / MANIFEST)
    rotate(run, 1, [run / "checkpoint-3"])
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3", "checkpoint-99"]


@pytest.mark.fault(2)
def test_the_checkpoint_just_sealed_is_kept_before_older_ones_of_more_steps(run):
    """As after resuming an earlier checkpoint than the newest."""
    rotate(run, 1, [run / "checkpoint-2"])
    assert [path.name for path in run.glob("checkpoint-*")] == ["checkpoint-2"]


@pytest.mark.fault(2)
def test_what_was_sealed_first_goes_first_whatever_its_steps(tmp_path):
    for age, step in enumerate((30, 10, 20)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / MANIFEST).write_text("{}")
        os.utime(tmp_path / f"checkpoint-{step}" / MANIFEST, ns=(age, age))
    rotate(tmp_path, 2, [])
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-10", "checkpoint-20"}
