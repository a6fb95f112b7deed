"""Files that kill, hang or fill the parser of MATLAB files end in an error of their own; the next file is read as ever."""

import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from scipy.sparse import eye

from dataset_loaders import mat_process
from dataset_loaders.mat_process import parse
from dataset_loaders.matlab import read_mat, read_mat_map
from kdam_hf.errors import DataIntegrityError

pytestmark = pytest.mark.fault(26)


def annotation():
    """Structs of structs, text, maps in both orders and an empty cell, as PASCAL's parts have them."""
    parts = np.zeros((1, 2), [("part_name", object), ("mask", object)])
    parts[0, 0] = ("head", np.asfortranarray(np.arange(12, dtype=np.uint8).reshape(3, 4)))
    parts[0, 1] = ("leg", np.arange(6, dtype=np.float64).reshape(2, 3))
    person = np.zeros((1, 1), [("class", object), ("parts", object)])
    person[0, 0] = ("person", parts)
    return person


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.mat"
    savemat(path, {"anno": annotation(), "ids": np.array([[1, 2], [3, 40]], np.uint8)})
    return path


def changed(good, offset, value):
    """The file with one byte changed, counted from the first name of a field."""
    data = bytearray(good.read_bytes())
    data[data.index(b"part_name") + offset] = value
    path = good.with_name("crafted.mat")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("offset", "value"), [(52, 14), (-30, 255)], ids=["kind of an array", "length of the names of fields"]
)
def test_a_byte_that_kills_or_hangs_scipy_is_an_error_and_the_next_file_is_read(good, offset, value, monkeypatch):
    """With SciPy 1.17 the first byte is a segmentation fault, the second an endless loop; no version may read on."""
    with monkeypatch.context() as patch:
        patch.setattr(mat_process, "SECONDS", 1.0)
        with pytest.raises(DataIntegrityError, match=r"crafted\.mat: not a readable MATLAB file of version 5"):
            read_mat(changed(good, offset, value), "anno")
    assert read_mat_map(good, "ids").tolist() == [[1, 2], [3, 40]]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_parser_that_dies_or_hangs_is_named_and_the_next_file_is_read(good, how, monkeypatch):
    read_mat(good, "ids")
    os.kill(mat_process._parser.process.pid, how)
    with monkeypatch.context() as patch:
        patch.setattr(mat_process, "SECONDS", 0.5)
        with pytest.raises(DataIntegrityError, match=r"good\.mat: .*(SIGKILL|not ready after 0\.5 s)"):
            read_mat(good, "ids")
    assert read_mat_map(good, "ids").tolist() == [[1, 2], [3, 40]]


def test_structs_cells_text_and_maps_arrive_as_scipy_shapes_them_and_nothing_else(good):
    assert repr(read_mat(good, "anno")) == repr(loadmat(good)["anno"])  # values, shapes and types
    savemat(good, {"ids": eye(3)})
    with pytest.raises(DataIntegrityError, match="neither numbers, text, struct nor cell"):
        read_mat(good, "ids")


def test_a_file_that_promises_more_than_memory_is_an_error_and_the_memory_of_the_parser_is_bounded(good):
    data = bytearray(good.read_bytes())
    at = data.index(b"ids") - 12  # its two dimensions stand before the name
    assert data[at : at + 8] == (2).to_bytes(4, "little") * 2
    data[at : at + 8] = (2**20).to_bytes(4, "little") * 2
    good.write_bytes(data)
    with pytest.raises(DataIntegrityError, match=r"good\.mat"):
        read_mat(good, "ids")
    limits = Path(f"/proc/{mat_process._parser.process.pid}/limits").read_text()
    (space,) = (line.split() for line in limits.splitlines() if line.startswith("Max address space"))
    assert space[3:5] == [str(mat_process.MEMORY)] * 2
    with good.open("r+b") as file:
        file.truncate(600 * 2**20)  # sparse: takes no room
    with pytest.raises(DataIntegrityError, match=r"good\.mat: \d+ bytes"):
        read_mat(good, "ids")


def _pid_of_parser(content):
    parse(content, "ids")
    return os.getpid(), mat_process._parser.process.pid


def test_every_reading_process_has_a_parser_of_its_own_that_ends_with_it(good):
    content = good.read_bytes()
    mine = _pid_of_parser(content)
    with ProcessPoolExecutor(1) as pool:
        theirs = pool.submit(_pid_of_parser, content).result()
    assert mine[0] != theirs[0]
    assert mine[1] != theirs[1]
    process = Path(f"/proc/{theirs[1]}/status")
    deadline = time.monotonic() + 20
    while process.exists() and "zombie" not in process.read_text():
        assert time.monotonic() < deadline, "the parser outlived the process it worked for"
        time.sleep(0.05)
