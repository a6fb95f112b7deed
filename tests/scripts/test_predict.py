"""The command predict.py: what can be named as a photo, what is written, and what is refused before a model loads."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import pytest
from command_kit import load, run
from conftest_kit import Kit, write_photos
from PIL import Image

from kdam_hf import KdamStudent, MultiTaskDensePredictionPipeline, photos_kdam, video
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.tasks import make_task

command = load("predict.py")
TASKS = (make_task("semseg", ["wall", "floor", "lamp"]), make_task("depth"), make_task("normals"))
TYPES = {"semseg": np.uint8, "depth": np.float32, "normals": np.float32}


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return Kit(tmp_path_factory.mktemp("models")).saved("student", tasks=TASKS, image_size=[32, 48])


@pytest.fixture
def photos(tmp_path):
    """A folder of three photos and a file that is none, and two photos beside it."""
    write_photos(tmp_path / "folder", "a.jpg", "b.png", "c.jpg", "../d[1].png", "../e.png", taller=5)
    (tmp_path / "folder" / "broken.jpg").write_text("no photo")
    return tmp_path


@pytest.mark.parametrize("batch_size", [1, 3])
def test_whatever_is_named_is_predicted_once_and_what_is_broken_is_named_at_the_end(
    student, photos, monkeypatch, batch_size
):
    monkeypatch.setattr(photos_kdam, "_fetched", lambda url, _: (photos / "e.png").read_bytes())
    given = [photos / "folder", photos / "d[1].png", f"{photos}/folder/*.p?g", "https://example.org/photo%201.png?x=2"]
    out = photos / "out"
    options = ["--output_dir", out, "--batch_size", batch_size, "--overlay"]
    done = run("predict.py", "--model", student, "--images", *given, *options, check=False)
    assert done.returncode == 1
    assert str(photos / "folder" / "broken.jpg") in done.stderr
    assert "5 photos" in done.stdout
    files = {"a": "folder/a.jpg", "b": "folder/b.png", "c": "folder/c.jpg", "d[1]": "d[1].png", "photo%201": "e.png"}
    suffixes = (".npy", ".png", "_overlay.png")
    expected = {f"{name}_{task}{suffix}" for name in files for task in TYPES for suffix in suffixes}
    assert {path.name for path in out.iterdir()} == {*expected, "contact_sheet.png"}
    pipe = MultiTaskDensePredictionPipeline.of_model(KdamStudent.from_pretrained(student), return_pictures=True)
    for name, file in files.items():
        for task, result in pipe(str(photos / file)).items():
            values, picture, overlay = (out / f"{name}_{task}{suffix}" for suffix in suffixes)
            assert np.load(values).dtype == TYPES[task]
            assert np.mean(abs(np.load(values) - result["values"]) > 1e-4) < 1e-3
            both = [np.asarray(Image.open(path), int) for path in (picture, photos / file)]
            assert abs(np.asarray(Image.open(overlay)) - sum(both) / 2).max() <= 1
    again = run("predict.py", "--model", student, "--images", photos / "e.png", "--output_dir", out)
    assert f"{out} holds {len(expected) + 1} files" in again.stdout


class Capture:
    """A camera that never stops, or a video of four frames, whose frames are blue, green, red."""

    seen: list = []  # noqa: RUF012

    def __init__(self, place):
        self.place, self.count = place, 0
        Capture.seen.append(self)

    def read(self):
        self.count += 1
        running = isinstance(self.place, int) or self.count <= 4
        return running, np.full((30, 40, 3), (0, 0, 10 * self.count), np.uint8) if running else None

    def release(self):
        self.count = -self.count


@pytest.fixture
def opencv(monkeypatch):
    module = ModuleType("cv2")
    module.__spec__, module.VideoCapture = ModuleSpec("cv2", None), Capture
    monkeypatch.setitem(sys.modules, "cv2", module)
    monkeypatch.setattr(video, "find_spec", lambda name: name == "cv2")
    Capture.seen.clear()


@pytest.mark.parametrize(("source", "frames", "read"), [("clip.mp4", 4, 5), ("clip.mp4", 2, 2), ("3", 3, 3)])
def test_a_video_or_camera_gives_numbered_frames_and_is_read_no_further(
    opencv, student, tmp_path, monkeypatch, source, frames, read
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").touch()
    shown, draw = [], command.contact_sheet
    monkeypatch.setattr(command, "SHOWN", 2)
    monkeypatch.setattr(
        command, "contact_sheet", lambda rows, names, *rest: shown.append(names) or draw(rows, names, *rest)
    )
    limit = ["--max_frames", frames] if read == frames else []
    run("predict.py", "--model", student, "--images", source, "--output_dir", "out", *limit)
    folder = tmp_path / "out" / ("clip" if source == "clip.mp4" else "camera3")
    assert sorted(path.name for path in folder.glob("*_depth.npy")) == [f"{k:06d}_depth.npy" for k in range(frames)]
    assert shown[0] == [*(f"{folder.name}/{k:06d}" for k in range(2)), "legend"]
    (capture,) = Capture.seen
    assert capture.count == -read
    assert video.is_video("CLIP.MP4")
    seen = [frame[0, 0].tolist() for frame in video.frames(str(tmp_path / "clip.mp4"))]
    assert seen == [[10 * k, 0, 0] for k in (1, 2, 3, 4)]
    monkeypatch.setattr(Capture, "read", lambda self: (False, None))
    with pytest.raises(ValueError, match=r"clip\.mp4"):
        list(video.frames("clip.mp4"))


def test_a_folder_of_digits_is_no_camera_a_pattern_finds_videos_and_an_address_without_a_file_is_its_host(
    photos, monkeypatch
):
    monkeypatch.chdir(photos)
    (photos / "folder").rename(photos / "2024")
    (photos / "clip.mp4").touch()
    places = {"2024": ["a", "b", "broken", "c"], "*.mp4": ["clip"], "7": ["camera7"], "HTTPS://a.org/?id=3": ["a.org"]}
    for place, names in places.items():
        assert [name for name, _ in command.find_photos([place])] == names


def test_a_batch_is_all_that_is_held(student):
    opened, pipe = [], MultiTaskDensePredictionPipeline.of_model(KdamStudent.from_pretrained(student))

    def photos():
        for k in range(12):
            opened.append(k)
            yield str(k), Image.new("RGB", (40, 40))

    for done, (name, _, _) in enumerate(command.predict(pipe, photos(), 2)):
        assert name == str(done)
        assert len(opened) <= done + 4


def test_frames_of_a_real_video_are_read_upright_and_from_files_alone(tmp_path, monkeypatch):
    av = pytest.importorskip("av")
    monkeypatch.setattr(video, "find_spec", lambda name: True)  # OpenCV does not know of rotation
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for k in range(3):
            pixels = np.full((32, 64, 3), (40 * k, 0, 200), np.uint8)
            pixels[:, :32] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    content = bytearray((tmp_path / "clip.mp4").read_bytes())
    matrix = content.find(b"tkhd") + 44  # as of a telephone that was held upright
    content[matrix : matrix + 20] = np.array([0, 1 << 16, 0, -(1 << 16), 0], ">i4").tobytes()
    (tmp_path / "clip.mp4").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").rename("10:00 clip.mp4")  # no protocol
    found = list(video.frames("10:00 clip.mp4"))
    assert [frame.shape for frame in found] == [(64, 32, 3)] * 3
    assert abs(found[2][40:].astype(int) - [80, 0, 200]).max() < 12
    assert found[2][:24].min() > 240
    (tmp_path / "bad.mp4").write_text("no video")
    with pytest.raises(ValueError, match=r"bad\.mp4"):
        list(video.frames(tmp_path / "bad.mp4"))
    given = {}
    monkeypatch.setattr(av, "open", lambda place, **options: given.update(options))
    with pytest.raises(ValueError, match="clip"):
        list(video.frames("https://example.org/clip.mp4"))
    assert given["options"] == {"protocol_whitelist": "file"}


def test_what_cannot_be_meant_is_refused_before_the_model_is_loaded(photos, monkeypatch):
    monkeypatch.chdir(photos)
    (photos / "clip.mp4").touch()
    (photos / "folder" / "e.png").write_bytes((photos / "e.png").read_bytes())
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    for options, words in {
        "nowhere.jpg": "nowhere.jpg",
        "*.gif": r"\*.gif",
        "e.png folder/e.png": "folder/e.png",
        "e.png --batch_size 0": "batch_size is 0",
        "e.png --max_frames 0": "max_frames is 0",
        "e.png --output_dir .": "output_dir .",
        "clip.mp4": r"clip.mp4 .*kdam-hf\[video\]",
        "0": "camera 0 .*opencv",
    }.items():
        with pytest.raises((DataIntegrityError, KdamValueError), match=words):
            command.main(["--model", "/nowhere", "--images", *options.split()])
    assert not (photos / "outputs").exists()
