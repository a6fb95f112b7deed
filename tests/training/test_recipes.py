import pytest
import torch

from kdam_hf.errors import KdamValueError
from kdam_hf.training import (
    DataArguments,
    DistillationArguments,
    KdamTrainingArguments,
    MultiTaskTrainer,
    StudentArguments,
    build_run,
    parse_recipe,
    run_command,
)

GROUPS = (DataArguments, StudentArguments, DistillationArguments, KdamTrainingArguments)


def write(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return str(path)


def test_the_command_line_overrides_the_recipe_and_both_are_recorded(tmp_path):
    recipe = write(tmp_path, "max_steps: 7\nlearning_rate: 1e-3\nhflip: false\ntasks: [semseg, depth]\nuse_cpu: true\n")
    data, _, distillation, args, settings = parse_recipe(
        GROUPS, ["--config", recipe, "--max_steps", "9", "--method", "kl", "--output_dir", str(tmp_path)]
    )
    assert (args.max_steps, args.learning_rate, data.hflip, data.tasks) == (9, 0.001, False, ["semseg", "depth"])
    assert distillation.method == "kl"
    assert settings["max_steps"] == 9
    assert settings["hflip"] is False
    assert "temperature" not in settings


def test_a_switch_is_taken_off_by_its_no_form_and_recorded_under_its_own_key(tmp_path):
    data, _, _, _, settings = parse_recipe(GROUPS, ["--no_hflip", "--no-photometric", "--output_dir", str(tmp_path)])
    assert (data.hflip, data.photometric) == (False, False)
    assert (settings["hflip"], settings["photometric"]) == (False, False)
    assert not [key for key in settings if key.startswith("no_")]


def test_a_folder_that_was_not_given_is_asked_for(kit):
    data, model, _, args, settings = parse_recipe(GROUPS, ["--use_cpu", "--cpu_threads", "1"])
    with pytest.raises(KdamValueError, match="output_dir is not given"):
        build_run(data, model, args, settings)
    with pytest.raises(KdamValueError, match="output_dir is not given"):
        MultiTaskTrainer(kit.model(), args, kit.tasks, kit.train_data())


def test_a_command_that_ends_well_leaves_its_group_of_processes(tmp_path):
    def main():
        store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)

    run_command(main)
    assert not torch.distributed.is_initialized()


def test_defaults_are_the_protocol_of_the_field(tmp_path):
    _, _, distillation, args, _ = parse_recipe(GROUPS, ["--output_dir", str(tmp_path), "--use_cpu"])
    assert (args.max_steps, args.per_device_train_batch_size, args.learning_rate, args.weight_decay) == (
        40_000,
        8,
        1e-3,
        5e-4,
    )
    assert (args.optim, args.optim_args, args.lr_scheduler_type) == ("sgd", "momentum=0.9", "polynomial")
    assert args.lr_scheduler_kwargs == {"power": 0.9, "lr_end": 0.0}
    assert (distillation.temperature, distillation.beta, distillation.inter, distillation.intra) == (
        8.0,
        0.5,
        "concat",
        True,
    )


@pytest.mark.parametrize(
    ("text", "argv", "message"),
    [
        ("max_step: 3\n", [], "max_step.*did you mean 'max_steps'"),
        ("max_steps: 3\n", ["--temprature", "2"], "temprature.*did you mean 'temperature'"),
        ("- 1\n", [], "expected lines"),
        ("a: [\n", [], "not valid YAML"),
        ("max_steps: {a: 1}\n", [], "mapping"),
    ],
)
def test_unknown_keys_and_broken_recipes_are_errors(tmp_path, text, argv, message):
    with pytest.raises(KdamValueError, match=message):
        parse_recipe(GROUPS, ["--config", write(tmp_path, text), "--output_dir", str(tmp_path), *argv])


def test_a_missing_recipe_is_named():
    with pytest.raises(KdamValueError, match=r"nowhere\.yaml"):
        parse_recipe(GROUPS, ["--config", "nowhere.yaml"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_steps: 1.5\n", "max_steps is 1.5; expected"),
        ("rooms_train: [3]\n", r"rooms_train is \[3\]"),
        ("scale_min: true\n", "scale_min is True"),
        ("hflip: perhaps\n", "hflip is 'perhaps'"),
        ("precision: bf61\n", "precision='bf61'"),
        ("bf16: true\n", "neither bf16 nor fp16"),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error_that_names_its_key(tmp_path, text, message):
    with pytest.raises(KdamValueError, match=message):
        parse_recipe(GROUPS, ["--config", write(tmp_path, text), "--output_dir", str(tmp_path)])


def test_one_name_stands_for_a_list_of_one(tmp_path):
    recipe = write(tmp_path, "tasks: semseg\nteacher: outputs/teacher\n")
    data, _, distillation, _, _ = parse_recipe(GROUPS, ["--config", recipe, "--output_dir", str(tmp_path)])
    assert data.tasks == ["semseg"]
    assert distillation.teacher == ["outputs/teacher"]
