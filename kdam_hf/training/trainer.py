"""`Trainer` for multi-task models, with or without a teacher that runs or is replayed.

Unusual here: losses are those of the global batch (`kdam_hf.distributed`); evaluation streams through additive metrics on
a strided share of the split per process, so no prediction is kept and no image is counted twice; a non-finite loss stops
before the optimizer step; accumulated batches have the loss of one large batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from transformers import EarlyStoppingCallback
from transformers.trainer_utils import EvalLoopOutput, IntervalStrategy
from transformers.training_args import OptimizerNames

from dataset_loaders import Collator
from kdam_hf.distillation import Method
from kdam_hf.distillation.weighting import FIXED, Weighting, make_weighting
from kdam_hf.errors import KdamValueError, NonFiniteLossError
from kdam_hf.modeling_kdam import KdamOutput, KdamPreTrainedModel
from kdam_hf.objective import Counts, Objective
from kdam_hf.tasks import Task
from kdam_hf.training.arguments import KdamTrainingArguments
from kdam_hf.training.evaluation import choose_direction, metric_names, score_model
from kdam_hf.training.fingerprint import describe_objective
from kdam_hf.training.inherited import refuse_methods, refuse_parameters
from kdam_hf.training.loading import sample_name
from kdam_hf.training.resumable_trainer import ResumableTrainer, epoch_of
from kdam_hf.training.teacher import FrozenTeacher
from kdam_hf.training.teacher_cache import CachedTeacherDataset

Batch = Mapping[str, Any]
OBJECTIVE, TRAINED = "objective.safetensors", "trained.safetensors"
"""Of a checkpoint: the state of method and weighting, where they have any; the model as it is trained, beside its average."""

NON_FINITE = "is not finite; nothing was updated. Check these samples, lower learning_rate, or set precision: fp32."


class Pending(NamedTuple):
    """A batch whose gradient was computed, and not yet used: its samples, detached terms, and what the teacher says."""

    indices: Tensor
    terms: dict[str, Tensor]
    teacher: Mapping[str, Tensor] | None


@refuse_methods
class MultiTaskTrainer(ResumableTrainer):
    """Trains a teacher, a baseline or a student on the supervised losses of its tasks, and the terms of a method, if any.

    Args:
        model: a KDAM model.
        args: training arguments.
        tasks: the tasks of the model, in its order.
        train_dataset: yields training samples for keys (epoch, index); a `CachedTeacherDataset` replays a teacher.
        eval_dataset: yields full-size samples; or several by name.
        teacher: the frozen teacher of a student; None for a replay, and to train without one.
        method: how the student learns from it; None goes with no teacher.
        views: fixed crops per image, taken in turn; new ones in every epoch for None.
        examiner: makes the teacher that photos without labels are scored against, where it is not online.
        weighting: of the terms of the loss, see `Objective`; in place of the one that `args.weighting` names.
        kwargs: passed to `Trainer`.

    Raises:
        KdamValueError: tasks differ from the model's, fewer images than one batch, a metric that there is not, two weightings,
            or a parameter of `Trainer` that is not offered (`inherited`); a method without a teacher or the reverse, two
            teachers, more views than are stored, or a method of tasks that no teacher predicts.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: KdamPreTrainedModel,
        args: KdamTrainingArguments,
        tasks: Sequence[Task],
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        teacher: FrozenTeacher | None = None,
        method: Method | None = None,
        views: int | None = None,
        examiner: Callable[[], FrozenTeacher] | None = None,
        weighting: Callable[[dict[str, Tensor]], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        refuse_parameters(kwargs)
        names = [task.name for task in tasks]
        if names != model.config.task_names:
            raise KdamValueError(
                f"the model's tasks are {model.config.task_names}, the data's {names}; give equal ones."
            )
        if weighting is not None and args.weighting != FIXED:
            raise KdamValueError(f"a weighting was given, and args.weighting names {args.weighting!r}; leave one out.")
        _check_teaching(teacher, method, views, train_dataset)
        self.teacher = None if teacher is None else teacher.to(args.device)
        self.tasks, self.views = tuple(tasks), views
        self._examiner: Any = examiner if teacher is None else lambda: teacher
        self._pending = list[Pending]()
        self.objective = Objective(tasks, method, weighting or make_weighting(args.weighting, tasks)).to(args.device)
        if train_dataset is not None:
            _check_length(train_dataset, args)
        choose_direction(args, tasks, eval_dataset)
        if args.world_size > 1:
            args.ddp_find_unused_parameters = args.freeze_backbone_steps > 0
            _freeze_unused_parameters(model)
        if args.sync_batch_norm and args.world_size > 1 and args.device.type == "cuda":  # which is all it supports
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        if args.channels_last:
            model.to(memory_format=torch.channels_last)
        backbone = model.encoder.backbone.parameters() if args.freeze_backbone_steps else ()
        self._resting = [parameter for parameter in backbone if parameter.requires_grad]
        super().__init__(model, args, Collator(tasks), train_dataset, eval_dataset, **kwargs)
        model.config.__dict__.pop("use_cache", None)  # set by `Trainer`; nothing of a dense model is cached
        average = get_ema_multi_avg_fn(args.ema_decay)
        self.average = AveragedModel(model, multi_avg_fn=average, use_buffers=True) if args.ema_decay else None

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As of `ResumableTrainer`; afterwards the model holds the averaged weights, where there are any.

        Raises:
            KdamValueError: early stopping without a metric or without evaluation.
        """
        stopping = any(isinstance(callback, EarlyStoppingCallback) for callback in self.callback_handler.callbacks)
        if stopping and (self.args.metric_for_best_model is None or self.args.eval_strategy == IntervalStrategy.NO):
            raise KdamValueError(
                f"EarlyStoppingCallback with metric_for_best_model {self.args.metric_for_best_model} and eval_strategy "
                f"{self.args.eval_strategy}; set both. There are {', '.join(metric_names(self.tasks))}."
            )
        result = super().train(*args, **kwargs)
        if self.average is not None:
            self.average.module.load_state_dict(self.model.state_dict())
        return result

    def describe(self) -> dict[str, Any]:
        """What this run computes, flat and as plain data; who teaches is known by weights, not by name."""
        facts = describe_objective(self.args, self.model.config, self.tasks, self.train_dataset)
        method, data = self.objective.method, self.train_dataset
        match: dict[str, Any] = {} if method is None else {"method": method.name, **method.settings()}
        if method is not None or self.views is not None:
            match["views"] = self.views
        if self.teacher is not None:
            match |= self.teacher.facts
        elif isinstance(data, CachedTeacherDataset):
            match |= data.cache.facts
        return facts | {f"distillation.{name}": value for name, value in match.items()}

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Weights of convolutions and linear layers; no norms, biases, tokens, or tables of positions."""
        layers = {name for name, module in model.named_modules() if isinstance(module, (nn.Linear, _ConvNd))}
        return [name for name, _ in model.named_parameters() if name.endswith("weight") and name[:-7] in layers]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """With the backbone's own learning rate, and the parameters of method and weighting, which are not decayed."""
        self._let_backbone_learn(True)  # else the optimizer, and DDP, would not know it
        if self.optimizer is not None:
            return self.optimizer
        try:
            optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        except (ValueError, ImportError) as error:
            raise KdamValueError(
                f"optim {OptimizerNames(self.args.optim).value}, optim_args {self.args.optim_args}: {error}."
            ) from error
        _check_arrival(optimizer, self.args)
        if self.args.backbone_lr_factor != 1:
            backbone = {*self.model.encoder.backbone.parameters()}
            for group in list(optimizer.param_groups):
                inside = [p for p in group["params"] if p in backbone]
                group["params"] = [p for p in group["params"] if p not in backbone]
                if inside:
                    slower = {"params": inside, "lr": group["lr"] * self.args.backbone_lr_factor}
                    optimizer.add_param_group(group | slower)
        if own := list(self.objective.parameters()):
            optimizer.add_param_group({"params": own, "weight_decay": 0.0})
        return optimizer

    def save_extra(self, folder: Path) -> None:
        """The state of method and weighting, and the weights that are trained where a checkpoint has averaged ones."""
        if state := self.objective.state_dict():
            save_file({name: value.contiguous() for name, value in state.items()}, folder / OBJECTIVE)
        if self.average is not None:
            save_model(self.model, str(folder / TRAINED))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take up what `save_extra` left; the model holds what a checkpoint has as such."""
        super().on_train_begin(args, state, control, **kwargs)
        if (folder := self.resumed_from) is None:
            return
        if self.objective.state_dict():
            self.objective.load_state_dict(load_file(folder / OBJECTIVE))
        if self.average is not None:
            self.average.module.load_state_dict(self.model.state_dict())
            self.average.n_averaged.fill_(state.global_step)
            load_model(self.model, folder / TRAINED)

    def evaluated_model(self) -> Any:
        """What is scored and saved: the averaged weights, else those that are trained."""
        return super().evaluated_model() if self.average is None else self.average.module

    # ---- moments of the loop ----------------------------------------------------------------------------------------

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell the weighting, too."""
        super().on_epoch_begin(args, state, control, **kwargs)
        if isinstance(self.objective.weighting, Weighting):
            self.objective.weighting.begin_epoch(epoch_of(state))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forget what an unfinished step left: `Trainer` forgets the gradients of the model alone."""
        self.objective.zero_grad()
        self._pending = []
        if self.average is not None and not state.global_step:
            self.average.module.load_state_dict(self.model.state_dict())
            self.average.n_averaged.zero_()
        self._let_backbone_learn(not self._backbone_rests)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop if a loss or the gradient is not finite, then count the step for the log line.

        Raises:
            NonFiniteLossError: names the step and its samples.
            KdamValueError: the teacher's prediction is not finite.
        """
        pending, self._pending = self._pending, []
        for parameter in self.objective.parameters():  # no wrapper of the model averages them
            if parameter.grad is not None:
                parameter.grad = self.processes.mean(parameter.grad)
        gradients = [p.grad for p in [*self.model.parameters(), *self.objective.parameters()] if p.grad is not None]
        values = [value for one in pending for value in one.terms.values()]
        finite = torch.stack([*values, torch.nn.utils.get_total_norm(gradients)]).isfinite().all()
        if self.any_process(~finite):  # the one time in a step that the device is waited for
            for one in pending:
                bad = [name for name, value in one.terms.items() if not value.isfinite()]
                taught = [name for name, x in (one.teacher or {}).items() if not x.isfinite().all()]
                if bad and taught:
                    raise KdamValueError(
                        f"{self._where(one.indices)}: the teacher's prediction is not finite for {', '.join(taught)}: a "
                        "student must not learn that; run the teacher in fp32 or bf16, and check its weights and these images."
                    )
                if bad:
                    raise NonFiniteLossError(f"{self._where(one.indices)}: {', '.join(bad)} {NON_FINITE}")
            samples = self._where(torch.cat([one.indices for one in pending]))
            raise NonFiniteLossError(f"{samples}: the gradient {NON_FINITE}")
        if isinstance(self.objective.weighting, Weighting):
            losses = [self.objective.weighting.by_task(one.terms)[0] for one in pending]
            self.objective.weighting.end_step(torch.stack(losses).sum(0), self.processes)
        self.means.steps += 1

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Average the weights and buffers."""
        if self.average is not None:
            self.average.update_parameters(self.model)
            for averaged, trained in zip(self.average.module.buffers(), self.model.buffers(), strict=True):
                if not averaged.is_floating_point():  # counts and indices have no mean
                    averaged.copy_(trained)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the averaged weights in the model, unless it was loaded from the best checkpoint, which has them too."""
        if self.average is not None and not (args.load_best_model_at_end and state.best_model_checkpoint):
            self.model.load_state_dict(self.average.module.state_dict())
        super().on_train_end(args, state, control, **kwargs)

    @property
    def _backbone_rests(self) -> bool:
        return self.state.global_step < self.args.freeze_backbone_steps

    def _let_backbone_learn(self, learns: bool) -> None:
        for parameter in self._resting:
            parameter.requires_grad_(learns)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """With the weights of the tasks, where they change."""
        if "loss" in logs and isinstance(self.objective.weighting, Weighting):
            weights = self.objective.weighting.weights().tolist()
            logs |= {f"weight_{task.name}": weight for task, weight in zip(self.tasks, weights, strict=True)}
        super().log(logs, start_time)

    # ---- losses -----------------------------------------------------------------------------------------------------

    def get_batch_samples(self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device) -> Any:
        """The batches of a step, and what the losses of each need to know of all: accumulated batches are one large batch."""
        batches = list(islice(epoch_iterator, num_batches))
        if len(batches) < 2:
            return batches, None
        found = [self.objective.counts(batch["labels"], batch["pixel_mask"]) for batch in batches]
        counts = {name: torch.stack([counts[name] for counts in found]).sum(0).to(device) for name in found[0]}
        return batches, (len(batches), counts)

    def _predict(self, model: nn.Module, inputs: Batch) -> Any:
        if self._backbone_rests:
            self.model.encoder.backbone.eval()
        layout = torch.channels_last if self.args.channels_last else torch.contiguous_format
        images = inputs["pixel_values"].contiguous(memory_format=layout)
        return model(images, inputs["pixel_mask"], output_hidden_states=self.objective.needs_features)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: tuple[int, Counts] | None = None,
    ) -> Any:
        """The loss of a batch; keeps the values of its terms for the next log line.

        `num_items_in_batch` is what `get_batch_samples` says of all accumulated batches: their number and counts.
        """
        images, _, height, width = inputs["pixel_values"].shape
        self.in_work = f"{images} images of {height}x{width} pixels a process"
        outputs = self._predict(model, inputs)
        batches, counts = num_items_in_batch or (1, None)
        taught = self._teacher_outputs(inputs)
        features = None
        if self.objective.needs_features and taught is not None:
            features = outputs.hidden_states, taught.hidden_states
        with torch.autocast(inputs["pixel_values"].device.type, enabled=False):
            terms = self.objective(
                outputs.predictions,
                inputs["labels"],
                inputs["pixel_mask"],
                None if taught is None else taught.predictions,
                self.processes,
                counts,
                features,
            )
            loss = self.objective.total(terms, 1 / batches)
        values = {name: term.detach() for name, term in terms.items()}
        self._pending.append(Pending(inputs["index"], values, None if taught is None else taught.predictions))
        self.means.add(values | {"loss": loss.detach()})
        return (loss, outputs) if return_outputs else loss

    def _teacher_outputs(self, inputs: Batch) -> Any:
        """Predictions (B, C, h, w) float32 of the teacher, replayed with the batch or made now; None without a teacher."""
        method = self.objective.method
        if method is None or method.beta == 0:
            return None
        if "teacher" in inputs or self.teacher is None:
            return KdamOutput(predictions=inputs["teacher"])
        return self.teacher(inputs["pixel_values"], inputs["pixel_mask"], features=method.needs_features)

    def _where(self, indices: Tensor) -> str:
        """Step and samples, in words."""
        samples = ", ".join(sample_name(self.train_dataset, index) for index in indices.tolist())
        return f"step {self.state.global_step}, {samples}"

    # ---- evaluation -------------------------------------------------------------------------------------------------

    def score(self, model: KdamPreTrainedModel, batches: DataLoader) -> dict[str, float]:
        """`task/metric` of a model like this trainer's, over the shares of all processes, as `score_model` has it."""
        args = self.args
        quiet, num_proc = args.disable_tqdm or args.process_index > 0, args.counting_processes
        settings = {"device": args.device, "processes": self.processes, "progress": not quiet, "num_proc": num_proc}
        return score_model(model, batches, self.tasks, self._examiner, **settings)

    def evaluation_loop(
        self, dataloader: DataLoader, description: str, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> EvalLoopOutput:
        """Stream the split through the tasks' metrics; the keys are `eval_<task>/<metric>`."""
        with self.compute_loss_context_manager(), self.explained_failures("eval"):
            metrics = self.score(self.evaluated_model(), dataloader)
        named = {f"{metric_key_prefix}_{key}": value for key, value in metrics.items()}
        images = len(dataloader.dataset)  # type: ignore[arg-type]
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=named, num_samples=images)


DistillationTrainer = MultiTaskTrainer
"""The same class, by the name under which students are trained."""


def _check_teaching(teacher: FrozenTeacher | None, method: Method | None, views: int | None, data: Any) -> None:
    known = None if teacher is None else teacher.task_names
    if isinstance(data, CachedTeacherDataset):
        cache, known = data.cache, [*data.cache.manifest["tasks"]]
        if method is not None and method.needs_features:
            raise KdamValueError(
                f"method {method.name} compares features, but {cache.folder} holds predictions; run the teacher online."
            )
        if teacher is not None:
            raise KdamValueError("a teacher and a dataset with the predictions of one; give one of them.")
        if views is None or views > cache.views:
            raise KdamValueError(
                f"views={views}, but {cache.folder} holds {cache.views} views of each image; give views of 1 to {cache.views}."
            )
    if (known is None) != (method is None):
        raise KdamValueError(
            f"{'no' if known is None else 'a'} teacher with method {'none' if method is None else method.name}; "
            "give a teacher for a method, and none for method none."
        )
    untaught = [task.name for task in (method.tasks if method else ()) if task.name not in (known or ())]
    if untaught:
        raise KdamValueError(
            f"the method matches {', '.join(untaught)}, which no teacher predicts, only {', '.join(known or ())}; give a "
            "teacher of it, or kd_weight 0."
        )


def _check_arrival(optimizer: torch.optim.Optimizer, args: KdamTrainingArguments) -> None:
    """Refuse an argument that the optimizer does not have, or that the library does not hand on to it."""
    for name, _, text in (pair.partition("=") for pair in (args.optim_args or "").replace(" ", "").split(",") if pair):
        known = optimizer.defaults | {key: value for group in optimizer.param_groups for key, value in group.items()}
        values = known.get(name), *(x for x in known.values() if isinstance(x, tuple) and name[-1:].isdigit())  # beta1
        if not any(_means(text, x) for value in values for x in (value if isinstance(value, tuple) else [value])):
            raise KdamValueError(
                f"optim_args {name}={text} does not arrive: {OptimizerNames(args.optim).value} has {name} {values[0]}. The "
                "library reads few, and sets others by keys of their own, such as weight_decay and adam_beta1."
            )


def _means(text: str, value: Any) -> bool:
    """Whether a text, as the library reads it, says a value of an optimizer."""
    if isinstance(value, bool):
        return (text.lower() in ("true", "1", "yes")) == value
    with suppress(ValueError):
        return float(text) == value
    return text == str(value)


def _check_length(dataset: Dataset, args: KdamTrainingArguments) -> None:
    batch = args.per_device_train_batch_size * args.world_size
    if len(dataset) < batch:  # type: ignore[arg-type]
        raise KdamValueError(
            f"{len(dataset)} training images are fewer than one batch of {batch} "  # type: ignore[arg-type]
            f"({args.per_device_train_batch_size} x {args.world_size} processes): 0 optimisation steps. "
            "Lower total_train_batch_size or add images."
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
