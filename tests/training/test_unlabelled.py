"""Photos without labels, and photos beside labels, train with the guarantees of any other data."""

import importlib
import json

import families_kit
import numpy as np
import pytest
import torch
from conftest_kit import SMALL, Kit, write_photos
from PIL import Image
from safetensors.torch import load_file
from trees import write_tree

from kdam_hf.commands.cache_teacher import main as cache_teacher
from kdam_hf.commands.distill import main as distill
from kdam_hf.errors import CheckpointError, KdamValueError
from kdam_hf.training import DataArguments, DistillationArguments
from kdam_hf.training.runs import open_splits

EXACT = "--max_steps 2 --save_steps 1 --warmup_steps 0 --precision fp32 --teacher_precision fp32"
SMALL = [*SMALL, *EXACT.split(), "--backbone_weights", "none"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Photos, labels, and two teachers of different families."""
    root = tmp_path_factory.mktemp("unlabelled")
    write_photos(root / "photos", *(f"{k}.png" for k in range(9)))
    for name in ("segformer", "depth-anything-metric", "depth-anything"):
        families_kit.save(name, root / name)
    write_tree("folder", root / "own", 6, 3, 40, 56)
    return root


def words(root, *options, photos=True, teachers=("segformer", "depth-anything-metric"), named=()):
    source = ["--images", str(root / "photos")] if photos else []
    return [*source, "--teacher", *(str(root / one) for one in teachers), *named, *SMALL, *options]


def run(root, name, *options, **given):
    output = root / name
    distill(words(root, "--output_dir", str(output), *options, **given))
    return load_file(output / "model.safetensors"), json.loads((output / "results.json").read_text())


@pytest.fixture(scope="module")
def plain(root):
    return run(root, "plain", "--inter", "per_task")


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


def test_photos_and_teachers_are_enough_and_what_is_scored_and_published_is_agreement(root, plain):
    _, results = plain
    scores = {key for key in results if key != "meta"}
    assert {"agreement/semseg/miou", "agreement/depth/rmse"} <= scores
    assert all(key.startswith("agreement/") and np.isfinite(results[key]) for key in scores)
    meta = results["meta"]
    assert [one["tasks"] for one in meta["teachers"]] == [["semseg"], ["depth"]]
    assert meta["teachers"][0]["head"] == "SegformerForSemanticSegmentation"
    assert len(meta["teacher_sha256"]) == 2
    assert meta["train_images"] + meta["images"] == 9
    state = json.loads((root / "plain" / "checkpoint-1" / "trainer_state.json").read_text())
    # heads without labels start where the teacher is: of random weights, it says 10 m everywhere, an untrained head 1
    assert state["log_history"][0]["kd_inter_task_depth"] < 0.5
    publish = importlib.import_module("kdam_hf.commands.publish").main
    publish(["--model", str(root / "plain"), "--repo_id", "org/student", "--dry_run", str(root / "published")])
    assert "agreement/semseg/miou" in (root / "published" / "README.md").read_text()


def test_a_stored_teacher_teaches_what_an_online_one_does_and_a_complete_cache_is_checked_by_its_command(root, capsys):
    cached = ["--teacher_views", "2", "--teacher_cache", str(root / "cache"), "--teacher_cache_dtype", "fp32"]
    weights, results = run(root, "replayed", *cached, "--teacher_batch_size", "1")
    assert results["meta"]["recipe"]["teacher_views"] == 2
    online, _ = run(root, "online", *cached[:2], "--teacher_batch_size", "1")
    assert same(weights, online)
    before = (root / "cache" / "records.bin").read_bytes()
    assert "2 views of 8 images" in capsys.readouterr().out
    cache_teacher(words(root, *cached))
    assert "complete, 2 views of 8 images" in (printed := capsys.readouterr().out)
    assert "to write" not in printed
    assert (root / "cache" / "records.bin").read_bytes() == before
    with pytest.raises(CheckpointError, match=r"augmentation\.seed 42 -> 1"):
        cache_teacher(words(root, *cached, "--seed", "1"))
    manifest = json.loads((root / "cache" / "manifest.json").read_text())
    assert manifest["tasks"]["semseg"]["channels"] == 4
    (root / "map.yaml").write_text("flat: [wall, ceiling]\nfloor: [floor]\n")
    with pytest.raises(Exception, match="class_map"):
        run(root, "other", *cached, "--class_map", str(root / "map.yaml"))


def test_a_cache_of_the_same_models_in_other_roles_is_refused(root, tmp_path):
    one, two = (Kit(tmp_path).saved(f"{seed}", "teacher", seed=seed) for seed in (1, 2))
    cached = ["--images", str(root / "photos"), "--teacher_views", "1", "--teacher_cache", str(tmp_path / "cache")]
    only = {"photos": False, "teachers": ()}
    run(tmp_path, "a", *cached, **only, named=[f"depth={one}", f"edge={two}"])
    with pytest.raises(CheckpointError, match=r"teaching\.taught_by\.depth"):
        run(tmp_path, "b", *cached, **only, named=[f"depth={two}", f"edge={one}"])


def test_a_class_map_makes_the_students_classes(root):
    (root / "map.yaml").write_text("flat: [wall, ceiling]\nfloor: [floor]\n")
    weights, results = run(root, "mapped", "--class_map", str(root / "map.yaml"))
    expected = {"flat": ["wall", "ceiling"], "floor": ["floor"], "ignore": ["chair"]}
    assert results["meta"]["class_map"]["semseg"] == expected
    config = json.loads((root / "mapped" / "config.json").read_text())
    assert config["tasks"][0]["class_names"] == ["flat", "floor"]
    assert all(value.isfinite().all() for value in weights.values())


def test_labels_and_photos_together_are_scored_by_both(root):
    mixed = ["--dataset", "folder", "--data_dir", str(root / "own"), "--unlabeled", str(root / "photos")]
    _, results = run(root, "mixed", *mixed, photos=False, teachers=["depth-anything-metric"])
    assert np.isfinite(results["depth/rmse"])
    assert np.isfinite(results["agreement/depth/rmse"])
    assert {"normals/mean_angle", "edge/odsf"} <= results.keys()  # from labels only
    assert "agreement/normals/mean_angle" not in results
    assert results["meta"]["held_out_photos"] == 1


def test_photos_beside_labels_are_brought_to_the_size_of_those(root, tmp_path):
    (tmp_path / "large").mkdir()
    for k in range(3):
        Image.new("RGB", (90, 120)).save(tmp_path / "large" / f"{k}.png")
    data = DataArguments(dataset="folder", data_dir=str(root / "own"), unlabeled=str(tmp_path / "large"))
    train, _, held_out, _ = open_splits(data, DistillationArguments([str(root / "depth-anything-metric")]))
    for photos in (train, held_out):
        image = photos[len(photos) - 1]["image"]
        assert image.shape == (53, 40, 3)
    assert train[0]["image"].shape == (40, 56, 3)


def test_a_task_asked_for_that_only_the_teacher_knows_is_learnt_from_it(root):
    tasks = ["--dataset", "folder", "--data_dir", str(root / "own"), "--tasks", "edge", "relative_depth"]
    _, results = run(root, "relative", *tasks, photos=False, teachers=["depth-anything"])
    assert {key.rpartition("/")[0] for key in results} == {"edge", "agreement/relative_depth", ""}
    assert all(np.isfinite(value) for key, value in results.items() if key.startswith("agreement/"))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--method", "none"], "teacher"),
        (["--data_dir", "x"], "unlabeled"),
        (["--tasks", "edge"], "edge"),
        (["--class_map", "nowhere.yaml"], "nowhere"),
        (["--task_options", "semseg.class_weights=balanced"], "class_weights"),
        (["--kd_weight", "dpth=0"], "'depth'"),
        (["--kd_weight", "depth=x"], "x"),
        (["--kd_weight", "depth"], "TASK=NUMBER"),
        (["--kd_weight", "depth.loss_weight=1"], "TASK=NUMBER"),
        (["--tasks", "semsg"], "'semseg'"),
    ],
)
def test_what_nobody_teaches_is_refused_before_training(root, options, word):
    with pytest.raises(KdamValueError, match=word):
        run(root, "refused", *options)
    assert not list((root / "refused").glob("checkpoint-*"))


def test_a_student_is_not_written_over_its_teacher(root, tmp_path):
    teacher = Kit(tmp_path).saved("teacher", "teacher")
    asked = ["--images", str(root / "photos"), "--teacher", teacher, *SMALL, "--output_dir", teacher]
    for more in ([], ["--resume_from_checkpoint", "last"]):
        with pytest.raises((CheckpointError, KdamValueError), match="teacher"):
            distill([*asked, *more])
    assert not (tmp_path / "teacher" / "results.json").exists()
