"""The commands as Python functions, and the program that the README begins with."""

import re

import families_kit
import numpy as np
import pytest
from command_kit import ROOT
from conftest_kit import write_photos
from PIL import Image

import kdam_hf
from kdam_hf import KdamStudent, distill, evaluate, predict, train
from kdam_hf.errors import KdamValueError

ROOMS = {"rooms_train": 8, "rooms_val": 3, "rooms_height": 40, "rooms_width": 56, "tasks": ["semseg", "depth"]}
TINY = {"preset": "tiny-resnet", "backbone_weights": "none", "crop_height": 32, "crop_width": 48, "max_steps": 2}
TINY |= {"use_cpu": True, "cpu_threads": 1, "per_device_train_batch_size": 2, "disable_tqdm": True, "save_steps": 10}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of photos of different sizes."""
    folder = tmp_path_factory.mktemp("program") / "photos"
    write_photos(folder, "a.jpg", "b.jpg", "c.jpg", "d.jpg", "kitchen.jpg", taller=2)
    return folder


def test_the_first_program_of_the_readme_runs(photos, monkeypatch):
    text = (ROOT / "README.md").read_text("utf-8")
    program = next(block for block in re.findall("```python\n(.*?)```", text, re.DOTALL) if "import distill" in block)
    assert len([line for line in program.splitlines() if line]) == 3
    families_kit.save("depth-anything-metric", photos.parent / re.search(r'teacher="(.*?)"', program)[1])
    monkeypatch.chdir(photos.parent)
    monkeypatch.setattr(kdam_hf, "distill", lambda **keys: distill(**(TINY | {"warmup_steps": 0} | keys)))
    found = {}
    exec(program, found)
    assert found["depth"].shape == (48, 56)
    assert found["depth"].dtype == np.float32
    assert (found["depth"] > 0).all()
    assert "agreement/depth/rmse" in found["student"].metrics


def test_what_was_trained_stands_for_its_folder_and_scores_as_it_said(photos, tmp_path):
    teacher = train(output_dir=tmp_path / "teacher", **TINY, **ROOMS)
    student = distill(teacher=teacher, output_dir=tmp_path / "student", method="kl", **TINY, **ROOMS)
    scores = evaluate(model=student, output=tmp_path / "r.json", num_proc=1, **ROOMS)
    assert student.metrics.keys() == scores.keys()
    assert scores == pytest.approx(student.metrics, rel=1e-4)
    assert isinstance(student.model, KdamStudent)
    for key, value in (("model", student.model), ("output", b"r.json")):
        with pytest.raises(KdamValueError, match=f"{key} is a {type(value).__name__}"):
            evaluate(**{"model": student, **ROOMS, key: value})
    assert [task["name"] for task in student.processor.tasks] == ROOMS["tasks"]
    student.save(tmp_path / "copy")
    first, *_, second = sorted(photos.iterdir())
    one = predict(tmp_path / "copy", Image.open(second))
    for given, count in ((photos, 5), (f"{photos}/*.jpg", 5), ([first, str(second)], 2)):
        found = predict(student, given)
        assert [maps["semseg"].shape for maps in found[:: count - 1]] == [(40, 56), (48, 56)]
        for task in ROOMS["tasks"]:
            np.testing.assert_array_equal(found[-1][task], one[task])
    published = student.push_to_hub("org/student", dry_run=tmp_path / "repository")
    assert (tmp_path / "repository" / "README.md").is_file()
    assert published == str(tmp_path / "repository")
