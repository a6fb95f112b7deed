"""The commands around a replayed teacher, typed as a user types them, killed as a machine kills them."""

import json
import signal
import subprocess
import sys
import time

import pytest
from command_kit import ROOMS, ROOT, SMALL, launch, run

from dataset_loaders.synthetic_rooms import SyntheticRooms
from kdam_hf import KdamTeacher
from kdam_hf.errors import CheckpointError
from kdam_hf.presets import make_config
from kdam_hf.training import TeacherCache


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher")
    KdamTeacher(make_config("teacher", "tiny-resnet", SyntheticRooms("train").tasks)).save_pretrained(out)
    return out


def content(folder):
    return (folder / "records.bin").read_bytes()


def test_distillation_makes_a_cache_on_first_use_that_other_runs_replay_or_are_refused(teacher, tmp_path):
    replay = ["--teacher", teacher, "--teacher_cache", tmp_path / "cache", "--teacher_views", "2"]
    student = ["--dataloader_num_workers", "1", "--output_dir", tmp_path / "student"]
    made = run("distill.py", *SMALL, *ROOMS, *replay, *student)
    assert "2 views of 8 images" in made.stdout
    meta = json.loads((tmp_path / "student" / "results.json").read_text())["meta"]
    assert meta["recipe"]["teacher_views"] == 2
    assert meta["teacher_sha256"][0]
    before = content(tmp_path / "cache")
    again = run("cache_teacher.py", *SMALL, *ROOMS, *replay)
    assert "complete, 2 views of 8 images" in again.stdout
    assert "to write" not in again.stdout
    assert content(tmp_path / "cache") == before
    other = run("cache_teacher.py", *SMALL, *ROOMS, *replay, "--seed", "1", check=False)
    assert other.returncode == 2
    assert "augmentation.seed 42 -> 1" in other.stderr


@pytest.mark.reliability
def test_a_killed_cache_is_completed_by_two_processes_which_make_what_is_left_once(teacher, tmp_path):
    def options(folder):
        replay = ["--teacher", teacher, "--teacher_cache", folder, "--teacher_views", "3", "--teacher_batch_size", "1"]
        return [*SMALL, *ROOMS, "--rooms_train", "60", *replay]

    run("cache_teacher.py", *options(tmp_path / "whole"))
    folder = tmp_path / "cache"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "cache_teacher.py"), *map(str, options(folder))],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not (folder.exists() and written(folder) > 20):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 20 < written(folder) < 180
    assert not TeacherCache(folder).complete
    launch("cache_teacher.py", *options(folder), processes=2)
    assert TeacherCache(folder).complete
    assert content(folder) == content(tmp_path / "whole")


def written(folder):
    """Records that have a checksum."""
    try:
        cache = TeacherCache(folder)
    except CheckpointError:
        return 0
    return cache.views * cache.images - cache.absent()
