"""Rows 6 and 7: interrupted after any step, training ends in the same weights, the same log and the same metrics.

8 images in batches of 2 make 4 steps an epoch; log lines lie between checkpoints.
"""

import pytest
import torch
from conftest_kit import StopAt
from fault_kit import build, outcome

from kdam_hf.io import tensors_sha256
from kdam_hf.presets import PRESETS
from kdam_hf.training.checkpointing import verify

TINY = sorted(name for name in PRESETS if name.startswith("tiny-"))
STEPS = 6


def trainer_in(root, preset="tiny-swin", distilled=False, **options):
    options = {"save_total_limit": None, "logging_steps": 4, "max_steps": STEPS} | options
    return build(root / "run", preset, "cs" if distilled else "none", **options)


def assert_exact(root, steps, **options):
    whole = trainer_in(root, **options)
    whole.train()
    expected = outcome(whole)
    assert whole.state.global_step == whole.state.max_steps
    for step in steps:
        resumed = trainer_in(root, **options)
        torch.rand(step)  # whatever state the process is in
        resumed.train(resume_from_checkpoint=str(root / "run" / f"checkpoint-{step}"))
        assert outcome(resumed) == expected, f"interrupted after step {step}"
    return whole


@pytest.mark.parametrize("preset", TINY)
@pytest.mark.fault(6)
def test_every_backbone_goes_on_exactly_in_the_middle_of_an_epoch(tmp_path, preset):
    assert_exact(tmp_path, (2,), preset=preset, max_steps=3, save_steps=2)


@pytest.mark.parametrize(
    ("steps", "options"),
    [
        ((1, 4), {"distilled": True}),
        ((1, 2), {"gradient_accumulation_steps": 2, "max_steps": 3, "max_grad_norm": 1.0}),
        ((3,), {"precision": "bf16"}),
        ((2, 4), {"freeze_backbone_steps": 3, "weighting": "uncertainty", "ema_decay": 0.5}),
        ((4, 9), {"preset": "tiny-resnet", "weighting": "dwa", "max_steps": 10}),
    ],
    ids=["distilled", "accumulated", "bf16", "averaged", "dwa"],
)
@pytest.mark.fault(6)
def test_after_any_step_the_rest_is_the_same(tmp_path, steps, options):
    assert_exact(tmp_path, steps, **options)


@pytest.mark.reliability
@pytest.mark.fault(6)
def test_with_two_workers_and_evaluations_between_the_rest_is_the_same(tmp_path):
    """Weights, log lines, and the metrics among them; an evaluation leaves the workers of the training alone."""
    options = {"eval_strategy": "steps", "eval_steps": 3}
    whole = assert_exact(tmp_path, (4,), **options, dataloader_num_workers=2, dataloader_timeout=120.0)
    alone = trainer_in(tmp_path / "alone", **options)
    alone.train()
    assert outcome(alone) == outcome(whole)


@pytest.mark.fault(6)
def test_a_second_training_of_one_trainer_logs_nothing_of_an_interrupted_first(tmp_path):
    options = {"preset": "tiny-resnet", "logging_steps": 4, "max_steps": 4}
    fresh = trainer_in(tmp_path / "fresh", **options)
    fresh.train()
    twice = trainer_in(tmp_path / "twice", **options)
    start = {key: value.clone() for key, value in twice.model.state_dict().items()}
    twice.add_callback(StopAt(2))
    twice.train()
    assert twice.state.global_step == 2
    twice.remove_callback(StopAt)
    twice.model.load_state_dict(start)
    twice.optimizer = twice.lr_scheduler = None
    twice.train()
    terms = [key for key in fresh.state.log_history[0] if key.startswith("loss")]
    assert len(terms) > 2
    for key in terms:
        assert twice.state.log_history[0][key] == pytest.approx(fresh.state.log_history[0][key]), key


@pytest.mark.fault(7)
def test_a_finished_run_takes_no_further_step(tmp_path):
    whole = trainer_in(tmp_path)
    whole.train()
    before = verify(tmp_path / "run" / f"checkpoint-{STEPS}")
    again = trainer_in(tmp_path)
    again.train(resume_from_checkpoint="last")
    assert again.state.global_step == STEPS
    assert tensors_sha256(again.model) == tensors_sha256(whole.model)
    assert verify(tmp_path / "run" / f"checkpoint-{STEPS}") == before
