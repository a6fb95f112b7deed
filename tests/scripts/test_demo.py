"""The demo page without a browser; tests/browser looks at it with one."""

import json
import re
import socket
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from command_kit import run
from conftest_kit import Kit
from PIL import Image

from dataset_loaders.synthetic_rooms import SyntheticRooms
from kdam_hf.errors import KdamError
from kdam_hf.tasks import NYUD_V2, Depth, make_task

pytest.importorskip("gradio")

from gradio_client import Client, handle_file

from kdam_hf.demo import HINT, DemoModels, PhotoResult, build_page, facts, legend, serve, value_text

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A student with a class of a hostile name, and a teacher of three of its four tasks."""
    tasks = (make_task("semseg", [HOSTILE, "floor"]), make_task("saliency"), *NYUD_V2[1:3])
    kit = Kit(tmp_path_factory.mktemp("models"))
    chosen = {"student": tasks, "teacher": tasks[:3]}
    return [kit.saved(role, role, tasks=some, image_size=[48, 64]) for role, some in chosen.items()]


@pytest.fixture(scope="module")
def models(places):
    return DemoModels(*places)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "room.png"
    Image.fromarray(SyntheticRooms("val", height=60, width=90)[0]["image"]).save(path)
    return path


def test_a_result_holds_every_models_maps(models, photo):
    result = models.predict(photo)
    assert {role: list(maps) for role, maps in result.values.items()} == {
        "Student": ["semseg", "saliency", "depth", "normals"],
        "Teacher": ["semseg", "saliency", "depth"],
    }
    for role, pipe in models.pipes.items():
        for name, expected in pipe(str(photo)).items():
            np.testing.assert_array_equal(result.values[role][name], expected["values"])
    for size, shape in (((900, 300), (256, 768)), ((1, 1), (1, 1))):  # a large one is shown smaller
        assert models.predict(Image.new("RGB", size)).values["Student"]["depth"].shape == shape


def test_every_task_has_a_legend_in_words_that_cannot_put_script_on_the_page(models):
    result = PhotoResult({"Student": {name: np.array([[0, 0, 1]]) for name in models.tasks}}, {})
    shown = {name: legend(entry, result) for name, entry in models.tasks.items()}
    assert "<script" not in "".join(shown.values())
    assert shown["semseg"].index("&lt;script&gt;") < shown["semseg"].index("floor"), "the largest class comes first"
    for name, word in {"saliency": "probability", "depth": "10.0 m", "normals": "y, up"}.items():
        assert word in shown[name]


def test_sizes_and_times_are_compared_round_by_round(models):
    text = facts(models, PhotoResult({}, {"Student": [0.001, 0.002, 0.004], "Teacher": [0.006, 0.006, 0.008]}))
    student, teacher = (pipe.model.num_parameters() for pipe in models.pipes.values())
    assert re.findall(r"([\d.]+) (?:ms|%|times)", text) == ["2.0", "6.0", f"{100 * student / teacher:.1f}", "3.0"]


def test_a_long_legend_is_cut_and_says_by_how_much(models):
    entry = models.tasks["semseg"] | {"channels": 15, "class_names": [f"name{k}" for k in range(15)]}
    shown = legend(entry, PhotoResult({"Student": {"semseg": np.arange(14)[None]}}, {}))
    assert (shown.count("name"), shown.count("and 2 more")) == (12, 1)


def test_what_both_models_have_is_shown_in_the_colours_of_the_student(places, tmp_path):
    student = Kit(tmp_path).saved("student", tasks=[Depth(nearest=2.0, farthest=80.0)])
    assert DemoModels(student, places[1]).tasks["depth"]["settings"]["farthest"] == 80


def test_a_pixel_is_read_as_a_class_or_in_physical_units(models):
    values = {"semseg": 1, "saliency": 0.256, "depth": np.float32(2.806), "normals": np.array([0.5, 0, -0.25])}
    texts = [value_text(models.tasks[task], value) for task, value in values.items()]
    assert texts == ["floor", "0.26", "2.81 m", "0.50, 0.00, -0.25"]


def test_a_teacher_of_other_classes_is_not_shown_under_the_students_names(places, tmp_path):
    teacher = Kit(tmp_path).saved("teacher", "teacher", tasks=[make_task("semseg", ["floor", HOSTILE])])
    with pytest.raises(KdamError, match="semseg"):
        DemoModels(places[0], teacher)


@pytest.fixture(scope="module")
def client(models):
    """The page as another program sees it, over HTTP."""
    page = build_page(models)
    _, address, _ = serve(page, prevent_thread_lock=True, quiet=True)
    yield Client(address, verbose=False)
    page.close()


def test_the_page_refuses_bad_files_in_words_and_keeps_serving(client, photo, tmp_path):
    (tmp_path / "notes.png").write_text("no photo at all")
    (tmp_path / "broken.png").write_bytes(photo.read_bytes()[:300])
    Image.new("L", (20_000, 12)).save(tmp_path / "long.png")
    for name, reason in (("notes", "not a readable photo"), ("broken", "not a readable photo"), ("long", "20000x12")):
        notice, *shown = client.predict(handle_file(tmp_path / f"{name}.png"), api_name="/predict")
        assert all(word in notice for word in (reason, f"{name}.png"))
        assert not any(place in notice for place in ("/tmp", str(Path.home())))
        assert not any(picture["value"] if isinstance(picture, dict) else picture for picture in shown)
    notice, _, *shown = client.predict(handle_file(photo), api_name="/predict")
    assert notice == HINT
    assert sum(isinstance(picture, dict) and bool(picture["value"]) for picture in shown) == 7
    assert client.predict(None, api_name="/predict")[0] == HINT


def test_the_page_reads_no_file_that_was_not_uploaded(client, photo):
    """A caller may name any path of the server; Gradio's own check must stay in force though we read the file ourselves."""
    call = f"{client.src.rstrip('/')}/gradio_api/call/predict"
    data = json.dumps({"data": [{"path": str(photo), "meta": {"_type": "gradio.FileData"}}]}).encode()
    with urlopen(Request(call, data, {"Content-Type": "application/json"}), timeout=30) as response:
        event = json.load(response)["event_id"]
    with urlopen(f"{call}/{event}", timeout=30) as response:
        assert "event: error" in response.read().decode()


def test_mistakes_on_the_command_line_are_named(places, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for options in (["--examples", tmp_path], ["--model", "nowhere"], ["--port", port]):
            done = run("demo.py", "--model", places[0], *options, check=False)
            assert done.returncode == 2
            assert str(options[-1]) in done.stderr
