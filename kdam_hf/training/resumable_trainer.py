"""`Trainer` whose checkpoints are whole or not there, and which goes on exactly where it stopped.

Unusual here: `Trainer` writes a checkpoint into a hidden folder, which is sealed and renamed; a checkpoint also holds the
sums behind the next log line, so that logged losses do not depend on interruptions; no pickle of the arguments is
written; a finished run takes no further step; SIGTERM and SIGINT end the training with a checkpoint of the step.
A push is what `kdam publish` uploads, one commit of model, card, code and log, never of optimizer state or pickles, so the
strategies `checkpoint` and `all_checkpoints` do not exist. Training waits for the upload, since the next checkpoint may
delete the one that is sent; an upload that fails during the training is reported and does not end it.
"""

import json
import warnings
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import SchedulerType, TrainOutput

from dataset_loaders import EpochSampler, MixedDataset, MixedSampler
from kdam_hf import io
from kdam_hf.distributed import Processes
from kdam_hf.errors import CheckpointError, HubError, KdamError, KdamValueError
from kdam_hf.hub.publication import make_publication
from kdam_hf.hub.upload import open_repository, upload
from kdam_hf.training import checkpointing
from kdam_hf.training.arguments import KdamTrainingArguments
from kdam_hf.training.fingerprint import refuse_other_objective
from kdam_hf.training.loading import WatchedDataset, explained_failures, layers, make_loader
from kdam_hf.training.report import versions
from kdam_hf.training.signals import StopRequest
from kdam_hf.weights_kdam import WEIGHTS


class RunningMeans:
    """Sums since the last log line, kept on the device, so that nothing waits for it; an interruption does not change them."""

    def __init__(self, device: torch.device) -> None:
        self._sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=device))
        self.steps = 0
        """Optimizer steps since the last log line."""
        self.total_loss = 0.0
        """Sum of `loss` over all steps until the last log line."""

    def add(self, values: Mapping[str, Any]) -> None:
        """Detached scalars by name."""
        for name, value in values.items():
            self._sums[name] += value

    def take(self, processes: Processes) -> dict[str, float]:
        """The means over steps and processes, which begin anew."""
        sums = processes.mean(torch.stack([*self._sums.values()])).tolist()
        means = {name: total / self.steps for name, total in zip(self._sums, sums, strict=True)}
        self.total_loss += means["loss"] * self.steps
        self._sums.clear()
        self.steps = 0
        return means

    def state(self) -> dict[str, Any]:
        """The sums of this process, as plain data; `load` takes them up."""
        sums = {name: value.item() for name, value in self._sums.items()}
        return {"sums": sums, "steps": self.steps, "total_loss": self.total_loss}

    def load(self, state: Mapping[str, Any]) -> None:
        """As if nothing had happened since `state`."""
        self.steps, self.total_loss = state["steps"], state["total_loss"]
        self.add(state["sums"])


class ResumableTrainer(Trainer, TrainerCallback, ABC):
    """Adds sealed checkpoints, exact resume and orderly stops; see `docs/training.md`. It is a callback of its own loop."""

    args: KdamTrainingArguments
    processes: Processes
    _facts: dict[str, Any]
    resumed_from: Path | None = None
    """The checkpoint that training went on from."""
    _told: int = 0
    """The signal that all processes stop after; 0 for none."""
    _saved_step: int | None = None
    _best: str | None = None
    _sampler: EpochSampler | MixedSampler | None = None
    views: int | None = None
    """Fixed crops per image, taken in turn; new ones in every epoch for None."""
    in_work = "before the first batch"
    """Number and size of the images in work, for messages."""

    def __init__(self, model: Any, args: KdamTrainingArguments, *more: Any, **kwargs: Any) -> None:
        if args.output_dir is None:
            raise KdamValueError("output_dir is not given: a folder for the model and its checkpoints.")
        self._watched: dict[str, WatchedDataset] = {}
        try:
            super().__init__(model, args, *more, **kwargs)
            if self.args.gradient_checkpointing or getattr(self.args, "activation_checkpointing", False):  # since 5.23
                model.gradient_checkpointing_enable()  # `Trainer` would refuse it later
        except KdamError:
            raise
        except (ValueError, ImportError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "installed" not in str(error):  # else of a tracker that is not
                raise
            raise KdamValueError(str(error)) from error
        self.processes = Processes(self.args.world_size)
        self.means = RunningMeans(self.args.device)
        self._stop = StopRequest()
        self.add_callback(self)

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What this run computes, flat; a checkpoint is only continued by a run that computes the same."""

    def save_extra(self, folder: Path) -> None:
        """Write what else belongs into a checkpoint."""

    def evaluated_model(self) -> Any:
        """What is scored and saved."""
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

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
        output, main = Path(self.args.output_dir or ""), self.args.process_index == 0
        with io.exclusive(output / ".lock", str(output), 60) if main else nullcontext():
            with self.args.main_process_first(local=False, desc="cleaning up"):
                if main:
                    checkpointing.clean(output)
            self._facts = {"objective": self.describe(), "versions": versions()}
            self.resumed_from = folder = self._choose(resume_from_checkpoint, output)
            self._told, self._saved_step = 0, None
            self.means = RunningMeans(self.args.device)
            if folder is not None and self._is_finished(folder):
                return TrainOutput(self.state.global_step, 0.0, {})
            with StopRequest() as self._stop, self.explained_failures():
                result = super().train(resume_from_checkpoint=None if folder is None else str(folder), **kwargs)
                self.any_process(torch.zeros((), device=self.args.device))
        if self._told and self._saved_step == self.state.global_step:
            if main:
                print(f"stopped; continue from step {self._saved_step} with --resume_from_checkpoint last", flush=True)
            raise SystemExit(128 + self._told)
        return result

    def any_process(self, flag: Tensor) -> bool:
        """Whether a flag (scalar) is set in any process; takes up signals that any of them got. Called by all of them.

        One synchronisation with the device, and one with the other processes.
        """
        told = self._stop.received  # which a signal may change at any moment, hence never written here
        if self.args.world_size > 1:
            flags = torch.stack([flag.float(), torch.tensor(float(told), device=flag.device)])
            flag, told = self.processes.max(flags).tolist()
        self._told = self._told or int(told)
        return bool(flag)

    def explained_failures(self, *names: str) -> AbstractContextManager[None]:
        """While entered, failures of memory and of data workers, of "train", "eval" or both, say what was going on."""
        watched = {name: self._watched[name] for name in names if name in self._watched} if names else self._watched
        return explained_failures(lambda: f"step {self.state.global_step}, {self.in_work}", watched)

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        """As of `Trainer`.

        Raises:
            KdamValueError: settings that the schedule does not take.
        """
        try:
            return super().create_scheduler(*args, **kwargs)
        except (ValueError, TypeError) as error:
            name = SchedulerType(self.args.lr_scheduler_type).value
            settings = f"lr_scheduler_type {name}, lr_scheduler_kwargs {self.args.lr_scheduler_kwargs}"
            raise KdamValueError(f"{settings}: {error}.") from error

    def _choose(self, asked: str | bool | None, output: Path) -> Path | None:
        """The checkpoint to go on from, verified, and made by a run with the same objective."""
        if not asked:
            return None
        if asked in (True, "last"):
            found = checkpointing.newest_sealed(output, quiet=self.args.process_index > 0)
        else:
            found = Path(str(asked)), checkpointing.verify(Path(str(asked)))
        if found is None:
            return None
        folder, manifest = found
        refuse_other_objective(manifest["objective"], self._facts["objective"], folder)
        own = [f"rng_state{self._rank}.pth", self._sums_file]
        required = [WEIGHTS, "optimizer.pt", *own, "scheduler.pt", TRAINER_STATE_NAME]
        if absent := [name for name in required if name not in manifest["files"]]:
            raise CheckpointError(f"{folder} was saved without {', '.join(absent)}; training cannot go on from it.")
        if self.args.process_index == 0:
            print(f"continuing from {folder}", flush=True)
        return folder

    def _is_finished(self, folder: Path) -> bool:
        """Whether all steps were taken; then takes up the weights and the state. `Trainer` would take one more step."""
        state = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))
        if state.global_step < state.max_steps:
            return False
        self._find_best(state)
        if self.args.load_best_model_at_end and state.best_model_checkpoint is not None:
            folder = Path(state.best_model_checkpoint)
            checkpointing.verify(folder)
        self.model.load_state_dict(load_file(folder / WEIGHTS))
        state.is_local_process_zero = self.is_local_process_zero()
        state.is_world_process_zero = self.is_world_process_zero()
        self.state = state
        if not any("train_loss" in line for line in state.log_history):
            self._restore_sums()
            self.log({"total_flos": state.total_flos, "train_loss": 0.0})
        return True

    def _find_best(self, state: TrainerState) -> None:
        """Name the best checkpoint by where it is now: a run that goes on may have been moved."""
        here = Path(self.args.output_dir or "") / f"checkpoint-{state.best_global_step}"
        if here.is_dir():
            state.best_model_checkpoint = str(here)

    def get_train_dataloader(self) -> DataLoader:
        """Over the training data, in another order in every epoch."""
        *_, source = layers(self.train_dataset)
        seed = data_seed(self.args)
        if isinstance(source, MixedDataset):
            self._sampler = MixedSampler(source.counts, source.share, seed, self.views, source.both_runs)
        else:
            self._sampler = EpochSampler(len(source), seed, self.views, source.runs)
        names = "drop_last", "pin_memory", "persistent_workers"
        options = {name: getattr(self.args, f"dataloader_{name}") for name in names}
        batch_size = self.args.per_device_train_batch_size
        return self.accelerator.prepare(self._loader("train", self.train_dataset, batch_size, self._sampler, **options))

    def get_eval_dataloader(self, eval_dataset: Dataset | str | None = None) -> DataLoader:
        """This process's strided share of a dataset, or of one of `self.eval_dataset` by name; that by default.

        Uneven shares are fine, nothing is repeated.

        Raises:
            KdamValueError: there is none.
        """
        dataset: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(dataset, str):
            dataset = (self.eval_dataset or {}).get(dataset)
        if dataset is None:
            raise KdamValueError("no eval_dataset to score: give one to the trainer, or to evaluate.")
        share = range(self.args.process_index, len(dataset), self.args.world_size)
        return self._loader("eval", dataset, self.args.per_device_eval_batch_size, share)

    def _loader(self, name: str, dataset: Any, batch_size: int, sampler: Any, **options: Any) -> DataLoader:
        watched = self._watched[name] = WatchedDataset(dataset, self.args.dataloader_num_workers)
        options |= {"batch_size": batch_size, "sampler": sampler, "collate_fn": self.data_collator}
        return make_loader(watched, self.args, **options)

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        """As `get_eval_dataloader`."""
        return self.get_eval_dataloader(test_dataset)

    # ---- saving -----------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write beside, seal, and only then delete older checkpoints.

        Raises:
            CheckpointError: it could not be written; earlier checkpoints are intact.
        """
        output, step, main = Path(self.args.output_dir or ""), self.state.global_step, self.args.should_save
        final = output / f"checkpoint-{step}"
        partial = output / checkpointing.SAVING / final.name
        with checkpointing.explained_disk_errors(partial), io.replacing(final, partial) if main else nullcontext():
            self.accelerator.wait_for_everyone()
            # what `Trainer` saves, but beside; it neither rotates nor pushes
            kept, self.args = self.args, copy(self.args)
            self.args.__dict__.update(output_dir=str(partial.parent), save_total_limit=None, push_to_hub=False)
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self.args = kept
            if self.state.best_global_step == step:
                self.state.best_model_checkpoint = str(final)
            if not self.args.save_only_model:
                (partial / self._sums_file).write_text(json.dumps(self.means.state()), "utf-8")
            if main:
                self.save_extra(partial)
                self.state.save_to_json(str(partial / TRAINER_STATE_NAME))
                (partial / "training_args.json").write_text(self.args.to_json_string(), "utf-8")
            self.accelerator.wait_for_everyone()
            if main:
                checkpointing.write_manifest(partial, {"step": step, **self._facts})
        self._saved_step = step
        if main:
            io.discard(partial.parent)
            best = self.state.best_model_checkpoint
            checkpointing.rotate(output, self.args.save_total_limit, [final] if best is None else [final, Path(best)])
        self.accelerator.wait_for_everyone()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Weights and configuration, for `from_pretrained`; each file of output_dir is replaced whole. Pushes nothing.

        Raises:
            CheckpointError: it could not be written.
        """
        if not self.args.should_save:
            return
        output = Path(output_dir or self.args.output_dir or "")
        io.make_folder(output)
        with (
            checkpointing.explained_disk_errors(output),
            TemporaryDirectory(prefix=checkpointing.MODEL, dir=output) as partial,
        ):
            self.evaluated_model().save_pretrained(partial)
            if self.processing_class is not None:
                self.processing_class.save_pretrained(partial)
            checkpointing.move_files(Path(partial), output)

    # ---- publishing -------------------------------------------------------------------------------------------------

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Create the repository, before the first step: a wrong name or token must not wait for the last one.

        Raises:
            HubError: refused or unreachable.
        """
        self.push_in_progress = None
        self.hub_model_id = self.args.hub_model_id
        if self.is_world_process_zero():
            private = self.args.hub_private_repo if private is None else private
            open_repository(self.args.hub_model_id or "", bool(private), token or self.args.hub_token)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Publish the model of a sealed checkpoint, if asked for, with a card that says how far the training is."""
        if not args.push_to_hub or args.hub_strategy == "end" or not state.is_world_process_zero:
            return
        folder, step = f"{args.output_dir}/checkpoint-{state.global_step}", state.global_step
        progress = f"Still in training: step {step} of {state.max_steps}, not scored yet."
        try:
            self._publish(folder, f"Training in progress, step {step}", progress, args.hub_token)
        except HubError as error:
            warnings.warn(f"{error} Training goes on; the next checkpoint is pushed again.", stacklevel=2)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        **kwargs: Any,
    ) -> str | None:
        """Publish what is in output_dir, with the scores of results.json where `execute` has left them; the URL of the commit.

        None on processes other than the first. `token` is by default `hub_token`, or that of this machine; it always blocks.

        Raises:
            HubError: refused, unreachable or interrupted; the model is complete on disk.
            KdamValueError: a revision, or an argument that is not known.
        """
        if given := kwargs | ({} if revision is None else {"revision": revision}):
            raise KdamValueError(
                f"push_to_hub was given {given}; it pushes to the main branch. Name a state by a tag: kdam publish --revision."
            )
        if not self.is_world_process_zero():
            return None
        if self.hub_model_id is None:
            self.init_hf_repo(token)
        folder = str(self.args.output_dir)
        try:
            return self._publish(folder, commit_message or "End of training", "", token or self.args.hub_token)
        except HubError as error:
            raise HubError(
                f"{error} The model is complete in {folder}; publish it with kdam publish --model {folder} "
                f"--repo_id {self.args.hub_model_id}."
            ) from error

    def _publish(self, folder: str, message: str, progress: str, token: str | None) -> str:
        accepted, repo_id = self.args.accept_teacher_license, str(self.hub_model_id)
        files = make_publication(
            folder, repo_id, allow_no_results=True, progress=progress, accept_teacher_license=accepted
        )
        return upload(repo_id, files, message, token=token)

    # ---- what is between two log lines ------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with means over processes and steps, however often the training was interrupted in between.

        `loss` and the terms of the loss are means since the last log line, `train_loss` over the whole training.
        """
        if self.means.steps and ("loss" in logs or "train_loss" in logs):
            means = self.means.take(self.processes)
            if "loss" in logs:
                logs |= means
        if "train_loss" in logs:
            logs["train_loss"] = self.means.total_loss / max(self.state.global_step, 1)
        super().log(logs, start_time)

    # ---- moments of the loop ----------------------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take up the sums of the checkpoint that training goes on from; say what begins."""
        if self.resumed_from is not None:
            self._find_best(state)
            self._restore_sums()
        if args.process_index == 0:
            images = f"{state.max_steps} steps of {self.get_total_train_batch_size(args)} images"
            print(f"{images} on {args.device}, processes: {args.world_size}, bf16: {args.bf16}", flush=True)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell the sampler, however the data loader was wrapped."""
        if self._sampler is not None:
            self._sampler.set_epoch(epoch_of(state))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop after a signal to any process, and save."""
        if args.world_size == 1:
            self._told = self._told or self._stop.received
        if self._told:
            control.should_training_stop = control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """After a signal, hide the best checkpoint from the clean-up of a finished training: it would delete the last one.

        After the last step, verify it before `Trainer` loads it.
        """
        self._best = state.best_model_checkpoint
        if "train_loss" in logs and self._best is not None:
            if self._told:
                state.best_model_checkpoint = None
            elif args.load_best_model_at_end:
                checkpointing.verify(Path(self._best))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show it again."""
        state.best_model_checkpoint = self._best

    def _restore_sums(self) -> None:
        self.means.load(json.loads((cast(Path, self.resumed_from) / self._sums_file).read_text("utf-8")))

    @property
    def _sums_file(self) -> str:
        return f"running_sums{self._rank}.json"

    @property
    def _rank(self) -> str:
        return f"_{self.args.process_index}" if self.args.world_size > 1 else ""


def epoch_of(state: TrainerState) -> int:
    """The epoch that begins, counted from 0."""
    return int((state.epoch or 0) + 1e-6)


def data_seed(args: KdamTrainingArguments) -> int:
    """The seed of sampling and augmentation."""
    return args.seed if args.data_seed is None else args.data_seed
