"""Means of the loss and its terms between two log lines, which an interruption does not change."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kdam_hf.distributed import Processes


class RunningMeans:
    """Sums since the last log line, kept on the device: nothing waits for it between log lines.

    Args:
        device: of what is added.
    """

    def __init__(self, device: torch.device) -> None:
        self._sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=device))
        self.steps = 0
        """Optimizer steps since the last log line."""
        self.total_loss = 0.0
        """Sum of `loss` over all steps until the last log line."""

    def add(self, values: Mapping[str, Tensor]) -> None:
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
        """The sums of this process, as plain data."""
        values = torch.stack([*self._sums.values()]).tolist() if self._sums else []
        sums = dict(zip(self._sums, values, strict=True))
        return {"sums": sums, "steps": self.steps, "total_loss": self.total_loss}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` gave."""
        self.steps, self.total_loss = state["steps"], state["total_loss"]
        for name, value in state["sums"].items():
            self._sums[name] += value
