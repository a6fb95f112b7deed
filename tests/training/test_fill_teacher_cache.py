"""A cache is refused where it does not belong, and survives kills, full disks and flipped bits."""

import errno
import json
import os
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest
from teacher_kit import VIEWS, fill, settings

from dataset_loaders import TransformedDataset
from kdam_hf.errors import CheckpointError, DataWorkerError, KdamValueError
from kdam_hf.io import write_json
from kdam_hf.training import TeacherCache, teacher_cache

EVERY = [(view, index) for view in range(VIEWS) for index in range(8)]


def refused(kit, teacher, *words, **kwargs):
    with pytest.raises(CheckpointError) as caught:
        fill(kit, teacher, **kwargs)
    assert all(word in str(caught.value) for word in words), caught.value


def content(cache):
    return (cache.folder / "records.bin").read_bytes()


def damage(cache, view, index, begin, new):
    with (cache.folder / "records.bin").open("r+b") as file:
        file.seek((view * cache.images + index) * cache.dtype.itemsize + begin)
        file.write(new)


@pytest.fixture
def made(monkeypatch):
    """Keys of the records that are made, in order."""
    keys_made, pack = [], TeacherCache.pack
    monkeypatch.setattr(
        TeacherCache, "pack", lambda self, keys, *args: keys_made.extend(keys) or pack(self, keys, *args)
    )
    return keys_made


def test_a_cache_of_something_else_is_refused_with_the_differences(kit, teacher):
    fill(kit, teacher)
    refused(kit, kit.saved("other", "teacher", seed=2), "teacher ['")
    refused(kit, teacher, "views 2 -> 3", teacher_views=3)
    refused(kit, teacher, "dtype fp16 -> fp32", teacher_cache_dtype="fp32")
    refused(kit, teacher, "precision fp32 -> bf16", teacher_precision="bf16")
    differ = "augmentation.hflip True -> False", "augmentation.seed 0 -> 5", "data.first_crop"
    refused(kit, teacher, *differ, data=kit.train_data(hflip=False, seed=5))
    refused(kit, teacher, "tasks.edge.kind edge -> None", tasks=kit.tasks[:-1])
    refused(kit, teacher, "images 8 -> 7", data=kit.train_data(type(kit.rooms)("train", 7, 40, 56)))
    assert fill(kit, teacher, teacher_precision="auto").complete
    edited = json.loads(Path(teacher, "config.json").read_text())
    Path(teacher, "config.json").write_text(json.dumps(edited | {"image_mean": [0.5] * 3}))
    refused(kit, teacher, "teacher_settings")


def test_a_folder_of_other_things_and_a_missing_teacher_are_refused(kit, teacher):
    (kit.root / "cache").mkdir()
    (kit.root / "cache" / "notes.txt").write_text("mine")
    refused(kit, teacher, "no teacher cache")
    refused(kit, "nowhere", "no teacher at 'nowhere'")
    assert (kit.root / "cache" / "notes.txt").read_text() == "mine"
    with pytest.raises(KdamValueError, match="teacher_views"):
        settings(kit, teacher, teacher_views=None)


def test_the_size_is_announced_and_a_full_disk_is_found_before_anything_is_written(kit, teacher, monkeypatch, capsys):
    asked, usage = [], shutil.disk_usage(kit.root)
    monkeypatch.setattr("shutil.disk_usage", lambda path: asked.append(Path(path)) or usage._replace(free=1000))
    refused(kit, teacher, str(kit.root / "cache"), "0.00 MB are free")
    assert asked == [kit.root]
    assert not (kit.root / "cache").exists()
    monkeypatch.undo()
    capsys.readouterr()
    cache = fill(kit, teacher)
    assert len(content(cache)) == cache.dtype.itemsize * len(EVERY)
    assert f"2 views of 8 images, {cache.dtype.itemsize / 1e6:.2f} MB each" in capsys.readouterr().out


@pytest.mark.reliability
@pytest.mark.fault(29)
def test_a_worker_that_dies_while_the_cache_is_filled_names_its_sample(kit, teacher, monkeypatch):
    data, read = kit.train_data(), TransformedDataset.__getitem__

    def dying(self, key):
        if key[1] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, key)

    monkeypatch.setattr(TransformedDataset, "__getitem__", dying)
    with pytest.raises(DataWorkerError, match=f"Reading: .*{data.dataset.ids[3]}"):
        fill(kit, teacher, args=kit.args(dataloader_num_workers=1))


def test_a_disk_that_fills_up_on_the_way_leaves_a_cache_to_go_on_with(kit, teacher, made, monkeypatch):
    class Full:
        def tobytes(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    pack = TeacherCache.pack
    with monkeypatch.context() as patched:
        patched.setattr(TeacherCache, "pack", lambda c, keys, *a: [Full()] if keys == [(1, 2)] else pack(c, keys, *a))
        refused(kit, teacher, str(kit.root / "cache"), "No space left")
    made.clear()
    assert fill(kit, teacher).complete
    assert made == [(1, index) for index in range(2, 8)]


def test_what_a_kill_left_is_completed_and_no_finished_record_is_made_again(kit, teacher, made, monkeypatch):
    """One record never begun, one half written, one with a flipped bit. A complete cache needs no teacher."""
    cache = fill(kit, teacher)
    assert sorted(made) == EVERY
    expected, size = content(cache), cache.dtype.itemsize
    damage(cache, 1, 3, 0, bytes(size))
    damage(cache, 1, 5, size // 2, bytes(size - size // 2))
    damage(cache, 1, 6, 0, bytes([expected[(8 + 6) * size] ^ 1]))
    with pytest.raises(CheckpointError, match="sample 6 in view 1"):
        TeacherCache(cache.folder).read(1, 6)
    made.clear()
    write_json(cache.folder / "manifest.json", cache.manifest | {"complete": False})
    assert fill(kit, teacher).complete
    assert made == [(1, 3), (1, 5), (1, 6)]
    assert content(cache) == expected
    damage(cache, 0, 4, 7, bytes([expected[4 * size + 7] ^ 16]))
    with monkeypatch.context() as patched:
        patched.setattr(teacher_cache, "load_teacher", None)
        assert fill(kit, teacher).complete
    made.clear()
    assert content(fill(kit, teacher, verify=True)) == expected
    assert made == [(0, 4)]
    os.truncate(cache.folder / "records.bin", 100)
    refused(kit, teacher, "records.bin: 100 bytes")


def test_processes_share_the_work_and_make_no_record_twice(kit, teacher, made, monkeypatch):
    """One after the other here; what each makes follows from its rank alone."""
    expected = content(fill(kit, teacher))
    shutil.rmtree(kit.root / "cache")
    made.clear()
    args = kit.args()
    monkeypatch.setattr(type(args), "world_size", 3)
    monkeypatch.setattr(type(args), "process_index", property(lambda self: self.rank))
    monkeypatch.setattr(type(args), "main_process_first", lambda self, **kwargs: nullcontext())
    for args.rank in (0, 1, 2):
        cache = fill(kit, teacher, args=args, verify=True)
    assert sorted(made) == EVERY
    assert content(cache) == expected
