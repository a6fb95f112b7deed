"""Sections of the benchmark run on tiny settings and write what they print; no timing is asserted."""

import json
from argparse import Namespace

import numpy as np
import pytest
import torch
from command_kit import load

# isort: split
from benchmarks import data, harness, inference, loss

from kdam_hf.errors import KdamValueError

benchmark = load("benchmark.py")
MODELS = "--teacher tiny-convnext --height 64 --width 96"
TINY = {
    "boundaries": "--num_images 2 --num_proc 1 --height 40 --width 56",
    "data": "--num_images 2 --image_height 40 --image_width 56 --crop_height 32 --crop_width 48",
    "heads": "--presets tiny-efficientnet-lite",
    "inference": f"{MODELS} --students tiny-resnet",
    "loss": "--height 32 --width 40",
    "sizes": "--presets tiny-resnet",
    "step": f"{MODELS} --student tiny-resnet",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What each section wrote, without ONNX, whose export takes longest."""
    found = {}

    def run(section):
        if section not in found:
            output = tmp_path_factory.mktemp(section) / "out.json"
            benchmark.main([section, "--quick", "--rounds", "1", *TINY[section].split(), "--output", str(output)])
            found[section] = json.loads(output.read_text())
        return found[section]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "missing_packages", lambda: ["onnx"])
        yield run


@pytest.mark.parametrize("section", TINY)
def test_a_section_states_command_machine_seed_date_and_commit(written, section):
    assert set(TINY) == set(benchmark.SECTIONS)
    found = written(section)
    assert found["command"].startswith(f"python scripts/benchmark.py {section} --quick --rounds 1")
    assert all(found[key] for key in ("date", "commit", "hardware", "environment", "versions", "load_average"))
    assert found["settings"]["seed"] == 0
    assert found["settings"]["rounds"] == 1, "an option that is typed wins over --quick"


def test_plain_and_ours_have_one_value_and_gradient_of_supervised_losses_and_cs_at_stride_4():
    args = Namespace(height=32, width=48, batch_size=2, seed=0, device="cpu", temperature=3.0, beta=0.5)
    args.tasks = ["semseg", "depth", "normals", "edge"]
    losses = loss.make_losses(args)
    (value, gradient), (ours, our_gradient) = losses[loss.USUAL_SMALL](), losses[loss.CS]()
    torch.testing.assert_close(value, ours, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradient, our_gradient, rtol=1e-3, atol=1e-4)


def test_both_sides_of_the_step_train_on_one_objective(written):
    first = {name: each["first_loss"] for name, each in written("step")["steps"].items()}
    assert first["ours, replayed"] == pytest.approx(first["ours, online"], rel=0.01)
    assert first["ours, online"] == pytest.approx(first["plain, float32"], rel=0.2), "stride 4 and full resolution"
    assert first["ours, undistilled"] < first["ours, online"]


def test_an_error_stands_beside_every_form_of_a_model(written):
    found = written("inference")
    errors = {form.partition(", ")[2]: each["error"] for form, each in found["forms"].items() if "resnet" in form}
    assert errors.pop("eager fp32") == 0
    assert 0 < errors.pop("bf16 channels-last") < 0.5
    assert (errors, found["left_out"]) == ({}, ["onnx"])


def test_the_usual_chain_moves_labels_together_and_what_is_enlarged_comes_nearer(tmp_path):
    tree = data.write_tree(tmp_path / "tree", Namespace(image_height=40, image_width=56, num_images=1, seed=0))
    loaded = data.load(tree, "0001")
    loaded |= {"depth": loaded["semseg"] + 1, "edge": loaded["semseg"] % 2}
    half = np.full(3, 0.5, np.float32)
    for seed in range(8):
        view = data.augment(dict(loaded), (32, 48), half, half, np.random.default_rng(seed))
        assert [tuple(view[name].shape) for name in ("image", "normals")] == [(3, 32, 48)] * 2
        inside = view["semseg"] != 255
        assert (view["edge"][0] == view["semseg"] % 2)[inside].all()
        scale = (view["semseg"] + 1)[inside] / view["depth"][0][inside]
        assert 0.5 <= scale.min() <= scale.max() <= scale.min() + 1e-5 <= 2.01


def test_rounds_are_interleaved_the_first_is_dropped_and_ratios_are_those_of_single_rounds():
    calls = []
    args = Namespace(rounds=2, device="cpu", threads=1)
    timings = harness.race({name: lambda name=name: calls.append(name) for name in "abc"}, args)
    assert "".join(calls) == "abcbcacab"
    assert {name: len(times) for name, times in timings.items()} == {"a": 2, "b": 2, "c": 2}
    ratio = harness.ratio({"a": [2.0, 9.0, 8.0], "b": [1.0, 3.0, 4.0]}, "a", "b")
    assert ratio == {"median": 2, "min": 2, "max": 3}
    assert harness.target("", ratio, at_most=2)["met"]
    assert not harness.target("", ratio, at_least=2.1)["met"]


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(KdamValueError, match="tpu"):
        benchmark.main(["loss", "--device", "tpu"])
