"""Metrics of dense prediction for `evaluate`, one per configuration name: `evaluate.load("kdam", "depth")`.

Unusual here: maps go straight into the metric's sums and never through the Arrow file in which `evaluate` keeps all of
them, which takes many times as long and grows with the split. That file is how `evaluate` gathers the shares of several
processes, so `num_process > 1` is refused.
"""

from functools import partial
from typing import Any

import datasets
import evaluate
import numpy as np
import torch

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics import (
    BOUNDARY_PROTOCOLS,
    BoundaryScores,
    DepthErrors,
    MeanIoU,
    NormalErrors,
    Saliency,
    under_protocol,
)


def _edge(boundaries: str = "bsds") -> BoundaryScores:
    if boundaries not in BOUNDARY_PROTOCOLS:
        raise KdamValueError(f"boundaries is {boundaries!r}: expected one of {', '.join(BOUNDARY_PROTOCOLS)}")
    return BoundaryScores(**BOUNDARY_PROTOCOLS[boundaries])


# configuration name -> what makes the metric, type of a pixel in lists and files, axes of a map, axes the metric wants
METRICS: dict[str, tuple[Any, str, int, int]] = {
    "semseg": (MeanIoU, "int32", 2, 2),
    "human_parts": (partial(MeanIoU, num_classes=7), "int32", 2, 2),
    "saliency": (Saliency, "float32", 2, 2),
    "depth": (DepthErrors, "float32", 2, 3),
    "normals": (NormalErrors, "float32", 3, 3),
    "edge": (_edge, "float32", 2, 2),
}
SETTINGS = ("num_classes", "ignore_index", "boundaries")


class Kdam(evaluate.Metric):
    """An `evaluate.Metric` whose sums are those of a `kdam_hf.metrics.Metric`; inputs, settings and values stand in the card.

    Args:
        config_name: which metric, a key of `METRICS`.
        protocol: name of a way of scoring, see `kdam_hf.metrics.protocols`.
        kwargs: `SETTINGS` of the metric, and what `evaluate.EvaluationModule` takes.

    Raises:
        KdamValueError: unknown configuration name, protocol or boundaries; a setting is missing or is not of this metric; more
            than one process.
    """

    def __init__(self, config_name: str | None = None, protocol: str = "ours", **kwargs: Any) -> None:
        if config_name not in METRICS:
            raise KdamValueError(f"configuration is {config_name!r}: expected one of {', '.join(METRICS)}")
        if kwargs.get("num_process", 1) > 1:
            raise KdamValueError(
                f"num_process is {kwargs['num_process']}: one process counts; hand it the maps of all, which "
                "`Accelerator.gather_for_metrics` brings together"
            )
        make, self._type, self._axes, self._wanted = METRICS[config_name]
        settings = {name: kwargs.pop(name) for name in SETTINGS if name in kwargs}
        try:
            self._metric = under_protocol(make(**settings), protocol)
        except TypeError as error:
            raise KdamValueError(f"{config_name} with settings {settings}: {error}; see the card") from error
        self._maps = 0
        super().__init__(config_name=config_name, **kwargs)

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add predicted and labelled maps, as many of one as of the other: arrays, tensors or nested lists."""
        if kwargs:
            raise KdamValueError(f"unknown inputs {sorted(kwargs)}: settings are given to evaluate.load, see the card")
        if predictions is None or references is None or len(predictions) != len(references):
            raise KdamValueError("expected as many predictions as references, and neither of them missing")
        batch = self._metric.with_settings()  # all of it, or nothing
        for pair in zip(predictions, references, strict=True):
            batch.update(*(self._tensor(values) for values in pair))
        self._metric.add_state(batch.state)
        self._maps += len(predictions)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one predicted and one labelled map: array, tensor or nested lists."""
        # `evaluate.combine` names one map as it names several
        prediction, reference = kwargs.pop("predictions", prediction), kwargs.pop("references", reference)
        self.add_batch(predictions=[prediction], references=[reference], **kwargs)

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, float]:
        """Values over all maps added so far and those given here; the next ones start anew."""
        if predictions is not None or references is not None or kwargs:
            self.add_batch(predictions=predictions, references=references, **kwargs)
        if not self._maps:
            raise KdamValueError("nothing to compute: add predictions and references first, or pass them")
        values: dict[str, float] = self._metric.compute()
        self._metric = self._metric.with_settings()
        self._maps = 0
        return values

    def __len__(self) -> int:
        return self._maps

    def _info(self) -> evaluate.MetricInfo:
        feature: Any = datasets.Value(self._type)
        for _ in range(self._axes):
            feature = datasets.Sequence(feature)
        features = datasets.Features({"predictions": feature, "references": feature})
        text = f"{type(self._metric).__name__} of kdam_hf.metrics; inputs, settings and values stand in the card."
        return evaluate.MetricInfo(description=text, citation="", inputs_description=text, features=features)

    def _tensor(self, values: Any) -> torch.Tensor:
        if isinstance(values, torch.Tensor):
            values = values.detach().cpu()
        else:
            values = torch.tensor(np.asarray(values, self._type if isinstance(values, list) else None))
        if values.dim() != self._axes:
            raise KdamValueError(f"a map is {tuple(values.shape)}: expected {self._axes} axes, see the card")
        return values if self._wanted == self._axes else values[None]
