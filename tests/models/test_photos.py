"""The one reader of photos: what it takes, what it refuses, and that every way to a model goes through it."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image

from kdam_hf import KdamImageProcessor, photos_kdam
from kdam_hf.commands import run_onnx
from kdam_hf.photos_kdam import open_photo, read_header

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 32, 3), dtype=np.uint8)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        super().do_GET() if "Python" not in self.headers["User-Agent"] else self.send_error(403)


@pytest.fixture
def server(tmp_path):
    """Address of a server that offers the files of `tmp_path`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=tmp_path)) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def test_paths_urls_arrays_tensors_and_pictures_are_one_photo(server, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a photo.png")
    path = tmp_path / "a photo.png"
    tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)
    processor = KdamImageProcessor()
    for given in (PIXELS, tensor, Image.fromarray(PIXELS), path, str(path), f"{server}/a%20photo.png"):
        np.testing.assert_array_equal(np.asarray(open_photo(given)), PIXELS)
        assert torch.equal(processor(given)["pixel_values"], processor(PIXELS)["pixel_values"])
    for grey in (PIXELS[..., 0], PIXELS[..., :1], tensor[:1]):
        np.testing.assert_array_equal(np.asarray(open_photo(grey)), PIXELS[..., :1].repeat(3, -1))


def bad_photos(folder):
    """What is given, and a word of the reason."""
    (folder / "notes.png").write_text("no photo at all")
    (folder / "empty.jpg").touch()
    Image.fromarray(PIXELS).resize((80, 60)).save(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:900])
    Image.fromarray(PIXELS).save(folder / "moving.gif")
    Image.new("L", (20_000, 20)).save(folder / "long.png")
    Image.new("1", (9_000, 9_000)).save(folder / "large.png")
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(folder / "deep.png")
    files = dict.fromkeys(("notes.png", "empty.jpg", "cut.jpg", "moving.gif"), "readable")
    files |= {"long.png": "20000x20", "large.png": "9000x9000", "bomb.png": "readable", "deep.png": "I;16"}
    objects = [
        (Image.fromarray(np.eye(4, dtype=np.float32)), "mode F"),
        (np.zeros((4, 4, 3)), "float64"),
        (np.zeros((0, 4, 3), np.uint8), "4x0"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \(4, 4, 4\)"),
        (7, "int"),
        (torch.zeros(3, 4, 4, dtype=torch.bfloat16), "bfloat16"),
        (torch.zeros(3, 4, 4, requires_grad=True), "float32"),
        (np.zeros((), np.uint8), r"uint8 \(\)"),
        ("", "no such"),
    ]
    return [*((folder / name, word) for name, word in files.items()), (folder / "missing.png", "no such"), *objects]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_photo_or_too_large_is_refused_with_the_reason(tmp_path):
    for given, word in bad_photos(tmp_path):
        with pytest.raises(ValueError, match=word):
            open_photo(given)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_address_is_held_to_the_same_rules_and_to_a_number_of_bytes(server, tmp_path, monkeypatch):
    for given, word in bad_photos(tmp_path)[:8]:
        with pytest.raises(ValueError, match=word):
            open_photo(f"{server}/{given.name}")
    with pytest.raises(ValueError, match="could not be fetched"):
        open_photo(f"{server}/missing.png")
    monkeypatch.setattr(photos_kdam, "MAX_BYTES", (tmp_path / "whole.jpg").stat().st_size)
    assert open_photo(f"{server}/whole.jpg").size == (80, 60)
    monkeypatch.setattr(photos_kdam, "MAX_BYTES", 100)
    with pytest.raises(ValueError, match="more than 100 bytes"):
        open_photo(f"{server}/whole.jpg", timeout=5)


def test_the_program_beside_the_package_takes_and_refuses_the_same(tmp_path):
    Image.new("L", (10_001, 1)).save(tmp_path / "long.png")
    with pytest.raises(ValueError, match="10001x1"):
        run_onnx.read_photo(str(tmp_path / "long.png"))
    for name in ("FORMATS", "MODES", "MAX_PIXELS", "MAX_SIDE"):
        assert getattr(run_onnx, name) == getattr(photos_kdam, name)


def test_an_orientation_that_is_none_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 9
    Image.fromarray(PIXELS).save(tmp_path / "odd.jpg", exif=exif)
    assert read_header(tmp_path / "odd.jpg", "odd") == (20, 32, 1)


def test_too_little_memory_is_not_taken_for_a_broken_photo(monkeypatch):
    def fail(image):
        raise MemoryError

    monkeypatch.setattr(photos_kdam.ImageOps, "exif_transpose", fail)
    with pytest.raises(MemoryError):
        open_photo(PIXELS)
