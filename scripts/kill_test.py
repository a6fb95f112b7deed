"""Kill a short training again and again, and check that nothing is lost.

    python scripts/kill_test.py --kills 200 --seed 0 --output docs/benchmarks/kills_cpu.json

A tiny student with dropout trains for a few steps on augmented rooms, with a checkpoint after every step and two kept. Each
attempt resumes the newest sealed checkpoint and gets a SIGKILL at a moment drawn uniformly over the time that a whole
training takes; an attempt that ends before is a finished training, and the next one starts anew. All finished trainings
must end in the same weights and the same logged losses as one that was never killed, and a sealed checkpoint must exist at
every moment after the first. Then the price of sealing is taken on a checkpoint of usual size. Attempts are forked from
this process, which has imported everything and trained nothing.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from dataset_loaders import TrainTransform, TransformedDataset, open_dataset
from kdam_hf import KdamStudent, KdamTeacher
from kdam_hf.errors import CheckpointError
from kdam_hf.presets import make_config
from kdam_hf.training import KdamTrainingArguments, MultiTaskTrainer, run_command
from kdam_hf.training.checkpointing import list_checkpoints, newest_sealed, seal, writing_to
from kdam_hf.training.identity import tensors_hash
from kdam_hf.training.report import hardware, versions, write_json

MEAN, STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
STEPS = 12


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="SIGKILLs to send")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        tally = kill_run(Path(folder), args.kills, args.seed)
        result = tally.summary() | {"sealing": price_of_sealing(Path(folder))}
    result |= {"seed": args.seed, "hardware": hardware(), "date": datetime.now(UTC).date().isoformat()}
    print(json.dumps(result, indent=1))
    if args.output:
        write_json(args.output, result | {"versions": versions()})
    if result["distinct_final_hashes"] != 1 or result["minimum_sealed"] < 1:
        raise CheckpointError("a training was changed by being killed, or was left without a sealed checkpoint.")


@dataclass
class Tally:
    """What many kills came to."""

    seconds: float
    """Of an uninterrupted training."""
    hashes: list[str]
    """One per finished training; the first was never killed."""
    kills: int = 0
    resumes: int = 0
    killed_at_steps: list[int] = field(default_factory=list)
    """Steps of the newest sealed checkpoint at each kill; 0 for none yet."""
    sealed: list[int] = field(default_factory=list)
    """Checkpoints in place at every look after the first one was."""

    def summary(self) -> dict[str, Any]:
        """As it is reported."""
        return {
            "kills": self.kills,
            "resumes": self.resumes,
            "kills_before_the_first_checkpoint": self.killed_at_steps.count(0),
            "finished_trainings": len(self.hashes),
            "distinct_final_hashes": len(set(self.hashes)),
            "minimum_sealed": min(self.sealed),
            "looks": len(self.sealed),
            "seconds_uninterrupted": round(self.seconds, 2),
        }


def kill_run(root: Path, kills: int, seed: int) -> Tally:
    """Send `kills` SIGKILLs to trainings in `root`.

    Args:
        root: an empty folder.
        kills: to send.
        seed: of the moments.

    Raises:
        CheckpointError: an attempt failed by itself, or a kill left no sealed checkpoint where there was one.
    """
    start = time.monotonic()
    reference = wait(fork(lambda: train(root / "reference")), root / "reference")
    tally, moments = Tally(time.monotonic() - start, [reference]), random.Random(seed)
    trial = 0
    while tally.kills < kills:
        output = root / f"trial-{trial}"
        tally.resumes += bool(list_checkpoints(output))
        if attempt(output, moments.uniform(0, tally.seconds), tally):
            shutil.rmtree(output)
            trial += 1
    tally.hashes.append(wait(fork(lambda: train(output)), output))
    return tally


def attempt(output: Path, seconds: float, tally: Tally) -> bool:
    """One attempt at a training that is killed after `seconds`; whether it finished before."""
    had = bool(list_checkpoints(output))
    pid, deadline = fork(lambda: train(output)), time.monotonic() + seconds
    while time.monotonic() < deadline:
        count = len(list_checkpoints(output))
        if had or count:
            had = True
            tally.sealed.append(count)
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            tally.hashes.append(wait(pid, output))
            return True
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    tally.kills += 1
    found = newest_sealed(output)  # raises when there are checkpoints, but none verifies
    if had and found is None:
        raise CheckpointError(f"{output}: a kill left no checkpoint.")
    tally.killed_at_steps.append(found[1]["step"] if found else 0)
    return False


def build(output: Path, **options: Any) -> MultiTaskTrainer:
    """A short training with everything that draws random numbers: augmentation, dropout and drop path."""
    rooms = open_dataset("synthetic_rooms", "train", num_images=8, height=40, width=56)
    defaults = {
        "output_dir": str(output),
        "max_steps": STEPS,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-3,
        "optim": "adamw_torch",
        "save_steps": 1,
        "save_total_limit": 2,
        "logging_steps": 5,  # checkpoints lie between log lines
        "use_cpu": True,
        "precision": "fp32",
        "cpu_threads": 1,
        "disable_tqdm": True,
        "report_to": [],
    }
    args = KdamTrainingArguments(**(defaults | options))
    config = make_config("student", "tiny-swin", rooms.tasks, image_mean=MEAN, image_std=STD)
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"):
        setattr(config.backbone_config, name, 0.1)
    torch.manual_seed(0)
    data = TransformedDataset(rooms, TrainTransform(rooms.tasks, (32, 48), MEAN, STD))
    return MultiTaskTrainer(KdamStudent(config), args, rooms.tasks, data)


def train(output: Path, **options: Any) -> None:
    """Train, or go on, and leave `final.json` with a hash of the weights and of every logged loss."""
    trainer = build(output, **options)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        trainer.train(resume_from_checkpoint="last")
    write_json(output / "final.json", final_hash(trainer))


def final_hash(trainer: MultiTaskTrainer) -> str:
    """Of the weights and of the log without its times."""
    untimed = [
        {key: value for key, value in line.items() if "runtime" not in key and "per_second" not in key}
        for line in trainer.state.log_history
    ]
    text = json.dumps([tensors_hash(trainer.model), untimed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def fork(work: Callable[[], object]) -> int:
    """Start `work` in a copy of this process; its id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException as error:
        traceback.print_exc()
        os._exit(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1)
    os._exit(0)


def wait(pid: int, output: Path) -> str:
    """The hash that a training left.

    Raises:
        CheckpointError: it failed.
    """
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise CheckpointError(f"{output}: a training that was not killed ended with code {code}; see above.")
    return json.loads((output / "final.json").read_text())


def price_of_sealing(root: Path, rounds: int = 11) -> dict[str, Any]:
    """Seconds of a plain save, of hashing its bytes, and of a sealed save, of a Swin-T teacher with AdamW; medians.

    `overhead` is what the sealed save takes beyond the other two, as a fraction of them, round by round. What is unsealed is
    not synced and is removed before the sealed save begins, so that its bytes do not wait for the disk there.
    """
    rooms = open_dataset("synthetic_rooms", "train", num_images=1, height=40, width=56)
    model = KdamTeacher(make_config("teacher", "swin-tiny", rooms.tasks))
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()

    def write(folder: Path) -> None:
        with writing_to(folder):
            model.save_pretrained(folder)
            torch.save(optimizer.state_dict(), folder / "optimizer.pt")

    def hash_all(folder: Path) -> None:
        for path in folder.iterdir():
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")

    def seal_all(folder: Path) -> None:
        write(folder)
        seal(folder, root / "sealed", {})

    taken = []
    for _ in range(rounds + 1):
        os.sync()
        one = {"write_s": timed(lambda: write(root / "plain")), "hash_s": timed(lambda: hash_all(root / "plain"))}
        size = sum(path.stat().st_size for path in (root / "plain").iterdir())
        shutil.rmtree(root / "plain")
        taken.append({"megabytes": size / 1e6, **one, "sealed_s": timed(lambda: seal_all(root / "partial"))})
        shutil.rmtree(root / "sealed")
    taken = taken[1:]  # the first one warms up
    overheads = [t["sealed_s"] / (t["write_s"] + t["hash_s"]) - 1 for t in taken]
    return {
        **{key: round(statistics.median(t[key] for t in taken), 4) for key in taken[0]},
        "overhead": round(statistics.median(overheads), 4),
        "overhead_rounds": [round(value, 4) for value in overheads],
    }


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    run_command(main)
