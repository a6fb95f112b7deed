"""Each readout of the table, held against its definition in float64 on whole predictions."""

import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kdam_hf import upsampling_kdam
from kdam_hf.colours_kdam import class_palette
from kdam_hf.readout_kdam import READOUTS, as_map, readout_of
from kdam_hf.tasks import Depth, Normals
from kdam_hf.upsampling_kdam import bands_of_rows, upsample

DEPTH, FLOW = Depth().settings, {"mirrored": [0]}
ENTRIES = [
    {"name": name, "readout": readout, "channels": channels, "class_names": [], "settings": settings}
    for name, readout, channels, settings in (
        ("ids", "argmax", 7, {}),
        ("salient", "foreground", 2, {}),
        ("edge", "sigmoid", 1, {}),
        ("joints", "sigmoid", 4, {}),
        ("normals", "unit", 3, Normals().settings),
        ("depth", "none", 1, DEPTH),
        ("heat", "none", 1, {}),
        ("flow", "none", 2, FLOW),
        ("features", "none", 5, {}),
    )
]
BY_NAME = {entry["name"]: entry for entry in ENTRIES}
each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["name"])


def whole_numbers(channels, height, width, seed=0):
    """Interpolated by 4 without rounding, so that ties between classes stay ties; positive where metres are."""
    shape = 2, channels, -(-height // 4), -(-width // 4)
    return torch.randint(1, 9, shape, generator=torch.Generator().manual_seed(seed)).float()


def definition(full, entry):
    """Values (B, H, W) or (B, c, H, W) of logits (B, C, H, W) at full size."""
    return {
        "argmax": lambda x: x.argmax(1),
        "foreground": lambda x: x.softmax(1)[:, -1],
        "sigmoid": lambda x: 1 / (1 + (-x).exp()),
        "unit": lambda x: x / x.norm(dim=1, keepdim=True),
        "none": lambda x: x,
    }[entry["readout"]](full.double())


def same(values, expected, atol):
    assert values.dtype == (torch.int64 if expected.dtype == torch.int64 else torch.float32)
    torch.testing.assert_close(values.to(expected), expected, rtol=0, atol=0 if values.dtype == torch.int64 else atol)


@each_entry
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (41, 57)])
def test_decoding_in_bands_is_upsampling_and_the_definition(monkeypatch, entry, size):
    prediction = whole_numbers(entry["channels"], *size)
    expected = definition(upsample(prediction, size), entry)
    for cached in (1, 2000, 1 << 19):
        monkeypatch.setattr(upsampling_kdam, "CACHED", cached)
        for given in (prediction, prediction.contiguous(memory_format=torch.channels_last), prediction.bfloat16()):
            decoded = readout_of(entry).decode(given, size)
            assert decoded.is_contiguous()
            same(decoded, expected, 3e-7)


@pytest.mark.parametrize("cached", [1, 1 << 19])
def test_bands_at_the_size_of_the_photo_are_one_interpolation(monkeypatch, cached):
    monkeypatch.setattr(upsampling_kdam, "CACHED", cached)
    prediction = torch.randn(1, 5, 9, 12, generator=torch.Generator().manual_seed(1))
    for seen, size in (((35, 46), (121, 153)), ((36, 48), (20, 100))):
        whole = F.interpolate(upsample(prediction, seen), size, mode="bilinear").movedim(1, -1)
        torch.testing.assert_close(torch.cat(list(bands_of_rows(prediction, seen, size)), 1), whole, rtol=0, atol=1e-5)


def test_upsampling_is_pixel_exact_at_sizes_that_are_no_multiple_of_four():
    ramp = torch.arange(8.0)[None, None, None].expand(1, 1, 6, 8) * 4 + 1.5
    full = upsample(ramp, (22, 30))
    assert full.shape == (1, 1, 22, 30)
    torch.testing.assert_close(full[0, 0, 5, 4:26], torch.arange(4.0, 26.0))


@each_entry
@pytest.mark.parametrize("target", [(24, 32), (50, 61)])
def test_two_views_average_probabilities_metres_or_vectors_in_the_frame_of_the_photo(entry, target):
    seen, reader = (24, 32), readout_of(entry)
    views = [whole_numbers(entry["channels"], *seen, seed) for seed in (0, 1)]
    full = [F.interpolate(upsample(view, seen).double(), target, mode="bilinear") for view in views]
    of_classes = entry["readout"] in ("argmax", "foreground")
    first, second = (x.softmax(1) if of_classes else definition(x, entry) for x in full)
    second = second.flip(-1)
    if entry["name"] in ("normals", "flow"):
        second[:, 0] *= -1
    mean = (first + second) / 2
    decide = {"argmax": lambda x: x.argmax(1), "foreground": lambda x: x[:, -1], "unit": F.normalize}
    values, quantity = reader.read(views, seen, target, keep=True)
    same(values, decide.get(entry["readout"], lambda x: x)(mean), 1e-5)
    same(quantity.movedim(-1, 1), mean, 1e-5)
    assert torch.equal(reader.read(views, seen, target)[0], values)


@each_entry
def test_a_stored_map_comes_back_within_the_precision_of_its_file(entry):
    reader = readout_of(entry)
    values = reader.decode(whole_numbers(entry["channels"], 22, 30), (22, 30))[0]
    stored = reader.to_file(as_map(values))
    assert stored.shape[:2] == (22, 30)
    assert reader.suffix == ".npy" or (stored.dtype, stored.ndim) == (np.uint8, 2)
    read = reader.from_file(stored)
    assert (read.shape, read.dtype) == (values.shape, values.dtype)
    precision = {"unit": 5e-4, "sigmoid": 0.5 / 255, "foreground": 0.5 / 255}.get(entry["readout"], 0)
    torch.testing.assert_close(read, values, rtol=0, atol=precision + (1e-6 if precision else 0))


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("ids", np.array([[0, 2]], np.uint16), [[0, 2]]),
        ("salient", np.array([[0, 51]], np.uint8), [[0, 0.2]]),
        ("edge", np.array([[0, 65535]], np.uint16), [[[0, 1]]]),
        ("edge", np.array([[0, 0.25]], np.float64), [[[0, 0.25]]]),
        ("depth", np.array([[0, 1500]], np.uint16), [[[0, 1.5]]]),
        ("depth", np.array([[-1, 1.5]], np.float16), [[[-1, 1.5]]]),
        ("normals", np.array([[[255, 0, 255]]], np.uint8), [[[1]], [[-1]], [[1]]]),
    ],
)
def test_maps_of_others_are_read_in_the_usual_forms(name, array, expected):
    read = readout_of(BY_NAME[name]).from_file(array)
    torch.testing.assert_close(read.double(), torch.tensor(expected).double())


@pytest.mark.parametrize(
    ("name", "array"),
    [
        *(("ids", np.zeros((2, 3), np.float32)), ("ids", np.zeros((2, 3, 3), np.uint8))),
        *(("salient", np.zeros((2, 3), np.int32)), ("edge", np.zeros((2, 3, 3), np.uint8))),
        *(("joints", np.zeros((2, 3), np.uint8)), ("depth", np.zeros((2, 3), np.uint8))),
        *(("heat", np.zeros((2, 3), np.uint16)), ("flow", np.zeros(2, np.float32))),
        *(("normals", np.zeros((2, 3), np.float32)), ("normals", np.zeros((2, 3, 3), np.uint16))),
    ],
)
def test_an_array_of_another_kind_is_refused_with_its_type_and_shape(name, array):
    with pytest.raises(ValueError, match=re.escape(f"{array.dtype} array {array.shape}")):
        readout_of(BY_NAME[name]).from_file(array)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("ids", [[0, 255]], [class_palette(7)[0], (0, 0, 0)]),
        ("salient", [[1, 255]], [(255, 210, 60), (90, 90, 90)]),
        ("edge", [[0, 255]], [(255, 255, 255), (160, 160, 160)]),
        ("depth", [[0.7, 10, 0]], [(253, 231, 37), (68, 1, 84), (0, 0, 0)]),
        ("normals", [[[0, 0, 1], [0, 0, 0]]], [(128, 128, 255), (0, 0, 0)]),
        ("heat", [[2, 5, np.nan]], [(68, 1, 84), (253, 231, 37), (0, 0, 0)]),
        ("flow", [[[3, 0], [0, 2], [np.inf, 0]]], [(255, 0, 0), (0, 255, 0), (0, 0, 0)]),
        ("features", [[[0, 1, 0, 7, 7], [2, 1, 4, 7, 7]]], [(0, 0, 0), (255, 0, 255)]),
    ],
)
def test_colours_mark_the_ends_of_a_scale_and_what_is_invalid(name, values, expected):
    np.testing.assert_array_equal(readout_of(BY_NAME[name]).colours(np.array(values)), [expected])


def test_depth_is_coloured_over_the_range_its_config_states():
    entry = Depth(nearest=2.0, farthest=80.0).spec()
    picture = readout_of(entry).colours(np.array([[2.0, 80.0]]))
    np.testing.assert_array_equal(picture[0], [(253, 231, 37), (68, 1, 84)])
    assert [readout_of(entry).legend()[k][0] for k in (0, -1)] == ["2.0 m", "80.0 m"]
    for nearest in (3, 0):
        with pytest.raises(ValueError, match=rf"nearest {nearest}.*farthest 3"):
            readout_of(entry | {"settings": {"nearest": nearest, "farthest": 3}})


def test_a_legend_has_the_colours_of_its_values_and_says_whether_they_are_a_scale():
    places = [f"{10.0**k:.1f} m" for k in range(6)]
    entry = BY_NAME["depth"] | {"settings": {"nearest": 1.0, "farthest": 1e5}}
    for reader, values, texts in (
        (readout_of(entry), 10.0 ** np.arange(6), places),
        (readout_of(BY_NAME["ids"]), np.arange(7), [f"class {k}" for k in range(7)]),
        (readout_of(BY_NAME["heat"]), np.arange(6.0), ["lowest", "", "", "", "", "highest"]),
        (readout_of(BY_NAME["flow"]), np.eye(2), ["channel 0", "channel 1"]),
        (readout_of(BY_NAME["features"]), np.eye(3, 5), ["channel 0", "channel 1", "channel 2"]),
    ):
        colours = [tuple(rgb) for rgb in reader.colours(values[None])[0].tolist()]
        assert reader.legend() == list(zip(texts, colours, strict=True))
        assert reader.has_scale == (texts[0] in ("1.0 m", "lowest"))


def test_all_readouts_are_tested_here_and_an_unknown_one_is_named():
    assert {entry["readout"] for entry in ENTRIES} == set(READOUTS)
    many = readout_of(ENTRIES[0] | {"channels": 300}).colours(np.array([[299]]))
    np.testing.assert_array_equal(many[0], class_palette(300)[-1:])
    with pytest.raises(ValueError, match="'argmin'"):
        readout_of(ENTRIES[0] | {"readout": "argmin"})
