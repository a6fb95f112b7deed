import numpy as np
import pytest
import torch
from conftest_kit import Kit
from PIL import Image
from transformers import pipeline

from dataset_loaders.synthetic_rooms import SyntheticRooms
from kdam_hf import KdamImageProcessor, KdamStudent, MultiTaskDensePredictionPipeline, photos_kdam
from kdam_hf.presets import make_config
from kdam_hf.tasks import NYUD_V2, make_task, task_from_spec

TASK = "multi-task-dense-prediction"
SIZES = [(37, 51), (80, 52), (37, 51), (61, 97)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved student of every kind of task whose heads disagree with themselves on mirrored photos."""
    tasks = (make_task("semseg", "abc"), make_task("human_parts"), make_task("saliency"), *NYUD_V2[1:])
    path = tmp_path_factory.mktemp("student")
    model = Kit(path).model(tasks=tasks, image_size=[48, 64]).eval()
    with torch.no_grad():
        for head in model.decoder.heads.values():
            head[-1].weight.mul_(20)
    model.save_pretrained(path)
    KdamImageProcessor.from_model_config(model.config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def pipe(folder):
    return pipeline(TASK, model=str(folder))


@pytest.fixture(scope="module")
def photos():
    room = Image.fromarray(SyntheticRooms("val", num_images=1, height=80, width=100)[0]["image"])
    return [room.resize((width, height)) for height, width in SIZES]


def assert_same(results, expected, atol=0.0):
    assert results.keys() == expected.keys()
    for name, result in results.items():
        assert result.keys() == expected[name].keys()
        for key in result:
            given, wanted = np.asarray(result[key]), np.asarray(expected[name][key])
            assert given.dtype == wanted.dtype
            np.testing.assert_allclose(given, wanted, rtol=1e-5 if atol else 0, atol=atol, err_msg=f"{name} {key}")


@pytest.mark.parametrize("k", range(2))
def test_values_are_those_of_model_and_processor_and_pictures_those_of_the_tasks(pipe, photos, k):
    assert type(pipe) is MultiTaskDensePredictionPipeline
    assert pipe.image_processor.size == {"shortest_edge": 48}
    inputs = pipe.image_processor(photos[k])
    with torch.no_grad():
        outputs = pipe.model(**inputs)
    (maps,) = pipe.image_processor.post_process(outputs, inputs["original_sizes"])
    results = pipe(photos[k], return_pictures=True)
    assert results.keys() == maps.keys()
    for spec in pipe.model.config.tasks:
        values, result = maps[spec["name"]].numpy(), results[spec["name"]]
        np.testing.assert_array_equal(result["values"], values if values.ndim == 2 else values.transpose(1, 2, 0))
        np.testing.assert_array_equal(
            np.asarray(result["picture"]), task_from_spec(spec).reader.colours(result["values"])
        )
        assert result["values"].shape[:2] == SIZES[k]
        assert result.keys() == {"values", "picture"}
    assert {key for result in pipe(photos[k]).values() for key in result} == {"values"}


@pytest.mark.parametrize("flip", [False, True])
def test_photos_of_mixed_sizes_in_batches_give_what_each_gives_alone(pipe, photos, flip):
    alone = [pipe(photo, flip=flip) for photo in photos]
    for batch_size in (1, 3, 4):
        together = pipe(photos, batch_size=batch_size, flip=flip)
        streamed = list(pipe((photo for photo in photos), batch_size=batch_size, flip=flip))
        assert len(together) == len(streamed) == len(photos)
        for one, first, second in zip(alone, together, streamed, strict=True):
            assert_same(first, one, atol=1e-4)
            assert_same(second, first)


def test_probabilities_sum_to_one_and_belong_to_the_values(pipe, photos):
    plain, results = pipe(photos[3]), pipe(photos[3], return_probabilities=True)
    assert {name for name in results if "probabilities" in results[name]} == {"semseg", "human_parts", "saliency"}
    for name, result in results.items():
        np.testing.assert_allclose(result["values"], plain[name]["values"], atol=1e-5)
    for name, classes in (("semseg", 3), ("human_parts", 7), ("saliency", 2)):
        probabilities = results[name]["probabilities"]
        assert probabilities.shape == (*SIZES[3], classes)
        np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(results["semseg"]["probabilities"].argmax(-1), results["semseg"]["values"])
    np.testing.assert_array_equal(results["saliency"]["probabilities"][..., 1], results["saliency"]["values"])


def test_arrays_have_their_channels_first_or_last_and_a_pipeline_does_not_train(pipe, photos):
    array = np.asarray(photos[0])
    assert_same(pipe(array.transpose(2, 0, 1)), pipe(array))
    assert not MultiTaskDensePredictionPipeline.of_model(pipe.model.train()).model.training


def test_a_bad_photo_and_unknown_settings_are_refused(pipe, photos, tmp_path, monkeypatch):
    def slow(request, timeout):
        raise TimeoutError(f"after {timeout} seconds")

    monkeypatch.setattr(photos_kdam, "urlopen", slow)
    with pytest.raises(ValueError, match="after 7 seconds"):
        pipe("https://example.org/photo.png", timeout=7)
    with pytest.raises(ValueError, match="no such photo"):
        pipe(tmp_path / "missing.png")
    with pytest.raises(TypeError, match="flipped"):
        pipe(photos[0], flipped=True)


def test_the_librarys_own_pipelines_give_depth_and_segments_of_the_same_model(pipe, photos, folder, caplog):
    values = pipe(photos[3])
    depth = pipeline("depth-estimation", model=str(folder))(photos[3])
    np.testing.assert_array_equal(depth["predicted_depth"].numpy(), values["depth"]["values"])
    assert depth["depth"].size == SIZES[3][::-1]
    segments = pipeline("image-segmentation", model=str(folder))(photos[3])
    names = np.array([*"abc"])[values["semseg"]["values"]]
    assert {segment["label"] for segment in segments} == set(names.flat)
    for segment in segments:
        np.testing.assert_array_equal(np.asarray(segment["mask"]) == 255, names == segment["label"])
    assert "not supported" not in caplog.text
    model = KdamStudent(make_config("student", "tiny-resnet", [make_task("edge")])).eval()
    processor = KdamImageProcessor.from_model_config(model.config)
    for task in ("depth-estimation", "image-segmentation"):
        with pytest.raises(ValueError, match="it has edge"):
            pipeline(task, model=model, image_processor=processor)(Image.new("RGB", (40, 40)))
