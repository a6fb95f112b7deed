"""What our trainers do at the moments that `Trainer` offers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from kdam_hf.training.checkpointing import verify

if TYPE_CHECKING:
    from kdam_hf.training.trainer import MultiTaskTrainer


class TrainingCallback(TrainerCallback):
    """Tells a trainer where its loop is, and stops at the end of a step after a signal to any process."""

    def __init__(self, trainer: "MultiTaskTrainer") -> None:
        self.trainer = trainer
        self._best: str | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take up a checkpoint, and say what begins."""
        self.trainer.restore()
        if args.process_index == 0:
            images = self.trainer.get_total_train_batch_size(args)
            print(
                f"{state.max_steps} steps of {images} images on {args.device}, processes: {args.world_size}, bf16: {args.bf16}"
            )

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.begin_epoch(int((state.epoch or 0) + 1e-6))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.begin_step()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.end_step()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.after_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop, and save."""
        if args.world_size == 1:
            self.trainer._told = self.trainer._told or self.trainer._stop.received
        if self.trainer._told:
            control.should_training_stop = control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """After a signal, hide the best checkpoint from the clean-up of a finished training: it would delete the last one.

        After the last step, verify it before `Trainer` loads it.
        """
        self._best = state.best_model_checkpoint
        if "train_loss" in logs and self._best is not None:
            if self.trainer._told:
                state.best_model_checkpoint = None
            elif args.load_best_model_at_end:
                verify(Path(self._best))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show it again."""
        self.trainer.end_training(args.load_best_model_at_end and state.best_model_checkpoint is not None)
        state.best_model_checkpoint = self._best
