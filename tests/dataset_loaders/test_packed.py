import json
import multiprocessing
import os
import pickle
import shutil
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import trees

from dataset_loaders import PackedDataset, check_sample, open_dataset, pack
from dataset_loaders.inspection import SplitReport, inspect_split
from dataset_loaders.synthetic_rooms import SyntheticRooms
from kdam_hf.errors import DataIntegrityError, KdamError, KdamValueError
from kdam_hf.tasks import make_task

TASKS = (make_task("semseg", ["a", "b", "c"]), make_task("depth"), make_task("normals"), make_task("edge"))


class Random:
    """Samples of different sizes; depth and normals have holes, and every third sample lacks semseg."""

    name, split, tasks = "random", "train", TASKS

    def __init__(self, length=5, fail_at=None):
        self.length, self.fail_at = length, fail_at

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index == self.fail_at:
            raise KeyboardInterrupt
        rng = np.random.default_rng(index)
        height, width = 20 + index, 31 - index
        normals = rng.normal(size=(height, width, 3))
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        hole = rng.random((height, width)) < 0.2
        normals[hole] = 0
        depth = np.where(hole, 0, rng.uniform(0.0001, 65.5, (height, width)))
        depth[0, 0] = 0.0002  # rounds to 0 mm, yet is valid
        labels = {
            "semseg": rng.choice([0, 1, 2, 255], (height, width)).astype(np.uint8),
            "depth": depth.astype(np.float32),
            "normals": normals.astype(np.float32),
            "edge": rng.choice([0, 1, 255], (height, width)).astype(np.uint8),
        }
        if index % 3 == 0:
            del labels["semseg"]
        return {
            "id": f"{index:04}",
            "image": rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
            "labels": labels,
        }


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def packed(path, dataset=None, **kwargs):
    return pack(Random() if dataset is None else dataset, path, progress=False, **kwargs)


def angles(a, b):
    return np.degrees(2 * np.arctan2(np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1)))


def test_a_round_trip_is_exact_for_bytes_and_within_the_documented_precision(tmp_path):
    source, data = Random(), packed(tmp_path / "p")
    assert (data.name, data.split, len(data)) == ("random", "train", 5)
    for index in range(5):
        a, b = source[index], check_sample(data[index], TASKS)
        assert b["id"] == a["id"]
        assert set(b["labels"]) == set(a["labels"])
        np.testing.assert_array_equal(b["image"], a["image"])
        for name in set(a["labels"]) & {"semseg", "edge"}:
            np.testing.assert_array_equal(b["labels"][name], a["labels"][name])
        depth, found = a["labels"]["depth"], b["labels"]["depth"]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found == 0, depth == 0)
        assert np.abs(found - depth).max() <= 1e-3
        assert np.abs(found - depth)[depth > 1e-3].max() <= 0.5e-3 + 1e-5
        normals, found = a["labels"]["normals"].astype(np.float64), b["labels"]["normals"].astype(np.float64)
        valid = normals.any(-1)
        np.testing.assert_array_equal(found.any(-1), valid)
        assert angles(normals[valid], found[valid]).max() < 0.002


def test_whole_millimetres_come_back_bit_for_bit(tmp_path):
    millimetres = np.arange(65536).reshape(256, 256).astype(np.uint16)
    metres = make_task("depth").label.from_file(millimetres, {}, "x.png")

    class One(Random):
        tasks = (make_task("depth"),)

        def __getitem__(self, index):
            return {"id": "0", "image": np.zeros((256, 256, 3), np.uint8), "labels": {"depth": metres}}

    np.testing.assert_array_equal(packed(tmp_path / "p", One(1))[0]["labels"]["depth"], metres)


def test_the_number_of_processes_changes_no_byte(tmp_path):
    packed(tmp_path / "one", num_proc=1)
    packed(tmp_path / "two", num_proc=2)
    for name in ("samples.bin", "index.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


class Counting(Random):
    """Remembers which samples were read."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


def test_an_interrupted_build_is_not_taken_for_complete(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        packed(tmp_path / "p", Random(fail_at=3))
    assert not (tmp_path / "p").exists()
    with pytest.raises(DataIntegrityError, match="no complete packed dataset"):
        PackedDataset(tmp_path / "p", TASKS)


def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path):
    packed(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        packed(tmp_path / "p", Random(fail_at=3))
    rest = Counting()
    packed(tmp_path / "p", rest)
    assert rest.read == [3, 4]
    for name in ("samples.bin", "index.json"):
        assert (tmp_path / "p" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("file", "spoil", "read_again"),
    [
        ("journal.jsonl", lambda data: data[:-7], [2, 3, 4]),
        ("samples.bin", lambda data: data[:-1], [2, 3, 4]),
        ("samples.bin", lambda data: data + b"half a record", [3, 4]),
        ("samples.bin", lambda data: bytes([data[0] ^ 1]) + data[1:], [0, 1, 2, 3, 4]),
        ("journal.jsonl", lambda data: data.replace(b"random", b"others"), [0, 1, 2, 3, 4]),
    ],
)
def test_a_build_that_was_cut_off_anywhere_keeps_what_its_checksums_confirm(tmp_path, file, spoil, read_again):
    packed(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        packed(tmp_path / "p", Random(fail_at=3))
    path = tmp_path / ".p.building" / file
    path.write_bytes(spoil(path.read_bytes()))
    rest = Counting()
    packed(tmp_path / "p", rest)
    assert rest.read == read_again
    assert (tmp_path / "p" / "samples.bin").read_bytes() == (tmp_path / "whole" / "samples.bin").read_bytes()


def test_a_killed_build_is_continued(tmp_path):
    class Killed(Random):
        def __getitem__(self, index):
            return super().__getitem__(index) if index < 3 else os._exit(9)

    builder = multiprocessing.get_context("fork").Process(target=packed, args=(tmp_path / "p", Killed()))
    builder.start()
    builder.join(30)
    assert builder.exitcode == 9
    assert not (tmp_path / "p").exists()
    rest = Counting()
    assert len(packed(tmp_path / "p", rest)) == 5
    assert rest.read == [3, 4]


def test_a_killed_reading_process_is_reported(tmp_path):
    class Crashes(Random):
        def __getitem__(self, index):
            return super().__getitem__(index) if index < 3 else os._exit(9)

    with pytest.raises(KdamError, match=r"reading process ended.*num_proc 1"):
        packed(tmp_path / "p", Crashes(), num_proc=2)


def test_two_builders_of_one_folder_read_every_sample_once(tmp_path):
    rest, first = Counting(), Counting()
    threads = [threading.Thread(target=packed, args=(tmp_path / "p", source)) for source in (rest, first)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(rest.read + first.read) == [0, 1, 2, 3, 4]


def test_a_truncated_file_is_refused(tmp_path):
    packed(tmp_path / "p")
    data = (tmp_path / "p" / "samples.bin").read_bytes()
    (tmp_path / "p" / "samples.bin").write_bytes(data[:-1])
    with pytest.raises(DataIntegrityError, match=f"{len(data) - 1} bytes.*{len(data)} bytes.*Remove the folder"):
        PackedDataset(tmp_path / "p", TASKS)


def test_a_bad_sample_stops_the_build(tmp_path):
    class Bad(Random):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            sample["labels"]["edge"][0, 0] = 9 if index == 2 else 0
            return sample

    for num_proc in (1, 2):
        with pytest.raises(DataIntegrityError, match=r"0002.*edge.*9"):
            packed(tmp_path / "p", Bad(), num_proc=num_proc)
    assert not (tmp_path / "p").exists()


def test_with_a_report_every_bad_sample_is_found_and_the_good_ones_are_kept(tmp_path):
    class Bad(Counting):
        wrong = (1, 3)

        def __getitem__(self, index):
            sample = super().__getitem__(index)
            sample["labels"]["edge"][0, 0] = 9 if index in self.wrong else 0
            return sample

    data = Bad()
    report = SplitReport.of(data)
    with pytest.raises(DataIntegrityError, match=r"2 of 5 samples are not usable"):
        packed(tmp_path / "p", data, report=report)
    assert [text.split("'")[1] for text in report.problems] == ["0001", "0003"]
    assert sum(report.sizes.values()) == 3
    data.wrong, data.read = (), []
    report = SplitReport.of(data)
    packed(tmp_path / "p", data, report=report)
    assert data.read == [1, 3]
    assert not report.problems
    again = SplitReport.of(data)
    packed(tmp_path / "p", data, report=again)  # from the index alone
    assert again == report == inspect_split(data, progress=False)


def test_depth_that_does_not_fit_is_refused(tmp_path):
    class Far(Random):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            sample["labels"]["depth"][0, 0] = 80
            return sample

    with pytest.raises(DataIntegrityError, match=r"0000.*depth.*80\.0 m.*65\.535"):
        packed(tmp_path / "p", Far())


def test_the_same_dataset_is_reused_and_another_is_never_overwritten(tmp_path):
    packed(tmp_path / "p", options={"height": 20})
    before = (tmp_path / "p" / "index.json").stat().st_mtime_ns
    packed(tmp_path / "p", Random(fail_at=0), options={"height": 20})  # nothing is read
    assert (tmp_path / "p" / "index.json").stat().st_mtime_ns == before
    with pytest.raises(KdamValueError, match=r"p: packed from another dataset: length is 5, now 4.*Remove that folder"):
        packed(tmp_path / "p", Random(4), options={"height": 20})
    with pytest.raises(KdamValueError, match=r"options is \{'height': 20\}, now \{'height': 30\}"):
        packed(tmp_path / "p", options={"height": 30})


def test_a_folder_with_other_contents_is_left_alone(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "thesis.tex").write_text("mine")
    with pytest.raises(KdamValueError, match="no packed dataset"):
        packed(tmp_path / "p")
    assert (tmp_path / "p" / "thesis.tex").read_text() == "mine"


@pytest.mark.fault(31)
def test_an_empty_dataset_is_refused(tmp_path):
    with pytest.raises(KdamValueError, match="empty"):
        packed(tmp_path / "p", Random(0))


def test_tasks_can_be_a_subset_but_not_others(tmp_path):
    packed(tmp_path / "p")
    assert set(PackedDataset(tmp_path / "p", TASKS[1:2])[1]["labels"]) == {"depth"}
    with pytest.raises(KdamValueError, match="saliency"):
        PackedDataset(tmp_path / "p", (make_task("saliency"),))
    with pytest.raises(KdamValueError, match=r"'x', 'b', 'c'.*'a', 'b', 'c'"):
        PackedDataset(tmp_path / "p", (make_task("semseg", ["x", "b", "c"]),))


def test_another_version_is_refused(tmp_path):
    packed(tmp_path / "p")
    index = json.loads((tmp_path / "p" / "index.json").read_text())
    (tmp_path / "p" / "index.json").write_text(json.dumps(index | {"format": 0}))
    with pytest.raises(DataIntegrityError, match="format 0"):
        PackedDataset(tmp_path / "p", TASKS)


def _edge_sum(data, index):
    return int(data[index]["labels"]["edge"].sum())


def test_it_reads_the_same_in_another_process(tmp_path):
    data = packed(tmp_path / "p")
    data[0]  # opened here
    assert len(pickle.dumps(data)) < 10_000
    with ProcessPoolExecutor(1) as pool:
        assert pool.submit(_edge_sum, data, 1).result() == _edge_sum(data, 1)


def test_what_a_user_should_know_of_the_labels_survives_packing(tmp_path):
    trees.write_tree("pascal", tmp_path / "data")
    source = open_dataset("pascal_context", "val", tmp_path / "data")
    packed = pack(source, tmp_path / "packed")
    assert packed.notes == PackedDataset(tmp_path / "packed").notes == source.notes
    assert any("distilled" in note for note in packed.notes)


# ---- what a cache depends on ----


@pytest.mark.parametrize(("now", "says"), [({"seed": 1}, "seed 0.*seed 1"), ({"height": 8}, "6x8 pixels.*8x8 pixels")])
def test_rooms_of_another_seed_or_size_are_another_dataset(tmp_path, now, says):
    first = {"num_images": 1, "height": 6, "width": 8}
    packed(tmp_path / "p", SyntheticRooms(**first))
    packed(tmp_path / "p", SyntheticRooms(**first))
    with pytest.raises(KdamValueError, match=rf"packed from another dataset: options is .*{says}.*Remove that folder"):
        packed(tmp_path / "p", SyntheticRooms(**first | now))


def edited(path):
    """Values change, name and size do not."""
    size, before = path.stat().st_size, path.stat().st_mtime_ns
    np.save(path, np.load(path) + 1)
    os.utime(path, ns=(before, before + 1))
    assert path.stat().st_size == size


@pytest.fixture
def files(tmp_path):
    """Opens three samples of files, and where those are."""
    ids = [scene.id for scene in trees.write_tree("B", tmp_path / "data", 3, 1)["train"]]
    return ids, lambda folder="data": open_dataset("nyud_v2", "train", tmp_path / folder)


def test_labels_made_again_in_the_same_size_are_noticed(tmp_path, files):
    ids, source = files
    packed(tmp_path / "out" / "nyud_v2-train", source())
    edited(tmp_path / f"data/depth/{ids[1]}.npy")
    with pytest.raises(
        KdamValueError, match=rf"files of 1 of 3 samples, first '{ids[1]}', have changed.*Remove that folder"
    ):
        packed(tmp_path / "out" / "nyud_v2-train", source())


def test_an_interrupted_build_reads_labels_again_that_kept_their_size(tmp_path, files):
    ids, source = files
    bad = tmp_path / f"data/depth/{ids[2]}.npy"
    good = bad.read_bytes()
    trees.truncate(bad)
    with pytest.raises(DataIntegrityError):
        packed(tmp_path / "p", source())
    bad.write_bytes(good)
    edited(tmp_path / f"data/depth/{ids[0]}.npy")
    data, now = packed(tmp_path / "p", source()), source()
    for k in range(3):
        np.testing.assert_allclose(data[k]["labels"]["depth"], now[k]["labels"]["depth"], atol=1e-3)


def test_a_copied_folder_uses_its_cache_and_without_its_times_is_told_how(tmp_path, files):
    """`rsync -a` and `tar` keep the times of files, `cp -r` and `scp -r` do not."""
    ids, source = files
    options = {"data_dir": str(tmp_path / "data")}
    target = tmp_path / "out" / "nyud_v2-train"
    before = packed(target, source(), options=options)
    shutil.copytree(tmp_path / "data", tmp_path / "kept")
    packed(target, source("kept"), options={"data_dir": str(tmp_path / "kept")})
    shutil.copytree(tmp_path / "data", tmp_path / "lost", copy_function=shutil.copyfile)
    with pytest.raises(
        KdamValueError, match=rf"3 of 3 samples.*only copied, use what is packed: --data_dir {target.parent}"
    ):
        packed(target, source("lost"), options={"data_dir": str(tmp_path / "lost")})
    advised = open_dataset("nyud_v2", "train", target.parent)
    assert advised.ids == before.ids == tuple(ids)


@pytest.mark.parametrize("killed", ["rename", "unlink"])
def test_a_kill_between_the_last_two_steps_costs_nothing(tmp_path, killed, monkeypatch):
    def dies(self, *arguments, **options):
        raise KeyboardInterrupt

    packed(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Path, killed, dies)
        with pytest.raises(KeyboardInterrupt):
            packed(tmp_path / "p")
    rest = Counting()
    data = packed(tmp_path / "p", rest)
    assert rest.read == []
    assert [data[k]["id"] for k in range(5)] == [f"{k:04}" for k in range(5)]
    assert (tmp_path / "p" / "samples.bin").read_bytes() == (tmp_path / "whole" / "samples.bin").read_bytes()


# ---- where a packed split is looked for ----


def test_rooms_are_rendered_and_never_taken_from_a_folder(tmp_path):
    packed(tmp_path / "random-train")
    with pytest.raises(KdamValueError, match="synthetic_rooms is rendered, not read"):
        open_dataset("synthetic_rooms", "train", tmp_path)
    assert open_dataset("folder", "train", tmp_path).name == "random"
    with pytest.raises(DataIntegrityError, match="nyud_v2"):
        open_dataset("nyud_v2", "train", tmp_path)
