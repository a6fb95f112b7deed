"""What the modules share: an `evaluate.Metric` over one of the streaming metrics.

Unusual here: in one process, maps go straight into the metric's sums and never through the Arrow file in which `evaluate`
keeps all of them, which takes many times as long and grows with the split. With `num_process > 1` they do, because that
file is how `evaluate` gathers the shares of several processes.
"""

from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np
import torch
from torch import Tensor

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics import Metric, under_protocol


class StreamingMetric(evaluate.Metric):
    """An `evaluate.Metric` whose sums are those of a `kdam_hf.metrics.Metric`.

    Args:
        metric: does the work.
        protocol: name of a way of scoring, see `kdam_hf.metrics.protocols`.
        kwargs: those of `evaluate.EvaluationModule`.

    Raises:
        KdamValueError: unknown protocol.
    """

    value_type: ClassVar[str] = "float32"
    """Type of a pixel's value in nested lists and in the Arrow file."""
    axes: ClassVar[int] = 2
    """Number of axes of one map."""
    description: ClassVar[str]
    citation: ClassVar[str]

    def __init__(self, metric: Metric, protocol: str = "ours", **kwargs: Any) -> None:
        self._metric = under_protocol(metric, protocol)
        self._maps = 0
        super().__init__(**kwargs)

    def layout(self, values: Tensor) -> Tensor:
        """One map, of `axes` axes, in the layout of the metric."""
        return values

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add predicted and labelled maps, as many of one as of the other: arrays, tensors or nested lists."""
        if self.num_process > 1:
            super().add_batch(predictions=predictions, references=references, **kwargs)
            return
        if kwargs:
            raise KdamValueError(f"unknown inputs {sorted(kwargs)}: settings are given to evaluate.load, see the card")
        if predictions is None or references is None or len(predictions) != len(references):
            raise KdamValueError("expected as many predictions as references, and neither of them missing")
        self._update(predictions, references)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one predicted and one labelled map: array, tensor or nested lists."""
        # `evaluate.combine` names one map as it names several
        prediction, reference = kwargs.pop("predictions", prediction), kwargs.pop("references", reference)
        if self.num_process > 1:
            super().add(prediction=prediction, reference=reference, **kwargs)
        else:
            self.add_batch(predictions=[prediction], references=[reference], **kwargs)

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, float] | None:
        """Values over all maps added so far and those given here; the next ones start anew."""
        if self.num_process > 1:
            values: dict[str, float] | None = super().compute(predictions=predictions, references=references, **kwargs)
            return values
        if predictions is not None or references is not None or kwargs:
            self.add_batch(predictions=predictions, references=references, **kwargs)
        if not self._maps:
            raise KdamValueError("nothing to compute: add predictions and references first, or pass them")
        return self._finish()

    def __len__(self) -> int:
        return int(self._maps or super().__len__())

    def _info(self) -> evaluate.MetricInfo:
        feature: Any = datasets.Value(self.value_type)
        for _ in range(self.axes):
            feature = datasets.Sequence(feature)
        return evaluate.MetricInfo(
            description=self.description,
            citation=self.citation,
            inputs_description=self.description,
            features=datasets.Features({"predictions": feature, "references": feature}),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        self._update(predictions, references)
        return self._finish()

    def _update(self, predictions: Any, references: Any) -> None:
        for pair in zip(predictions, references, strict=True):
            prediction, reference = (self._tensor(values) for values in pair)
            self._metric.update(self.layout(prediction), self.layout(reference))
            self._maps += 1

    def _tensor(self, values: Any) -> Tensor:
        if isinstance(values, Tensor):
            values = values.detach().cpu()
        else:
            values = torch.tensor(np.asarray(values, self.value_type if isinstance(values, list) else None))
        if values.dim() != self.axes:
            raise KdamValueError(f"a map is {tuple(values.shape)}: expected {self.axes} axes, see the card")
        return values

    def _finish(self) -> dict[str, float]:
        values = self._metric.compute()
        self._metric.reset()
        self._maps = 0
        return values
