"""Row 8: a checkpoint is only continued by a run that computes the same; the differences are listed."""

import pytest
from conftest_kit import Kit

from kdam_hf.errors import CheckpointError
from kdam_hf.tasks import with_options
from kdam_hf.training import DataArguments, KdamTrainingArguments, ModelArguments, parse_recipe
from kdam_hf.training.fingerprint import INCIDENTAL, differences


def distiller(root, teacher_seed=1, options=(), model=None, crop=(32, 48), **args):
    kit = Kit(root)
    tasks, data = with_options(kit.tasks, options), kit.train_data()
    data.transform.settings["crop"] = list(crop)
    args = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1, "beta": 0.5} | args
    teacher = kit.frozen(teacher_seed)
    return kit.distiller(model=kit.model(**(model or {})), teacher=teacher, tasks=tasks, data=data, **args)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("objective")
    distiller(root).train()
    return root


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.02}, r"learning_rate 0\.01 -> 0\.02"),
        ({"max_steps": 2}, "max_steps 1 -> 2"),
        ({"data_seed": 3}, "data_seed None -> 3"),
        ({"seed": 1, "optim": "adamw_torch"}, r"optim sgd -> adamw_torch; .*seed 42 -> 1"),
        ({"lr_scheduler_kwargs": {"power": 1.0, "lr_end": 0.0}}, r"lr_scheduler_kwargs\.power 0\.9 -> 1\.0"),
        ({"precision": "bf16"}, "bf16 False -> True"),
        ({"beta": 0.1}, r"distillation\.beta 0\.5 -> 0\.1"),
        ({"teacher_seed": 2}, r"distillation\.teacher_sha256 \['[0-9a-f]+ -> \['[0-9a-f]+"),
        ({"options": ["edge.loss_weight=2"]}, r"tasks\.edge\.loss_weight .* -> 2\.0"),
        ({"model": {"decoder_channels": 24}}, r"model\.decoder_channels \d+ -> 24"),
        ({"crop": (32, 32)}, r"data\.augmentation\.crop \[32, 48\] -> \[32, 32\]"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.fault(8)
def test_another_objective_is_refused_with_both_values(root, change, message):
    with pytest.raises(CheckpointError, match=message):
        distiller(root, **change).train(resume_from_checkpoint="last")


@pytest.mark.fault(8)
def test_where_and_how_a_run_is_carried_out_may_change(root):
    incidental = {"logging_steps": 7, "save_steps": 5, "report_to": ["tensorboard"], "dataloader_num_workers": 1}
    incidental |= {"per_device_eval_batch_size": 1, "save_total_limit": 1, "dataloader_timeout": 5.0}
    incidental["precision"] = "fp32" if KdamTrainingArguments(output_dir="x", use_cpu=True).bf16 else "auto"
    assert set(incidental) <= INCIDENTAL
    distiller(root, **incidental).train(resume_from_checkpoint="last")


@pytest.mark.fault(8)
def test_a_default_that_is_typed_out_is_no_difference():
    groups = (DataArguments, ModelArguments, KdamTrainingArguments)
    base = ["--output_dir", "a", "--use_cpu"]
    settings = [
        parse_recipe(groups, [*base, *more])[-1]
        for more in ([], ["--learning_rate", "1e-3", "--crop_height", "448", "--logging_steps", "3"])
    ]
    assert differences(*settings) == []
    assert differences(settings[0], {**settings[1], "learning_rate": 0.1}) == ["learning_rate 0.001 -> 0.1"]


def test_a_role_always_counts():
    """Its default depends on the script."""
    assert differences({}, {"role": "teacher"}) == ["role None -> teacher"]


def test_a_run_without_a_teacher_is_one_whichever_command_began_it():
    assert differences({"distillation.method": "none", "distillation.views": None}, {}) == []
    assert differences({}, {"distillation.method": "kl"}) == ["distillation.method none -> kl"]
