"""`Trainer` for multi-task models, and its distilling subclass.

Unusual here: losses are those of the global batch (`kdam_hf.distributed`); evaluation streams through additive metrics on
a strided share of the split per process, so no prediction is kept and no image is counted twice; a non-finite loss stops
before the optimizer step.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from dataset_loaders import Collator, EpochSampler
from kdam_hf.distillation import DistillationCriterion
from kdam_hf.distillation.kernels import DenseLoss, Match, dense_loss, match_loss
from kdam_hf.errors import KdamValueError, NonFiniteLossError
from kdam_hf.image_processing_kdam import STRIDE
from kdam_hf.modeling_kdam import KdamPreTrainedModel
from kdam_hf.tasks import Task
from kdam_hf.training.arguments import KdamTrainingArguments
from kdam_hf.training.evaluation import evaluate_model
from kdam_hf.training.fingerprint import describe_objective
from kdam_hf.training.hub_trainer import PublishingTrainer
from kdam_hf.training.loading import sample_name
from kdam_hf.training.teacher import FrozenTeacher
from kdam_hf.training.teacher_cache import CachedTeacherDataset

Batch = Mapping[str, Any]
# fields of the criterion that are part of the objective
_MATCH = ("temperature", "beta", "inter", "intra", "resolution", "scale_by_temperature_squared")


class MultiTaskTrainer(PublishingTrainer):
    """Trains a teacher, a baseline or a single-task model on the weighted sum of its tasks' supervised losses.

    Args:
        model: a KDAM model.
        args: training arguments.
        tasks: the tasks of the model, in its order.
        train_dataset: yields training samples for keys (epoch, index).
        eval_dataset: yields full-size samples.
        kwargs: passed to `PublishingTrainer`.

    Raises:
        KdamValueError: tasks differ from the model's, or fewer images than one batch.
    """

    loss_is_scaled_for_ga = False
    views: int | None = None

    def __init__(
        self,
        model: KdamPreTrainedModel,
        args: KdamTrainingArguments,
        tasks: Sequence[Task],
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        **kwargs: Any,
    ) -> None:
        names = [task.name for task in tasks]
        if names != model.config.task_names:
            raise KdamValueError(
                f"the model predicts {model.config.task_names} but the data has tasks {names}; they must agree in order."
            )
        self.tasks = tuple(tasks)
        self._sampler: EpochSampler | None = None
        self._shape: torch.Size | None = None
        if train_dataset is not None:
            _check_length(train_dataset, args)
        if args.world_size > 1:
            args.ddp_find_unused_parameters = False
            _freeze_unused_parameters(model)
        if args.channels_last:
            model.to(memory_format=torch.channels_last)
        super().__init__(model, args, Collator(tasks), train_dataset, eval_dataset, **kwargs)
        model.config.__dict__.pop("use_cache", None)  # set by `Trainer`; nothing of a dense model is cached
        self.add_callback(EpochAndGradientCallback(self))

    def describe(self) -> dict[str, Any]:
        """What this run computes, flat and as plain data."""
        return describe_objective(self.args, self.model.config, self.tasks, self.train_dataset)

    def batch_shape(self) -> str:
        """Number and size of the images in work, for messages."""
        if self._shape is None:
            return "before the first batch"
        return f"{self._shape[0]} images of {self._shape[2]}x{self._shape[3]} pixels a process"

    # ---- losses -----------------------------------------------------------------------------------------------------

    def objective(self, predictions: Mapping[str, Tensor], inputs: Batch) -> DenseLoss:
        """The loss of a batch, and its named, weighted terms.

        Args:
            predictions: task name -> (B, C, h, w) at stride 4.
            inputs: a batch of the collator.
        """
        return self._dense_loss(predictions, inputs, None)

    def _dense_loss(self, predictions: Mapping[str, Tensor], inputs: Batch, match: Match | None) -> DenseLoss:
        labels, mask = inputs["labels"], inputs["pixel_mask"]
        return dense_loss(self.tasks, predictions, labels, mask, match, self.processes)

    def compute_loss(
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Any:
        """Sum of the loss terms; keeps their values for the next log line."""
        self._shape = inputs["pixel_values"].shape
        self._refuse_non_finite_images(inputs)
        layout = torch.channels_last if self.args.channels_last else torch.contiguous_format
        outputs = model(inputs["pixel_values"].contiguous(memory_format=layout), inputs["pixel_mask"])
        with torch.autocast(inputs["pixel_values"].device.type, enabled=False):
            try:
                loss, terms = self.objective(outputs.predictions, inputs)
            except KdamValueError as error:  # of the teacher's predictions
                raise KdamValueError(f"{self._where(inputs['index'])}: {error}") from error
        self._refuse_non_finite(terms, inputs)
        self._seen.append(inputs["index"])
        for name, term in terms.items():
            self._sums[name] += term
        self._summed_steps += 1
        return (loss, outputs) if return_outputs else loss

    def _where(self, indices: Tensor) -> str:
        """Step and samples, in words."""
        samples = ", ".join(sample_name(self.train_dataset, index) for index in indices.tolist())
        return f"step {self.state.global_step}, {samples}"

    def _refuse_non_finite_images(self, inputs: Batch) -> None:
        """Before the model sees them: batch norms would keep what they saw."""
        images = inputs["pixel_values"]
        if not torch.stack(images.aminmax()).isfinite().all():
            bad = inputs["index"][~images.isfinite().flatten(1).all(1)]
            raise NonFiniteLossError(
                f"{self._where(bad)}: pixel_values is not finite; nothing was updated. Check these samples and the transform."
            )

    def _refuse_non_finite(self, terms: Mapping[str, Tensor], inputs: Batch) -> None:
        values = torch.stack(list(terms.values()))
        if not values.isfinite().all():
            bad = [name for name, value in zip(terms, values.tolist(), strict=True) if not _finite(value)]
            raise NonFiniteLossError(
                f"{self._where(inputs['index'])}: {', '.join(bad)} is not finite; nothing was updated. "
                "Check these samples, lower learning_rate, or set precision: fp32."
            )

    def forget_sums(self) -> None:
        """With the samples of an unfinished step."""
        super().forget_sums()
        self._seen: list[Tensor] = []

    # ---- data -------------------------------------------------------------------------------------------------------

    def make_sampler(self) -> Sampler:
        """Another order in every epoch."""
        self._sampler = EpochSampler(len(self.train_dataset), data_seed(self.args), self.views)
        return self._sampler

    # ---- evaluation -------------------------------------------------------------------------------------------------

    def evaluation_loop(
        self, dataloader: DataLoader, description: str, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> EvalLoopOutput:
        """Stream the split through the tasks' metrics; the keys are `eval_<task>/<metric>`."""
        with self.compute_loss_context_manager(), self.explained_failures("eval"):
            metrics = evaluate_model(
                self.accelerator.unwrap_model(self.model),
                dataloader,
                self.tasks,
                self.args.device,
                self.processes,
                progress=not self.args.disable_tqdm and self.args.process_index == 0,
                num_proc=self.args.counting_processes,
            )
        named = {f"{metric_key_prefix}_{key}": value for key, value in metrics.items()}
        images = len(dataloader.dataset)  # type: ignore[arg-type]
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=named, num_samples=images)


class DistillationTrainer(MultiTaskTrainer):
    """Adds the match with a frozen teacher to the supervised losses.

    Args:
        teacher: the frozen teacher; None for a `CachedTeacherDataset`, or to train the same student without one.
        criterion: the match; its method "none" goes with no teacher.
        views: fixed crops per image, taken in turn; new ones in every epoch for None.
        kwargs: of `MultiTaskTrainer`.

    Raises:
        KdamValueError: a method without a teacher, a teacher without a method, or two teachers; more views than are stored; a
            criterion with tasks that this trainer does not have, or not with all of them at full resolution.
    """

    def __init__(
        self,
        *args: Any,
        teacher: FrozenTeacher | None = None,
        criterion: DistillationCriterion,
        views: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        replayed = isinstance(self.train_dataset, CachedTeacherDataset)
        taught = teacher is not None or replayed
        if taught != (criterion.method != "none"):
            raise KdamValueError(
                f"method {criterion.method!r} with {'a ' if taught else 'no '}teacher; "
                "give a teacher for cs, kl, dist and cwd, and none for method none."
            )
        if replayed:
            _check_replay(self.train_dataset, teacher, views)
        self._matched = _matched_tasks(self.tasks, criterion)
        if criterion.couples_batch and self.args.gradient_accumulation_steps > 1:
            warnings.warn(
                f"the intra-task match takes each of the {self.args.gradient_accumulation_steps} accumulated batches of "
                f"{self.matching_batch} by itself, which is another objective than one large batch; exactness would take a "
                "second pass of the student. Prefer a larger per_device_train_batch_size or more processes.",
                stacklevel=2,
            )
        self.criterion, self.views = criterion, views
        self.teacher = teacher.to(self.args.device) if teacher is not None else None

    def describe(self) -> dict[str, Any]:
        """With the match and who is matched, known by weights, not by name."""
        match = {name: getattr(self.criterion, name) for name in _MATCH} if self.criterion.method != "none" else {}
        facts = super().describe() | {"distillation.method": self.criterion.method, "distillation.views": self.views}
        if self.teacher is not None:
            match |= self.teacher.facts
        elif isinstance(self.train_dataset, CachedTeacherDataset):
            match |= self.train_dataset.cache.facts
        return facts | {f"distillation.{name}": value for name, value in match.items()}

    @property
    def matching_batch(self) -> int:
        """Images whose pixels the intra-task match compares as one: those of all processes, of one accumulation step."""
        return self.args.per_device_train_batch_size * self.args.world_size

    def objective(self, predictions: Mapping[str, Tensor], inputs: Batch) -> DenseLoss:
        """Supervised terms and those of the match, at full resolution or at stride 4 as the criterion says."""
        if self.criterion.method == "none" or self.criterion.beta == 0:
            return super().objective(predictions, inputs)
        taught = self._taught(inputs)
        valid = stride_mask(inputs["pixel_mask"])
        if self.criterion.resolution == "full":
            return self._dense_loss(predictions, inputs, self.criterion.match(predictions, taught, valid))
        supervised = super().objective(predictions, inputs)
        if self.criterion.method == "cs":
            settings = self.criterion.match(predictions, taught, valid)
            total, terms = match_loss(self._matched, predictions, settings, valid, self.processes)
            return DenseLoss(supervised.total + total, supervised.terms | terms)
        match = self.criterion(predictions, taught, valid, self.processes)
        total = supervised.total + torch.stack(list(match.values())).sum()
        return DenseLoss(total, supervised.terms | {name: term.detach() for name, term in match.items()})

    def _taught(self, inputs: Batch) -> dict[str, Tensor]:
        """The teacher's predictions (B, C, h, w), replayed with the batch or made now, float32."""
        if "teacher" in inputs or self.teacher is None:
            return inputs["teacher"]
        return self.teacher(inputs["pixel_values"], inputs["pixel_mask"])


def _check_replay(dataset: CachedTeacherDataset, teacher: FrozenTeacher | None, views: int | None) -> None:
    stored = dataset.cache.views
    if teacher is not None:
        raise KdamValueError("a teacher and a dataset with the predictions of one; give one of them.")
    if views is None or views > stored:
        raise KdamValueError(
            f"views={views}, but {dataset.cache.folder} holds {stored} views of each image; give views of 1 to {stored}."
        )


def _matched_tasks(tasks: Sequence[Task], criterion: DistillationCriterion) -> list[Task]:
    """Those of the criterion, which must be tasks of the trainer, settings included."""
    names, foreign = [task.name for task in criterion.tasks], [t.name for t in criterion.tasks if t not in tasks]
    if foreign:
        raise KdamValueError(
            f"the criterion matches {', '.join(foreign)}, which the trainer does not have with the same settings; make it "
            f"from its tasks: {', '.join(task.name for task in tasks)}."
        )
    matched = [task for task in tasks if task.name in names]
    if criterion.method != "none" and criterion.resolution == "full" and len(matched) < len(tasks):
        raise KdamValueError(
            f"resolution 'full' matches all of {', '.join(task.name for task in tasks)}, the criterion has {names}; give it "
            "all, or use resolution 'stride4'."
        )
    return matched


def stride_mask(pixel_mask: Tensor) -> Tensor:
    """(B, H, W) bool -> (B, ceil(H/4), ceil(W/4)) bool: cells of the prediction grid that hold no padding."""
    padding = (~pixel_mask)[:, None].float()
    return F.max_pool2d(padding, STRIDE, ceil_mode=True)[:, 0] == 0


class EpochAndGradientCallback(TrainerCallback):
    """Tells the sampler its epoch, however the data loader was wrapped, and stops before a step on broken gradients."""

    def __init__(self, trainer: MultiTaskTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the epoch."""
        if self.trainer._sampler is not None:
            self.trainer._sampler.set_epoch(int((state.epoch or 0) + 1e-6))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check the gradient; the only synchronisation with the device that a step takes besides those of its losses."""
        gradients = [p.grad for p in self.trainer.model.parameters() if p.grad is not None]
        samples, self.trainer._seen = self.trainer._seen, []
        if self.trainer.any_process(~torch.nn.utils.get_total_norm(gradients).isfinite()):
            raise NonFiniteLossError(
                f"{self.trainer._where(torch.cat(samples))}: the gradient is not finite; nothing was updated. "
                "Check these samples, lower learning_rate, or set precision: fp32."
            )


def data_seed(args: KdamTrainingArguments) -> int:
    """The seed of sampling and augmentation."""
    return args.seed if args.data_seed is None else args.data_seed


def _finite(value: float) -> bool:
    return value - value == 0


def _check_length(dataset: Dataset, args: KdamTrainingArguments) -> None:
    batch = args.per_device_train_batch_size * args.world_size
    if len(dataset) < batch:  # type: ignore[arg-type]
        raise KdamValueError(
            f"{len(dataset)} training images are fewer than one batch of {batch} "  # type: ignore[arg-type]
            f"({args.per_device_train_batch_size} x {args.world_size} processes): 0 optimisation steps. "
            "Lower per_device_train_batch_size or add images."
        )


def _freeze_unused_parameters(model: KdamPreTrainedModel) -> None:
    """Stop the gradient of parameters that never get one (final norms, mask tokens): DDP would wait for them."""
    was_training = model.training
    model.eval()
    predictions = model(torch.zeros(1, 3, 64, 64, device=model.device)).predictions
    torch.stack([p.sum() for p in predictions.values()]).sum().backward()
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.requires_grad_(False)
    model.zero_grad(set_to_none=True)
    model.train(was_training)
