"""What a user does, from an installed wheel: the scripts of this folder, in an environment that holds nothing else.

`make stories` builds the wheel, installs it and names the environment's programs in STORIES_BIN. The scripts are what is
typed; commands, characters and authored lines are held to a limit.
"""

import json
import os
import subprocess
from pathlib import Path

import families_kit
import numpy as np
import pytest
import trees
from datasets import Dataset, Features
from datasets import Image as Picture
from PIL import Image

HERE = Path(__file__).parent
BIN = os.environ.get("STORIES_BIN", "")
pytestmark = pytest.mark.skipif(not BIN, reason="needs an environment with the wheel: make stories")


@pytest.fixture
def home(tmp_path):
    """Where the user is: photos, and teachers of the Hub."""
    return furnish(tmp_path)


def furnish(folder):
    (folder / "photos").mkdir()
    for k in range(10):
        photo(k).save(folder / "photos" / f"{k}.jpg")
    (folder / "org").mkdir()
    families_kit.save("depth-anything-metric", folder / "org" / "depth")
    families_kit.save("segformer", folder / "org" / "segmentation")
    return folder


def photo(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (90 + 2 * seed, 120, 3), np.uint8))


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


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    """The home after the first story."""
    folder = furnish(tmp_path_factory.mktemp("distilled"))
    type_in("photos.sh", folder, commands=2, characters=300)
    return folder


def test_own_photos_and_two_teachers_of_the_hub_become_an_onnx_file(distilled):
    found = scores(distilled / "student")
    assert {"agreement/depth/rmse", "agreement/semseg/miou"} <= found.keys()
    assert found["meta"]["steps"] == 3
    assert (distilled / "exported" / "onnx" / "model.onnx").is_file()


def test_a_student_gives_one_map_by_three_doors(distilled):
    program = (HERE / "use.py").read_text("utf-8")
    assert len([line for line in program.splitlines() if line and "import" not in line]) <= 6
    compared = "\nimport numpy\nprint(abs(metres - tensor.numpy()).max(), abs(metres - depth[0]).max() / metres.max())"
    by_pipeline, by_onnx = map(float, play(["python", "-c", program + compared], distilled).split()[-2:])
    assert by_pipeline == 0
    assert by_onnx < 1e-3


def test_a_hub_data_set_with_columns_of_its_own_and_a_teacher_of_depth(home):
    features = Features({"pixel_values": Picture(), "annotation": Picture()})
    for split, count in (("train", 8), ("validation", 2)):
        rows = [
            {"pixel_values": photo(k), "annotation": photo(k).convert("L").point(lambda v: v // 64)}
            for k in range(count)
        ]
        Dataset.from_list(rows, features).to_parquet(home / "org" / "streets" / f"{split}-00000-of-00001.parquet")
    (home / "org" / "streets" / "id2label.json").write_text(json.dumps(dict(enumerate(("road", "car", "sky", "tree")))))
    type_in("hub.sh", home, commands=1, characters=220)
    found = scores(home / "student")
    assert np.isfinite([found["semseg/miou"], found["agreement/depth/rmse"]]).all()
    tasks = json.loads((home / "student" / "config.json").read_text())["tasks"]
    assert [task["name"] for task in tasks] == ["semseg", "depth"]
    assert tasks[0]["class_names"] == ["road", "car", "sky", "tree"]


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
    (home / "own_teacher.py").write_text(story.read_text("utf-8"))
    play(["python", "own_teacher.py"], home)
    assert 0 < scores(home / "student")["agreement/depth/rmse"] < 10
