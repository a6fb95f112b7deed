"""The commands of the README, typed as a user types them."""

import json
import re
import runpy
import subprocess
import sys

import pytest
import trees
from command_kit import ROOT, SCRIPTS, run
from conftest_kit import ROOMS, SMALL
from spawn_kit import spawn

from kdam_hf import __main__ as kdam


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Own data on disk, with tasks missing for some images, as options."""
    root = tmp_path_factory.mktemp("own")
    trees.write_tree("folder", root)
    return ["--dataset", "folder", "--data_dir", root]


@pytest.fixture(scope="module")
def teacher(own, tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher")
    run("train.py", *SMALL, *own, "--output_dir", out)
    return out


def scores(path):
    found = json.loads(path.read_text())
    return {key: value for key, value in found.items() if key != "meta"}, found["meta"]


@pytest.mark.parametrize("name", kdam.COMMANDS)
def test_the_first_screen_of_a_command_and_its_script_is_short_and_names_keys_that_exist(name, capsys, monkeypatch):
    kdam.main([name, "--help"])
    screen, script = capsys.readouterr().out, f"{kdam.COMMANDS[name][0]}.py"
    assert len(screen.splitlines()) <= 40
    assert f"    kdam {name}" in screen
    if name not in ("recipes", "doctor"):
        every = run(script, "--help", "all").stdout.split("\noptions:")[1]
        named = set(re.findall(r"--\w+", screen)) - {"--help", "--num_processes"}
        assert named <= set(re.findall(r"--\w+", every))
        assert len(named) >= 3
    if name not in kdam.ALONE:
        monkeypatch.setattr("sys.argv", [script, "--help"])
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
        assert capsys.readouterr().out == screen
        assert name == "compare" or run(script, "--no_such_option", "3", check=False).returncode == 2


def test_help_imports_nothing_that_takes_seconds():
    source = "import kdam_cli, sys\nfor sys.argv in (['kdam'], ['kdam', 'distill', '--help']): kdam_cli.main()\n"
    source += "print(sorted({'torch', 'transformers', 'numpy', 'kdam_hf'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.endswith("\n[]\n"), done.stderr
    assert len(done.stdout.split("Distil frozen")[0].splitlines()) <= 40


def test_every_command_and_recipe_has_its_line(capsys):
    kdam.main([])
    assert set(kdam.COMMANDS) <= set(capsys.readouterr().out.split())
    kdam.main(["recipes"])
    lines = capsys.readouterr().out.splitlines()
    for path in (ROOT / "scripts" / "recipes").glob("*.yaml"):
        assert any(line.split()[:1] == [path.stem] and len(line.split()) > 4 for line in lines), path.stem


def test_tab_completes_commands_and_their_keys(capsys):
    kdam.main(["completion"])
    shell = capsys.readouterr().out + f'\nkdam() {{ {sys.executable} kdam_hf/__main__.py "$@"; }}\n'
    for words, expected in ((["kdam", "eval"], "evaluate"), (["kdam", "distill", "--teacher_v"], "--teacher_views")):
        asked = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _kdam; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", shell + asked], capture_output=True, text=True, cwd=ROOT)
        assert done.stdout.split() == [expected]


def test_a_count_of_processes_starts_a_launcher_of_the_same_command(monkeypatch):
    started = []
    monkeypatch.setattr("os.execv", lambda program, words: started.append(words))
    kdam.main(["distill", "--num_processes", "2", "--method", "none"])
    kdam.main(["cache-teacher", "--teacher", "x", "--num_processes=3"])
    expected = ["distill", "--method", "none"], ["cache-teacher", "--teacher", "x"]
    for words, count, rest in zip(started, "23", expected, strict=True):
        assert words[words.index("--num_processes") + 1] == count
        assert words[words.index("-m", 3) :] == ["-m", "kdam_hf", *rest]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["distil"], "distill"),
        (["train", "--num_processes", "0"], "is 0"),
        (["train", "--num_processes", "x"], "'x'"),
        (["train", "--num_processes"], "--num_processes"),
        (["predict", "--num_processes", "2"], "'num_processes'"),
        (["train", "--config", "rooms_teachr"], "rooms_teacher"),
    ],
)
def test_what_kdam_does_not_know_is_named(words, named, capsys):
    with pytest.raises(SystemExit) as ended:
        kdam.main(words)
    assert ended.value.code == 2
    assert named in capsys.readouterr().err


def test_the_doctor_says_what_there_is(capsys):
    kdam.main(["doctor"])
    out = capsys.readouterr().out
    assert all(re.search(rf"^{name} +\S", out, re.MULTILINE) for name in ("torch", "transformers", "Hub", "a training"))
    assert "precision" in out


def test_own_data_goes_from_teacher_to_student_to_scores(own, teacher, tmp_path):
    student, output = tmp_path / "student", tmp_path / "r.json"
    done = run("distill.py", *SMALL, *own, "--teacher", teacher, "--output_dir", student)
    assert "depth: 5 of 6 images labelled" in done.stdout
    run("evaluate.py", "--model", student, *own, "--split", "val", "--output", output)
    found, meta = scores(output)
    assert {"semseg/miou", "depth/rmse", "normals/mean_angle", "edge/odsf", "edge/maxf"} <= set(found)
    assert meta["images"] == 3
    assert scores(student / "results.json")[0] == pytest.approx(found, rel=1e-4)


def distil(rank, arguments):
    run("distill.py", *arguments)


@pytest.mark.reliability
def test_two_processes_train_one_model_and_count_every_image_once(own, teacher, tmp_path):
    settings = ["--per_device_train_batch_size", "1", "--teacher", teacher, "--output_dir", tmp_path / "two"]
    spawn(distil, 2, [*SMALL, *own, *settings])
    together, meta = scores(tmp_path / "two" / "results.json")
    assert meta["world_size"] == 2, "a launcher that quietly starts one process is not two"
    run("evaluate.py", "--model", tmp_path / "two", *own, "--output", tmp_path / "one.json")
    assert scores(tmp_path / "one.json")[0] == pytest.approx(together, rel=1e-4)


MISTAKES = [
    ("train.py", [*SMALL, *ROOMS, "--tasks", "depht"], "depth"),
    ("train.py", [*SMALL, *ROOMS, "--per_device_train_batch_size", "99"], "99"),
    ("distill.py", [*SMALL, *ROOMS], "needs a teacher"),
    ("distill.py", [*SMALL, *ROOMS, "--method", "kld", "--teacher", "x"], "kld"),
    ("distill.py", [*SMALL, *ROOMS, "--teacher", "nowhere"], "nowhere"),
    ("compare.py", ["--teacher_config", "a", "--student_config", "b", "--methods", "kld"], "kld"),
    ("evaluate.py", ["--model", "nowhere"], "nowhere"),
]


@pytest.mark.parametrize(("script", "arguments", "named"), MISTAKES)
def test_a_mistake_on_the_command_line_is_named(script, arguments, named, tmp_path):
    output = ["--output_dir", tmp_path / "out"] if script != "evaluate.py" else []
    done = run(script, *arguments, *output, check=False)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr
