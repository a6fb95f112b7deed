"""ONNX files compute what their models do, and nearly so in eight bits; run_onnx.py beside predict.py on the same photo."""

import json
import logging
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from absent import without
from command_kit import ROOT, load
from PIL import Image
from trees import encoded

from dataset_loaders import Collator, EvalTransform, TransformedDataset
from dataset_loaders.synthetic_rooms import CLASS_NAMES, SyntheticRooms
from kdam_hf import KdamImageProcessor, KdamStudent, KdamTeacher, export
from kdam_hf.errors import CheckpointError, ExportError, KdamValueError
from kdam_hf.export import OnnxModel, checked_shapes, choose_size, largest_differences, quantize, save_onnx
from kdam_hf.modeling_kdam import KdamOutput
from kdam_hf.presets import make_config
from kdam_hf.tasks import make_task
from kdam_hf.training import evaluate_model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

TASKS = (*(make_task(name) for name in ("saliency", "depth", "normals")), make_task("edge", dataset="nyud_v2"))
TASKS = (make_task("semseg", CLASS_NAMES), *TASKS)
NAMES = [task.name for task in TASKS]
SHAPES = [(1, 8, 8), (2, 8, 12)]
command, runner = load("export.py"), load("run_onnx.py")


def tiny(cls=KdamStudent, preset="tiny-resnet", tasks=TASKS[:1], **options):
    torch.manual_seed(0)
    return cls(make_config(cls.config_class.model_type.removeprefix("kdam_"), preset, tasks, **options)).eval()


def saved(folder, *more):
    """A student that reduces photos to a shorter side of 48 pixels; batch norm has seen noise, so that ranges are sane."""
    model = tiny(tasks=TASKS, image_size=[48, 64])
    model.config.tasks = [*model.config.tasks, *more]
    model = KdamStudent(model.config).train()
    for _ in range(20):
        model(torch.randn(2, 3, 64, 64))
    for part in (model, KdamImageProcessor.from_model_config(model.config)):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("models") / "student")


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """67 x 91 pixels, lying on its side as cameras leave it."""
    image = Image.fromarray(SyntheticRooms("val", 2, height=67, width=91)[1]["image"])
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    path.write_bytes(encoded(image.rotate(90, expand=True), orientation=6))
    return path


@pytest.fixture(scope="module")
def decoded(tmp_path_factory):
    """A model of which one task has more classes than eight bits hold, and its decoded ONNX file."""
    folder = tmp_path_factory.mktemp("decoded")
    many = TASKS[0].spec() | {"name": "many", "channels": 300, "class_names": [f"/m/{k}" for k in range(300)]}
    saved(folder / "student", many)
    command.main(["--model", str(folder / "student"), "--output_dir", str(folder / "onnx"), "--decode"])
    return folder


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    """A teacher on windows, whose graph has one size, and its ONNX file."""
    model, path = tiny(KdamTeacher, "tiny-swin", TASKS[2:4], attention_layers=1), tmp_path_factory.mktemp("fixed")
    save_onnx(model, (71, 103), path / "model.onnx")
    return model, path / "model.onnx"


@pytest.fixture(scope="module")
def exported(student, tmp_path_factory):
    """An ONNX file with its eight-bit form, calibrated and scored on synthetic rooms."""
    output = tmp_path_factory.mktemp("exports") / "onnx"
    rooms = ["--dataset", "synthetic_rooms", "--rooms_train", "3", "--rooms_val", "2", "--rooms_height", "48"]
    options = ["--int8", "--calibration_images", "5", *rooms, "--rooms_width", "64"]
    output.mkdir()  # an empty folder may be there
    command.main(["--model", str(student), "--output_dir", str(output), *options])
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
    assert {"kdam-hf", "torch"} <= facts["versions"].keys()
    assert facts["bytes"] == (exported / facts["file"]).stat().st_size
    assert facts["int8"]["bytes"] == (exported / facts["int8"]["file"]).stat().st_size
    assert list(facts["check"]["largest_difference"]) == NAMES == [task["name"] for task in facts["tasks"]]
    shapes = facts["check"]["shapes"]  # on both sides of what tracing saw
    assert [1, 48, 64] in shapes
    assert {batch == 1 for batch, _, _ in shapes} == {True, False}
    assert {height % 32 == 0 and width % 32 == 0 for _, height, width in shapes} == {True, False}
    assert all(share < 1e-4 for share in facts["check"]["largest_difference"].values())
    assert not [name for name in top if name != "onnx" and str(student.parent) in (exported / name).read_text()]


def axes(values):
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def test_open_axes_are_named_operators_are_standard_and_no_place_of_this_machine_is_told(exported, fixed):
    graphs, folders = [], {Path(export.__file__).parent, Path(torch.__file__).parent}
    for path in (exported / "onnx" / "model.onnx", fixed[1]):
        model = onnx.load(path)
        onnx.checker.check_model(model)
        assert {node.domain for node in model.graph.node} == {""}
        assert not [folder for folder in folders if str(folder).encode() in path.read_bytes()]
        graphs.append(model.graph)
    assert axes(graphs[0].input) == {"pixel_values": ["batch", 3, "height", "width"]}
    rest = ["ceil(height / 4)", "ceil(width / 4)"]
    assert axes(graphs[0].output) == {task.name: ["batch", task.channels, *rest] for task in TASKS}
    # only a teacher takes a mask
    assert axes(graphs[1].input) == {"pixel_values": ["batch", 3, 71, 103], "pixel_mask": ["batch", 71, 103]}
    assert axes(graphs[1].output) == {"depth": ["batch", 1, 18, 26], "normals": ["batch", 3, 18, 26]}


def test_a_graph_of_one_size_computes_what_its_teacher_does_and_pads_smaller_images(fixed):
    model, session = fixed[0], OnnxModel(fixed[1], threads=1)
    assert session.session.get_session_options().intra_op_num_threads == 1
    shapes = checked_shapes((71, 103), None)
    assert shapes == [(1, 71, 103), (3, 71, 103)]
    found = largest_differences(model, session, shapes)
    assert found.keys() == {"depth", "normals"}
    assert max(found.values()) < 1e-4
    small, whole = torch.randn(2, 3, 41, 66), torch.zeros(2, 3, 71, 103)
    whole[..., :41, :66] = small
    mask = torch.zeros(2, 71, 103, dtype=torch.bool)
    mask[..., :41, :66] = True
    expected = session(whole, mask).predictions
    for name, got in session(small).predictions.items():
        assert torch.equal(got, expected[name][..., :11, :17])
    with pytest.raises(KdamValueError, match=r"72x103 .*\(71, 103\)"):
        session(torch.zeros(1, 3, 72, 103))


def test_decoded_outputs_are_those_of_the_processor_in_few_bytes_at_the_size_of_the_input(decoded):
    path = decoded / "onnx" / "onnx" / "model.onnx"
    facts = json.loads((decoded / "onnx" / "kdam.json").read_text())
    assert max(facts["check"]["largest_difference"].values()) < 1e-4
    assert facts["tasks"][-1]["class_names"] == [f"/m/{k}" for k in range(300)]  # which are no places of this machine
    between = dict.fromkeys([*NAMES, "many"], ()) | {"normals": [3], "edge": ()}
    assert axes(onnx.load(path).graph.output) == {n: ["batch", *c, "height", "width"] for n, c in between.items()}
    maps = OnnxModel(path)(torch.randn(2, 3, 37, 50)).predictions
    assert all(x.shape[-2:] == (37, 50) for x in maps.values())
    few = {"semseg": torch.uint8, "many": torch.uint16}
    assert {name: x.dtype for name, x in maps.items()} == dict.fromkeys(NAMES, torch.float32) | few
    model = KdamStudent.from_pretrained(decoded / "student").eval()
    model.decoder.heads["semseg"][-1].bias.data[0] += 100
    with pytest.raises(ExportError, match="semseg: "):
        largest_differences(model, OnnxModel(path), SHAPES, processor=KdamImageProcessor(tasks=model.config.tasks))


def test_calibration_decides_the_ranges(exported, tmp_path):
    """Ranges that are taken from images a hundred times darker cut off what bright ones hold."""
    whole, dark = exported / "onnx" / "model.onnx", tmp_path / "dark.onnx"
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    quantize(whole, dark, [pixels[0] / 100])
    files = (whole, exported / "onnx" / "model_quantized.onnx", dark)
    truth, good, bad = (OnnxModel(file)(pixels).predictions for file in files)
    for form, expected in enumerate((truth, good)):
        assert np.array_equal(
            runner.load(exported, bool(form))[1].run(NAMES[:1], {"pixel_values": pixels.numpy()})[0], expected[NAMES[0]]
        )
    scales = [x for x in onnx.load(dark).graph.initializer if x.name.endswith("_scale")]
    assert max(math.prod(x.dims) for x in scales) > 1  # one per channel
    for name, x in truth.items():
        assert (bad[name] - x).norm() > 2 * (good[name] - x).norm(), name


def test_students_on_listed_backbones_take_any_size_others_that_of_training():
    assert choose_size(tiny(image_size=[40, 56]), None) is None
    assert choose_size(tiny(), (64, 96)) == (64, 96)
    for cls, preset in ((KdamStudent, "tiny-swin"), (KdamStudent, "tiny-dinov2"), (KdamTeacher, "tiny-resnet")):
        assert choose_size(tiny(cls, preset, image_size=[40, 56]), None) == (40, 56)
        with pytest.raises(KdamValueError, match="--height and --width"):
            choose_size(tiny(cls, preset), None)


def test_a_model_that_cannot_be_traced_is_named(tmp_path):
    model = tiny()
    model.encoder.register_forward_hook(lambda *args: bool(args[1][0].sum() > 0))
    before = logging.root.manager.disable
    with pytest.raises(ExportError, match="KdamStudent on resnet"):
        save_onnx(model, (64, 96), tmp_path / "model.onnx")
    assert logging.root.manager.disable == before


@pytest.mark.parametrize("use", [OnnxModel, lambda path: quantize(path, path.with_name("int8.onnx"), [])])
def test_a_file_that_is_no_graph_is_named(use, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    for name in ("model.onnx", "absent.onnx"):
        with pytest.raises(ExportError, match=name):
            use(tmp_path / name)


def model_of(change=lambda predictions: None):
    """Predicts two tasks whose largest values are 2 and 10 at any size, changed by `change`."""

    def model(pixels, mask):
        means = pixels.mean(1, keepdim=True) / pixels.mean(1).abs().max()
        predictions = {"a": 2 * means, "b": 10 * means}
        change(predictions)
        return KdamOutput(predictions=predictions)

    return model


def test_the_largest_difference_over_all_shapes_is_kept_as_a_share_of_the_largest_value(monkeypatch):
    def change(predictions):
        predictions["b"] = predictions["b"] + (0.05 if len(predictions["b"]) == 2 else 0.025)

    pair = model_of(), model_of(change)
    with pytest.raises(ExportError, match=r"b: .*0\.0025"):
        largest_differences(*pair, SHAPES)
    monkeypatch.setattr(export, "TOLERANCE", 0.006)
    assert largest_differences(*pair, [*SHAPES, (1, 4, 4)]) == {"a": 0, "b": pytest.approx(0.005, rel=1e-4)}


def test_a_graph_that_does_not_look_at_the_mask_is_refused():
    unmasked, masked = (
        lambda x, mask, own=own: KdamOutput(predictions={"a": x * (mask[:, None] | own)}) for own in (1, 0)
    )
    assert largest_differences(masked, masked, SHAPES) == {"a": 0}
    with pytest.raises(ExportError, match="a: "):
        largest_differences(masked, unmasked, SHAPES)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_what_is_not_finite_or_of_another_shape_is_refused(number):
    spoilt = model_of(lambda predictions: predictions["a"][0, 0, 0].fill_(number))
    cut = model_of(lambda predictions: predictions.update(b=predictions["b"][..., :-1]))
    pairs = {"a: ": [(spoilt, model_of()), (model_of(), spoilt)], r"b: .*\(1, 1, 8, 7\)": [(model_of(), cut)]}
    for words, pair in ((words, pair) for words, some in pairs.items() for pair in some):
        with pytest.raises(ExportError, match=words):
            largest_differences(*pair, SHAPES)


def test_the_program_of_the_documents_gives_one_map_three_times(decoded, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "export.md").read_text("utf-8")
    program = next(block for block in re.findall("```python\n(.*?)```", text, re.DOTALL) if "InferenceSession" in block)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "student").symlink_to(decoded / "student")
    (tmp_path / "outputs" / "onnx_decoded").symlink_to(decoded / "onnx")
    Image.fromarray(SyntheticRooms("val", 1, height=41, width=58)[0]["image"]).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(program, found)
    np.testing.assert_array_equal(found["metres"], found["tensor"])
    np.testing.assert_allclose(found["depth"][0], found["metres"], atol=1e-4)
    steps = json.loads((decoded / "onnx" / "preprocessor_config.json").read_text())
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
    assert (int8["calibration_images"], int8["scored_on"]["images"]) == (3, 2)
    better = {"semseg/miou": "↑", "saliency/maxf": "↑", "depth/rmse": "↓", "normals/mean_angle": "↓", "edge/odsf": "↑"}
    assert int8["primary_metrics"] == better


def test_both_forms_are_decoded_and_calibrated_on_images_from_all_over_the_training_split(tmp_path, monkeypatch):
    model, images = tiny(tasks=TASKS[:3]), []
    monkeypatch.setattr(command, "quantize", lambda *given: images.append(given[2]) or quantize(*given))
    model.half().save_pretrained(tmp_path / "student")
    config = json.loads((tmp_path / "student/config.json").read_text()) | {"auto_map": {"AutoModel": "a.B"}}
    config["backbone_config"]["_name_or_path"] = "/home/alice/resnet"
    (tmp_path / "student/config.json").write_text(json.dumps(config))
    rooms = ["--dataset", "synthetic_rooms", "--rooms_train", "4", "--rooms_val", "1", "--rooms_height", "48"]
    options = ["--int8", "--decode", "--calibration_images", "2", *rooms, "--rooms_width", "64", "--tasks", "semseg"]
    command.main(["--model", str(tmp_path / "student"), "--output_dir", str(tmp_path / "onnx"), *options])
    train = SyntheticRooms("train", 4, height=48, width=64, tasks=["semseg"])
    data = TransformedDataset(train, EvalTransform(train.tasks, model.config.image_mean, model.config.image_std))
    for given in images:
        assert all(torch.equal(image, data[k]["pixel_values"]) for image, k in zip(given, (0, 2), strict=True))
    facts = json.loads((tmp_path / "onnx" / "kdam.json").read_text())
    assert facts["decoded"]
    assert {key.partition("/")[0] for key in facts["int8"]["scores"]["int8"]} == {"semseg"}
    exported = (tmp_path / "onnx" / "config.json").read_text()
    assert not any(word in exported for word in ("auto_map", "alice"))
    for file in (facts["file"], facts["int8"]["file"]):
        ids = OnnxModel(tmp_path / "onnx" / file)(images[0][0][None]).predictions["semseg"]
        assert (ids.dtype, ids.shape) == (torch.uint8, (1, 48, 64))


def test_a_change_by_eight_bits_has_its_sign():
    scores = {"fp32": {"depth/rmse": 1.0}, "int8": {"depth/rmse": 1.5}}
    int8 = {"file": "b", "bytes": 1, "scores": scores, "primary_metrics": {"depth/rmse": "↓"}}
    int8 |= {"scored_on": {"images": 1, "data": "d", "split": "val"}}
    facts = {"file": "a", "bytes": 1, "input": {"shape": []}, "check": {"largest_difference": {}}, "int8": int8}
    assert "+0.500" in command.summary(facts)


def predicted(model, photo, folder):
    """What predict.py makes of a photo, task by task."""
    load("predict.py").main(["--model", str(model), "--images", str(photo), "--output_dir", str(folder)])
    return {path.stem.removeprefix("photo_"): np.load(path) for path in folder.glob("photo_*.npy")}


def test_the_runner_reads_decoded_files(decoded, tmp_path):
    photo = tmp_path / "photo.png"
    Image.fromarray(SyntheticRooms("val", 1, height=41, width=58)[0]["image"]).save(photo)
    runner.main(["--model", str(decoded / "onnx"), "--image", str(photo), "--output_dir", str(tmp_path / "a")])
    for name, theirs in predicted(decoded / "student", photo, tmp_path / "b").items():
        ours = np.load(tmp_path / "a" / f"photo_{name}.npy")
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        assert np.mean(abs(ours.astype(float) - theirs) > 1e-4) < 1e-3
    larger = runner.at_photo(np.array([[3, 200]], np.uint8), (1, 2), (2, 6), 1)
    assert larger.tolist() == [[[3, 3, 3, 200, 200, 200]] * 2], "ids are not averaged"
    vectors = runner.read(np.float32([0.3, 0, 0.4])[:, None, None], {"readout": "unit"}, runner.READ_DECODED)
    np.testing.assert_allclose(vectors, [[[0.6, 0, 0.8]]], rtol=1e-6)
    ids = runner.read(np.eye(300, dtype=np.float32)[..., None], {"readout": "argmax"})
    assert (ids.dtype, ids[:, 0].tolist()) == (np.uint16, [*range(300)])


def test_numpy_alone_gives_the_maps_of_predict(exported, student, photo, tmp_path):
    """In a process in which neither torch nor transformers nor this package can be imported."""
    blocked = f"""
{without("torch", "transformers", "kdam_hf", "dataset_loaders", "onnx")}
import runpy
sys.argv = ["run_onnx.py", "--model", {str(exported)!r}, "--image", {str(photo)!r}, "--output_dir", {str(tmp_path / "a")!r}]
runpy.run_path({str(runner.__file__)!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, theirs in predicted(student, photo, tmp_path / "b").items():
        ours = np.load(tmp_path / "a" / f"photo_{name}.npy")
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        picture = np.asarray(Image.open(tmp_path / "a" / f"photo_{name}.png"))
        assert ours.shape[:2] == picture.shape[:2] == (67, 91)
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
    assert runner.prepare(Image.new("RGB", (400, 2)), facts)[1].sum() == 50  # not less than one row
    rows = np.arange(13, dtype=np.float32)[None, :, None].repeat(13, 2)
    full = runner.at_photo(rows, (37, 50), (67, 91), 4)
    assert full.shape == (1, 67, 91)
    assert full.max() == 8.625  # where the centre of the last row of 37 lies


def test_what_cannot_be_meant_is_refused_and_nothing_is_written(student, tmp_path, monkeypatch):
    (tmp_path / "mine").write_text("text")
    for options, given in {
        "--height 64": r"\(64, None\)",
        "--height 64 --width 0": r"\(64, 0\)",
        "--int8": "int8",
        "--calibration_images 0": "calibration_images is 0",
        "--model /nowhere": "/nowhere",
    }.items():
        with pytest.raises((KdamValueError, CheckpointError), match=given):
            command.main(["--model", str(student), "--output_dir", str(tmp_path / "out"), *options.split()])
    for taken in (tmp_path, tmp_path / "mine"):
        with pytest.raises(KdamValueError, match=f"{taken} is not"):  # its content is left alone
            command.main(["--model", str(student), "--output_dir", str(taken)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    monkeypatch.setattr("kdam_hf.export.find_spec", lambda name: None)  # before the model is loaded
    with pytest.raises(KdamValueError, match="onnxruntime"):
        command.main(["--model", "/nowhere", "--output", str(tmp_path / "out")])


def test_a_file_that_computes_something_else_is_not_left_behind(student, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "save_onnx", lambda model, size, file, decode: file.write_bytes(b"wrong"))
    other = KdamStudent(KdamStudent.config_class.from_pretrained(student)).eval()
    monkeypatch.setattr(command, "OnnxModel", lambda file: other)
    with pytest.raises(ExportError):
        command.main(["--model", str(student), "--output_dir", str(tmp_path / "out")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [*NAMES, "relative_depth"])
def test_the_runner_draws_what_predict_draws(name):
    task = next((task for task in TASKS if task.name == name), None) or make_task(name)
    numbers = 3 * torch.randn(task.channels, 12, 16, generator=torch.Generator().manual_seed(0))
    if name == "relative_depth":
        constant = {"readout": "none", "settings": {}, "legend": task.reader.legend()}
        assert (runner.draw(np.full((2, 2), 5, np.float32), constant) == task.reader.legend()[0][1]).all()
    values = runner.read(numbers.numpy(), task.spec())
    drawn = runner.draw(values, {**task.spec(), "legend": task.reader.legend()})
    expected = task.reader.colours(values.astype(np.int64) if values.dtype == np.uint8 else values)
    if name == "depth":  # only the program beside predict marks what is invalid
        drawn, expected = drawn[values > 0], expected[values > 0]
    np.testing.assert_allclose(drawn.astype(int), expected.astype(int), atol=1)


def test_the_example_says_what_is_missing(exported, photo, tmp_path):
    facts = json.loads((exported / "kdam.json").read_text())
    del facts["int8"]
    (tmp_path / "kdam.json").write_text(json.dumps(facts | {"file": "model.onnx"}))  # as it was laid out before
    (tmp_path / "model.onnx").symlink_to(exported / "onnx" / "model.onnx")
    usual = f"--model {tmp_path} --images {photo} --output_dir {tmp_path}/"
    runner.main(f"{usual}new/old".split())
    other = tmp_path / "other.png"
    Image.open(photo).resize((40, 30)).save(other)
    with pytest.raises(SystemExit, match="absent"):  # at the end
        runner.main(f"--model {tmp_path} --images /absent.jpg {photo} {other} --output_dir {tmp_path}/several".split())
    of_photo = {path.name for path in (tmp_path / "new/old").iterdir()}
    of_other = {name.replace(photo.stem, "other") for name in of_photo}
    assert {path.name for path in (tmp_path / "several").iterdir()} == of_photo | of_other
    for change, named in {
        "--model /nowhere": "/nowhere",
        "--images /no.jpg": "/no.jpg",
        "--int8": "int8",
        f"--images {photo} {photo}": "one name",
        f"--output_dir {photo.parent}": str(photo.parent),
        f"--output_dir {photo}": str(photo),
        f"--output_dir {photo}/below": "below",
    }.items():
        with pytest.raises(SystemExit, match=named):
            runner.main(f"{usual}out {change}".split())
    (tmp_path / "model.onnx").unlink()
    (tmp_path / "model.onnx").write_bytes((exported / "onnx" / "model.onnx").read_bytes()[:999])
    with pytest.raises(SystemExit, match="not whole"):
        runner.main(f"{usual}out".split())
    for content in ("{}", "[]", json.dumps({"file": "model.onnx"}), "{"):
        (tmp_path / "kdam.json").write_text(content)
        with pytest.raises(SystemExit, match=r"no readable kdam\.json"):
            runner.main(f"{usual}out".split())
    assert not (tmp_path / "out").exists()
