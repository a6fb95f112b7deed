import importlib.util
import json
from pathlib import Path

import pytest

from kdam_hf.errors import CheckpointError
from kdam_hf.training import DataArguments, KdamTrainingArguments, StudentArguments, parse_recipe
from kdam_hf.training.arguments import DistillationArguments


@pytest.fixture(scope="module")
def compare():
    path = Path(__file__).parents[2] / "scripts" / "compare.py"
    spec = importlib.util.spec_from_file_location("compare_command", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(compare, tmp_path):
    """Give the run `none` these results, as they are or as a function of its recipe, and ask for it again."""

    def ask(results):
        recipe, folder = tmp_path / "recipe.yaml", tmp_path / "none"
        recipe.write_text("dataset: synthetic_rooms\nuse_cpu: true\n")
        groups = (DataArguments, StudentArguments, DistillationArguments, KdamTrainingArguments)
        settings = parse_recipe(groups, ["--config", str(recipe), "--output_dir", str(folder)])[-1]
        folder.mkdir()
        content = results(settings) if callable(results) else results
        (folder / "results.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return content, compare.train("distill.py", str(recipe), folder, [])

    return ask


@pytest.mark.parametrize("score", [{"protocol": "ours"}, {"protocol": "ours", "split": "val", "ids": None}])
def test_a_run_with_these_settings_and_metrics_is_reused(run, score):
    content, found = run(lambda settings: {"edge/maxf": 1.0, "meta": {"recipe": settings, **score}})
    assert content == found


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ({}, "scored by an earlier version"),
        ({"protocol": "atrc"}, "scored with protocol atrc, the others with ours; remove .*results.json"),
        ({"protocol": "ours", "split": "train"}, "scored with split train, the others with val"),
        ({"protocol": "ours", "ids": "few.txt"}, "scored with ids few.txt, the others with None"),
    ],
)
def test_a_run_that_was_scored_with_other_metrics_is_not_reused(run, score, message):
    with pytest.raises(CheckpointError, match=message):
        run(lambda settings: {"edge/maxf": 1.0, "meta": {"recipe": settings, **score}})


@pytest.mark.parametrize("results", ["{", [1.0], {"edge/maxf": 1.0}, {"meta": {"protocol": "ours"}}, {"meta": None}])
def test_results_that_do_not_say_how_the_model_was_trained_are_named(run, results):
    with pytest.raises(CheckpointError, match=r"none.results\.json does not say with which settings .* remove it"):
        run(results)
