"""`Trainer` whose checkpoints are whole or not there, and which goes on exactly where it stopped.

Unusual here: a checkpoint also holds the sums behind the next log line, so that logged losses do not depend on
interruptions; no pickle of the arguments is written; a finished run takes no further step; SIGTERM and SIGINT end the
training with a checkpoint of the step.
"""

import json
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState

from kdam_hf.distributed import Processes
from kdam_hf.errors import CheckpointError, KdamValueError
from kdam_hf.training.arguments import KdamTrainingArguments
from kdam_hf.training.checkpointing import (
    checkpoint_folder,
    clean,
    exclusive,
    move_files,
    newest_sealed,
    partial_folder,
    rotate,
    seal,
    verify,
    writing_to,
)
from kdam_hf.training.identity import refuse_other_objective
from kdam_hf.training.loading import WatchedDataset, explained_failures, make_loader
from kdam_hf.training.report import versions, write_json
from kdam_hf.training.signals import StopRequest

LAST = "last"


class SealedTrainer(Trainer, ABC):
    """Adds sealed checkpoints, exact resume and orderly stops; see `docs/training.md`."""

    args: KdamTrainingArguments
    processes: Processes
    _resumed_from: Path | None = None
    _facts: dict[str, Any]
    _stop: StopRequest
    _agreed: int = 0
    """The signal that all processes stop after; 0 for none."""
    _saved_step: int | None = None

    def __init__(self, model: Any, args: KdamTrainingArguments, *more: Any, **kwargs: Any) -> None:
        if args.output_dir is None:
            raise KdamValueError("output_dir is not given: a folder for the model and its checkpoints.")
        self._watched: dict[str, WatchedDataset] = {}
        super().__init__(model, args, *more, **kwargs)
        self.processes = Processes(self.args.world_size)
        self._stop = StopRequest()
        self.add_callback(_Stopper(self))

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What this run computes, flat; a checkpoint is only continued by a run that computes the same."""

    @abstractmethod
    def batch_shape(self) -> str:
        """The batch in work, in words."""

    # ---- training ---------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train to the end, or until SIGTERM or SIGINT.

        Args:
            resume_from_checkpoint: a checkpoint folder; "last" or True for the newest in output_dir that verifies, if
                there is a checkpoint.
            kwargs: of `Trainer.train`.

        Raises:
            CheckpointError: the checkpoint is damaged, incomplete, or of a run with another objective; or the disk is full.
            DataWorkerError, OutOfMemoryError: as `explained_failures` has them.
            SystemExit: 128 + signal, after a signal; the checkpoint of the last step is sealed. A signal that comes after the
                last step of a training without checkpoints is not heeded: the weights would be lost.
        """
        output = Path(self.args.output_dir or "")
        with exclusive(output) if self.args.process_index == 0 else nullcontext():
            with self.args.main_process_first(local=False, desc="cleaning up"):
                if self.args.process_index == 0:
                    clean(output)
            self._facts = {"objective": self.describe(), "versions": versions()}
            self._resumed_from = self._choose(resume_from_checkpoint, output)
            self._agreed, self._saved_step = 0, None
            self.forget_sums()
            with StopRequest() as self._stop, self.explained_failures():
                chosen = None if self._resumed_from is None else str(self._resumed_from)
                result = super().train(resume_from_checkpoint=chosen, **kwargs)
                stopped_by = self.agree_on_stop()
        step = self.state.global_step
        if stopped_by and self._saved_step == step:
            if self.is_world_process_zero():
                print(f"stopped; continue from step {step} with --resume_from_checkpoint {LAST}", flush=True)
            raise SystemExit(128 + stopped_by)
        return result

    def agree_on_stop(self) -> int:
        """The signal that any process was told, the same on all; 0 for none. Called by all of them."""
        told = self._stop.received  # which a signal may change at any moment, hence never written here
        if self.args.world_size > 1:
            told = int(self.processes.max(torch.tensor(told, device=self.args.device)).item())
        self._agreed = self._agreed or told
        return self._agreed

    def explained_failures(self, *names: str) -> AbstractContextManager[None]:
        """While entered, failures of data workers and of memory say what was going on; afterwards no worker is left.

        Args:
            names: "train", "eval"; whose workers. By default those of both.
        """
        watched = {name: self._watched[name] for name in names if name in self._watched} if names else self._watched
        return explained_failures(lambda: f"step {self.state.global_step}, {self.batch_shape()}", watched)

    def _choose(self, asked: str | bool | None, output: Path) -> Path | None:
        """The checkpoint to go on from, verified, and made by a run with the same objective."""
        if not asked:
            return None
        if asked is True or asked == LAST:
            found = newest_sealed(output, quiet=self.args.process_index > 0)
        else:
            found = Path(str(asked)), verify(Path(str(asked)))
        if found is None:
            return None
        folder, manifest = found
        refuse_other_objective(manifest["objective"], self._facts["objective"], folder)
        absent = sorted(set(self._required()) - set(manifest["files"]))
        if absent:
            raise CheckpointError(f"{folder} was saved without {', '.join(absent)}; training cannot go on from it.")
        if self.args.process_index == 0:
            print(f"continuing from {folder}", flush=True)
        return folder

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """An epoch, unless all steps were taken before; `Trainer` would take one more."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        """Over the training data, in the order of the sampler."""
        watched = self._watched["train"] = WatchedDataset(self.train_dataset, self.args.dataloader_num_workers)
        loader = make_loader(
            watched,
            self.args,
            batch_size=self._train_batch_size,
            sampler=self._get_train_sampler(),
            collate_fn=self.data_collator,
            drop_last=self.args.dataloader_drop_last,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
        )
        return self.accelerator.prepare(loader)

    def get_eval_dataloader(self, eval_dataset: Dataset | str | None = None) -> DataLoader:
        """This process's strided share of the split; uneven shares are fine, nothing is repeated."""
        dataset: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        watched = self._watched["eval"] = WatchedDataset(dataset, self.args.dataloader_num_workers)
        return make_loader(
            watched,
            self.args,
            batch_size=self.args.per_device_eval_batch_size,
            sampler=range(self.args.process_index, len(dataset), self.args.world_size),
            collate_fn=self.data_collator,
        )

    # ---- saving -----------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write beside, seal, and only then delete older checkpoints; after `Trainer._save_checkpoint`.

        Raises:
            CheckpointError: it could not be written; earlier checkpoints are intact.
        """
        output, step, main = Path(self.args.output_dir or ""), self.state.global_step, self.args.should_save
        final, partial = checkpoint_folder(output, step), partial_folder(output, step)
        self.store_flos()
        with writing_to(partial) if main else nullcontext():
            self.accelerator.wait_for_everyone()
            self.save_model(str(partial), _internal_call=True)
            if not self.args.save_only_model:
                self._save_optimizer_and_scheduler(str(partial))
                self._save_scaler(str(partial))
                self._save_rng_state(str(partial))
                write_json(partial / self._sums_file, self.running_sums())
            if main:
                self._save_state(output, partial)
            self.accelerator.wait_for_everyone()
            if main:
                seal(partial, final, {"step": step, **self._facts})
        self._saved_step = step
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(final))
        if main:
            best = self.state.best_model_checkpoint
            rotate(output, self.args.save_total_limit, [final] if best is None else [final, Path(best)])
        self.accelerator.wait_for_everyone()

    def _save_state(self, output: Path, partial: Path) -> None:
        """trainer_state.json, with what callbacks want to find again, and the arguments."""
        best = self.state.best_global_step
        if best and (best == self.state.global_step or checkpoint_folder(output, best).exists()):
            self.state.best_model_checkpoint = str(checkpoint_folder(output, best))
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                name, states = type(callback).__name__, self.state.stateful_callbacks
                if isinstance(states[name], list):
                    states[name].append(callback.state())
                else:
                    states[name] = callback.state()
        self.state.save_to_json(str(partial / TRAINER_STATE_NAME))
        (partial / "training_args.json").write_text(self.args.to_json_string())

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Weights and configuration, for `from_pretrained`; each file of output_dir is replaced whole. Pushes nothing.

        Raises:
            CheckpointError: it could not be written.
        """
        if _internal_call:
            super().save_model(output_dir, True)
            return
        output, main = Path(output_dir or self.args.output_dir or ""), self.args.should_save
        with writing_to(output / ".model.partial") if main else nullcontext():
            super().save_model(str(output / ".model.partial"), True)
            if main:
                move_files(output / ".model.partial", output)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """As `Trainer` does, without its pickle of the arguments."""
        if self.args.should_save:
            self.accelerator.unwrap_model(self.model, keep_torch_compile=False).save_pretrained(
                output_dir or self.args.output_dir, state_dict=state_dict
            )
            if self.processing_class is not None:
                self.processing_class.save_pretrained(output_dir or self.args.output_dir)

    def _load_best_model(self) -> None:
        verify(Path(self.state.best_model_checkpoint))
        super()._load_best_model()

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        """After a signal, without the clean-up of a finished training: it would delete what to continue from."""
        best = self.state.best_model_checkpoint
        if self._agreed:
            self.state.best_model_checkpoint = None
        result = super()._finalize_training(*args, **kwargs)
        self.state.best_model_checkpoint = best
        return result

    # ---- what is between two log lines ------------------------------------------------------------------------------

    def running_sums(self) -> dict[str, Any]:
        """The sums behind the next log line, of this process, as plain data."""
        return {
            "loss": self._tr_loss.item(),
            "total_loss": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
        }

    def forget_sums(self) -> None:
        """Drop what an earlier training of this object has left of them; `Trainer` does so with its own."""

    def restore_sums(self, sums: dict[str, Any]) -> None:
        """Take up what `running_sums` left."""
        self._tr_loss += sums["loss"]
        self._total_loss_scalar = sums["total_loss"]
        self._globalstep_last_logged = sums["last_logged"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; the mean loss of a training is that of all its steps, however often it was interrupted."""
        if "train_loss" in logs:
            logs["train_loss"] = self._total_loss_scalar / max(self.state.global_step, 1)
        super().log(logs, start_time)

    @property
    def _sums_file(self) -> str:
        return f"running_sums{self._rank}.json"

    @property
    def _rank(self) -> str:
        return f"_{self.args.process_index}" if self.args.world_size > 1 else ""

    def _required(self) -> list[str]:
        """Files without which this process would go on differently."""
        return [
            *("model.safetensors", "optimizer.pt", "scheduler.pt", TRAINER_STATE_NAME),
            *(f"rng_state{self._rank}.pth", self._sums_file),
        ]


class _Stopper(TrainerCallback):
    """Takes up the sums of a checkpoint, and stops at the end of a step after a signal to any process."""

    def __init__(self, trainer: SealedTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = self.trainer._resumed_from
        if folder is not None:
            self.trainer.restore_sums(json.loads((folder / self.trainer._sums_file).read_text()))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer.agree_on_stop():
            control.should_training_stop = control.should_save = True
