"""All backends of the dense objective against full-resolution maps in float64."""

import os

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from kdam_hf.distillation import DistillationCriterion
from kdam_hf.distillation.kernels import BACKENDS, Match, banded, dense_loss, match_loss
from kdam_hf.distillation.kernels.bands import add_transposed, bands, upsampled
from kdam_hf.errors import KdamValueError
from kdam_hf.tasks import NYUD_V2, make_task

RUNS_TRITON = torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"
SEMSEG = make_task("semseg", ["wall", "floor", "chair", "lamp", "person"])
TASKS = (SEMSEG, make_task("human_parts"), make_task("saliency"), *NYUD_V2[1:])
# triton is among them where it is installed, on CUDA or with TRITON_INTERPRET=1
BANDED = [name for name in BACKENDS if name in ("banded", "compiled") or (name == "triton" and RUNS_TRITON)]
PIXELS = 400  # per band, so that small maps have several


@pytest.fixture(autouse=True)
def _small_bands(monkeypatch):
    monkeypatch.setattr(banded, "PIXELS_ON_CPU", PIXELS)


class Case:
    """Random predictions at stride 4, labels and a mask; the same numbers in any dtype."""

    def __init__(self, tasks=TASKS, batch=3, size=(29, 38), spread=3.0, apart=1.0, seed=0, padded=True):
        generator = torch.Generator().manual_seed(seed)
        small = [-(-side // 4) for side in size]

        def normal(channels):
            return torch.randn(batch, channels, *small, generator=generator, dtype=torch.float64)

        self.tasks, self.labels = tasks, {}
        self.student = {task.name: spread * normal(task.channels) for task in tasks}
        self.teacher = {task.name: self.student[task.name] + apart * normal(task.channels) for task in tasks}
        for maps in (self.student, self.teacher):
            if "depth" in maps:
                maps["depth"] = maps["depth"].abs() + 0.5
        for task in tasks:
            blank = torch.stack([task.label.to_tensor(task.label.unlabelled(*size)) for _ in range(batch)])
            self.labels[task.name] = fill(task, blank, generator)
        self.mask = torch.ones(batch, *size, dtype=torch.bool)
        if padded:
            self.mask[0, 20:], self.mask[1, :, 17:], self.mask[-1, 3:, 5:] = False, False, False

    def run(self, backend, dtype=torch.float32, temperature=8.0, inter="concat", intra=True, matched=True):
        """Total, terms and the gradient per task."""
        student = {name: x.to(dtype).requires_grad_() for name, x in self.student.items()}
        teacher = {name: x.to(dtype) for name, x in self.teacher.items()}
        match = Match(teacher, temperature, 0.5 * temperature**2, inter, intra) if matched else None
        total, terms = dense_loss(self.tasks, student, self.labels, self.mask, match, backend=backend)
        total.backward()
        return total.detach(), terms, {name: x.grad for name, x in student.items()}


def fill(task, blank, generator):
    """Valid labels on most pixels."""
    label = blank.clone()
    kept = torch.rand(blank.shape[0], 1, *blank.shape[-2:], generator=generator) < 0.8
    if task.class_names:
        random = torch.randint(0, task.channels, blank.shape, generator=generator)
        return torch.where(kept[:, 0], random, label)
    random = torch.rand(blank.shape, generator=generator)
    values = {1: (random < 0.2).float() if task.kind == "edge" else 1 + 5 * random, 3: F.normalize(random - 0.5, dim=1)}
    return torch.where(kept, values[blank.shape[1]], label)


def assert_agrees(found, expected, relative=1e-5):
    total, terms, gradients = found
    assert terms.keys() == expected[1].keys()
    assert total.item() == pytest.approx(expected[0].item(), rel=relative)
    for name, value in expected[1].items():
        assert terms[name].item() == pytest.approx(value.item(), rel=relative, abs=relative), name
    for name, gradient in expected[2].items():
        assert (gradients[name] - gradient).abs().max() <= relative * gradient.abs().max(), name


@pytest.mark.parametrize("backend", BANDED)
@pytest.mark.parametrize(
    "options",
    [{}, {"inter": "per_task"}, {"inter": "off"}, {"intra": False}, {"matched": False}, {"temperature": 1.0}],
    ids=str,
)
def test_value_and_gradient_are_those_of_full_resolution_maps_in_float64(backend, options):
    for case in (Case(), Case(padded=False, size=(32, 40)), Case(tasks=(SEMSEG,), size=(7, 5), batch=3, seed=2)):
        assert_agrees(case.run(backend, **options), case.run("reference", torch.float64, **options))


def test_in_float64_bands_and_full_maps_agree_to_rounding():
    case = Case()
    assert_agrees(case.run("banded", torch.float64), case.run("reference", torch.float64), 1e-9)


@pytest.mark.parametrize("backend", BANDED)
@pytest.mark.parametrize("spread", [1e2, 1e4])
def test_where_student_and_teacher_agree_on_nothing_it_is_still_right(backend, spread):
    """Row sums and class sums underflow here; log space takes over."""
    case = Case(tasks=(SEMSEG, TASKS[1], NYUD_V2[3]), spread=spread, apart=spread)
    assert_agrees(case.run(backend, temperature=1.0), case.run("reference", torch.float64, temperature=1.0), 1e-4)


@pytest.mark.parametrize("backend", BANDED)
def test_bfloat16_predictions_are_summed_in_float32(backend):
    case = Case()
    exact = Case()
    for maps in (exact.student, exact.teacher):
        maps.update({name: x.bfloat16().double() for name, x in maps.items()})
    total, _, gradients = case.run(backend, torch.bfloat16)
    expected = exact.run("reference", torch.float64)
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(expected[0].item(), rel=1e-5)
    for name, gradient in expected[2].items():
        assert gradients[name].dtype == torch.bfloat16
        assert (gradients[name] - gradient).abs().max() <= 0.01 * gradient.abs().max()


@pytest.mark.parametrize("backend", BANDED)
def test_equal_predictions_match_without_gradient(backend):
    case = Case(apart=0.0, padded=False)
    _, terms, gradients = case.run(backend)
    _, alone, supervised = case.run(backend, matched=False)
    assert 0 <= terms["kd_inter_task"] < 1e-4
    assert 0 <= terms["kd_intra_task"] < 1e-4
    for name, gradient in supervised.items():
        assert (gradients[name] - gradient).abs().max() < 1e-5 * max(1, gradient.abs().max())
        assert terms[f"loss_{name}"] == pytest.approx(alone[f"loss_{name}"].item())


@pytest.mark.fault(18)
@pytest.mark.parametrize("backend", BANDED)
def test_padding_has_no_gradient_and_no_say_whatever_stands_there(backend):
    case, other = Case(size=(32, 40)), Case(size=(32, 40))
    case.mask[:], other.mask[:] = True, True
    case.mask[:, 20:], other.mask[:, 20:] = False, False
    for maps in (other.student, other.teacher):
        for x in maps.values():
            x[:, :, 6:] = float("nan") if backend != "compiled" else 1e3  # rows 24 and on, beyond what row 19 sees
    first, second = case.run(backend), other.run(backend)
    assert first[0] == second[0]
    for name, gradient in second[2].items():
        assert gradient[:, :, 6:].abs().max() == 0
        torch.testing.assert_close(gradient[:, :, :6], first[2][name][:, :, :6])


@pytest.mark.fault(17)
@pytest.mark.parametrize("backend", BANDED)
def test_without_a_valid_pixel_the_loss_is_zero_with_a_gradient_path(backend):
    case = Case()
    case.mask[:] = False
    total, _, gradients = case.run(backend)
    assert total == 0
    assert all(gradient.abs().max() == 0 for gradient in gradients.values())


@pytest.mark.fault(17)
@pytest.mark.parametrize("backend", ["reference", *BANDED])
@pytest.mark.parametrize("blank", TASKS, ids=lambda task: task.name)
def test_a_task_without_a_label_adds_nothing_and_leaves_the_others_alone(backend, blank):
    whole, without = Case(), Case()
    unlabelled = blank.label.to_tensor(blank.label.unlabelled(*without.mask.shape[1:]))
    without.labels[blank.name] = unlabelled.expand(without.labels[blank.name].shape).clone()
    (_, terms, gradients), (total, found, others) = whole.run(backend), without.run(backend)
    assert found[f"loss_{blank.name}"] == 0
    assert terms[f"loss_{blank.name}"] > 0
    assert total.item() == pytest.approx(sum(term.item() for term in found.values()))
    for task in TASKS:
        if task is not blank:
            assert found[f"loss_{task.name}"] == terms[f"loss_{task.name}"]
            assert torch.equal(others[task.name], gradients[task.name])
    assert (found["kd_inter_task"], found["kd_intra_task"]) == (terms["kd_inter_task"], terms["kd_intra_task"])
    supervised = without.run(backend, matched=False)[2][blank.name]
    assert supervised.abs().max() == 0, "zero, through a gradient path"


@pytest.mark.parametrize("backend", BANDED)
def test_shifting_logits_by_a_constant_changes_nothing(backend):
    case, moved = Case(tasks=(SEMSEG,)), Case(tasks=(SEMSEG,))
    moved.student["semseg"] += 7
    moved.teacher["semseg"] -= 3
    assert_agrees(moved.run(backend), case.run(backend), 1e-5)


@pytest.mark.parametrize("backend", BANDED)
def test_no_full_resolution_map_is_ever_allocated(backend, monkeypatch):
    """Of 5 channels on 64 x 96 pixels a band holds a few rows."""
    monkeypatch.setattr(banded, "PIXELS_ON_CPU", 8 * 96)
    case = Case(tasks=(SEMSEG,), batch=2, size=(64, 96))

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(x, torch.Tensor) and x.is_floating_point():
                    Largest.elements = max(Largest.elements, x.untyped_storage().nbytes() // 8)
            return out

    case.student = {name: x.float() for name, x in case.student.items()}
    case.teacher = {name: x.float() for name, x in case.teacher.items()}
    with Largest():
        case.run(backend)
    assert Largest.elements < 2 * 5 * 64 * 96 / 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 9), (29, 38), (64, 4)])
@pytest.mark.parametrize("pixels", [1, 50, 400, 10**6])
def test_bands_cover_every_row_once_and_upsample_like_the_whole_map(size, pixels, dtype):
    x = torch.randn(3, 2, *(-(-side // 4) for side in size), dtype=dtype)
    expected = F.interpolate(x, scale_factor=4, mode="bilinear")[..., : size[0], : size[1]]
    seen = torch.zeros(3, *size)
    for band in bands(3, *size, x.shape[2], pixels):
        torch.testing.assert_close(upsampled(x, band, size[1]), band.of_full(expected))
        band.of_full(seen).add_(1)
    assert (seen == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (18, 15), (20, 16)])
@pytest.mark.parametrize("pixels", [1, 100, 10**6])
def test_the_transpose_of_upsampling_is_its_gradient(size, pixels, dtype):
    x = torch.randn(2, 3, *(-(-side // 4) for side in size), dtype=torch.float64, requires_grad=True)
    expected = F.interpolate(x, scale_factor=4, mode="bilinear")[..., : size[0], : size[1]]
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    found = torch.zeros_like(x, dtype=dtype).detach()
    for band in bands(2, *size, x.shape[2], pixels):
        add_transposed(found, band, band.of_full(weights).to(dtype))
    torch.testing.assert_close(found, x.grad.to(dtype))


@pytest.mark.fault(20)
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda case: case.student.pop("edge"), "edge: the student's prediction is None"),
        (lambda case: case.teacher.pop("edge"), "edge: the teacher's prediction is None"),
        (lambda case: case.student.update(edge=torch.zeros(3, 1, 9, 10)), r"\(3, 1, 9, 10\).*expected \(3, C, 8, 10\)"),
        (lambda case: case.teacher.update(semseg=torch.zeros(3, 4, 8, 10)), "student predicts 5 channels, teacher 4"),
    ],
)
def test_maps_that_do_not_fit_are_refused_with_both_shapes(spoil, says):
    case = Case()
    spoil(case)
    with pytest.raises(KdamValueError, match=says):
        case.run("auto")


@pytest.mark.parametrize("backend", ["auto", *BANDED])
@pytest.mark.parametrize("inter", ["concat", "per_task", "off"])
@pytest.mark.parametrize("padded", [True, False])
def test_the_match_on_maps_as_they_are_agrees_with_the_criterion_in_float64(backend, inter, padded):
    case = Case(size=(32, 40))
    valid = case.mask[:, ::4, ::4] if padded else torch.ones(3, 8, 10, dtype=torch.bool)
    criterion = DistillationCriterion(case.tasks, temperature=4.0, inter=inter)
    exact = {name: x.clone().requires_grad_() for name, x in case.student.items()}
    expected = criterion(exact, case.teacher, valid)
    torch.stack(list(expected.values())).sum().backward()
    student = {name: x.float().requires_grad_() for name, x in case.student.items()}
    match = criterion.match(student, {name: x.float() for name, x in case.teacher.items()}, valid)
    total, terms = match_loss(case.tasks, student, match, valid, backend=backend)
    total.backward()
    assert_agrees(
        (total, terms, {name: x.grad for name, x in student.items()}),
        (torch.stack(list(expected.values())).sum(), expected, {name: x.grad for name, x in exact.items()}),
    )


def test_an_unknown_backend_is_refused():
    with pytest.raises(KdamValueError, match=r"'fast' is not known.*banded"):
        Case().run("fast")
