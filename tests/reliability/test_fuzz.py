"""Random combinations of arguments end in what was asked, or in one message; never in a traceback, never in silence."""

import random

import pytest
import yaml

from kdam_hf.commands.distill import GROUPS
from kdam_hf.errors import KdamError
from kdam_hf.training import parse_recipe

# what may be typed, good and bad; YAML and the command line alike
VALUES = {
    "max_steps": [1, 40, 0, -3, "ten"],
    "num_train_epochs": [1, 2.5, 0, -1],
    "per_device_train_batch_size": [1, 8, 0, -2],
    "total_train_batch_size": [8, 16, 0, 7],
    "learning_rate": [1e-3, 0.0, -1.0, "nan"],
    "optim": ["sgd", "adamw_torch", "adam_of_mine"],
    "lr_scheduler_type": ["polynomial", "linear", "cosine", "none"],
    "precision": ["fp32", "fp16", "off"],
    "eval_strategy": ["no", "steps", "never"],
    "metric_for_best_model": ["depth/rmse", "semseg/miou", "loss"],
    "auto_find_batch_size": [True, False],
    "method": ["cs", "kl", "none", "magic"],
    "inter": ["per_task", "concat", "off", "on"],
    "intra": [True, False],
    "temperature": [1.0, 4.0, 0.0],
    "beta": [0.5, -1.0],
    "kd_weight": [["edge=0"], ["edge"], ["edge=x"]],
    "teacher_precision": ["fp32", "auto", "half"],
    "tasks": [["depth"], ["depth", "edge"]],
}


def typed(key, value):
    values = value if isinstance(value, list) else [value]
    return [f"--{key}", *(str(v).lower() if isinstance(v, bool) else str(v) for v in values)]


@pytest.mark.parametrize("door", ["command line", "recipe"])
def test_what_is_asked_is_what_is_set_or_is_refused_in_one_message(door, tmp_path, monkeypatch):
    for name in ("ACCELERATE_MIXED_PRECISION", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    rng, accepted = random.Random(0), 0
    for _ in range(60):
        asked = {key: rng.choice(VALUES[key]) for key in rng.sample(sorted(VALUES), rng.randint(1, 4))}
        arguments = ["--output_dir", str(tmp_path), "--use_cpu", "true", "--report_to", "none"]
        if door == "recipe":
            (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(asked))
            arguments += ["--config", str(tmp_path / "recipe.yaml")]
        else:
            arguments += [word for key, value in asked.items() for word in typed(key, value)]
        try:
            *groups, settings = parse_recipe(GROUPS, arguments)
        except KdamError as error:
            assert str(error), asked  # noqa: PT017
        else:
            accepted += 1
            for key, value in asked.items():
                found = next(getattr(group, key) for group in groups if hasattr(group, key))
                found = getattr(found, "value", found)
                assert found == value, f"{key}: asked {value!r}, set {found!r}, of {asked}"
                assert settings[key] == value or settings[key] == found
    assert 6 < accepted < 54
