import os
from inspect import signature
from io import BytesIO, TextIOWrapper

import pytest
import torch

from kdam_hf import distributed
from kdam_hf.commands.distill import GROUPS
from kdam_hf.distillation import METHODS
from kdam_hf.errors import KdamValueError
from kdam_hf.training import MultiTaskTrainer, build_run, parse_recipe, run_command
from kdam_hf.training.arguments import DataArguments, KdamTrainingArguments, ModelArguments


def parse(tmp_path, *argv, text=None, groups=GROUPS):
    words = ["--output_dir", str(tmp_path), "--use_cpu", *argv]
    if text is not None:
        (tmp_path / "recipe.yaml").write_text(text)
        words += ["--config", str(tmp_path / "recipe.yaml")]
    return parse_recipe(groups, words)


def test_the_command_line_overrides_the_recipe_and_both_are_recorded(tmp_path):
    text = "max_steps: 7\nlearning_rate: 1e-3\nhflip: false\ntasks: semseg\nteacher: [a, b]\n"
    data, _, distillation, args, settings = parse(tmp_path, "--max_steps", "9", "--method", "kl", text=text)
    assert (args.max_steps, args.learning_rate, data.hflip, data.tasks) == (9, 0.001, False, ["semseg"])
    assert (distillation.method, distillation.teacher) == ("kl", ["a", "b"])
    assert (settings["max_steps"], settings["hflip"]) == (9, False)
    assert "temperature" not in settings


def test_a_recipe_of_the_package_is_known_by_its_name_and_keywords_are_keys(tmp_path):
    words = "--config rooms_student --no_hflip --teacher a b --student tiny-resnet"
    named = parse(tmp_path, *words.split())
    keys = {"hflip": False, "teacher": ("a", "b"), "student": "tiny-resnet", "output_dir": tmp_path, "use_cpu": True}
    keywords = parse_recipe(GROUPS, {"config": "scripts/recipes/rooms_student.yaml", **keys})
    assert keywords[-1] == named[-1]
    assert [str(group) for group in keywords[:3]] == [str(group) for group in named[:3]]
    linear = parse_recipe(GROUPS, {"output_dir": tmp_path, "use_cpu": True, "lr_scheduler_kwargs": {"power": 1}})
    assert linear[3].lr_scheduler_kwargs == {"power": 1}


@pytest.mark.parametrize(
    ("key", "value"), [("max_step", 3), ("no_hflip", True), ("max_steps", True), ("config", "rooms_studnt")]
)
def test_a_wrong_keyword_is_named_like_a_wrong_key(key, value):
    with pytest.raises(KdamValueError, match=value if key == "config" else key):
        parse_recipe(GROUPS, {key: value})


def test_a_switch_is_taken_off_by_its_no_form_and_recorded_under_its_own_key(tmp_path):
    data, *_, settings = parse(tmp_path, "--no_hflip", "--no-photometric")
    assert (data.hflip, data.photometric) == (False, False)
    assert (settings["hflip"], settings["photometric"]) == (False, False)
    assert not [key for key in settings if key.startswith("no_")]


def test_off_and_no_are_the_words_that_a_key_has_also_unquoted(tmp_path):
    text = "inter: off\neval_strategy: no\nsave_strategy: no\nhflip: off\nphotometric: no\nintra: on\n"
    data, _, distillation, args, settings = parse(tmp_path, text=text)
    assert (distillation.inter, args.eval_strategy.value, args.save_strategy.value) == ("off", "no", "no")
    assert (data.hflip, data.photometric, distillation.intra, settings["hflip"]) == (False, False, True, False)
    assert parse(tmp_path, text="hflip: On\n")[0].hflip is True


@pytest.mark.parametrize(
    ("recipe", "typed", "steps", "batch"),
    [
        ("max_steps: 7", ["--num_train_epochs", "2"], -1, 8),
        ("num_train_epochs: 2", ["--max_steps", "9"], 9, 8),
        ("total_train_batch_size: 6", ["--per_device_train_batch_size", "2"], 40_000, 2),
        ("per_device_train_batch_size: 2", ["--total_train_batch_size", "6"], 40_000, 6),
        ("total_train_batch_size: 6", ["--gradient_accumulation_steps", "2"], 40_000, 3),
    ],
)
def test_the_command_line_also_overrides_the_key_that_would_say_the_same_otherwise(
    tmp_path, recipe, typed, steps, batch
):
    *_, args, settings = parse(tmp_path, *typed, text=f"{recipe}\n")
    assert (args.max_steps, args.per_device_train_batch_size) == (steps, batch)
    assert typed[0].removeprefix("--") in settings


def test_a_command_that_fails_says_so_to_the_other_processes_which_end(tmp_path, monkeypatch, capsys):
    def main():
        raise KdamValueError("a broken image")

    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    with pytest.raises(SystemExit, match="2"):
        run_command(main)
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    distributed._watch(distributed._store())
    run_command(lambda: None)  # one that ends well leaves its group
    assert not torch.distributed.is_initialized()
    assert ended == [1]
    assert capsys.readouterr().err.count("a broken image") == 2


def test_a_folder_that_was_not_given_is_asked_for(kit):
    data, model, _, args, settings = parse_recipe(GROUPS, ["--use_cpu", "--cpu_threads", "1"])
    with pytest.raises(KdamValueError, match="output_dir"):
        build_run(data, model, args, settings)
    with pytest.raises(KdamValueError, match="output_dir"):
        MultiTaskTrainer(kit.model(), args, kit.tasks, kit.train_data())


def test_defaults_are_the_protocol_of_the_field(tmp_path):
    _, _, distillation, args, _ = parse(tmp_path)
    assert (args.max_steps, args.per_device_train_batch_size) == (40_000, 8)
    assert (args.learning_rate, args.weight_decay) == (1e-3, 5e-4)
    assert (args.optim, args.optim_args, args.lr_scheduler_type) == ("sgd", "momentum=0.9", "polynomial")
    assert args.lr_scheduler_kwargs == {"power": 0.9, "lr_end": 0.0}
    assert (distillation.temperature, distillation.beta) == (2.0, 1.0)
    assert (distillation.inter, distillation.intra) == ("concat", True)
    for method in METHODS.values():  # in Python as on the command line
        known = signature(method).parameters
        assert all(known[key].default == getattr(distillation, key) for key in ("beta", "temperature") if key in known)


@pytest.mark.parametrize(
    ("text", "argv", "words"),
    [
        ("max_step: 3\n", [], ("'max_step'", "'max_steps'")),
        ("max_steps: 3\n", ["--temprature", "2"], ("'temprature'", "'temperature'")),
        ("teacher_cache_dtype: uint8\n", [], ("teacher_cache_dtype", "'uint8'", "fp16, fp32")),
        ("- 1\n", [], ("list",)),
        ("a: [\n", [], ("YAML",)),
        ("max_steps: 3\nseed: 1\nmax_steps: 4\n", [], ("max_steps", "twice")),
        ("learning_rate:\n", [], ("learning_rate", "no value")),
        ("max_steps: {a: 1}\n", [], ("max_steps", "mapping")),
        ("max_steps: 1.5\n", [], ("max_steps", "1.5")),
        ("rooms_train: [3]\n", [], ("rooms_train", "['3']")),
        ("scale_min: true\n", [], ("scale_min", "'true'")),
        ("hflip: perhaps\n", [], ("hflip", "'perhaps'")),
        ("precision: bf61\n", [], ("'bf61'",)),
        ("bf16: true\n", [], ("bf16=True",)),
        (None, ["--config", "nowhere.yaml"], ("nowhere.yaml", "kdam recipes")),
        (None, ["--config", ""], ("config is empty",)),
        (None, ["--seed", "3", "rooms_student.yaml"], ("rooms_student.yaml", "--config")),
        (None, ["--seed", "3", "-x"], ("'-x'",)),
        ("config: rooms_student\n", [], ("unknown key 'config'",)),
        ("help: 1\n", [], ("unknown key 'help'",)),
    ],
)
def test_an_unknown_key_a_wrong_value_and_a_broken_recipe_are_errors_that_name_them(tmp_path, text, argv, words):
    with pytest.raises(KdamValueError) as raised:
        parse(tmp_path, *argv, text=text)
    assert all(word in str(raised.value) for word in words), raised.value


def test_a_key_that_may_be_none_is_none_without_a_value(tmp_path):
    *_, args, settings = parse(tmp_path, text="save_total_limit:\n")
    assert (args.save_total_limit, settings["save_total_limit"]) == (None, None)


def test_a_recipe_of_a_student_sends_to_the_script_that_knows_its_keys(tmp_path):
    with pytest.raises(KdamValueError, match=r"'beta'.*kdam distill"):
        parse(tmp_path, text="beta: 0.02\n", groups=(DataArguments, ModelArguments, KdamTrainingArguments))


def test_a_command_prints_its_tables_where_the_terminal_has_no_such_signs(monkeypatch):
    terminal = TextIOWrapper(BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", terminal)
    run_command(lambda: print("miou ↑ – a photo of Zürich"))
    terminal.flush()
    assert b"a photo of Z" in terminal.buffer.getvalue()


def test_an_interrupted_command_says_so_without_a_traceback(capsys):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        run_command(interrupted)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"
