"""Comparisons: finished runs are known by settings, teacher and score; seeds are paired."""

import json

import pytest
from command_kit import ROOMS, SMALL, load, run
from PIL import Image

from kdam_hf.errors import CheckpointError
from kdam_hf.training import parse_recipe


@pytest.fixture(scope="module")
def compare():
    return load("compare.py")


def test_a_comparison_leaves_models_table_sheet_and_results_and_is_reused(compare, monkeypatch, tmp_path):
    def train_here(command, **_):
        script = next(word for word in command if word.endswith(".py"))
        return run(script.rpartition("/")[2], *command[command.index(script) + 1 :])

    monkeypatch.setattr("subprocess.run", train_here)
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text("dataset: synthetic_rooms\n")
    arguments = ["--teacher_config", recipe, "--student_config", recipe, "--methods", "none", "cs:beta=0.1"]
    arguments += ["--seeds", "0", "1", "--output_dir", out, *SMALL, *ROOMS]
    run("compare.py", *arguments)
    results = json.loads((out / "results.json").read_text())
    assert list(results) == ["teacher", "none", "cs"]
    cs, none = results["cs"], results["none"]
    mean, low, high = cs["difference_to_none"]["depth/rmse"]
    assert mean == pytest.approx(cs["depth/rmse"] - none["depth/rmse"])
    assert low < mean < high
    assert cs["meta"]["seed"] == [0, 1]
    assert cs["meta"]["distillation"]["beta"] == 0.1
    assert Image.open(out / "contact_sheet.png").width > 5 * 56
    text = (out / "results.md").read_text()
    assert all(word in text for word in ("SYNTHETIC", "edge/odsf ↑", "depth/rmse ↓", "95 %"))
    assert run("compare.py", *arguments).stdout.count("reused") == 5
    other = run("compare.py", *arguments, "--max_steps", "2", check=False)
    assert other.returncode == 2
    assert "max_steps 3 -> 2" in other.stderr
    (out / "teacher" / "model.safetensors").write_bytes(b"another")
    other = run("compare.py", *arguments, check=False)
    assert "teacher_sha256" in other.stderr


@pytest.fixture
def ask(compare, tmp_path):
    """Ask for a run whose results.json holds this."""

    def reuse(content, **meta):
        recipe, path = tmp_path / "recipe.yaml", tmp_path / "none" / "results.json"
        recipe.write_text("dataset: synthetic_rooms\nuse_cpu: true\n")
        options = ["--config", str(recipe), "--output_dir", str(path.parent)]
        settings = parse_recipe(compare.GROUPS, options)[-1]
        path.parent.mkdir()
        known = {"meta": {"recipe": settings, "protocol": "ours", "split": "val", **meta}}
        path.write_text(content or json.dumps(known))
        return compare.train("distill.py", str(recipe), path.parent, [])

    return reuse


def test_a_run_of_the_same_settings_and_score_is_reused(ask):
    assert ask(None)["meta"]["split"] == "val"


@pytest.mark.parametrize(
    ("meta", "named"),
    [
        ({"protocol": "atrc"}, "atrc -> ours"),
        ({"split": "train"}, "train -> val"),
        ({"ids": "few.txt"}, "few.txt -> None"),
    ],
)
def test_a_run_that_was_scored_otherwise_is_not_reused(ask, meta, named):
    with pytest.raises(CheckpointError, match=named):
        ask(None, **meta)


@pytest.mark.parametrize(
    "content", ["{", "[1.0]", '{"edge/maxf": 1.0}', '{"meta": {"split": "val"}}', '{"meta": null}']
)
def test_results_that_do_not_say_how_the_model_was_trained_are_refused(ask, content):
    with pytest.raises(CheckpointError):
        ask(content)


def test_an_interval_covers_the_mean_of_paired_differences(compare):
    mean, low, high = compare.interval([1.0, 2.0, 3.0])
    assert (mean, mean - low) == (2, pytest.approx(4.3027 / 3**0.5, rel=1e-4))  # t(0.975, 2) = 4.3027
    assert high - mean == pytest.approx(mean - low)
