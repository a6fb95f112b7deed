"""The objective: full-resolution losses without full-resolution maps, over any split of the batch, and what trains."""

import pytest
import torch
from cases import SEMSEG, TASKS, Case, ThreadedProcesses
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from kdam_hf.distillation import DIVERGENCES, METHODS, Batch, dense, make_method
from kdam_hf.errors import KdamValueError
from kdam_hf.objective import Objective, stride_mask

ALL_METHODS = ["none", *(name for name, method in METHODS.items() if not method.needs_features)]


@pytest.fixture(autouse=True)
def _small_bands(monkeypatch):
    monkeypatch.setattr(dense, "PIXELS_ON_CPU", 400)  # small maps have several


def objective(method="cs", tasks=TASKS, **settings):
    return Objective(tasks, make_method(method, tasks, **settings))


def whole_maps(case, dtype=torch.float64):
    """Supervised terms and gradients by plain autograd on upsampled maps."""
    student = {name: x.to(dtype).requires_grad_() for name, x in case.student.items()}
    height, width = case.mask.shape[1:]
    terms = {}
    for task in case.tasks:
        full = F.interpolate(student[task.name], scale_factor=4, mode="bilinear")[..., :height, :width]
        terms[f"loss_{task.name}"] = task.loss_weight * task.loss(full, case.labels[task.name], case.mask)
    sum(terms.values()).backward()
    return terms, {name: x.grad for name, x in student.items()}


def assert_equal_runs(found, expected, relative=1e-5):
    assert found[0].keys() == expected[0].keys()
    for name, value in expected[0].items():
        assert found[0][name].item() == pytest.approx(value.item(), rel=relative, abs=relative), name
    for name, gradient in expected[1].items():
        assert (found[1][name] - gradient).abs().max() <= relative * gradient.abs().max(), name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
@pytest.mark.parametrize(
    "case",
    [{}, {"padded": False, "size": (32, 40)}, *({"tasks": (SEMSEG,), "size": s} for s in ((7, 5), (1, 1), (64, 4)))],
    ids=str,
)
def test_losses_in_bands_are_those_of_whole_maps(case, dtype, tolerance):
    case = Case(**case)
    assert_equal_runs(case.run(objective("none", case.tasks), dtype), whole_maps(case), tolerance)


def test_no_full_resolution_map_is_ever_allocated():
    case = Case(tasks=(SEMSEG,), batch=2, size=(64, 96))

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(x, torch.Tensor) and x.is_floating_point():
                    Largest.elements = max(Largest.elements, x.numel())
            return out

    with Largest():
        case.run(objective(tasks=case.tasks))
    assert Largest.elements < 5 * 64 * 96 / 2


@pytest.mark.parametrize("method", [method for method in ALL_METHODS if method != "dist"])
@pytest.mark.parametrize(("first", "blank"), [(2, False), (1, True)])
def test_processes_that_share_a_batch_average_to_the_whole_batch(method, first, blank):
    """Uneven shares, and one without a valid pixel; the columns of DIST are those of a process, as published."""
    case, processes = Case(), ThreadedProcesses(2)
    shares = [slice(0, first), slice(first, 3)]
    if blank:
        case.mask[0] = False
    expected = case.run(objective(method), torch.float64)
    parts = processes.run(lambda rank: case.run(objective(method), torch.float64, shares[rank], processes=processes))
    for name, value in expected[0].items():
        assert sum(part[0][name] for part in parts).item() / 2 == pytest.approx(value.item(), rel=1e-6), name
    for name, gradient in expected[1].items():
        joint = torch.cat([part[1][name] for part in parts]) / 2
        torch.testing.assert_close(joint, gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.fault(17)
@pytest.mark.parametrize("method", ALL_METHODS)
def test_without_a_valid_pixel_every_term_is_zero_with_a_gradient_path(method):
    case = Case()
    case.mask[:] = False
    terms, gradients = case.run(objective(method))
    assert all(term == 0 for term in terms.values())
    assert all(gradient.abs().max() == 0 for gradient in gradients.values())


@pytest.mark.fault(17)
@pytest.mark.parametrize("blank", TASKS, ids=lambda task: task.name)
def test_a_task_without_a_label_adds_nothing_and_leaves_the_others_alone(blank):
    whole, without = Case(), Case()
    unlabelled = blank.label.to_tensor(blank.label.unlabelled(*without.mask.shape[1:]))
    without.labels[blank.name] = unlabelled.expand(without.labels[blank.name].shape).clone()
    (terms, gradients), (found, others) = whole.run(objective()), without.run(objective())
    assert found[f"loss_{blank.name}"] == 0 < terms[f"loss_{blank.name}"]
    for name in terms:
        assert found[name] == terms[name] or name == f"loss_{blank.name}"
    for name in gradients:
        assert torch.equal(others[name], gradients[name]) or name == blank.name


@pytest.mark.fault(18)
def test_padding_has_no_gradient_whatever_stands_there():
    case, other = Case(size=(32, 40)), Case(size=(32, 40))
    for one in (case, other):
        one.mask[:] = True
        one.mask[:, 20:] = False
    for maps in (other.student, other.teacher):
        for x in maps.values():
            x[:, :, 6:] = 1e3  # rows 24 and on, beyond what row 19 sees
    (terms, gradients), (found, spoilt) = case.run(objective()), other.run(objective())
    assert found == terms
    for name, gradient in spoilt.items():
        assert gradient[:, :, 6:].abs().max() == 0
        torch.testing.assert_close(gradient[:, :, :6], gradients[name][:, :, :6])


def test_bfloat16_predictions_are_summed_in_float32():
    case, exact = Case(), Case()
    for maps in (exact.student, exact.teacher):
        maps.update({name: x.bfloat16().double() for name, x in maps.items()})
    (terms, gradients), (expected, exact_gradients) = case.run(objective(), torch.bfloat16), exact.run(objective())
    for name, term in terms.items():
        assert term.dtype == torch.float32
        assert term.item() == pytest.approx(expected[name].item(), rel=1e-4)
    for name, gradient in exact_gradients.items():
        assert gradients[name].dtype == torch.bfloat16
        assert (gradients[name] - gradient).abs().max() <= 0.01 * gradient.abs().max()


def test_dense_losses_refuse_to_be_differentiated_twice():
    """[fault] A second derivative was silently wrong."""
    case = Case(tasks=(SEMSEG,))
    student = {name: x.requires_grad_() for name, x in case.student.items()}
    terms = objective("none", case.tasks)(student, case.labels, case.mask)
    (gradient,) = torch.autograd.grad(terms["loss_semseg"], student["semseg"], create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()


def test_what_is_documented_trains(monkeypatch):
    """Replacing the divergence changes the loss, and the terms are those of the method itself."""
    case = Case()
    terms, _ = case.run(objective(), torch.float64)
    valid = stride_mask(case.mask)
    own = make_method("cs", TASKS).terms(Batch(case.student, case.teacher, valid, float(valid.sum())))
    assert {name: terms[name].item() for name in own} == pytest.approx({name: x.item() for name, x in own.items()})
    monkeypatch.setitem(DIVERGENCES, "cauchy_schwarz", lambda log_p, log_q, dim, *_: (log_p - log_q).abs().sum(dim))
    changed = case.run(objective(), torch.float64)[0]
    assert all(changed[name] != pytest.approx(terms[name].item()) for name in own)


def test_a_method_needs_a_teacher_unless_it_weighs_nothing():
    case = Case()
    with pytest.raises(KdamValueError, match="teacher"):
        objective()(case.student, case.labels, case.mask)
    assert set(objective(beta=0)(case.student, case.labels, case.mask)) == {f"loss_{task.name}" for task in TASKS}


@pytest.mark.fault(20)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda case: case.student.pop("edge"),
        lambda case: case.student.update(edge=torch.zeros(3, 1, 9, 10)),
        lambda case: case.labels.update(depth=torch.zeros(3, 1, 29, 37)),
        lambda case: case.labels.pop("semseg"),
    ],
)
def test_maps_that_do_not_fit_are_refused(spoil):
    case = Case()
    spoil(case)
    with pytest.raises(KdamValueError):
        objective()(case.student, case.labels, case.mask, case.teacher)


class StandIn(TorchFunctionMode):
    """Tensors say that they are on a device which is neither CPU nor CUDA, and has neither `.numpy()` nor float64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func == torch.Tensor.device.__get__:
            return torch.device("xpu")
        if getattr(func, "__name__", "") in ("numpy", "__array__"):
            raise TypeError("numpy() of a tensor on a device")
        args = [torch.device("cpu") if isinstance(x, torch.device) else x for x in args]
        kwargs = {key: torch.device("cpu") if isinstance(x, torch.device) else x for key, x in (kwargs or {}).items()}
        out = func(*args, **kwargs)
        if isinstance(out, torch.Tensor) and out.dtype == torch.float64:
            raise TypeError(f"{func}: float64 on a device")
        return out


@pytest.mark.parametrize("method", ALL_METHODS)
def test_a_step_asks_for_nothing_that_only_a_cpu_or_cuda_has(method):
    case = Case()
    expected = case.run(objective(method))
    student = {name: x.float().requires_grad_() for name, x in case.student.items()}
    teacher, made = {name: x.float() for name, x in case.teacher.items()}, objective(method)
    with StandIn():
        assert case.mask.device.type == "xpu"
        terms = made(student, case.labels, case.mask, teacher)
        made.total(terms).backward()
    assert_equal_runs((terms, {name: x.grad for name, x in student.items()}), expected, 1e-4)


def test_a_cell_of_the_prediction_grid_counts_unless_any_of_its_pixels_is_padding():
    mask = torch.ones(2, 10, 9, dtype=torch.bool)
    mask[0, 9:], mask[1, :, 5:] = False, False
    expected = torch.tensor([[[1, 1, 1], [1, 1, 1], [0, 0, 0]], [[1, 0, 0]] * 3]).bool()
    assert torch.equal(stride_mask(mask), expected)
