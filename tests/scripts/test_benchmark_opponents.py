"""Sections about losses and models: both sides compute the same thing, and what is said of targets is what was found."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.append(str(SCRIPTS))  # not first: scripts/evaluate.py would hide the library of that name

from benchmarks import bandwidth, loss_child, loss_variants, onnx_form, plain_losses, plain_step, scenes  # noqa: E402
from benchmarks.device import Device  # noqa: E402
from benchmarks.targets import print_targets, target  # noqa: E402

from kdam_hf.distillation import baselines, inter_task, intra_task  # noqa: E402
from kdam_hf.distillation.kernels import BACKENDS, Match, dense_loss  # noqa: E402
from kdam_hf.tasks import NYUD_V2  # noqa: E402

SETTINGS = {
    "batch_size": 2,
    "classes": 5,
    "height": 32,
    "width": 40,
    "temperature": 3.0,
    "beta": 0.5,
    "seed": 0,
    "device": "cpu",
}
TINY_MODELS = ["--teacher", "tiny-convnext", "--height", "64", "--width", "96", "--rounds", "1"]


@pytest.fixture(scope="module")
def main():
    specification = importlib.util.spec_from_file_location("benchmark", SCRIPTS / "benchmark.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.main


def written(main, tmp_path, section, *arguments):
    main([section, *arguments, "--output", str(tmp_path / "out.json")])
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["section"] == section
    assert result["command"].startswith(f"python scripts/benchmark.py {section} {' '.join(arguments)}")
    assert {"hardware", "environment", "versions", "load_average", "avx512_bf16", "amx"} <= set(result["machine"])
    assert result["date"]
    assert result["settings"]["seed"] == 0
    return result


class TwoTasks:
    """Full-resolution logits of student and teacher in float64, every pixel valid."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)

        def maps():
            return {name: 3 * torch.randn(2, k, 6, 7, generator=generator).double() for name, k in (("a", 5), ("b", 2))}

        self.z, self.t = maps(), maps()
        self.valid = torch.ones(2, 6, 7, dtype=torch.bool)

    def ours(self, function):
        found = function(self.z, self.t, self.valid, 3.0)
        return sum(found) if isinstance(found, tuple) else found

    def plain(self, function):
        return function([*self.z.values()], [*self.t.values()], 3.0)


@pytest.mark.parametrize(
    ("plain", "ours"),
    [
        (plain_losses.cauchy_schwarz, lambda *case: inter_task(*case) + intra_task(*case)),
        (plain_losses.kl, baselines.kl),
        (plain_losses.cwd, baselines.cwd),
        (plain_losses.dist, baselines.dist),
        (plain_losses.dist_on_maps, baselines.dist),
    ],
    ids=["cs", "kl", "cwd", "dist", "dist_on_maps"],
)
def test_a_plain_loss_has_the_value_of_the_one_that_students_are_trained_with(plain, ours):
    case = TwoTasks()
    torch.testing.assert_close(case.plain(plain), case.ours(ours), rtol=1e-9, atol=1e-12)


def test_every_form_of_cs_has_one_value_and_gradient():
    problem = loss_variants.make_problem(SETTINGS)
    forms = loss_variants.variants(problem, SETTINGS)
    found = [
        loss_variants.differentiate(form, problem.student)
        for name, form in forms.items()
        if name == loss_variants.NAIVE or (name.startswith("ours") and name != loss_variants.OUR_CROSS_ENTROPY)
    ]
    assert len(found) >= 3
    for value, gradient in found[1:]:
        torch.testing.assert_close(value, found[0][0])
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-4, atol=1e-5 * found[0][1].abs().max().item())


def test_the_plain_step_has_the_objective_of_ours_at_full_resolution():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        {task.name: 1 + torch.rand(1, task.channels, 8, 10, generator=generator) for task in NYUD_V2} for _ in range(2)
    )
    labels = {task.name: task.label.to_tensor(task.label.unlabelled(32, 40))[None] for task in NYUD_V2}
    labels["semseg"] = torch.randint(0, 40, (1, 32, 40), generator=generator)
    labels["depth"] = 1 + torch.rand(1, 1, 32, 40, generator=generator)
    mask = torch.ones(1, 32, 40, dtype=torch.bool)
    # in float64: in float32 a depth that occurs nowhere makes the naive form NaN
    exact = [{name: x.double() for name, x in maps.items()} for maps in (student, teacher)]
    settings = labels, mask, 8.0, 32.0
    match = Match(teacher, 8.0, 32.0, "concat", True)
    for taught, found in ((exact[1], match), (None, None)):
        plain = plain_step.objective(NYUD_V2, exact[0], taught, *settings)
        ours = dense_loss(NYUD_V2, student, labels, mask, found).total
        torch.testing.assert_close(plain.float(), ours, rtol=1e-4, atol=1e-4)


def test_the_peak_of_a_fork_is_that_of_its_own_work(monkeypatch):
    if not loss_child.STATUS.exists():
        pytest.skip("needs procfs")
    small = {**SETTINGS, "classes": 20, "height": 256, "width": 256}
    full_mib = 2 * 20 * 256 * 256 * 4 / 2**20
    peaks = {name: loss_child.peak_in_fork(name, small) for name in (loss_variants.NAIVE, "ours, banded")}
    assert 4 * full_mib < peaks[loss_variants.NAIVE] < 20 * full_mib
    assert peaks["ours, banded"] < peaks[loss_variants.NAIVE]


def test_the_loss_section_measures_both_allocators_and_holds_errors_against_float64(main, tmp_path):
    sizes = ["--batch_size", "1", "--classes", "5", "--height", "32", "--width", "40", "--rounds", "1"]
    result = written(main, tmp_path, "loss", *sizes)
    assert set(result["allocators"]) == {"default", "tuned"}
    for each in result["allocators"].values():
        assert set(each["timings"]) == set(each["peak_mib"]) >= {"naive CS", "KL", "CWD", "DIST", "ours, banded"}
        assert each["time_over_naive"]["naive CS"] == {"median": 1, "min": 1, "max": 1}
    assert set(result["errors"]) >= {"naive CS", "ours, reference", "ours, banded"}
    assert all(error < 1e-5 for each in result["errors"].values() for error in each.values())


def test_the_step_section_trains_both_sides_on_one_objective(main, tmp_path):
    result = written(main, tmp_path, "step", *TINY_MODELS, "--student", "tiny-resnet")
    losses = {name: each["loss"] for name, each in result["losses"].items()}
    assert losses["ours, online, full resolution"] == pytest.approx(losses["plain, online"], rel=0.05)
    assert losses["ours, cached"] == pytest.approx(losses["ours, online"], rel=0.01)
    assert losses["ours, no teacher"] == pytest.approx(losses["plain, no teacher"], rel=0.05)
    for name, rounds in result["parts_ms"].items():
        assert len(rounds) == 1
        total = result["timings"][name][result["clock"]][0]
        assert sum(rounds[0].values()) == pytest.approx(total, rel=0.3)


def test_the_teachers_section_counts_every_weight(main, tmp_path):
    result = written(main, tmp_path, "teachers", *TINY_MODELS)
    weights = result["weights_mib"]
    for name, mib in weights["fp32"].items():
        assert weights["bf16"][name] == pytest.approx(mib / 2, rel=0.05)  # counters and normalisation stay as they are


def test_the_inference_section_puts_an_error_beside_every_form(main, tmp_path):
    result = written(main, tmp_path, "inference", *TINY_MODELS, "--students", "tiny-resnet")
    forms = result["forms"]["student tiny-resnet"]
    assert forms["eager fp32"]["error"] == 0
    assert forms["channels-last"]["error"] < 1e-4 < forms["bf16 + channels-last"]["error"] < 0.2
    assert ("ONNX int8" in forms) == (onnx_form.missing_packages() == result["left_out"] == [])
    student, teacher = (result["models"][name] for name in ("student tiny-resnet", "teacher"))
    assert student["teacher_over_this"]["gflops"] == teacher["gflops"] / student["gflops"]


def test_a_relative_error_is_that_of_the_worst_task():
    exact = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([1.0])}
    assert scenes.relative_error({"a": torch.tensor([3.0, 4.5]), "b": torch.tensor([1.02])}, exact) == pytest.approx(
        0.1
    )


def test_quick_settings_give_way_to_those_that_are_typed(main, tmp_path):
    sizes = ["--batch_size", "1", "--height", "32", "--width", "64"]
    result = written(main, tmp_path, "teachers", "--quick", *sizes, "--rounds", "1")
    assert result["settings"]["teacher"] == "tiny-swin"
    assert result["settings"]["height"] == 32
    assert [each["met"] for each in result["targets"]] == [None] * 3


def test_a_target_is_judged_by_its_median(capsys):
    targets = [
        target("low", {"median": 0.2, "min": 0.1, "max": 0.4}, at_most=0.3),
        target("high", {"median": 0.2, "min": 0.1, "max": 0.4}, at_least=0.3),
    ]
    assert [each["met"] for each in targets] == [True, False]
    print_targets(targets, quick=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].split() == ["low", "0.2", "0.1", "to", "0.4", "<=", "0.3", "met"]
    assert lines[-1].endswith("not met")


def test_without_cuda_it_is_refused_with_the_remedy(main, capsys):
    if torch.cuda.is_available():
        pytest.skip("CUDA is there")
    with pytest.raises(Exception, match=r"--device cuda.*leave it out"):
        main(["loss", "--device", "cuda"])


def test_more_threads_than_one_are_timed_by_the_wall():
    assert Device("cpu").clock == "cpu_ms"
    assert Device("cpu", threads=2).clock == "wall_ms"
    assert Device("cuda").clock == "wall_ms"


def test_bandwidth_is_bytes_over_time(monkeypatch):
    if "triton" not in BACKENDS or not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"):
        pytest.skip("needs Triton, and CUDA or TRITON_INTERPRET=1")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    monkeypatch.setattr(loss_variants, "backends", lambda device: ["triton"])
    settings = {**SETTINGS, "device": device, "batch_size": 1}
    found = bandwidth.measure_bandwidth(settings, Device(device), rounds=1, calls=1)
    size = found["bytes_of_N"]
    assert size == 32 * 40 * 5 * 2
    milliseconds = found["timings"][bandwidth.BOTH][Device(device).clock][0]
    assert found["gb_per_s"][bandwidth.BOTH] == pytest.approx(5 * size / (1e6 * milliseconds))
    assert found["share_of_copy"][bandwidth.COPY]["median"] == 1
