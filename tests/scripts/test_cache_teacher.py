"""The commands around a replayed teacher, as a user types them."""

import json

import pytest
from command_kit import ROOMS, SMALL, run

from dataset_loaders.synthetic_rooms import SyntheticRooms
from kdam_hf import KdamTeacher
from kdam_hf.presets import make_config


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
