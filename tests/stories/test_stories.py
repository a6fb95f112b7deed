"""What a user does, from an installed wheel: the scripts of this folder, in an environment that holds nothing else.

`make stories` builds the wheel, installs it and names the environment's programs in STORIES_BIN. The scripts are what is
typed; commands, characters and authored lines are held to a limit.
"""

import ast
import json
import os
import subprocess
from pathlib import Path

import families_kit
import numpy as np
import pytest
import trees
from PIL import Image

HERE = Path(__file__).parent
BIN = os.environ.get("STORIES_BIN", "")
pytestmark = pytest.mark.skipif(not BIN, reason="needs an environment with the wheel: make stories")


@pytest.fixture
def home(tmp_path):
    """Where the user is: photos, teachers of the Hub, and data."""
    (tmp_path / "photos").mkdir()
    for k in range(10):
        pixels = np.random.default_rng(k).integers(0, 255, (90 + 2 * k, 120, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{k}.jpg")
    (tmp_path / "org").mkdir()
    families_kit.save("depth-anything-metric", tmp_path / "org" / "depth")
    families_kit.save("segformer", tmp_path / "org" / "segmentation")
    return tmp_path


def play(words, folder):
    """Run a story with the programs of the environment; returns what it printed."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"PATH": f"{BIN}:{environment['PATH']}", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def type_in(name, folder, commands, characters):
    """A shell story of at most so many commands and characters."""
    text = (HERE / name).read_text("utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(lines) <= commands
    assert sum(map(len, lines)) <= characters
    return play(["bash", "-e", str(HERE / name)], folder)


def scores(folder):
    return json.loads((folder / "results.json").read_text())


def test_the_installed_package_is_the_wheel(home):
    source = "import kdam_hf, dataset_loaders, kdam_cli; print(kdam_hf.__file__, dataset_loaders.__file__, kdam_cli.__file__)"
    files = play(["python", "-c", source], home).split()
    assert all(Path(BIN).parent in Path(file).parents for file in files)


def test_own_photos_and_two_teachers_of_the_hub_become_an_onnx_file(home):
    type_in("photos.sh", home, commands=2, characters=300)
    found = scores(home / "student")
    assert {"agreement/depth/rmse", "agreement/semseg/miou"} <= found.keys()
    assert found["meta"]["steps"] == 3
    assert list((home / "exported").rglob("*.onnx"))


def test_an_nyud_v2_tree_becomes_teacher_student_and_table(home):
    trees.write_tree("C", home / "NYUDv2")
    type_in("nyud_v2.sh", home, commands=4, characters=500)
    found = json.loads((home / "scores.json").read_text())
    assert {"semseg/miou", "depth/rmse", "normals/mean_angle"} <= found.keys()
    assert scores(home / "student")["meta"]["method"] == "cs"
    assert "| semseg" in (home / "scores.md").read_text()


def test_a_module_of_ones_own_teaches(home):
    story = HERE / "own_teacher.py"
    lines = [line for line in story.read_text("utf-8").splitlines() if line]
    assert len(lines) <= 15
    ast.parse(story.read_text("utf-8"))
    (home / "own_teacher.py").write_text(story.read_text("utf-8"))
    play(["python", "own_teacher.py"], home)
    assert 0 < scores(home / "student")["agreement/depth/rmse"] < 10
