"""A stranger loads what was published or saved where this package is not installed: the same bits, and as strictly."""

import json

import numpy as np
import pytest
import torch
from absent import without
from hub_kit import ID, run_python
from PIL import Image
from transformers import pipeline

from kdam_hf import KdamImageProcessor, KdamStudent, MultiTaskDensePredictionPipeline
from kdam_hf.hub.publication import publish
from kdam_hf.pipeline_kdam import TASK

STRANGER = f"""
{without("kdam_hf", "dataset_loaders")}
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, pipeline
id, photo = sys.argv[1], Image.open("photo.png")
options = {{"trust_remote_code": True, "revision": "v1"}}
model = AutoModel.from_pretrained(id, **options).eval()
processor = AutoImageProcessor.from_pretrained(id, **options)
inputs = processor(photo)
with torch.inference_mode():
    maps = processor.post_process(model(**inputs), inputs["original_sizes"])[0]
found = {{"maps": {{name: values.numpy() for name, values in maps.items()}}}}
for source, revision in ((id, "v1"), ("saved", None), ("saved again", None)):
    pipe = pipeline({TASK!r}, model=source, revision=revision, trust_remote_code=True)
    results = pipe(photo, flip=True)
    found[source] = {{name: result["values"] for name, result in results.items()}}
    pipe.save_pretrained("saved again")
torch.save(found, "found.pt")
weights = load_file("saved/model.safetensors")
weights["decoder.norm.weight"][1] = float("nan")
save_file(weights, "saved/model.safetensors", {{"format": "pt"}})
try:
    AutoModel.from_pretrained("saved", trust_remote_code=True)
except ValueError as error:
    assert "1 weights are not finite: decoder.norm.weight" in str(error)
else:
    raise SystemExit("loaded NaN")
"""


@pytest.mark.fault(28)
def test_a_stranger_without_the_package_predicts_the_same_bits_and_is_refused_broken_weights(
    hub, student, publication, tmp_path, monkeypatch
):
    publish(ID, publication, tag="v1")
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (53, 71, 3), np.uint8))
    photo.save(tmp_path / "photo.png")
    model = KdamStudent.from_pretrained(student).eval()
    processor = KdamImageProcessor.from_model_config(model.config)
    pipe = MultiTaskDensePredictionPipeline(model, image_processor=processor)
    for saved in (model.config, model, processor):
        monkeypatch.setattr(type(saved), "_auto_class", None)  # which saving sets
    pipe.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["custom_pipelines"].keys() == {TASK}
    monkeypatch.setattr("builtins.input", None)  # where it is installed, its code is used and nothing is asked
    installed = pipeline(TASK, model=str(tmp_path / "saved"), pipeline_class=MultiTaskDensePredictionPipeline)
    assert type(installed.model) is KdamStudent
    assert type(installed.image_processor) is KdamImageProcessor

    environment = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_CACHE": str(hub.cache), "HF_HUB_OFFLINE": "1"}
    run_python("-I", "-c", STRANGER, ID, env=environment, cwd=tmp_path)
    found = torch.load(tmp_path / "found.pt", weights_only=False)
    inputs = processor(photo)
    with torch.inference_mode():
        maps = processor.post_process(model(**inputs), inputs["original_sizes"])[0]
    values = {name: result["values"] for name, result in pipe(photo, flip=True).items()}
    assert found.keys() == {"maps", ID, "saved", "saved again"}
    for source, arrays in found.items():
        expected = {name: x.numpy() for name, x in maps.items()} if source == "maps" else values
        assert arrays.keys() == expected.keys()
        for name, array in arrays.items():
            assert np.array_equal(array, expected[name]), (source, name)
