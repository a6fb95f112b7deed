"""A stranger loads a published student where this package is not installed, and predicts the same bits."""

import numpy as np
import torch
from hub_kit import ID, ROOT, run_python
from PIL import Image

from kdam_hf import KdamImageProcessor, KdamStudent, MultiTaskDensePredictionPipeline
from kdam_hf.hub import publish

STRANGER = """
import sys
sys.path = [path for path in sys.path if path not in ("", sys.argv[4])]
sys.modules["kdam_hf"] = sys.modules["dataset_loaders"] = None  # importing them fails
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, pipeline
options = {"trust_remote_code": True, "revision": "v1"}
model = AutoModel.from_pretrained(sys.argv[1], **options).eval()
processor = AutoImageProcessor.from_pretrained(sys.argv[1], **options)
photo = Image.open(sys.argv[2])
inputs = processor(photo)
with torch.inference_mode():
    maps = processor.post_process(model(**inputs), inputs["original_sizes"])[0]
pipe = pipeline("multi-task-dense-prediction", model=sys.argv[1], **options)
piped = {name: torch.from_numpy(found["values"]) for name, found in pipe(photo).items()}
torch.save({"maps": maps, "piped": piped}, sys.argv[3])
"""


def test_a_stranger_without_the_package_predicts_the_same_bits(hub, student, publication, tmp_path):
    publish(publication, tag="v1")
    photo, output = tmp_path / "photo.png", tmp_path / "maps.pt"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (53, 71, 3), np.uint8)).save(photo)
    environment = hub.environment(tmp_path / "home", token=None)
    run_python("-I", "-c", STRANGER, ID, photo, output, ROOT, env=environment, cwd=tmp_path)
    loaded = torch.load(output)
    model = KdamStudent.from_pretrained(student).eval()
    processor = KdamImageProcessor.from_model_config(model.config)
    inputs = processor(Image.open(photo))
    with torch.inference_mode():
        maps = processor.post_process(model(**inputs), inputs["original_sizes"])[0]
    piped = MultiTaskDensePredictionPipeline(model, image_processor=processor)(Image.open(photo))
    assert set(loaded["maps"]) == set(loaded["piped"]) == set(maps)
    for name, value in maps.items():
        assert torch.equal(loaded["maps"][name], value), name
        assert np.array_equal(loaded["piped"][name].numpy(), piped[name]["values"]), name
