"""Files that kill, hang or fill the parser of MATLAB files end in an error of their own; the next file is read as ever."""

import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

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


def same(a, b):
    if a.dtype.names:
        return a.dtype.names == b.dtype.names and all(same(a[name], b[name]) for name in a.dtype.names)
    if a.dtype.hasobject:
        return a.shape == b.shape and all(same(x, y) for x, y in zip(a.flat, b.flat, strict=True))
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)


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
    monkeypatch.setattr(mat_process, "SECONDS", 2.0)
    with pytest.raises(DataIntegrityError, match=r"crafted\.mat: not a readable MATLAB file of version 5"):
        read_mat(changed(good, offset, value), "anno")
    assert read_mat_map(good, "ids").tolist() == [[1, 2], [3, 40]]


@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGKILL])
def test_a_parser_that_dies_is_named_and_the_next_file_is_read(good, how):
    read_mat(good, "ids")
    os.kill(mat_process._parser.process.pid, how)
    with pytest.raises(DataIntegrityError, match=rf"good\.mat: .*its parser died of {how.name}"):
        read_mat(good, "ids")
    assert read_mat_map(good, "ids").tolist() == [[1, 2], [3, 40]]


def test_structs_cells_text_and_maps_arrive_as_scipy_shapes_them(good):
    assert same(read_mat(good, "anno"), loadmat(good)["anno"])


def test_a_parser_that_hangs_is_ended_after_its_time(good, monkeypatch):
    parse(good.read_bytes(), "ids")
    os.kill(mat_process._parser.process.pid, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(mat_process, "SECONDS", 0.5)
        with pytest.raises(ValueError, match=r"not ready after 0\.5 s"):
            parse(good.read_bytes(), "ids")
    assert parse(good.read_bytes(), "ids").tolist() == [[1, 2], [3, 40]]


def test_a_file_that_promises_more_than_memory_is_an_error(good):
    data = bytearray(good.read_bytes())
    at = data.index(b"ids") - 12  # its two dimensions stand before the name
    assert data[at : at + 8] == (2).to_bytes(4, "little") * 2
    data[at : at + 8] = (2**20).to_bytes(4, "little") * 2
    good.write_bytes(data)
    with pytest.raises(DataIntegrityError, match=r"good\.mat: not a readable MATLAB file"):
        read_mat(good, "ids")


def test_memory_of_the_parser_is_bounded(good):
    read_mat(good, "ids")
    limits = Path(f"/proc/{mat_process._parser.process.pid}/limits").read_text()
    (space,) = (line.split() for line in limits.splitlines() if line.startswith("Max address space"))
    assert space[3:5] == [str(mat_process.MEMORY)] * 2


def test_what_is_neither_number_text_struct_nor_cell_is_refused(tmp_path):
    from scipy.sparse import eye

    savemat(tmp_path / "sparse.mat", {"ids": eye(3)})
    with pytest.raises(DataIntegrityError, match="neither numbers, text, struct nor cell"):
        read_mat(tmp_path / "sparse.mat", "ids")


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


def test_a_file_of_an_unlikely_size_is_not_read_into_memory(good):
    with good.open("r+b") as file:
        file.truncate(600 * 2**20)  # sparse: takes no room
    with pytest.raises(DataIntegrityError, match=r"good\.mat: \d+ bytes; expected at most"):
        read_mat(good, "ids")
