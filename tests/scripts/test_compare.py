"""Comparisons: finished runs are known by settings, teacher and score; seeds are paired."""

import json
from itertools import accumulate
from math import isnan, nan
from types import SimpleNamespace

import numpy as np
import pytest
from command_kit import load, run
from conftest_kit import ROOMS, SMALL
from PIL import Image

from kdam_hf.commands.distill import GROUPS
from kdam_hf.errors import CheckpointError, KdamValueError
from kdam_hf.io import as_scores, to_json
from kdam_hf.training import parse_recipe

compare = load("compare.py")


def test_a_comparison_leaves_models_table_sheet_and_results_and_is_reused(monkeypatch, tmp_path):
    def train_here(command, **_):
        name, *words = command[command.index("kdam_hf") + 1 :]
        return run(f"{name}.py", *words)

    monkeypatch.setattr("subprocess.run", train_here)
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text("dataset: synthetic_rooms\n")
    arguments = ["--teacher_config", recipe, "--student_config", recipe]
    arguments += ["--methods", "none", "cs:beta=0.1,kd_weight=semseg=0"]
    arguments += ["--seeds", "0", "1", "--balance", "1", "--output_dir", out, *SMALL, "--max_steps", "1", *ROOMS]
    arguments += ["--tasks", "semseg", "depth", "--logging_steps", "1"]
    run("compare.py", *arguments)
    results = json.loads((out / "results.json").read_text())
    assert list(results) == ["teacher", "none", "cs"]
    cs, none = results["cs"], results["none"]
    mean, low, high = cs["difference_to"]["none"]["depth/rmse"]
    assert mean == pytest.approx(cs["depth/rmse"] - none["depth/rmse"])
    assert cs["gain_over_none"] == cs["difference_to"]["none"]["gain"][0]
    assert low < mean < high
    assert cs["meta"]["seed"] == [0, 1]
    balance = json.loads((out / "cs-seed1" / "balance.json").read_text())
    assert {name: len(ratios) for name, ratios in balance.items()} == {"kd_inter_task": 1, "kd_intra_task_depth": 1}
    assert cs["meta"]["distillation"]["beta"] == 0.1
    assert Image.open(out / "contact_sheet.png").width > 5 * 56
    assert (out / "curves.png").exists()
    text = (out / "results.md").read_text()
    assert all(word in text for word in ("SYNTHETIC", "semseg/miou ↑", "depth/rmse ↓", "95 %"))
    assert [text.count(f"\n| {row} |") for row in ("none", "cs", "cs - none")] == [1, 1, 1]
    moved = tmp_path / "moved"
    out.rename(moved)  # as whoever gets the folder has it
    arguments[arguments.index(out)] = moved
    assert run("compare.py", *arguments).stdout.count("reused") == 5
    for name, key, place in (
        ("cs-seed0", "model", "cs-seed0"),
        ("cs-seed1", "teacher", "teacher"),
        ("teacher", "model", "teacher"),
    ):
        said = json.loads((moved / name / "results.json").read_text())["meta"][key]
        assert said in (str(moved / place), [str(moved / place)])
    out = moved
    other = run("compare.py", *arguments, "--max_steps", "2", check=False)
    assert other.returncode == 2
    assert "max_steps 1 -> 2" in other.stderr
    (out / "teacher" / "model.safetensors").write_bytes(b"another")
    other = run("compare.py", *arguments, check=False)
    assert "teacher_sha256" in other.stderr


def test_only_a_run_that_says_the_same_of_training_and_score_is_reused(tmp_path):
    recipe, path = tmp_path / "recipe.yaml", tmp_path / "none" / "results.json"
    recipe.write_text("dataset: nyud_v2\n")
    settings = parse_recipe(GROUPS, ["--config", str(recipe), "--output_dir", str(path.parent)])[-1]
    meta = {"recipe": settings, "protocol": "ours", "split": "val", "distillation": {"inter_temperature": 1.0}}
    path.parent.mkdir()
    path.write_text(json.dumps({"meta": meta}))
    assert compare.train("distill", str(recipe), path.parent, [])["meta"] == meta | {"model": str(path.parent)}
    others = {"atrc -> ours": {"protocol": "atrc"}, "train -> val": {"split": "train"}, "dataset": {"recipe": {}}}
    others |= {"few.txt -> None": {"ids": "few.txt"}, "does not describe": {"recipe": None}}
    others |= {"inter_temperature 4.0 -> 1.0": {"distillation": {"inter_temperature": 4.0}}}  # another default
    others |= {  # which a fingerprint would have as what they came to
        f"{key} {value} -> ": {"recipe": settings | {key: value}}
        for key, value in {"precision": "fp32", "total_train_batch_size": 4, "num_train_epochs": 3.0}.items()
    }
    for named, changed in others.items():
        path.write_text(json.dumps({"meta": meta | changed}))
        with pytest.raises(CheckpointError, match=named):
            compare.train("distill", str(recipe), path.parent, [])
    path.write_text('{"meta": null}')
    with pytest.raises(CheckpointError, match="does not describe a run"):
        compare.train("distill", str(recipe), path.parent, [])


def test_a_label_says_what_tells_a_method_from_the_others_of_its_name():
    words = "none kl:beta=2,temperature=1 cs:beta=1,kd_weight=edge=0 cs:kd_weight=edge=0"
    found = compare.parse_methods(words.split())
    assert list(found) == ["none", "kl", "cs:beta=1", "cs"]
    text = "cs:beta=1,kd_weight=edge=0"
    assert found["cs:beta=1"] == (text, "cs", [("beta", "1"), ("kd_weight", "edge=0")])


def test_a_method_may_have_a_weight_for_each_of_several_tasks(tmp_path):
    (tmp_path / "recipe.yaml").write_text("dataset: synthetic_rooms\n")
    ((_, method, own),) = compare.parse_methods(["cs:kd_weight=edge=0,beta=2,kd_weight=depth=0.5"]).values()
    words = ["--config", str(tmp_path / "recipe.yaml"), *compare.words_of(method, own)]
    distillation = parse_recipe(GROUPS, words)[2]
    assert (distillation.kd_weight, distillation.beta) == (["edge=0", "depth=0.5"], 2)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("--methods cs cs", "cs"),
        ("--methods mean", "mean"),
        ("--methods cs:beta", "cs:beta"),
        ("--methods cs:beta=1,intra=false cs:intra=false,beta=1", "intra"),
        ("--methods cs:seed=5", "seed"),
        ("--methods none cs --seeds 0 0", r"seeds \[0, 0\]"),
        ("--methods cs --balance 0", "balance 0"),
        ("--methods none cs:betta=1", "betta"),  # the option of the last one
        ("--methods none cs:beta=1,beta=2", "2"),
        ("--show 7", "0 to 2"),
        ("--show -1", "0 to 2"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_trained(monkeypatch, tmp_path, wrong, said):
    monkeypatch.setattr(compare, "train", lambda *_: pytest.fail("trained"))
    (tmp_path / "recipe.yaml").write_text("dataset: synthetic_rooms\n")
    words = f"--teacher_config {tmp_path}/recipe.yaml --student_config {tmp_path}/recipe.yaml {wrong}"
    with pytest.raises(KdamValueError, match=said):
        compare.main([*words.split(), *ROOMS, "--output_dir", str(tmp_path / "out")])


@pytest.mark.parametrize(("first", "then"), [([0], [0, 1]), ([0, 1], [0]), ([1], [0, 1])])
def test_a_student_keeps_its_folder_when_the_seeds_change(tmp_path, first, then):
    """So that a finished one is never trained again, and two seeds never meet."""
    made = {}
    for seeds in (first, then):
        folders = {seed: compare.folder_of(tmp_path / "cs", seed, seeds) for seed in seeds}
        for seed, folder in folders.items():
            assert made.setdefault(seed, folder) == folder
            folder.mkdir(exist_ok=True)
    assert len({*made.values()}) == 2


def test_a_score_that_is_undefined_stays_undefined():
    runs = [{"a": 1.0, "b": nan, "meta": {"seed": seed}} for seed in (0, 1)]
    keys = {"a": True, "b": True}
    found = {label: compare.summarise(runs, runs, keys) for label in ("none", "cs")}
    compare.add_differences(found, keys)
    assert (found["cs"]["a_std"], found["cs"]["difference_to"]["none"]["a"]) == (0, [0, 0, 0])
    assert isnan(found["cs"]["b_std"])
    assert all(map(isnan, found["cs"]["difference_to"]["none"]["b"]))
    again = as_scores(json.loads(to_json(runs[0]), parse_constant=pytest.fail))
    assert (again["a"], isnan(again["b"]), again["meta"]) == (1, True, {"seed": 0})


def test_every_student_is_held_against_none_and_the_last_one_against_the_others():
    keys = {"miou": True, "rmse": False}
    scores = {"none": [(2, 4), (4, 4)], "kl": [(3, 4), (4, 4)], "cwd": [(4, 4), (4, 4)], "cs": [(4, 2), (8, 2)]}
    runs = {
        label: [{"miou": a, "rmse": b, "meta": {"seed": seed}} for seed, (a, b) in enumerate(of)]
        for label, of in scores.items()
    }
    found = {"teacher": {"miou": 9}} | {label: compare.summarise(of, runs["none"], keys) for label, of in runs.items()}
    compare.add_differences(found, keys)
    differences = {(a, b): by for a, of in found.items() for b, by in of.get("difference_to", {}).items()}
    assert [*differences] == [("kl", "none"), ("cwd", "none"), ("cs", "none"), ("cs", "kl"), ("cs", "cwd")]
    assert found["cs"]["gains"] == [75, 75]  # (100 + 50) / 2 with both seeds
    assert found["cwd"]["gains"] == [50, 0]
    mean, low, high = differences["cs", "cwd"]["gain"]
    assert (mean, (low + high) / 2) == (50, pytest.approx(50))
    assert high - low == pytest.approx(2 * 12.7062 * 25, rel=1e-4)  # t(0.975, 1) times the deviation over sqrt(2)
    assert differences["cs", "cwd"]["rmse"] == [-2, -2, -2]


def test_an_interval_covers_the_mean_of_paired_differences():
    mean, low, high = compare.interval([1.0, 2.0, 3.0])
    assert (mean, mean - low) == (2, pytest.approx(4.3027 / 3**0.5, rel=1e-4))  # t(0.975, 2) = 4.3027
    assert high - mean == pytest.approx(mean - low)


def test_a_gain_is_signed_by_what_is_better_and_leaves_out_what_none_has_not_learned():
    none = [{"miou": 2.0, "rmse": 2.0, "f": 0.0, "meta": {}}]
    found = compare.summarise(
        [{"miou": 3.0, "rmse": 1.0, "f": 9.0, "meta": {}}], none, {"miou": True, "rmse": False, "f": True}
    )
    assert found["gain_over_none"] == 50
    assert compare.summarise([{"f": 9.0, "meta": {}}], none, {"f": True})["gain_over_none"] == 0
    teacher = compare.summarise([{"miou": 3.0, "meta": {}}], none, {"miou": True, "rmse": False})
    assert teacher["gain_over_none"] == 50  # of the task that it has


def test_latency_is_the_usual_time_of_the_student_over_that_of_the_teacher(monkeypatch):
    clock = accumulate([0, 9, 1] + [0, 1, 4] * 9)  # the first round is slow
    monkeypatch.setattr(compare, "time", SimpleNamespace(perf_counter=clock.__next__))
    image = {"image": np.zeros((8, 8, 3))}
    assert compare.latency_ratio(lambda x: None, lambda x: None, [image]) == 0.25


def test_curves_are_of_the_losses_of_training_alone(tmp_path):
    (tmp_path / "checkpoint-2").mkdir()
    history = [{"step": 2, "loss": 3.0, "loss_depth": 1.0}, {"step": 2, "eval_depth/rmse": 4.0}]
    (tmp_path / "checkpoint-2" / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    assert compare.logged_losses(tmp_path) == {2: {"loss_depth": 1.0}}


def test_students_of_one_method_have_a_folder_each(monkeypatch, tmp_path):
    folders = []
    monkeypatch.setattr(compare, "train", lambda *words: folders.append(words[2].name) or {})
    (tmp_path / "recipe.yaml").write_text("dataset: synthetic_rooms\n")
    words = (
        f"--teacher_config {tmp_path}/recipe.yaml --student_config {tmp_path}/recipe.yaml --methods cs:beta=1 cs:beta=2"
    )
    with pytest.raises(KeyError, match="meta"):  # nothing was trained
        compare.main([*words.split(), *ROOMS, "--output_dir", str(tmp_path / "out")])
    assert folders == ["teacher", "cs-beta-1", "cs-beta-2"]
