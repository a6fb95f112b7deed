import threading

import numpy as np
import pytest
import torch

from kdam_hf.distillation.matching import inter_task, intra_task
from kdam_hf.distributed import LOCAL, Processes
from kdam_hf.errors import KdamValueError

CHANNELS = {"semseg": 5, "edge": 2, "depth": 7}
TEMPERATURE = 3.0


def random_maps(seed, batch=4, size=(3, 5), scale=3.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (scale * torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64)).to(dtype)
        for name, channels in CHANNELS.items()
    }


def random_valid(batch=4, size=(3, 5), seed=5):
    return torch.rand(batch, *size, generator=torch.Generator().manual_seed(seed)) > 0.3


def with_grad(maps):
    return {name: logits.clone().requires_grad_() for name, logits in maps.items()}


def probabilities(logits, valid, temperature):
    """One list of class probabilities per valid pixel, by plain loops in float64."""
    rows = []
    for image, height, width in np.argwhere(valid.numpy()):
        exponentials = np.exp(logits[image, :, height, width].double().numpy() / temperature)
        rows.append(exponentials / exponentials.sum())
    return np.array(rows)


def naive_divergence(p, q):
    return -np.log((p * q).sum() ** 2 / ((p * p).sum() * (q * q).sum()))


def reference_inter(student, teacher, valid, temperature, mode):
    p = [probabilities(logits, valid, temperature) for logits in student.values()]
    q = [probabilities(logits, valid, temperature) for logits in teacher.values()]
    if mode == "concat":
        p, q = [np.concatenate(p, axis=1)], [np.concatenate(q, axis=1)]
    tasks = [[naive_divergence(a, b) for a, b in zip(p_t, q_t, strict=True)] for p_t, q_t in zip(p, q, strict=True)]
    return np.mean([np.mean(rows) for rows in tasks])


def reference_intra(student, teacher, valid, temperature):
    tasks = []
    for name in student:
        p, q = probabilities(student[name], valid, temperature), probabilities(teacher[name], valid, temperature)
        tasks.append(np.mean([naive_divergence(p[:, c], q[:, c]) for c in range(p.shape[1])]))
    return np.mean(tasks)


MATCHES = {
    "inter_concat": lambda s, t, v, temperature=TEMPERATURE, p=LOCAL: inter_task(s, t, v, temperature, "concat", p),
    "inter_per_task": lambda s, t, v, temperature=TEMPERATURE, p=LOCAL: inter_task(s, t, v, temperature, "per_task", p),
    "intra": lambda s, t, v, temperature=TEMPERATURE, p=LOCAL: intra_task(s, t, v, temperature, p),
}
every_match = pytest.mark.parametrize("match", MATCHES.values(), ids=MATCHES.keys())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
@pytest.mark.parametrize("temperature", [0.5, 8.0])
def test_agrees_with_naive_loops(dtype, tolerance, temperature):
    student, teacher, valid = random_maps(0, dtype=dtype), random_maps(1, dtype=dtype), random_valid()
    for mode in ("concat", "per_task"):
        expected = reference_inter(student, teacher, valid, temperature, mode)
        assert inter_task(student, teacher, valid, temperature, mode).item() == pytest.approx(expected, rel=tolerance)
    expected = reference_intra(student, teacher, valid, temperature)
    assert intra_task(student, teacher, valid, temperature).item() == pytest.approx(expected, rel=tolerance)


@every_match
def test_zero_for_identical_inputs(match):
    maps = random_maps(0)
    assert match(maps, maps, random_valid()).item() == pytest.approx(0, abs=1e-14)


@every_match
def test_symmetry(match):
    a, b, valid = random_maps(0), random_maps(1), random_valid()
    assert match(a, b, valid).item() == pytest.approx(match(b, a, valid).item(), rel=1e-13)


@every_match
def test_shift_of_logits_changes_nothing(match):
    student, teacher, valid = random_maps(0), random_maps(1), random_valid()
    shifted = {name: logits + 37.5 for name, logits in student.items()}
    assert match(shifted, teacher, valid).item() == pytest.approx(match(student, teacher, valid).item(), rel=1e-12)


def test_intra_task_does_not_depend_on_the_order_of_pixels():
    student, teacher = random_maps(0), random_maps(1)
    turned = [{name: logits.flip(0, 3) for name, logits in maps.items()} for maps in (student, teacher)]
    valid = random_valid()
    expected = intra_task(student, teacher, valid, TEMPERATURE).item()
    assert intra_task(*turned, valid.flip(0, 2), TEMPERATURE).item() == pytest.approx(expected, rel=1e-13)


def test_inter_modes_agree_for_one_task():
    student, teacher = {"semseg": random_maps(0)["semseg"]}, {"semseg": random_maps(1)["semseg"]}
    concat = inter_task(student, teacher, random_valid(), 2.0, "concat")
    assert concat.item() == pytest.approx(
        inter_task(student, teacher, random_valid(), 2.0, "per_task").item(), rel=1e-14
    )


@every_match
def test_gradcheck(match):
    names, valid = list(CHANNELS), random_valid(batch=2, size=(2, 2))
    student, teacher = random_maps(0, 2, (2, 2)), random_maps(1, 2, (2, 2))

    def loss(*logits):
        return match(dict(zip(names, logits, strict=True)), teacher, valid)

    assert torch.autograd.gradcheck(loss, tuple(logits.requires_grad_() for logits in student.values()))


@pytest.mark.fault(18)
@every_match
def test_padding_has_exactly_zero_gradient_and_its_nan_does_no_harm(match):
    student, teacher, valid = random_maps(0), random_maps(1), random_valid()
    clean = with_grad(student)
    match(clean, teacher, valid).backward()
    for maps in (student, teacher):
        for logits in maps.values():
            logits.movedim(1, -1)[~valid] = torch.nan
    spoilt = with_grad(student)
    match(spoilt, teacher, valid).backward()
    for name in CHANNELS:
        assert (spoilt[name].grad.movedim(1, -1)[~valid] == 0).all()
        assert torch.equal(spoilt[name].grad, clean[name].grad)


@every_match
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_finite_at_extreme_logits(match, dtype):
    generator = torch.Generator().manual_seed(0)
    signs = {n: torch.randn(4, c, 3, 5, generator=generator).sign() for n, c in CHANNELS.items()}
    student = with_grad({name: (1e4 * sign).to(dtype) for name, sign in signs.items()})
    loss = match(student, {name: (-1e4 * sign).to(dtype) for name, sign in signs.items()}, random_valid(), 1.0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert all(torch.isfinite(logits.grad).all() for logits in student.values())


@every_match
@pytest.mark.parametrize("low", [-90.0, -1e4])
def test_class_absent_from_the_batch_is_finite_and_exact(match, low):
    student, teacher, valid = random_maps(0, dtype=torch.float32), random_maps(1, dtype=torch.float32), random_valid()
    student["semseg"][:, 2] += low
    teacher["semseg"][:, 2] += low
    exact = match({n: x.double() for n, x in student.items()}, {n: x.double() for n, x in teacher.items()}, valid)
    student = with_grad(student)
    loss = match(student, teacher, valid)
    loss.backward()
    assert loss.item() == pytest.approx(exact.item(), rel=1e-3 if low < -1e3 else 1e-5)
    assert all(torch.isfinite(logits.grad).all() for logits in student.values())


@pytest.mark.fault(17)
@every_match
def test_no_valid_pixel_gives_zero_with_a_gradient_path(match):
    student = with_grad(random_maps(0))
    loss = match(student, random_maps(1), torch.zeros(4, 3, 5, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert all((logits.grad == 0).all() for logits in student.values())


@pytest.mark.fault(20)
def test_unusable_input_is_refused_with_both_shapes():
    student, teacher, valid = random_maps(0), random_maps(1), random_valid()
    with pytest.raises(KdamValueError, match="mode 'rows'"):
        inter_task(student, teacher, valid, 1.0, "rows")
    for match in MATCHES.values():
        with pytest.raises(KdamValueError, match=r"\(4, 5, 3, 5\).*\(4, 1, 3, 5\)"):
            match(student, teacher, valid[:, None])
        with pytest.raises(KdamValueError, match=r"\(4, 5, 3, 5\).*\(4, 4, 3, 5\)"):
            match(student, {**teacher, "semseg": teacher["semseg"][:, :4]}, valid)
        with pytest.raises(KdamValueError, match="bool"):
            match(student, teacher, valid.float())
        with pytest.raises(KdamValueError, match="depth"):
            match(student, {"semseg": teacher["semseg"]}, valid)


# ---- the global batch of several processes: each is given a shard, the value and gradient are those of the joint batch


class ThreadedProcesses(Processes):
    """Processes of which each is a thread; written without torch.distributed, as an independent reference."""

    def __init__(self, size):
        super().__init__(size)
        self.barrier, self.slots, self.rank = threading.Barrier(size, timeout=20), [None] * size, threading.local()

    def gather(self, x):
        self.slots[self.rank.index] = x
        self.barrier.wait()
        gathered = torch.stack(self.slots)
        self.barrier.wait()
        return gathered

    def mean(self, x):
        return self.gather(x.detach()).mean(0)

    def max(self, x):
        return self.gather(x.detach()).amax(0)

    def sum(self, x):
        total = self.gather(x.detach()).sum(0)
        # the gradient of an all-reduced sum is the sum of the processes' (here equal) gradients
        return total + self.size * (x - x.detach())


SPLITS = {"even": (2, 2), "uneven": (3, 1)}


def joint_batch(empty_shard):
    valid = random_valid()
    if empty_shard:
        valid[2:] = False
    return random_maps(0), random_maps(1), valid


def shard(maps, first, last):
    return {name: logits[first:last].clone() for name, logits in maps.items()}


def run_shard(match, processes, first, last, empty_shard):
    """The value and the gradient, as DDP averages it, of one process's shard."""
    student, teacher, valid = joint_batch(empty_shard)
    student = with_grad(shard(student, first, last))
    loss = match(student, shard(teacher, first, last), valid[first:last], TEMPERATURE, processes)
    loss.backward()
    return loss.item(), {name: logits.grad / processes.size for name, logits in student.items()}


def assert_shards_equal_joint_batch(match_name, shards, empty_shard):
    student, teacher, valid = joint_batch(empty_shard)
    student = with_grad(student)
    loss = MATCHES[match_name](student, teacher, valid)
    loss.backward()
    values = [value for value, _ in shards]
    assert np.mean(values) == pytest.approx(loss.item(), rel=1e-12)
    if match_name == "intra":
        assert values == pytest.approx([loss.item()] * len(values), rel=1e-12)
    for name in CHANNELS:
        joint = torch.cat([gradients[name] for _, gradients in shards])
        np.testing.assert_allclose(joint.numpy(), student[name].grad.numpy(), rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("match_name", MATCHES)
@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
@pytest.mark.parametrize("empty_shard", [False, True])
def test_shards_equal_the_joint_batch_over_threads(match_name, split, empty_shard):
    processes, results = ThreadedProcesses(2), [None, None]

    def work(rank):
        processes.rank.index = rank
        first = rank * split[0]
        results[rank] = run_shard(MATCHES[match_name], processes, first, first + split[rank], empty_shard)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert_shards_equal_joint_batch(match_name, results, empty_shard)


def _process(rank, store, out):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    results = {}
    for match_name, match in MATCHES.items():
        for empty_shard in (False, True):
            results[match_name, empty_shard] = run_shard(match, Processes(size=2), 2 * rank, 2 * rank + 2, empty_shard)
    torch.save(results, f"{out}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.reliability
def test_shards_equal_the_joint_batch_over_real_processes(tmp_path):
    torch.multiprocessing.spawn(_process, (str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    shards = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for match_name, empty_shard in shards[0]:
        pair = [results[match_name, empty_shard] for results in shards]
        assert_shards_equal_joint_batch(match_name, pair, empty_shard)
