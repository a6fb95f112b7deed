"""Rows 32 and 33: what must not matter does not, to the last bit."""

import json

import pytest
from conftest_kit import Kit
from fault_kit import outcome

from kdam_hf.training import DataArguments, ModelArguments, MultiTaskTrainer, build_run, execute


def whole_run(root, name, **options):
    """As the script does it; weights, log and results."""
    kit = Kit(root)
    data = DataArguments(
        rooms_train=8, rooms_val=3, rooms_height=40, rooms_width=56, crop_height=32, crop_width=48, scale_min=0.7
    )
    args = kit.args(name, max_steps=3, seed=3, **options)
    run = build_run(data, ModelArguments(preset="tiny-swin"), args, {})
    trainer = MultiTaskTrainer(run.model, args, run.tasks, run.train_dataset, run.eval_dataset)
    execute(trainer, run, data)
    results = json.loads((root / name / "results.json").read_text())
    del results["meta"]
    return *outcome(trainer), results


@pytest.mark.reliability
@pytest.mark.fault(32)
def test_runs_of_one_seed_are_one_whatever_their_workers_checkpoints_and_evaluations(tmp_path):
    expected = whole_run(tmp_path, "first")
    assert expected[2]["depth/rmse"] > 0
    other = whole_run(tmp_path, "second", save_strategy="steps", save_steps=2, dataloader_num_workers=2)
    assert json.dumps(other) == json.dumps(expected)  # as text, since nan is not nan
    evaluated = whole_run(tmp_path, "evaluated", eval_strategy="steps", eval_steps=2)
    assert evaluated[0] == expected[0]
    assert json.dumps(evaluated[2]) == json.dumps(expected[2])


@pytest.mark.fault(33)
def test_a_match_of_weight_zero_is_no_teacher_and_does_not_run_one(tmp_path):
    kit, ends = Kit(tmp_path), []
    teacher = kit.frozen()
    teacher.forward = lambda *args, **kwargs: pytest.fail("the teacher was run")
    for method, beta, taught in (("none", 0.5, None), ("cs", 0.0, teacher)):
        trainer = kit.distiller(method, teacher=taught, beta=beta)
        trainer.train()
        ends.append(outcome(trainer))
    assert ends[0] == ends[1]
