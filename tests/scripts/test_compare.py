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


@pytest.mark.parametrize("scored", [{"protocol": "ours"}, {}])
def test_a_run_that_was_scored_with_other_metrics_is_not_reused(compare, tmp_path, scored):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("dataset: synthetic_rooms\nuse_cpu: true\n")
    folder = tmp_path / "none"
    arguments = ["--config", str(recipe), "--output_dir", str(folder)]
    groups = (DataArguments, StudentArguments, DistillationArguments, KdamTrainingArguments)
    folder.mkdir()
    found = {"edge/maxf": 1.0, "meta": {"recipe": parse_recipe(groups, arguments)[-1], **scored}}
    (folder / "results.json").write_text(json.dumps(found))
    if scored:
        assert compare.train("distill.py", str(recipe), folder, []) == found
    else:
        with pytest.raises(CheckpointError, match="scored by an earlier version"):
            compare.train("distill.py", str(recipe), folder, [])
