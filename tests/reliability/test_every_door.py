"""One file, one answer: photos and labels of every kind through every door, with the same pixels or the same refusal."""

import io
import json
import unicodedata
from types import SimpleNamespace

import numpy as np
import pytest
import trees
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets import Image as ImageColumn
from PIL import Image
from trees import encoded

from dataset_loaders import SubsetDataset, check_sample, open_dataset, prepare
from dataset_loaders.archives import extract
from kdam_hf import KdamImageProcessor, MultiTaskDensePredictionPipeline
from kdam_hf.commands import run_onnx
from kdam_hf.errors import DataIntegrityError

H, W = 6, 8
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
GREY, ALPHA = RGB[..., 0], np.full((H, W), 90, np.uint8)
IDS = RNG.integers(0, 16, (H, W), dtype=np.uint8)
DEEP = RNG.integers(300, 60_000, (H, W), dtype=np.uint16)
PALETTE = trees.palette()


def with_palette(ids):
    image = Image.fromarray(ids)
    image.putpalette(PALETTE.tobytes())
    return image


def rgb(image):
    return np.asarray(image.convert("RGB"))


CMYK = Image.fromarray(RGB).convert("CMYK")
LOSSY, LOSSY_CMYK = encoded(RGB, "JPEG"), encoded(CMYK, "JPEG")
# kind: content, and the pixels it shows; None where it is refused
PHOTOS = {
    "colour.png": (encoded(RGB), RGB),
    "grey.png": (encoded(GREY), GREY[..., None].repeat(3, -1)),
    "alpha.png": (encoded(np.dstack([RGB, ALPHA])), RGB),
    "grey-alpha.png": (encoded(np.dstack([GREY, ALPHA])), GREY[..., None].repeat(3, -1)),
    "palette.png": (encoded(with_palette(GREY)), PALETTE[GREY]),
    "grey-4-bit.png": (trees.packed_png(IDS, 4, 0), (17 * IDS)[..., None].repeat(3, -1)),
    "grey-1-bit.png": (trees.packed_png(IDS % 2, 1, 0), (255 * (IDS % 2))[..., None].repeat(3, -1)),
    "palette-4-bit.png": (trees.packed_png(IDS, 4, 3), PALETTE[IDS]),
    "colour-16-bit.png": (trees.packed_png(RGB.reshape(H, -1) * np.uint16(256) + 99, 16, 2), RGB),
    "turned.png": (encoded(RGB, orientation=6), np.rot90(RGB, -1)),
    "turned.jpg": (encoded(RGB, "JPEG", 8), np.rot90(rgb(Image.open(io.BytesIO(LOSSY))))),
    "turned.tif": (encoded(RGB, "TIFF", 6), np.rot90(RGB, -1)),
    "upside-down.png": (encoded(RGB, orientation=3), RGB[::-1, ::-1]),
    "colour.jpg": (LOSSY, rgb(Image.open(io.BytesIO(LOSSY)))),
    "cmyk.jpg": (LOSSY_CMYK, rgb(Image.open(io.BytesIO(LOSSY_CMYK)))),
    "cmyk.tif": (encoded(CMYK, "TIFF"), rgb(CMYK)),
    "palette.tif": (encoded(with_palette(GREY), "TIFF"), PALETTE[GREY]),
    "colour.webp": (encoded(RGB, "WEBP", lossless=True), RGB),
    "colour.bmp": (encoded(RGB, "BMP"), RGB),
    "grey-16-bit.png": (encoded(DEEP), None),
    "grey-16-bit.tif": (encoded(DEEP, "TIFF"), None),
    "float.tif": (encoded(np.float32(GREY / 255), "TIFF"), None),
    "gif-named.png": (encoded(RGB, "GIF"), None),
    "cut.png": (encoded(RGB)[:90], None),
    "text.png": (b"no photo at all", None),
    "empty.png": (b"", None),
    "bomb.png": (trees.png_bytes(8_000, 8_000, 8, 2, b"IDAT", b"IEND"), None),
}
BIG_ENDIAN = Image.frombytes("I;16B", (W, H), DEEP.astype(">u2").tobytes())
# kind: task, content, and the raw label
LABELS = {
    "grey.png": ("semseg", encoded(IDS), IDS),
    **{f"grey-{b}-bit.png": ("semseg", trees.packed_png(IDS % 2**b, b, 0), IDS % 2**b) for b in (1, 2, 4)},
    "palette.png": ("semseg", encoded(with_palette(IDS)), IDS),
    "palette-4-bit.png": ("semseg", trees.packed_png(IDS, 4, 3), IDS),
    "palette.tif": ("semseg", encoded(with_palette(IDS), "TIFF"), IDS),
    "packed.tif": ("semseg", encoded(IDS, "TIFF", compression="tiff_lzw"), IDS),
    "depth.png": ("depth", encoded(DEEP), DEEP / 1000),
    "depth.tif": ("depth", encoded(DEEP, "TIFF"), DEEP / 1000),
    "depth-other-bytes.tif": ("depth", encoded(BIG_ENDIAN, "TIFF"), DEEP / 1000),
    "depth-32-bit.tif": ("depth", encoded(DEEP.astype(np.int32), "TIFF"), DEEP / 1000),
    "depth-float.tif": ("depth", encoded(np.float32(DEEP / 1000), "TIFF"), DEEP / 1000),
    "lossy.jpg": ("semseg", encoded(IDS, "JPEG"), None),
    "lossy-named.png": ("semseg", encoded(IDS, "JPEG"), None),
    "lossy.webp": ("semseg", encoded(RGB, "WEBP"), None),
    "lossy.tif": ("semseg", encoded(IDS, "TIFF", compression="jpeg"), None),
    "alpha.png": ("semseg", encoded(np.dstack([IDS, ALPHA])), None),
    "colours.png": ("semseg", encoded(PALETTE[IDS]), None),
    "cut.png": ("semseg", encoded(IDS)[:60], None),
    "across.png": ("semseg", encoded(IDS.T), None),
}
NFC, NFD = (unicodedata.normalize(form, "küche") for form in ("NFC", "NFD"))
CLASSES = [f"class_{k}" for k in range(16)]


def rows():
    """Id, photo, task and label, with the names of both: a label that fits for every photo, and a photo for every label."""
    for name, (photo, shown) in PHOTOS.items():
        size = (H, W) if shown is None else shown.shape[:2]
        yield f"photo-{name}", name, photo, "semseg", "x.png", encoded(np.zeros(size, np.uint8))
    for name, (task, label, _) in LABELS.items():
        yield f"label-{name}", "x.png", encoded(RGB), task, name, label


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Door -> the data set behind it; prepared data only hold what is not refused."""
    root = tmp_path_factory.mktemp("doors")
    folder, table = root / "own", []
    for name in ("images", "semseg", "depth", "hub"):
        (folder / name if name != "hub" else root / name).mkdir(parents=True)
    for sample_id, photo_name, photo, task, label_name, label in rows():
        (folder / f"images/{sample_id}.{photo_name.rpartition('.')[2]}").write_bytes(photo)
        (folder / f"{task}/{sample_id}.{label_name.rpartition('.')[2]}").write_bytes(label)
        labels = {name: {"bytes": label, "path": None} if name == task else None for name in ("semseg", "depth")}
        table.append({"id": sample_id, "image": {"bytes": photo, "path": None}, **labels, "semseg_classes": []})
    (folder / f"images/{NFC}.png").write_bytes(encoded(RGB))
    (folder / f"semseg/{NFD}.png").write_bytes(encoded(IDS))
    table.append({**table[0], "id": NFD, "semseg": {"bytes": encoded(IDS), "path": None}})
    (folder / "val.txt").write_text("\n".join([row["id"] for row in table]), "utf-8")
    tasks = {"semseg": {"num_classes": 16}, "depth": {}}
    (folder / "dataset.json").write_text(json.dumps({"name": "own", "tasks": tasks}))
    columns = {"id": Value("string"), "image": ImageColumn(), "semseg": ImageColumn(), "depth": ImageColumn()}
    features = Features(columns | {"semseg_classes": List(ClassLabel(names=CLASSES))})
    Dataset.from_list(table, features).to_parquet(root / "hub/val-00000-of-00001.parquet")
    unpacked = extract(trees.make_archive(folder, root / "own.zip"), root / "unpacked")
    own = open_dataset("folder", "val", folder)
    good = [i for i in own.ids if i == NFC or (expected_of(i) is not None)]
    return {
        "folder": own,
        "archive": open_dataset("folder", "val", unpacked),
        "hub": open_dataset("hub", "val", root / "hub"),
        "prepared": prepare(SubsetDataset(own, good), root / "prepared" / "own-val"),
    }


def expected_of(sample_id):
    """What is to be read of a photo or label; None if it is to be refused."""
    kind, _, name = sample_id.partition("-")
    return PHOTOS[name][1] if kind == "photo" else LABELS[name][2]


def sample_of(data, door, sample_id, tmp_path):
    """The sample behind a door; what is refused cannot be prepared either."""
    if door == "prepared" and sample_id not in data[door].ids:
        return prepare(SubsetDataset(data["folder"], [sample_id]), tmp_path / "p")[0]
    return data[door][data[door].ids.index(sample_id)]


PLAIN = KdamImageProcessor(image_mean=[0.0] * 3, image_std=[1.0] * 3)


def of_values(values):
    return np.rint(values[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)


@pytest.mark.fault(22, 23)
@pytest.mark.parametrize("kind", PHOTOS)
@pytest.mark.parametrize("door", ["folder", "archive", "hub", "prepared", "processor", "pipeline", "onnx"])
def test_a_photo_shows_the_same_pixels_or_is_refused_through_every_door(data, door, kind, tmp_path):
    content, shown = PHOTOS[kind]
    path = tmp_path / kind
    path.write_bytes(content)
    stub, preprocess = SimpleNamespace(image_processor=PLAIN), MultiTaskDensePredictionPipeline.preprocess
    doors = {
        "processor": lambda: of_values(PLAIN(path)["pixel_values"]),
        "pipeline": lambda: of_values(preprocess(stub, str(path))["photo"]["pixel_values"]),
        "onnx": lambda: np.asarray(run_onnx.read_photo(str(path))),
    }
    read = doors.get(door, lambda: sample_of(data, door, f"photo-{kind}", tmp_path)["image"])
    if shown is None:
        with pytest.raises(DataIntegrityError if door in data else ValueError, match=kind[:-4]) as refused:
            read()
        assert kind != "bomb.png" or "8000x8000" in str(refused.value)
    else:
        np.testing.assert_array_equal(read(), shown)


@pytest.mark.fault(21, 22)
@pytest.mark.parametrize("kind", [*LABELS, NFC])
@pytest.mark.parametrize("door", ["folder", "archive", "hub", "prepared"])
def test_a_label_holds_the_same_values_or_is_refused_through_every_door(data, door, kind, tmp_path):
    task, _, label = LABELS.get(kind, ("semseg", None, IDS))  # a name is one name in every Unicode form
    sample_id = NFC if kind == NFC else f"label-{kind}"
    if label is None:
        with pytest.raises(DataIntegrityError, match=sample_id):
            check_sample(sample_of(data, door, sample_id, tmp_path), data[door].tasks)
    else:
        found = sample_of(data, door, sample_id, tmp_path)["labels"]
        assert list(found) == [task]
        np.testing.assert_allclose(found[task], label, atol=0.51e-3 if task == "depth" and door == "prepared" else 1e-6)


@pytest.mark.parametrize("door", ["folder", "hub", "prepared"])
def test_the_header_tells_the_size_that_decoding_gives(data, door):
    turned = {"turned.png": 6, "turned.jpg": 8, "turned.tif": 6, "upside-down.png": 3} if door != "prepared" else {}
    for kind, (_, shown) in PHOTOS.items():
        if shown is not None:
            header = data[door].photo_header(data[door].ids.index(f"photo-{kind}"))
            assert header == (*shown.shape[:2], turned.get(kind, 1)), kind
