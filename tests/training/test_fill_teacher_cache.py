"""A cache is refused where it does not belong, and survives kills, full disks and flipped bits."""

import errno
import json
import os
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest
from teacher_kit import VIEWS, content, fill, settings

from dataset_loaders import TransformedDataset
from kdam_hf.errors import CheckpointError, DataWorkerError, KdamValueError
from kdam_hf.training import TeacherCache, teacher_caching


def refused(kit, teacher, *words, **kwargs):
    with pytest.raises(CheckpointError) as caught:
        fill(kit, teacher, **kwargs)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_cache_of_something_else_is_refused_with_the_differences(kit, teacher, monkeypatch):
    fill(kit, teacher)
    kit.model("teacher", seed=2).save_pretrained(kit.root / "other")
    refused(kit, str(kit.root / "other"), "teacher is ['")
    refused(kit, teacher, "views is 2 there and 3 here", teacher_views=3)
    refused(kit, teacher, "dtype is fp16 there and uint8 here", teacher_cache_dtype="uint8")
    refused(kit, teacher, "precision is fp32 there and bf16 here", teacher_precision="bf16")
    refused(
        kit,
        teacher,
        "augmentation.hflip is True there and False here",
        "augmentation.seed is 0 there and 5 here",
        "data.first_crop",
        data=kit.train_data(hflip=False, seed=5),
    )
    refused(kit, teacher, "tasks.edge is {'kind'", "there and nothing here", tasks=kit.tasks[:-1])
    kit.rooms = type(kit.rooms)("train", 7, 40, 56)
    refused(kit, teacher, "images is 8 there and 7 here")
    assert fill(kit, teacher, data=self_of(kit, 8), teacher_precision="auto").complete


def self_of(kit, count):
    return TransformedDataset(type(kit.rooms)("train", count, 40, 56), kit.train_data().transform)


def test_a_folder_of_other_things_and_a_missing_teacher_are_refused(kit, teacher):
    (kit.root / "cache").mkdir()
    (kit.root / "cache" / "notes.txt").write_text("mine")
    refused(kit, teacher, "no teacher cache")
    refused(kit, "nowhere", "no model at 'nowhere'")
    assert (kit.root / "cache" / "notes.txt").read_text() == "mine"
    with pytest.raises(KdamValueError, match="teacher_cache needs teacher_views"):
        settings(kit, teacher, teacher_views=None)


def test_a_full_disk_is_found_before_anything_is_written(kit, teacher, monkeypatch):
    free = shutil.disk_usage(kit.root)._replace(free=1000)
    monkeypatch.setattr(teacher_caching.shutil, "disk_usage", lambda path: free)
    refused(kit, teacher, str(kit.root / "cache"), "needs", "0.00 MB are free")
    assert not (kit.root / "cache").exists()


def test_the_space_that_counts_is_that_of_the_folder_where_it_is_there_already(kit, teacher, monkeypatch):
    asked = []
    usage = shutil.disk_usage
    monkeypatch.setattr("shutil.disk_usage", lambda path: (asked.append(Path(path)), usage(path))[1])
    (kit.root / "cache").mkdir()
    fill(kit, teacher)
    assert asked == [kit.root / "cache"]


@pytest.mark.reliability
@pytest.mark.fault(29)
def test_a_worker_that_dies_while_the_cache_is_filled_names_its_sample(kit, teacher, monkeypatch):
    data = kit.train_data()
    name, read = data.dataset.ids[3], type(data).__getitem__

    def dying(self, key):
        if key[1] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, key)

    monkeypatch.setattr(type(data), "__getitem__", dying)
    with pytest.raises(DataWorkerError, match=rf"filling the teacher cache .*Reading: .*{name}"):
        fill(kit, teacher, args=kit.args(dataloader_num_workers=1))


def test_a_disk_that_fills_up_on_the_way_leaves_a_cache_to_go_on_with(kit, teacher, counted, monkeypatch):
    pack = TeacherCache.pack

    def full(self, keys, *args):
        if keys == [(1, 2)]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield from pack(self, keys, *args)

    with monkeypatch.context() as patched:
        patched.setattr(TeacherCache, "pack", full)
        refused(kit, teacher, str(kit.root / "cache"), "needs", "more", "No space left")
    counted.clear()
    assert fill(kit, teacher).complete
    assert counted == [(1, index) for index in range(2, 8)]


@pytest.fixture
def counted(monkeypatch):
    """Keys of the records that are made, in order."""
    made, pack = [], TeacherCache.pack
    monkeypatch.setattr(TeacherCache, "pack", lambda self, keys, *args: made.extend(keys) or pack(self, keys, *args))
    return made


def test_what_a_kill_left_is_completed_and_no_finished_record_is_made_again(kit, teacher, counted):
    whole = fill(kit, teacher)
    expected = content(whole)
    assert sorted(counted) == [(view, index) for view in range(VIEWS) for index in range(8)]
    # as a kill leaves it: unsealed, one record never begun, one half written, one with a flipped bit
    (whole.folder / "manifest.json").write_text(json.dumps(whole.manifest | {"complete": False}))
    size = whole.record_bytes
    with (whole.folder / "view-001.bin").open("r+b") as file:
        file.seek(3 * size)
        file.write(bytes(size))
        file.seek(5 * size + size // 2)
        file.write(bytes(size - size // 2))
        file.seek(6 * size)
        file.write(bytes([expected["view-001.bin"][6 * size] ^ 1]))
    counted.clear()
    again = fill(kit, teacher)
    assert counted == [(1, 3), (1, 5), (1, 6)]
    assert again.complete
    assert content(again) == expected


def test_a_complete_cache_is_used_without_loading_the_teacher(kit, teacher, counted, monkeypatch):
    fill(kit, teacher)
    counted.clear()
    monkeypatch.setattr(teacher_caching, "load_teacher", None)
    assert fill(kit, teacher).complete
    assert fill(kit, teacher, verify=True).complete
    assert counted == []


def test_a_damaged_record_is_named_and_made_again_on_request(kit, teacher, counted):
    cache = fill(kit, teacher)
    expected = content(cache)
    with (cache.folder / "view-000.bin").open("r+b") as file:
        file.seek(4 * cache.record_bytes + 7)
        file.write(bytes([expected["view-000.bin"][4 * cache.record_bytes + 7] ^ 16]))
    with pytest.raises(CheckpointError, match=r"view-000\.bin: the record of sample 4 is damaged"):
        TeacherCache(cache.folder).read(0, 4)
    counted.clear()
    assert content(fill(kit, teacher, verify=True)) == expected
    assert counted == [(0, 4)]


def test_a_truncated_file_is_refused(kit, teacher):
    cache = fill(kit, teacher)
    os.truncate(cache.folder / "view-001.bin", 100)
    refused(kit, teacher, "view-001.bin: 100 bytes")


def test_processes_share_the_work_and_make_no_record_twice(kit, teacher, counted, monkeypatch):
    """One after the other here; what each makes follows from its rank alone."""
    expected = content(fill(kit, teacher))
    shutil.rmtree(kit.root / "cache")
    counted.clear()
    args = kit.args()
    monkeypatch.setattr(type(args), "world_size", 3)
    monkeypatch.setattr(type(args), "process_index", property(lambda self: self.rank))
    monkeypatch.setattr(type(args), "main_process_first", lambda self, **kwargs: nullcontext())
    monkeypatch.setattr(TeacherCache, "absent", lambda self: 0)
    for args.rank in (0, 1, 2):
        cache = fill(kit, teacher, args=args, verify=True)
    assert sorted(counted) == [(view, index) for view in range(VIEWS) for index in range(8)]
    assert content(cache) == expected
