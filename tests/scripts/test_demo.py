"""The demo page without a browser; tests/browser looks at it with one."""

import json
import re
import subprocess
import sys
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from PIL import Image

from dataset_loaders.synthetic_rooms import SyntheticRooms
from kdam_hf import KdamImageProcessor, KdamStudent, KdamTeacher
from kdam_hf.errors import KdamError
from kdam_hf.presets import make_config
from kdam_hf.tasks import NYUD_V2, make_task

pytest.importorskip("gradio")

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import demo

from kdam_hf.demo import Exhibition, build_page, export_space, markup, serve
from kdam_hf.demo.exhibition import interleaved_seconds
from kdam_hf.demo.wording import Reading, wording

HOSTILE = "<script>alert(1)</script>"


def saved(folder, kind, cls, tasks):
    torch.manual_seed(0)
    model = cls(make_config(kind, "tiny-resnet", tasks, image_size=[48, 64]))
    model.save_pretrained(folder)
    KdamImageProcessor.from_model_config(model.config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A student with a class of a hostile name, and a teacher of two of its three tasks."""
    tasks = (make_task("semseg", [HOSTILE, "floor"]), make_task("saliency"), *NYUD_V2[1:2])
    folder = tmp_path_factory.mktemp("models")
    student = saved(folder / "student", "student", KdamStudent, tasks)
    return [student, saved(folder / "teacher", "teacher", KdamTeacher, tasks[:2])]


@pytest.fixture(scope="module")
def exhibition(models):
    return Exhibition(*models)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "room.png"
    Image.fromarray(SyntheticRooms("val", height=60, width=90)[0]["image"]).save(path)
    return path


def test_a_visit_holds_every_models_maps_size_and_time(exhibition, photo):
    visit = exhibition.visit(photo)
    assert [exhibit.role for exhibit in visit.exhibits] == ["Student", "Teacher"]
    assert [task.name for task in visit.tasks] == ["semseg", "saliency", "depth"]
    for exhibit, pipe in zip(visit.exhibits, exhibition.pipes.values(), strict=True):
        assert exhibit.parameters == sum(p.numel() for p in pipe.model.parameters())
        assert exhibit.milliseconds > 0
        expected = pipe(str(photo))
        for name, result in exhibit.results.items():
            np.testing.assert_array_equal(result["values"], expected[name]["values"])
    assert visit.speedup > 0


def test_rounds_of_timing_are_interleaved_and_few_for_slow_models(monkeypatch):
    order = []

    class Slow(torch.nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, pixels):
            order.append(self.name)

    monkeypatch.setattr("kdam_hf.demo.exhibition.SECONDS", 0.0)
    assert len(interleaved_seconds([Slow("s"), Slow("t")], [torch.zeros(1)] * 2)) == 3
    assert order == ["s", "t"] * 3


def test_a_large_photo_is_shown_smaller_and_a_dot_is_shown(exhibition):
    assert max(exhibition.visit(Image.new("RGB", (900, 300))).photo.size) == 768
    assert exhibition.visit(Image.new("RGB", (1, 1))).photo.size == (1, 1)


def test_names_from_a_model_cannot_put_script_on_the_page(exhibition, photo):
    html = markup.results(exhibition.visit(photo)) + markup.welcome(exhibition.tasks) + markup.problem(HOSTILE)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 2


def test_a_task_only_one_model_has_gets_one_picture(exhibition, photo):
    html = markup.results(exhibition.visit(photo))
    views = {card[: card.index('"')]: card.count("kdam-picture") for card in html.split('data-task="')[1:]}
    assert views == {"semseg": 2, "saliency": 2, "depth": 1}


@pytest.mark.parametrize("classes", [[HOSTILE, "floor", "lamp"], ["floor", HOSTILE]], ids=["count", "order"])
def test_a_teacher_of_other_classes_is_not_shown_under_the_students_names(models, tmp_path, classes):
    teacher = saved(tmp_path / "teacher", "teacher", KdamTeacher, [make_task("semseg", classes)])
    with pytest.raises(KdamError, match=r"semseg: the teacher has .* they must be the same"):
        Exhibition(models[0], teacher)


def test_a_fault_of_a_model_is_not_blamed_on_the_photo(exhibition, photo, monkeypatch, tmp_path):
    look = next(f.fn for f in build_page(exhibition).fns.values() if f.api_name == "predict")
    monkeypatch.setattr(exhibition, "visit", lambda image: int("a fault of a model"))
    with pytest.raises(ValueError, match="a fault of a model"):
        look(str(photo))
    (tmp_path / "notes.png").write_text("no photo at all")
    assert "kdam-problem" in look(str(tmp_path / "notes.png"))


@pytest.mark.parametrize(
    "reading", [Reading(names=["a"] * 40), Reading(scale=1000, unit="%"), Reading(scale=100, unit="m")]
)
def test_the_numbers_the_browser_reads_are_the_values(reading):
    values = np.linspace(0, 39, 40).reshape(5, 8) / (1 if reading.names else 39.0)
    channels = np.asarray(markup.packed(values, reading)).astype(int)
    read = (256 * channels[..., 0] + channels[..., 1]) / reading.scale
    np.testing.assert_allclose(read, values, atol=0.5 / reading.scale)
    assert (np.asarray(markup.packed(np.full((1, 1), 1e9), reading))[0, 0, :2] == 255).all()


def test_the_depth_map_on_the_page_is_the_predicted_one_in_centimetres(exhibition, photo):
    card = markup.results(exhibition.visit(photo)).split('data-task="depth"')[1]
    numbers = re.search(r'kdam-numbers" alt="" src="data:image/png;base64,([^"]+)"', card)[1]
    channels = np.asarray(Image.open(BytesIO(b64decode(numbers)))).astype(int)
    metres = exhibition.pipes["Student"](str(photo))["depth"]["values"]
    np.testing.assert_allclose((256 * channels[..., 0] + channels[..., 1]) / 100, metres, atol=0.00501)


@pytest.mark.parametrize(
    "task", [make_task("semseg", ["a", "b"]), make_task("saliency"), *NYUD_V2[1:]], ids=lambda t: t.name
)
def test_every_kind_of_task_has_words_and_a_legend(task):
    words = wording(task.spec())
    assert words.title
    assert words.legend == task.legend()


@pytest.fixture(scope="module")
def client(exhibition):
    """The page as another program sees it, over HTTP."""
    from gradio_client import Client

    page = build_page(exhibition)
    _, address, _ = serve(page, prevent_thread_lock=True, quiet=True)
    yield Client(address, verbose=False)
    page.close()


def test_the_page_refuses_bad_files_and_keeps_serving(client, photo, tmp_path):
    from gradio_client import handle_file

    (tmp_path / "notes.png").write_text("no photo at all")
    (tmp_path / "broken.png").write_bytes(photo.read_bytes()[:300])
    Image.new("L", (20_000, 12)).save(tmp_path / "long.png")
    for name, message in (("notes", "not a readable"), ("broken", "not a readable"), ("long", "20000x12 pixels")):
        answer = client.predict(handle_file(tmp_path / f"{name}.png"), api_name="/predict")
        assert "kdam-problem" in answer
        assert message in answer
        assert f"{name}.png" in answer
        assert str(Path.home()) not in answer
    answer = client.predict(handle_file(photo), api_name="/predict")
    assert answer.count("kdam-picture") == 5
    assert "Drop a photo" in client.predict(None, api_name="/predict")


def test_the_page_reads_no_file_that_was_not_uploaded(client, photo):
    """A caller may name any path of the server; Gradio's own check must stay in force though we read the file ourselves."""
    call = f"{client.src.rstrip('/')}/gradio_api/call/predict"
    data = json.dumps({"data": [{"path": str(photo), "meta": {"_type": "gradio.FileData"}}]}).encode()
    request = Request(call, data, {"Content-Type": "application/json"})
    with urlopen(request, timeout=30) as response:
        event = json.load(response)["event_id"]
    with urlopen(f"{call}/{event}", timeout=30) as response:
        answer = response.read().decode()
    assert "event: error" in answer
    assert "kdam-picture" not in answer


def test_an_exported_space_runs_from_its_own_files(models, photo, tmp_path):
    space = tmp_path / "space"
    export_space(space, models, [photo])
    code = """
import app, kdam_hf, pathlib
from kdam_hf.demo import Exhibition, build_page
here = pathlib.Path.cwd()
assert here in pathlib.Path(kdam_hf.__file__).parents, kdam_hf.__file__
build_page(Exhibition(*(str(app.HERE / name) for name in app.MODELS)), sorted((here / "examples").iterdir()))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=space, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    head = (space / "README.md").read_text().split("---")[1]
    assert "sdk: gradio" in head
    assert "app_file: app.py" in head
    requirements = (space / "requirements.txt").read_text()
    assert "transformers" in requirements
    assert "pytest" not in requirements
    assert not list(space.rglob("training_args.bin"))
    with pytest.raises(KdamError, match="not empty"):
        export_space(space, models, [photo])


def test_an_exported_space_holds_no_place_of_this_machine(models, tmp_path):
    folder = tmp_path / "student"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):  # what is shown needs no other file
        (folder / name).write_bytes((Path(models[0]) / name).read_bytes())
    config = json.loads((folder / "config.json").read_text()) | {"_name_or_path": "/home/alice/student"}
    config["tasks"][0]["class_names"] = ["/m/01g317", "~other"]
    (folder / "config.json").write_text(json.dumps(config))
    exif = Image.Exif()
    exif[0x010E] = "taken at home by alice"
    exif[0x0112] = 6  # lies on its side
    photos = [tmp_path / f"alice.{suffix}" for suffix in ("jpg", "png", "webp")]
    for path in photos:
        Image.new("RGB", (1024, 512), (10, 200, 30)).save(path, exif=exif)
        assert b"alice" in path.read_bytes()
    space = tmp_path / "space"
    export_space(space, [str(folder)], photos)
    copied = [path for path in space.rglob("*") if path.is_file() and path.relative_to(space).parts[0] != "kdam_hf"]
    assert not [path for path in copied if b"alice" in path.read_bytes() or "alice" in path.name]
    assert [Image.open(path).size for path in (space / "examples").iterdir()] == [(384, 768)] * 3
    found = json.loads((space / "models" / "student" / "config.json").read_text())
    assert found["tasks"] == config["tasks"]
    assert Exhibition(str(space / "models" / "student")).tasks[0].reading.names == ("/m/01g317", "~other")
    assert "license:" not in (space / "README.md").read_text(), "nobody stated one for the weights"


@pytest.mark.parametrize("fault", ["weights", "id", "photo"])
def test_a_space_that_cannot_be_complete_is_not_begun(models, photo, tmp_path, fault):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((Path(models[0]) / "config.json").read_bytes())
    (broken / "photo.png").write_bytes(photo.read_bytes()[:300])
    student = {"weights": str(broken), "id": "nowhere"}.get(fault, models[0])
    with pytest.raises(
        KdamError, match={"weights": "model.safetensors", "id": "'nowhere'", "photo": "photo.png"}[fault]
    ):
        export_space(tmp_path / "space", [student], [broken / "photo.png" if fault == "photo" else photo])
    assert not (tmp_path / "space").exists()


def test_a_hub_id_stays_a_hub_id_in_a_space(tmp_path, photo):
    export_space(tmp_path / "space", ["org/student"], [photo])
    assert "MODELS = " + json.dumps(["org/student"]) in (tmp_path / "space" / "app.py").read_text()
    assert not (tmp_path / "space" / "models").exists()


def test_mistakes_on_the_command_line_are_named(models, tmp_path):
    with pytest.raises(KdamError, match="no photo there"):
        demo.main(["--model", models[0], "--examples", str(tmp_path)])
    with pytest.raises(KdamError, match="no model at 'nowhere'"):
        demo.main(["--model", "nowhere"])


def test_without_examples_rooms_are_rendered(tmp_path):
    paths = demo.rendered_rooms(tmp_path)
    assert len({path.read_bytes() for path in paths}) == len(paths) >= 3
    assert Image.open(paths[0]).size == (512, 384)
