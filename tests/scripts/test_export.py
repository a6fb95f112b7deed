"""The command export.py, and run_onnx.py beside predict.py on the same photo."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from absent import without
from command_kit import ROOT, SCRIPTS, load
from PIL import Image

from dataset_loaders import Collator, EvalTransform, TransformedDataset
from dataset_loaders.synthetic_rooms import CLASS_NAMES, SyntheticRooms
from kdam_hf import KdamImageProcessor, KdamStudent
from kdam_hf.errors import CheckpointError, ExportError, KdamValueError
from kdam_hf.presets import make_config
from kdam_hf.tasks import make_task
from kdam_hf.training import evaluate_model

TASKS = (*(make_task(name) for name in ("saliency", "depth", "normals")), make_task("edge", dataset="nyud_v2"))
TASKS = (make_task("semseg", CLASS_NAMES), *TASKS)
NAMES = [task.name for task in TASKS]


command, runner = load("export.py"), load("run_onnx.py")


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A student that reduces photos to a shorter side of 48 pixels; batch norm has seen noise, so that ranges are sane."""
    torch.manual_seed(0)
    model = KdamStudent(make_config("student", "tiny-resnet", TASKS, image_size=[48, 64])).train()
    for _ in range(20):
        model(torch.randn(2, 3, 64, 64))
    folder = tmp_path_factory.mktemp("models") / "student"
    model.save_pretrained(folder)
    KdamImageProcessor.from_model_config(model.config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """67 x 91 pixels, lying on its side as cameras leave it."""
    image = Image.fromarray(SyntheticRooms("val", 2, height=67, width=91)[1]["image"])
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    image.rotate(90, expand=True).save(path, exif=exif)
    return path


@pytest.fixture(scope="module")
def decoded(student, tmp_path_factory):
    output = tmp_path_factory.mktemp("exports") / "decoded"
    command.main(["--model", str(student), "--output", str(output), "--decode"])
    return output


@pytest.fixture(scope="module")
def exported(student, tmp_path_factory):
    """An ONNX file with its eight-bit form, calibrated and scored on synthetic rooms."""
    output = tmp_path_factory.mktemp("exports") / "onnx"
    rooms = ["--dataset", "synthetic_rooms", "--rooms_train", "3", "--rooms_val", "2", "--rooms_height", "48"]
    options = ["--int8", "--calibration_images", "2", *rooms, "--rooms_width", "64"]
    command.main(["--model", str(student), "--output", str(output), *options])
    return output


def test_the_folder_describes_itself_and_names_no_place_of_this_machine(exported, student):
    text = (exported / "kdam.json").read_text()
    facts = json.loads(text)
    top = ["config.json", "kdam.json", "onnx", "preprocessor_config.json"]
    assert sorted(path.name for path in exported.iterdir()) == top
    assert sorted(path.name for path in (exported / "onnx").iterdir()) == ["model.onnx", "model_quantized.onnx"]
    assert not list(exported.parent.glob(".export-*"))
    assert facts["dynamic"] == ["batch", "height", "width"]
    assert facts["resize"] == {"shortest_edge": 48}
    assert facts["bytes"] == (exported / facts["file"]).stat().st_size
    assert facts["int8"]["bytes"] == (exported / facts["int8"]["file"]).stat().st_size
    assert list(facts["check"]["largest_difference"]) == NAMES == [task["name"] for task in facts["tasks"]]
    assert all(share < 1e-4 for share in facts["check"]["largest_difference"].values())
    assert not [name for name in top if name != "onnx" and str(student.parent) in (exported / name).read_text()]


def test_the_program_of_the_documents_gives_one_map_three_times(decoded, student, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "export.md").read_text("utf-8")
    program = next(block for block in re.findall("```python\n(.*?)```", text, re.DOTALL) if "InferenceSession" in block)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "student").symlink_to(student)
    (tmp_path / "outputs" / "onnx_decoded").symlink_to(decoded)
    Image.fromarray(SyntheticRooms("val", 1, height=41, width=58)[0]["image"]).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(program, found)
    np.testing.assert_array_equal(found["metres"], found["tensor"])
    np.testing.assert_allclose(found["depth"][0], found["metres"], atol=1e-4)
    steps = json.loads((decoded / "preprocessor_config.json").read_text())
    assert (steps["do_resize"], steps["do_rescale"], steps["do_normalize"]) == (True, True, True)


def test_scores_of_float32_are_those_of_the_model_and_int8_differs_a_little(exported, student):
    int8 = json.loads((exported / "kdam.json").read_text())["int8"]
    model = KdamStudent.from_pretrained(student)
    rooms = SyntheticRooms("val", 2, height=48, width=64, tasks=model.config.task_names)
    data = TransformedDataset(rooms, EvalTransform(rooms.tasks, model.config.image_mean, model.config.image_std))
    batches = [Collator(rooms.tasks)([data[k]]) for k in range(2)]
    expected = evaluate_model(model, batches, rooms.tasks, progress=False)
    fp32, quantized = int8["scores"]["fp32"], int8["scores"]["int8"]
    assert fp32 == pytest.approx(expected, rel=1e-3, nan_ok=True)
    assert fp32.keys() == quantized.keys()
    assert fp32 != quantized
    for key in ("depth/rmse", "normals/mean_angle"):
        assert quantized[key] == pytest.approx(fp32[key], rel=0.2)
    assert (int8["calibration_images"], int8["scored_on"]["images"]) == (2, 2)


def test_the_runner_reads_decoded_files(decoded, student, tmp_path):
    Image.fromarray(SyntheticRooms("val", 1, height=41, width=58)[0]["image"]).save(tmp_path / "photo.png")
    photo = tmp_path / "photo.png"
    runner.main(["--model", str(decoded), "--image", str(photo), "--output_dir", str(tmp_path / "a")])
    load("predict.py").main(["--model", str(student), "--images", str(photo), "--output_dir", str(tmp_path / "b")])
    for name in NAMES:
        ours, theirs = (np.load(tmp_path / folder / f"photo_{name}.npy") for folder in "ab")
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        assert np.mean(abs(ours.astype(float) - theirs) > 1e-4) < 1e-3
    larger = runner.at_photo(np.array([[3, 200]], np.uint8), (1, 2), (2, 6), 1)
    assert larger.tolist() == [[[3, 3, 3, 200, 200, 200]] * 2], "ids are not averaged"


def test_numpy_alone_gives_the_maps_of_predict(exported, student, photo, tmp_path):
    """In a process in which neither torch nor transformers nor this package can be imported."""
    blocked = f"""
{without("torch", "transformers", "kdam_hf", "dataset_loaders", "onnx")}
import runpy
sys.argv = ["run_onnx.py", "--model", {str(exported)!r}, "--image", {str(photo)!r}, "--output_dir", {str(tmp_path / "a")!r}]
runpy.run_path({str(SCRIPTS / "run_onnx.py")!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    load("predict.py").main(["--model", str(student), "--images", str(photo), "--output_dir", str(tmp_path / "b")])
    for name in NAMES:
        ours, theirs = (np.load(tmp_path / folder / f"photo_{name}.npy") for folder in "ab")
        assert ours.shape == theirs.shape
        assert ours.shape[:2] == (67, 91)
        assert ours.dtype == theirs.dtype
        picture = np.asarray(Image.open(tmp_path / "a" / f"photo_{name}.png"))
        assert picture.shape == (67, 91, 3)
        assert picture.std() > 0
        if ours.dtype == np.uint8:
            assert (ours != theirs).mean() < 1e-3  # where two classes tie
            assert np.array_equal(picture, np.asarray(Image.open(tmp_path / "b" / f"photo_{name}.png")))
        else:
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_graph_of_one_size_gets_the_whole_photo_in_its_proportions(photo):
    facts = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resize": None, "dynamic": ["batch"]}
    facts["input"] = {"shape": ["batch", 3, 50, 50]}
    pixels, mask = runner.prepare(runner.read_photo(photo), facts)
    assert pixels.shape == (1, 3, 50, 50)
    assert mask[0, :37].all()
    assert not mask[0, 37:].any()
    assert (pixels[:, :, 37:] == 0).all()
    assert (pixels[:, :, :37] != 0).mean() > 0.9
    rows = np.arange(13, dtype=np.float32)[None, :, None].repeat(13, 2)
    full = runner.at_photo(rows, (37, 50), (67, 91), 4)
    assert full.shape == (1, 67, 91)
    assert full.max() == 8.625  # where the centre of the last row of 37 lies


@pytest.mark.parametrize(
    ("options", "error", "given"),
    [
        (["--height", "64"], KdamValueError, "(64, None)"),
        (["--height", "64", "--width", "0"], KdamValueError, "(64, 0)"),
        (["--int8"], KdamValueError, "int8"),
        (["--calibration_images", "0"], KdamValueError, "calibration_images is 0"),
        (["--model", "/nowhere"], CheckpointError, "/nowhere"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_written(student, options, error, given, tmp_path, monkeypatch):
    (tmp_path / "mine").write_text("text")
    arguments = ["--model", str(student), "--output", str(tmp_path / "out"), *options]
    with pytest.raises(error) as caught:
        command.main(arguments)
    assert given in str(caught.value)
    with pytest.raises(KdamValueError, match=str(tmp_path)):  # its content is left alone
        command.main(["--model", str(student), "--output", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    monkeypatch.setattr("kdam_hf.export.find_spec", lambda name: None)  # before the model is loaded
    with pytest.raises(KdamValueError, match="onnxruntime"):
        command.main(["--model", "/nowhere", "--output", str(tmp_path / "out")])


def test_a_file_that_computes_something_else_is_not_left_behind(student, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "save_onnx", lambda model, size, file, decode: file.write_bytes(b"wrong"))
    other = KdamStudent(KdamStudent.config_class.from_pretrained(student)).eval()
    monkeypatch.setattr(command, "OnnxModel", lambda file: other)
    with pytest.raises(ExportError):
        command.main(["--model", str(student), "--output", str(tmp_path / "out")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change", [{"--model": "/nowhere"}, {"--image": "/nowhere.jpg"}, {"--int8": None}], ids=lambda change: str(*change)
)
def test_the_example_says_what_is_missing(exported, photo, change, tmp_path):
    facts = json.loads((exported / "kdam.json").read_text())
    del facts["int8"]
    (tmp_path / "kdam.json").write_text(json.dumps(facts | {"file": "model.onnx"}))  # as it was laid out before
    (tmp_path / "model.onnx").symlink_to(exported / "onnx" / "model.onnx")
    usual = {"--model": tmp_path, "--image": photo, "--output_dir": tmp_path / "old"}
    runner.main([str(word) for pair in usual.items() for word in pair])
    options = usual | {"--output_dir": tmp_path / "out"} | change
    with pytest.raises(SystemExit) as caught:
        runner.main([str(word) for pair in options.items() for word in pair if word is not None])
    assert change.get("--model", change.get("--image", "int8")) in str(caught.value)
    assert not (tmp_path / "out").exists()
