"""A stranger loads a published student where this package is not installed, and predicts the same bits."""

import os
import subprocess
import sysconfig
import venv

import numpy as np
import pytest
import torch
from PIL import Image

from kdam_hf import KdamImageProcessor, KdamStudent, MultiTaskDensePredictionPipeline
from kdam_hf.hub import publish

STRANGER = """
import importlib.util, sys
assert importlib.util.find_spec("kdam_hf") is None, "this environment holds the package"
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, pipeline
options = {"trust_remote_code": True, "revision": "v1"}
model = AutoModel.from_pretrained("org/kdam-student", **options).eval()
processor = AutoImageProcessor.from_pretrained("org/kdam-student", **options)
photo = Image.open(sys.argv[1])
inputs = processor(photo)
with torch.inference_mode():
    maps = processor.post_process(model(**inputs), inputs["original_sizes"])[0]
pipe = pipeline("multi-task-dense-prediction", model="org/kdam-student", **options)
piped = {name: torch.from_numpy(found["values"]) for name, found in pipe(photo).items()}
torch.save({"maps": maps, "piped": piped}, sys.argv[2])
"""


@pytest.fixture
def scratch(tmp_path):
    """Python of a fresh environment that has all packages of this one but the project: editable installs stay behind.

    A .pth file names the folder of packages; the .pth files inside that folder, which install editable packages, are
    not read for it.
    """
    home = tmp_path / "scratch"
    venv.create(home, with_pip=False, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "packages.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return home / "bin" / "python"


def test_a_stranger_without_the_package_predicts_the_same_bits(hub, student, publication, scratch, tmp_path):
    publish(publication, tag="v1")
    photo = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (53, 71, 3), np.uint8)
    Image.fromarray(pixels).save(photo)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "PYTHON"))}
    done = subprocess.run(
        [scratch, "-I", "-c", STRANGER, photo, tmp_path / "maps.pt"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment | hub.environment(tmp_path / "home", token=None),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    loaded = torch.load(tmp_path / "maps.pt")
    model, processor = KdamStudent.from_pretrained(student).eval(), KdamImageProcessor.from_pretrained(student)
    inputs = processor(Image.open(photo))
    with torch.inference_mode():
        maps = processor.post_process(model(**inputs), inputs["original_sizes"])[0]
    piped = MultiTaskDensePredictionPipeline(model, image_processor=processor)(Image.open(photo))
    assert set(loaded["maps"]) == set(loaded["piped"]) == set(maps)
    for name, value in maps.items():
        assert torch.equal(loaded["maps"][name], value), name
        assert np.array_equal(loaded["piped"][name].numpy(), piped[name]["values"]), name
