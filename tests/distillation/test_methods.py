"""Each method against plain loops in float64, and the contract that all of them keep."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import REFERENCES, TASKS, Case
from scipy.special import softmax
from torch.nn import functional as F

from kdam_hf.distillation import DIVERGENCES, METHODS, Batch, make_method
from kdam_hf.errors import KdamValueError

T, ROW_T = 3.0, 2.0
every_method = pytest.mark.parametrize("method", [name for name, kind in METHODS.items() if not kind.needs_features])
VALID = Case().mask[:, ::4, ::4]


def terms_of(method, student, teacher, valid=VALID, **settings):
    method = make_method(method, TASKS, **({"temperature": T, "inter_temperature": ROW_T} | settings))
    return method.terms(Batch(student, teacher, valid, float(valid.sum().clamp_min(1))))


def rows_of(task, prediction, valid):
    """Distribution logits over T of the valid pixels, (N, K), one pixel after the other."""
    pixels = [prediction[b, :, y, x] for b, y, x in np.argwhere(valid.numpy())]
    return np.stack([task.distribution_logits(pixel.double()[None])[0].numpy() for pixel in pixels]) / T


def over(divergence, p, q):
    return np.mean([divergence(a, b) for a, b in zip(p, q, strict=True)])


def over_columns(task, divergence, p, q):
    """Mean over columns with the weights of the task, for the teacher's mass in them."""
    weights = task.column_weights(torch.from_numpy(q.sum(0))).numpy()
    return np.average([divergence(a, b) for a, b in zip(p.T, q.T, strict=True)], weights=weights)


def reference(student, teacher):
    """Every term of every method, without beta and its power of T."""
    cs, kl, pearson = (REFERENCES[name] for name in ("cauchy_schwarz", "kullback_leibler", "pearson_distance"))
    image = np.argwhere(VALID.numpy())[:, 0]
    expected, rows = {key: {} for key in ("cs", "cs per_task", "kl", "dist", "cwd")}, ([], [])
    for task in TASKS:
        z, t = (rows_of(task, maps[task.name], VALID) for maps in (student, teacher))
        p, q = softmax(z, 1), softmax(t, 1)
        own_rows = [softmax(logits * (T / ROW_T), 1) for logits in (z, t)]
        for side, probabilities in zip(rows, own_rows, strict=True):
            side.append(probabilities)
        weights = task.column_weights(torch.from_numpy(q.sum(0))).numpy()
        cwd = [
            [kl(a, b) for a, b in zip(softmax(z[image == k], 0).T, softmax(t[image == k], 0).T, strict=True)]
            for k in np.unique(image)
        ]
        expected["cs per_task"][f"kd_inter_task_{task.name}"] = over(cs, *own_rows)
        expected["cs"][f"kd_intra_task_{task.name}"] = over_columns(task, cs, p, q)
        expected["kl"][f"kd_kl_{task.name}"] = over(kl, p, q)
        expected["dist"][f"kd_dist_inter_{task.name}"] = over(pearson, p, q)
        expected["dist"][f"kd_dist_intra_{task.name}"] = over_columns(task, pearson, p, q)
        expected["cwd"][f"kd_cwd_{task.name}"] = np.average(np.mean(cwd, 0), weights=weights)
    expected["cs"]["kd_inter_task"] = over(cs, *(np.concatenate(side, 1) for side in rows))
    return expected


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 2e-3)])
def test_terms_agree_with_plain_loops_and_carry_their_weight(dtype, tolerance):
    case = Case()
    power = {task.name: task.temperature_power for task in TASKS}
    student, teacher = ({name: x.to(dtype) for name, x in maps.items()} for maps in (case.student, case.teacher))
    for key, expected in reference(case.student, case.teacher).items():
        method, *mode = key.split()
        settings = {"inter": mode[0], "intra": False} if mode else {}
        for scaled in (True, False):
            found = terms_of(method, student, teacher, beta=0.25, scale_by_temperature=scaled, **settings)
            assert list(found) == list(expected)
            for name, value in expected.items():
                temperature = ROW_T if name.startswith("kd_inter_task") else T
                scale = temperature ** power.get(name.split("_task_")[-1].removeprefix(f"kd_{method}_"), 2)
                weight = 0.25 * (scale if scaled and method != "dist" else 1)
                assert found[name].item() == pytest.approx(weight * value, rel=tolerance, abs=tolerance), (key, name)


def test_each_match_and_each_task_can_be_left_out():
    case = Case()
    names = {task.name for task in TASKS}
    intra, inter = ({f"kd_{match}_task_{name}" for name in names} for match in ("intra", "inter"))
    for settings, kept in (
        ({}, {"kd_inter_task"} | intra),
        ({"inter": "per_task"}, inter | intra),
        ({"inter": "off"}, intra),
        ({"intra": False}, {"kd_inter_task"}),
    ):
        assert terms_of("cs", case.student, case.teacher, **settings).keys() == kept
    tasks = [replace(task, kd_weight=0.0) if task.name == "depth" else replace(task, kd_weight=3.0) for task in TASKS]
    unweighted = [task for task in TASKS if task.name != "depth"]
    for inter in ("concat", "per_task"):
        methods = (make_method("cs", some, inter=inter) for some in (unweighted, tasks))
        once, thrice = (method.terms(Batch(case.student, case.teacher, VALID, 7.0)) for method in methods)
        assert thrice == {name: pytest.approx(3 * term) for name, term in once.items()}
    with pytest.raises(KdamValueError):
        make_method("cs", [replace(task, kd_weight=0.0) for task in TASKS])


def test_a_row_of_all_tasks_holds_what_the_teachers_know_of_a_pixel_weighted_by_task():
    """Where semseg is not known the row is depth's alone; a weight multiplies its products, their mean the term."""
    tasks = [replace(TASKS[0], kd_weight=0.3), next(task for task in TASKS if task.name == "depth")]
    case = Case(tasks=tasks)
    names, shape = ("semseg", "depth"), case.teacher["semseg"].shape
    elsewhere = torch.randn(shape[0], 1, *shape[2:], generator=torch.Generator().manual_seed(1)).double() * 4
    teacher = case.teacher | {"semseg": torch.cat([case.teacher["semseg"], elsewhere], 1)}
    unknown = (teacher["semseg"].argmax(1) == shape[1])[VALID].numpy()
    assert 0.1 < unknown.mean() < 0.9
    p, q = (
        [softmax(rows_of(task, maps[task.name], VALID), 1) for task in tasks] for maps in (case.student, case.teacher)
    )
    products = {}
    for key, (a, b) in {"pq": (p, q), "pp": (p, p), "qq": (q, q)}.items():
        semseg, depth = ((x * y).sum(1) for x, y in zip(a, b, strict=True))
        products[key] = depth + np.where(unknown, 0, 0.3 * semseg)
    expected = -np.log(products["pq"] ** 2 / (products["pp"] * products["qq"]))
    method = make_method("cs", tasks, beta=1.0, inter_temperature=T, intra=False)
    batch = Batch({n: case.student[n] for n in names}, teacher, VALID, float(VALID.sum()))
    assert method.terms(batch)["kd_inter_task"].item() == pytest.approx(0.65 * T**2 * expected.mean(), rel=1e-9)


@every_method
def test_terms_vanish_where_student_and_teacher_agree_and_shifted_logits_change_nothing(method):
    case = Case(tasks=TASKS)
    assert all(abs(term.item()) < 1e-4 for term in terms_of(method, case.student, case.student).values())
    expected = terms_of(method, case.student, case.teacher)
    moved = case.student | {name: case.student[name] + 7 for name in ("semseg", "human_parts", "saliency")}
    for name, term in terms_of(method, moved, case.teacher).items():
        assert term.item() == pytest.approx(expected[name].item(), rel=1e-9)


@every_method
def test_the_gradient_reaches_the_student_only_and_is_that_of_finite_differences(method):
    tasks = TASKS[:1] + TASKS[3:4]
    case = Case(tasks=tasks, batch=2, size=(8, 8))
    teacher = {name: x.requires_grad_() for name, x in case.teacher.items()}
    valid = torch.tensor([[[True, True], [True, False]]] * 2)
    made = make_method(method, tasks, temperature=T)
    assert [task.name for task in made.tasks] == [*case.student]

    def total(*predictions):
        student = dict(zip(case.student, predictions, strict=True))
        return sum(made.terms(Batch(student, teacher, valid, 6.0)).values())

    inputs = tuple(x.requires_grad_() for x in case.student.values())
    assert torch.autograd.gradcheck(total, inputs, atol=1e-4)
    total(*inputs).backward()
    assert all(x.grad is not None for x in inputs)
    assert all(x.grad is None for x in teacher.values())


@pytest.mark.fault(18)
@every_method
@pytest.mark.parametrize("filler", [0.0, torch.nan, torch.inf])
def test_padding_has_exactly_zero_gradient_whatever_stands_there(method, filler):
    case = Case()
    clean = terms_of(method, case.student, case.teacher)
    for maps in (case.student, case.teacher):
        for x in maps.values():
            x.movedim(1, -1)[~VALID] = filler
    student = {name: x.requires_grad_() for name, x in case.student.items()}
    found = terms_of(method, student, case.teacher)
    assert found == clean
    sum(found.values()).backward()
    for x in student.values():
        assert (x.grad.movedim(1, -1)[~VALID] == 0).all()
        assert torch.isfinite(x.grad).all()


@every_method
def test_a_teacher_of_another_precision_is_taken_as_the_student_is(method):
    case = Case()
    single = {name: x.float() for name, x in case.teacher.items()}
    for student, teacher in (
        (case.student, single),
        ({name: x.float() for name, x in case.student.items()}, case.teacher),
    ):
        same = {name: x.to(student[name].dtype) for name, x in teacher.items()}
        assert terms_of(method, student, teacher) == terms_of(method, student, same)


@every_method
def test_half_precision_and_autocast_are_computed_in_float32(method):
    case = Case()
    half = [{name: x.bfloat16() for name, x in maps.items()} for maps in (case.student, case.teacher)]
    expected = terms_of(method, *({name: x.float() for name, x in maps.items()} for maps in half))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = terms_of(method, *half)
    assert found == expected


@every_method
def test_a_teacher_of_another_size_is_resized_bilinearly(method):
    case, larger = Case(), Case(size=(61, 70))
    resized = {name: F.interpolate(x, VALID.shape[1:], mode="bilinear") for name, x in larger.teacher.items()}
    found, expected = (terms_of(method, case.student, teacher) for teacher in (larger.teacher, resized))
    assert found == expected


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mse", {}),
        ("cs", {"inter": "rows"}),
        ("cs", {"divergence": "euclid"}),
        ("cs", {"inter": "off", "intra": False}),
        ("kl", {"temperature": 0.0}),
        ("cs", {"inter_temperature": 0.0}),
        ("kl", {"temperature": float("nan")}),
        ("cwd", {"beta": -0.5}),
    ],
    ids=str,
)
def test_unusable_settings_are_refused(name, settings):
    with pytest.raises(KdamValueError):
        make_method(name, TASKS, **settings)
    with pytest.raises(KdamValueError):
        make_method("cs", ())


@pytest.mark.fault(15, 20)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda student, teacher: (student, {name: teacher[name] for name in ("depth", "normals")}, VALID),
        lambda student, teacher: ({"depth": student["depth"]}, teacher, VALID),
        lambda student, teacher: (student, teacher | {"semseg": teacher["semseg"][:, :4]}, VALID),
        lambda student, teacher: (student, teacher, torch.ones(3, 29, 38, dtype=torch.bool)),
        lambda student, teacher: (student, teacher, VALID.float()),
    ],
)
def test_predictions_that_do_not_fit_are_refused(spoil):
    case = Case()
    with pytest.raises(KdamValueError):
        terms_of("cs", *spoil(case.student, case.teacher))


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_common_weight_of_all_tasks_is_a_factor_whatever_the_divergence(divergence):
    case, terms = Case(), []
    for weight in (1.0, 3.0):
        tasks = [replace(task, kd_weight=weight) for task in TASKS]
        method = make_method("cs", tasks, divergence=divergence)
        terms.append(method.terms(Batch(case.student, case.teacher, VALID, 7.0)))
    once, thrice = terms
    assert {name: x.item() for name, x in thrice.items()} == {n: pytest.approx(3 * x.item()) for n, x in once.items()}
