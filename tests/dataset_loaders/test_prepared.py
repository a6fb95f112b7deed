"""Prepared data: what comes back, what a change costs, and that a kill anywhere costs nothing but time."""

import os
import shutil
import threading

import numpy as np
import pytest
import trees

from dataset_loaders import PreparedDataset, SubsetDataset, check_sample, open_dataset, prepare
from dataset_loaders.builders import as_table
from dataset_loaders.inspection import SplitReport, inspect_split
from dataset_loaders.synthetic_rooms import SyntheticRooms
from kdam_hf.errors import DataIntegrityError, KdamError, KdamValueError

FILES = ("samples.bin", "index.jsonl")


class Random(SyntheticRooms):
    """Every third without semseg; it remembers which were read."""

    name = "random"

    def __init__(self, length=5, stop_at=None, spoilt=()):
        super().__init__(height=20, width=31, tasks=["semseg", "normals", "edge"])
        self.num_images, self.stop_at, self.spoilt, self.read = length, stop_at, spoilt, []

    def __getitem__(self, index):
        self.read.append(index)
        if index == self.stop_at:
            raise KeyboardInterrupt
        sample = super().__getitem__(index)
        if index in self.spoilt:
            sample["labels"]["edge"][0, 0] = 9
        if index % 3 == 0:
            del sample["labels"]["semseg"]
        return sample


def write(path, dataset=None, **kwargs):
    return prepare(Random() if dataset is None else dataset, path, **kwargs)


def content(path):
    return [(path / name).read_bytes() for name in FILES]


def test_the_number_of_processes_changes_no_byte_and_tasks_can_be_some_of_those_prepared(tmp_path):
    for number in (1, 2):
        data = write(tmp_path / str(number), num_proc=number)
    assert content(tmp_path / "1") == content(tmp_path / "2")
    for index in range(5):
        check_sample(data[index], data.tasks)
    some = PreparedDataset(tmp_path / "2", ["edge", "normals"])
    assert [task.name for task in some.tasks] == list(some[1]["labels"]) == ["normals", "edge"]
    with pytest.raises(KdamValueError, match="saliency"):
        PreparedDataset(tmp_path / "2", ["saliency"])


# ---- interruptions ----


@pytest.mark.parametrize(
    ("file", "spoil", "read_again"),
    [
        ("index.jsonl", lambda data: data, [3, 4]),
        ("index.jsonl", lambda data: data[:-7], [2, 3, 4]),
        ("samples.bin", lambda data: data + b"half a record", [3, 4]),
        ("samples.bin", lambda data: bytes([data[0] ^ 1]) + data[1:], [0, 1, 2, 3, 4]),
        ("index.jsonl", lambda data: data.replace(b"random", b"others"), [0, 1, 2, 3, 4]),
    ],
)
def test_what_the_checksums_of_an_interrupted_call_confirm_is_kept(tmp_path, file, spoil, read_again):
    write(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "p", Random(stop_at=3))
    assert not (tmp_path / "p").exists()
    with pytest.raises(DataIntegrityError):
        PreparedDataset(tmp_path / "p")
    path = tmp_path / ".p.building" / file
    path.write_bytes(spoil(path.read_bytes()))
    rest = Random()
    write(tmp_path / "p", rest)
    assert rest.read == read_again
    assert content(tmp_path / "p") == content(tmp_path / "whole")


def test_two_writers_of_one_folder_read_every_sample_once(tmp_path):
    sources = Random(), Random()
    threads = [threading.Thread(target=write, args=(tmp_path / "p", source)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(sources[0].read + sources[1].read) == [0, 1, 2, 3, 4]


# ---- faults ----


def test_every_bad_sample_is_found_the_first_named_and_the_good_ones_are_kept(tmp_path):
    data = Random(spoilt=(1, 3))
    report = SplitReport(data)
    with pytest.raises(DataIntegrityError, match=r"2 of 5.*0001.*edge"):
        write(tmp_path / "p", data, report=report)
    assert [text.split("'")[1] for text in report.problems] == ["train-0000001", "train-0000003"]
    assert report.sizes.total() == 3
    good = Random()
    report = SplitReport(good)
    write(tmp_path / "p", good, report=report)
    assert good.read == [1, 3]
    again = SplitReport(good)
    write(tmp_path / "p", good, report=again)  # from the index alone
    assert vars(again) == vars(report) == vars(inspect_split(good))
    assert not report.problems


@pytest.mark.parametrize(
    ("file", "spoil"),
    [
        ("samples.bin", lambda data: data[:-1]),
        ("index.jsonl", lambda data: data[: data.rindex(b"\n", 0, -1)]),
        ("index.jsonl", lambda data: data.replace(b'"format": ', b'"format": 1')),
        ("index.jsonl", lambda data: b"{}\n"),
        ("index.jsonl", None),  # as earlier versions wrote it: under another name
    ],
)
def test_a_damaged_folder_or_one_of_another_version_is_refused_with_the_remedy(tmp_path, file, spoil):
    write(tmp_path / "random-train")
    path = tmp_path / "random-train" / file
    path.write_bytes(spoil(path.read_bytes())) if spoil else path.unlink()
    with pytest.raises(DataIntegrityError, match=r"random-train: .*prepare the data again"):
        open_dataset("folder", "train", tmp_path)


@pytest.mark.fault(31)
def test_an_empty_dataset_is_refused(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "thesis.tex").write_text("mine")
    for data in (Random(0), Random()):  # nothing to write; something else is there
        with pytest.raises(KdamValueError):
            write(tmp_path / "p", data)
    assert (tmp_path / "p" / "thesis.tex").read_text() == "mine"


# ---- what it depends on ----


def rooms(**changed):
    return SyntheticRooms(**({"num_images": 2, "height": 6, "width": 8, "tasks": ["depth", "normals"]} | changed))


@pytest.mark.parametrize(
    ("now", "words"),
    [(rooms(seed=1), "seed 1"), (rooms(num_images=3), "length 2 -> 3"), (rooms(tasks=["depth"]), "tasks.normals.kind")],
)
def test_the_same_dataset_is_taken_as_it_is_and_another_is_never_overwritten(tmp_path, now, words):
    write(tmp_path / "p", rooms())
    before = [(tmp_path / "p" / name).stat().st_mtime_ns for name in FILES]
    write(tmp_path / "p", rooms())
    with pytest.raises(KdamValueError, match=words):
        write(tmp_path / "p", now)
    assert [(tmp_path / "p" / name).stat().st_mtime_ns for name in FILES] == before


def edited(path):
    """Values change, name and size do not."""
    size, before = path.stat().st_size, path.stat().st_mtime_ns
    np.save(path, np.load(path) + 1)
    os.utime(path, ns=(before, before + 1))
    assert path.stat().st_size == size


@pytest.fixture
def files(copy, tmp_path):
    """Ids of three samples of files, and what opens them."""
    root, truth = copy("B")
    root.rename(tmp_path / "data")
    return [scene.id for scene in truth["val"]], lambda folder="data": open_dataset("nyud_v2", "val", tmp_path / folder)


def test_labels_made_again_in_the_same_size_are_noticed_also_behind_a_subset_and_in_a_table(tmp_path, files):
    """A subset once dropped the stamps of its files, and a changed label went unseen."""
    ids, source = files

    def deepest():
        return int(np.max(as_table(source())[1]["depth"]))

    before = deepest()
    for _ in range(2):
        write(tmp_path / "p", SubsetDataset(source(), ids[1:]))
    edited(tmp_path / f"data/depth/{ids[1]}.npy")
    with pytest.raises(KdamValueError, match=f"1 of .* first '{ids[1]}'"):
        write(tmp_path / "p", SubsetDataset(source(), ids[1:]))
    assert abs(deepest() - before - 1000) <= 1


def test_a_continued_call_reads_again_what_changed_meanwhile(tmp_path, files):
    ids, source = files
    bad = tmp_path / f"data/depth/{ids[2]}.npy"
    good = bad.read_bytes()
    trees.truncate(bad)
    with pytest.raises(DataIntegrityError):
        write(tmp_path / "p", source())
    bad.write_bytes(good)
    edited(tmp_path / f"data/depth/{ids[0]}.npy")
    data, now = write(tmp_path / "p", source()), source()
    for k in range(3):
        np.testing.assert_allclose(data[k]["labels"]["depth"], now[k]["labels"]["depth"], atol=1e-3)


def test_a_copy_with_its_times_is_the_same_and_without_them_is_told_what_to_do(tmp_path, files):
    """`rsync -a` and `tar` keep the times of files, `cp -r` and `scp -r` do not."""
    _, source = files
    target = tmp_path / "out" / "nyud_v2-val"
    write(target, source())
    shutil.copytree(tmp_path / "data", tmp_path / "kept")
    write(target, source("kept"))
    shutil.copytree(tmp_path / "data", tmp_path / "lost", copy_function=shutil.copyfile)
    with pytest.raises(KdamValueError, match=rf"3 of 3 samples.*--data_dir {target.parent}"):
        write(target, source("lost"))


def test_prepared_data_is_found_by_the_name_it_was_opened_by(tmp_path, files):
    ids, source = files
    write(tmp_path / "out" / "nyud_v2-val", source())
    assert open_dataset("nyud_v2", "val", tmp_path / "out").ids == tuple(ids)
    with pytest.raises(KdamValueError, match=r"nyud_v2-val \(nyud_v2\).*folder"):
        open_dataset("folder", "val", tmp_path / "out")
    other = Random()
    other.split = "val"
    write(tmp_path / "out" / "random-val", other)  # opened by no name, so it is anybody's
    assert open_dataset("folder", "val", tmp_path / "out").name == "random"
    with pytest.raises(KdamValueError, match="random-val"):
        open_dataset("nyud_v2", "val", tmp_path / "out")


def test_a_prepared_split_is_not_taken_for_one_whose_name_is_the_end_of_its_own(tmp_path):
    write(tmp_path / "random-hard-val")
    index = tmp_path / "random-hard-val" / "index.jsonl"
    index.write_text(index.read_text().replace('"split": "train"', '"split": "hard-val"'))
    with pytest.raises(KdamError):
        open_dataset("folder", "val", tmp_path)
    assert open_dataset("folder", "hard-val", tmp_path).split == "hard-val"
