"""Row 9: SIGTERM and SIGINT end a training with a sealed checkpoint of the step; a second one ends it at once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from conftest_kit import ROOMS, SMALL
from fault_kit import ROOT, STEPS, build, fork, train, wait
from transformers import TrainerCallback

from kdam_hf.io import list_checkpoints
from kdam_hf.training.checkpointing import verify
from kdam_hf.training.signals import StopRequest

pytestmark = pytest.mark.reliability
LONG = "--max_steps 2000 --logging_steps 1000 --report_to none"


def ended(pid, seconds=60):
    """Exit status of a child, which must end in time."""
    found = []
    try:
        wait_for(lambda: found.append(os.waitpid(pid, os.WNOHANG)) or found[-1][0], seconds)
    except AssertionError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    return os.waitstatus_to_exitcode(found[-1][1])


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not after {seconds} s"
        time.sleep(0.01)


def gone(*pids):
    return not any(os.path.exists(f"/proc/{pid}/cwd") for pid in pids)


def children(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def start(command, folder, **options):
    """The script `train.py`, after the words of `command`; its output is in `folder`/log."""
    words = [*map(str, command), str(ROOT / "scripts" / "train.py"), *SMALL, *ROOMS, *LONG.split()]
    words += [f"--{name}={value}" for name, value in {"output_dir": folder / "run", **options.pop("arguments")}.items()]
    environment = os.environ | options.pop("environment", {})
    with (folder / "log").open("w") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, cwd=ROOT, env=environment, **options)


class Visible(TrainerCallback):
    """Leaves `step-N` in output_dir for every step begun, slowly enough to be interrupted on any machine."""

    def on_step_begin(self, args, state, control, **kwargs):
        Path(args.output_dir, f"step-{state.global_step}").touch()
        time.sleep(0.1)


def train_visibly(output, **options):
    trainer = build(output, **options)
    trainer.add_callback(Visible())
    trainer.train(resume_from_checkpoint="last")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    output = tmp_path_factory.mktemp("reference")
    return wait(fork(lambda: train(output, save_steps=100)), output)


@pytest.mark.parametrize(("number", "code", "workers"), [(signal.SIGTERM, 143, 2), (signal.SIGINT, 130, 0)])
@pytest.mark.fault(9)
def test_a_signal_seals_the_step_and_the_rest_is_as_if_it_had_not_come(tmp_path, reference, number, code, workers):
    options = {"save_steps": 100, "dataloader_num_workers": workers, "max_steps": STEPS}
    pid = fork(lambda: train_visibly(tmp_path, **options))
    wait_for((tmp_path / "step-1").exists)
    time.sleep(random.Random(code).uniform(0, 0.3))
    told = children(pid)
    assert len(told) >= workers
    for process in (*told, pid):  # as a scheduler does it: every process of the job
        os.kill(process, number)
    assert ended(pid) == code
    wait_for(lambda: gone(*told), 10)
    (sealed,) = list_checkpoints(tmp_path)
    assert 0 < verify(sealed)["step"] < STEPS
    assert wait(fork(lambda: train(tmp_path, **options)), tmp_path) == reference


@pytest.mark.fault(9)
def test_a_second_signal_ends_at_once_and_saves_nothing(tmp_path):
    def sleepy():
        trainer = build(tmp_path)
        trainer.training_step = lambda *args, **kwargs: ((tmp_path / "asleep").touch(), time.sleep(60))
        trainer.train()

    pid = fork(sleepy)
    wait_for((tmp_path / "asleep").exists)
    for _ in range(2):
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.2)
    assert ended(pid, seconds=5) == 143
    assert not list_checkpoints(tmp_path)


@pytest.mark.fault(9)
def test_a_signal_that_comes_while_processes_agree_is_heeded_after_the_next_step(tmp_path):
    trainer, asked = build(tmp_path), []

    class Told:
        def max(self, flags):
            asked.append(flags.tolist())
            os.kill(os.getpid(), signal.SIGTERM)  # after this process has said that it was not told
            return flags

    with StopRequest(echo_s=60) as trainer._stop, patch.object(type(trainer.args), "world_size", 2):
        trainer.processes = Told()
        assert not trainer.any_process(torch.tensor(False))
        assert trainer._told == 0
        assert trainer.any_process(torch.tensor(True))
        assert trainer._told == signal.SIGTERM
    assert asked == [[0, 0], [1, signal.SIGTERM]]


@pytest.mark.fault(9)
def test_a_stopped_training_keeps_the_checkpoint_that_it_names_beside_the_best_one(tmp_path):
    trainer = build(tmp_path, save_total_limit=1)

    class BestIsFirst(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                state.best_global_step = 1
                state.best_model_checkpoint = str(tmp_path / "checkpoint-1")
            if state.global_step == 4:
                os.kill(os.getpid(), signal.SIGTERM)

    trainer.add_callback(BestIsFirst())
    trainer.callback_handler.callbacks.reverse()  # before the one that looks for signals
    with pytest.raises(SystemExit):
        trainer.train()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-4", "checkpoint-1"]
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-1")


def test_the_echo_of_a_signal_through_a_launcher_is_not_a_second_one():
    before = signal.getsignal(signal.SIGINT)
    with StopRequest(echo_s=60) as stop:
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
    assert stop.received == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.fault(9)
def test_a_signal_to_a_whole_job_with_workers_and_library_threads_seals_the_step(tmp_path):
    """OpenBLAS keeps a thread per core in every process, and starts them again after a fork."""
    threads = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    arguments = {"save_steps": 1000, "dataloader_num_workers": 2}
    job = start([sys.executable], tmp_path, arguments=arguments, environment=threads, start_new_session=True)
    try:
        wait_for(lambda: len(children(job.pid)) >= 2 or job.poll() is not None)
        time.sleep(0.5)
        os.killpg(job.pid, signal.SIGTERM)
        assert job.wait(60) == 143, (tmp_path / "log").read_text()
    finally:
        job.kill()
    (sealed,) = list_checkpoints(tmp_path / "run")
    assert 0 < verify(sealed)["step"] < 2000


@pytest.mark.fault(9)
def test_a_signal_to_the_launcher_alone_reaches_the_training(tmp_path):
    """With one process `accelerate launch` dies of it and tells nobody."""
    output = tmp_path / "run"
    launch = "-m accelerate.commands.launch --num_machines 1 --num_processes 1 --mixed_precision no --dynamo_backend no"
    arguments = {"save_steps": 5, "resume_from_checkpoint": "last"}
    launcher = start([sys.executable, *launch.split()], tmp_path, arguments=arguments)
    try:
        wait_for(lambda: list_checkpoints(output) or launcher.poll() is not None)
        trainings = children(launcher.pid)
        assert len(trainings) == 1, (tmp_path / "log").read_text()
        launcher.terminate()
        launcher.wait(60)
        wait_for(lambda: gone(*trainings), 60)
    finally:
        launcher.kill()
    step = int((tmp_path / "log").read_text().split("continue from step ")[1].split()[0])
    newest = list_checkpoints(output)[0]
    assert verify(newest)["step"] == step
    assert json.loads((newest / "trainer_state.json").read_text())["global_step"] == step
