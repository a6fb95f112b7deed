import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dataset_loaders import check_id, check_sample, open_dataset, read_array, read_image
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.tasks import make_task

TASKS = (make_task("semseg", ["a", "b", "c"]), make_task("depth"), make_task("normals"), make_task("edge"))


def sample_of(height=4, width=6):
    normals = np.zeros((height, width, 3), np.float32)
    normals[..., 2] = 1
    labels = {
        "semseg": np.zeros((height, width), np.uint8),
        "depth": np.ones((height, width), np.float32),
        "normals": normals,
        "edge": np.zeros((height, width), np.uint8),
    }
    return {"id": "0001", "image": np.zeros((height, width, 3), np.uint8), "labels": labels}


def test_a_good_sample_passes_unchanged():
    sample = sample_of()
    assert check_sample(sample, TASKS) is sample


@pytest.mark.fault(16, 20, 22)
@pytest.mark.parametrize(
    ("task", "label", "says"),
    [
        ("semseg", np.full((4, 6), 3, np.uint8), r"0001.*semseg.*\[3\].*0\.\.2"),
        ("semseg", np.full((4, 6), -1, np.int64), r"0001.*semseg.*int64.*uint8"),
        ("semseg", np.zeros((4, 6), np.float32), r"0001.*semseg.*float32.*uint8"),
        ("semseg", np.zeros((1, 4, 6), np.uint8), r"0001.*semseg.*\(1, 4, 6\).*\(H, W\)"),
        ("depth", np.zeros((6, 4), np.float32), r"0001.*depth.*6x4.*4x6"),
        ("depth", np.full((4, 6), np.nan, np.float32), r"0001.*depth.*NaN"),
        ("depth", np.zeros((4, 6), np.float64), r"0001.*depth.*float64.*float32"),
        ("normals", np.zeros((4, 6), np.float32), r"0001.*normals.*\(4, 6\).*\(H, W, 3\)"),
        ("normals", np.full((4, 6, 3), 0.1, np.float32), r"0001.*normals.*unit"),
        ("edge", np.full((4, 6), 2, np.uint8), r"0001.*edge.*\[2\]"),
    ],
)
def test_a_bad_label_is_refused_with_id_and_task(task, label, says):
    sample = sample_of()
    sample["labels"][task] = label
    with pytest.raises(DataIntegrityError, match=says):
        check_sample(sample, TASKS)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 6), np.uint8), np.zeros((4, 6, 3), np.float32), np.zeros((3, 4, 6), np.uint8)]
)
def test_an_image_of_another_form_is_refused(image):
    with pytest.raises(DataIntegrityError, match=r"0001.*image.*expected uint8 \(H, W, 3\)"):
        check_sample({"id": "0001", "image": image, "labels": {}}, TASKS)


@pytest.mark.fault(34)
@pytest.mark.parametrize("sample_id", ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "x\0y"])
def test_an_id_that_could_leave_its_folder_is_refused(sample_id):
    with pytest.raises(DataIntegrityError, match="sample id"):
        check_id(sample_id)


def png_of(width, height, bits, colour, *chunks):
    """A PNG of 8-bit colour or grey of any depth from the body of its chunks."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    packed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, *chunks))
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.fault(23)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [7_500, 12_000, 40_000])
def test_too_many_pixels_are_refused_from_the_header_alone(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png_of(side, side, 8, 2, b"IDAT"))
    with pytest.raises(DataIntegrityError, match=r"bomb\.png.*pixels"):
        read_image(tmp_path / "bomb.png")


@pytest.mark.fault(22)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("keep", [0, 30, 0.5, 0.95])
def test_a_truncated_image_is_refused_with_its_path(tmp_path, suffix, keep):
    path = tmp_path / f"x{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(DataIntegrityError, match=path.name):
        read_image(path)


@pytest.mark.fault(23)
def test_other_formats_are_refused_whatever_their_name(tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "x.bmp")
    (tmp_path / "x.bmp").rename(tmp_path / "x.png")
    with pytest.raises(DataIntegrityError, match="PNG or JPEG"):
        read_image(tmp_path / "x.png")
    Image.new("L", (6, 4)).save(tmp_path / "label.jpg")
    with pytest.raises(DataIntegrityError, match=r"label\.jpg"):
        read_array(tmp_path / "label.jpg")


@pytest.mark.fault(21)
def test_palette_ids_are_kept_exactly(tmp_path):
    ids = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    image = Image.fromarray(ids).convert("P")
    image.putdata(ids.ravel().tolist())
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    image.save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_array(tmp_path / "x.png"), ids)


@pytest.mark.fault(21)
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_ids_are_kept_exactly_at_every_bit_depth(tmp_path, bits):
    ids = np.random.default_rng(0).integers(0, 2**bits, (3, 8), dtype=np.uint8)
    rows = [bytes([0]) + np.packbits(np.unpackbits(row[:, None], axis=1)[:, 8 - bits :]).tobytes() for row in ids]
    (tmp_path / "x.png").write_bytes(png_of(8, 3, bits, 0, b"IDAT" + zlib.compress(b"".join(rows)), b"IEND"))
    np.testing.assert_array_equal(read_array(tmp_path / "x.png"), ids)


@pytest.mark.fault(21)
def test_16_bit_depth_keeps_its_millimetres(tmp_path):
    millimetres = np.array([[0, 1, 700], [9_999, 40_000, 65_535]], np.uint16)
    Image.fromarray(millimetres).save(tmp_path / "x.png")
    array = read_array(tmp_path / "x.png")
    assert array.dtype == np.uint16
    metres = make_task("depth").label.from_file(array, {}, "x.png")
    np.testing.assert_allclose(metres, millimetres / 1000, rtol=1e-6)


def test_npy_never_unpickles_and_never_allocates_what_the_file_does_not_hold(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[{"a": 1}]], object), allow_pickle=True)
    with pytest.raises(DataIntegrityError, match=r"x\.npy"):
        read_array(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.zeros((50, 60), np.float32))
    data = (tmp_path / "x.npy").read_bytes()
    for broken in (b"", data[:20], data[:-1], data.replace(b"(50, 60)", b"(9999999, 60)")):
        (tmp_path / "x.npy").write_bytes(broken)
        with pytest.raises(DataIntegrityError, match=r"x\.npy"):
            read_array(tmp_path / "x.npy")


def test_a_label_with_alpha_is_refused(tmp_path):
    Image.new("LA", (6, 4)).save(tmp_path / "x.png")
    with pytest.raises(DataIntegrityError, match=r"LA.*L, P, I;16"):
        read_array(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "nyu"}, "'nyu'.*folder, hub, nyud_v2, pascal_context, synthetic_rooms"),
        ({"name": "folder"}, "data_dir"),
        ({"name": "folder", "data_dir": ".", "height": 60}, "height.*layout|height.*strict"),
        ({"name": "synthetic_rooms", "data_dir": "."}, "data_dir"),
        ({"name": "synthetic_rooms", "hight": 60}, "hight.*num_images, height"),
        ({"name": "synthetic_rooms", "tasks": ["flow"]}, "flow"),
    ],
)
def test_a_wrong_request_is_refused(arguments, says):
    with pytest.raises(KdamValueError, match=says):
        open_dataset(split="train", **arguments)
