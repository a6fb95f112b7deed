"""Sections of the benchmark run, on tiny settings, and write what they print; no timing is asserted.

Those about losses and models are tested in `test_benchmark_opponents`.
"""

import importlib.util
import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.append(str(SCRIPTS))  # not first: scripts/evaluate.py would hide the library of that name

from benchmarks import harness, usual_chain  # noqa: E402

from kdam_hf.errors import KdamError  # noqa: E402


@pytest.fixture(scope="module")
def main():
    specification = importlib.util.spec_from_file_location("benchmark", SCRIPTS / "benchmark.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.main


TINY = {
    "data": [
        *(
            "--num_images",
            "2",
            "--image_height",
            "40",
            "--image_width",
            "56",
            "--crop_height",
            "32",
            "--crop_width",
            "48",
        ),
        *("--rounds", "2", "--step_rounds", "1", "--preset", "tiny-resnet"),
    ],
    "boundaries": [
        *("--num_images", "2", "--race_images", "1", "--race_thresholds", "0.5", "--rounds", "1", "--num_proc", "1"),
        *("--height", "40", "--width", "56"),
    ],
    "checking": [
        *("--num_images", "4", "--image_height", "24", "--image_width", "32", "--rounds", "1"),
    ],
}


@pytest.mark.parametrize("section", TINY)
def test_a_section_runs_and_writes_its_numbers(main, section, tmp_path, capsys):
    main([section, *TINY[section], "--output", str(tmp_path / "out.json")])
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["section"] == section
    assert result["command"].startswith(f"python scripts/benchmark.py {section} {' '.join(TINY[section][:2])}")
    assert {"hardware", "environment", "versions", "load_average"} <= set(result["machine"])
    assert result["date"]
    assert result["settings"]["seed"] == 0
    assert "written to" in capsys.readouterr().out


def test_the_data_section_keeps_every_round(main, tmp_path):
    main(["data", *TINY["data"], "--output", str(tmp_path / "out.json")])
    result = json.loads((tmp_path / "out.json").read_text())
    for part, rounds in (("chains", 2), ("parts", 2), ("step", 1)):
        for clocks in result[part]["timings"].values():
            assert [len(times) for times in clocks.values()] == [rounds, rounds]
    assert set(result["kib_per_sample"]) == {"images", "segmentation", "depth", "normals", "edge"}


def test_an_unknown_section_is_named(main, capsys):
    with pytest.raises(SystemExit):
        main(["speed"])
    assert "invalid choice: 'speed'" in capsys.readouterr().err


def test_a_section_that_fails_costs_no_other_its_numbers(main, monkeypatch, tmp_path):
    def run(command, check):
        name, output = command[2], Path(command[command.index("--output") + 1])
        if name == "checking":
            return subprocess.CompletedProcess(command, 3)
        output.write_text(json.dumps({"ratio": 2.0}))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(KdamError, match=r"^checking failed"):
        main(["all", "--output", str(tmp_path / "out.json")])
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["checking"] == {"error": "ended with code 3"}
    assert all(result[name] == {"ratio": 2.0} for name in main.__globals__["SECTIONS"] if name != "checking")


def test_rounds_are_interleaved_and_the_first_is_dropped():
    calls = []

    def work(name):
        return lambda number: calls.append((name, number)) or 1

    timings = harness.interleave({name: work(name) for name in "abc"}, 2)
    assert calls == [
        *zip("abc", [0] * 3, strict=True),
        *zip("bca", [1] * 3, strict=True),
        *zip("cab", [2] * 3, strict=True),
    ]
    assert {name: len(clocks["cpu_ms"]) for name, clocks in timings.items()} == {"a": 2, "b": 2, "c": 2}


def test_ratios_are_those_of_single_rounds_and_doubt_is_no_claim():
    timings = {"a": {"cpu_ms": [2.0, 9.0, 8.0]}, "b": {"cpu_ms": [1.0, 3.0, 4.0]}, "c": {"cpu_ms": [3.0, 8.0, 8.0]}}
    assert harness.ratio(timings, "a", "b") == {"median": 2, "min": 2, "max": 3}
    assert harness.claim("a / b", harness.ratio(timings, "a", "b")) == "a / b: 2 (2 to 3)"
    assert "no claim" in harness.claim("a / c", harness.ratio(timings, "a", "c"))


@pytest.mark.parametrize("opencv", [True, False])
def test_the_usual_chain_yields_what_training_needs(opencv, monkeypatch):
    if not opencv:
        monkeypatch.setattr(usual_chain, "cv2", None)
    elif usual_chain.cv2 is None:
        pytest.skip("needs opencv")
    rng = np.random.default_rng(0)
    ids = np.kron(rng.integers(0, 40, (5, 7)), np.ones((8, 8))).astype(np.float32)
    normals = np.stack([ids / 40, np.sqrt(1 - (ids / 40) ** 2), 0 * ids], -1)
    arrays = {
        "image": np.repeat(ids[..., None] * 6, 3, axis=2),
        "semseg": ids,
        "depth": ids + 1,
        "normals": normals,
        "edge": ids % 2,
    }
    mean, std = np.float32([0.5, 0.5, 0.5]), np.float32([0.25, 0.25, 0.25])
    for seed in range(8):
        view = usual_chain.augment(dict(arrays), (32, 48), mean, std, np.random.default_rng(seed))
        assert {name: tuple(tensor.shape) for name, tensor in view.items()} == {
            "image": (3, 32, 48),
            "semseg": (32, 48),
            "depth": (1, 32, 48),
            "normals": (3, 32, 48),
            "edge": (1, 32, 48),
        }
        inside = view["semseg"] != 255
        assert ((view["edge"][0] == view["semseg"] % 2) | ~inside).all()
        steps = (view["depth"][0] / (view["semseg"] + 1))[inside]
        assert steps.max() - steps.min() < 1e-6
        assert ((view["normals"][0].abs() * 40 - view["semseg"]).abs()[inside] < 1e-4).all()


@pytest.mark.parametrize("opencv", [True, False])
def test_colours_survive_the_way_to_hsv_and_back(opencv, monkeypatch):
    if not opencv:
        monkeypatch.setattr(usual_chain, "cv2", None)
    elif usual_chain.cv2 is None:
        pytest.skip("needs opencv")
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.float32)
    back = usual_chain.from_hsv(usual_chain.to_hsv(image))
    assert np.abs(back - image).max() < (0.01 if opencv else 8)  # Pillow rounds hue and saturation to bytes


def test_settings_are_all_options_but_the_places_and_those_named():
    args = Namespace(seed=3, rounds=2, quick=True, data_dir="private", output="out.json", section="data")
    assert harness.settings_of(args) == {"seed": 3, "rounds": 2, "quick": True, "data_dir": "private"}
    assert harness.settings_of(args, "data_dir", "quick") == {"seed": 3, "rounds": 2}
