"""How strongly each term of the loss pulls at the maps that all tasks share: the balance between terms, before weighting."""

import json
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from kdam_hf.io import write_json


class BalanceProbe:
    """Every so many steps, measures the gradient of each term of an objective for the maps of an encoder, if these have any.

    Args:
        encoder, objective: of the student in training.
        every: steps between measurements.
        batches: accumulated batches of a step, of which the first is looked at.

    Attributes:
        norms: per measurement, term -> L2 norm of its gradient over all shared maps.
    """

    def __init__(self, encoder: nn.Module, objective: nn.Module, every: int, batches: int = 1) -> None:
        self.every, self.batches, self.calls, self.norms = every, batches, 0, list[dict[str, float]]()
        self._maps: list[Tensor] = []
        encoder.register_forward_hook(self._keep)
        objective.register_forward_hook(self._measure)

    def _keep(self, encoder: nn.Module, inputs: Any, maps: list[Tensor]) -> None:
        self._maps = [x for x in maps if x.requires_grad]

    def _measure(self, objective: nn.Module, inputs: Any, terms: dict[str, Tensor]) -> None:
        if self.calls % (self.every * self.batches) == 0 and self._maps:
            self.norms.append({})
            for name, term in terms.items():
                gradients = torch.autograd.grad(term, self._maps, retain_graph=True, allow_unused=True)
                self.norms[-1][name] = torch.stack([g.float().norm() for g in gradients if g is not None]).norm().item()
        self.calls += 1

    def ratios(self) -> dict[str, list[float]]:
        """Term of the method -> per measurement, its norm over that of its task's supervised loss.

        A term of all tasks together is held against the root of the sum of squares of their supervised losses. Terms beside
        which no label pulls, as on photos, are left out.
        """
        found: dict[str, list[float]] = {}
        for norms in self.norms:
            labels = {name: norm for name, norm in norms.items() if name.startswith("loss_")}
            total = sum(norm**2 for norm in labels.values()) ** 0.5
            for name in norms.keys() - labels.keys():
                own = [label for label in labels if name.endswith(label.removeprefix("loss"))]
                if beside := labels[max(own, key=len)] if own else total:  # one name may end in another
                    found.setdefault(name, []).append(norms[name] / beside)
        return dict(sorted(found.items()))

    def save(self, path: Path, resumed: bool) -> None:
        """Write the ratios as JSON, behind those of the part of the training that was resumed; nothing without any."""
        before = json.loads(path.read_text("utf-8")) if resumed and path.exists() else {}
        if found := self.ratios():
            write_json(path, {name: [*before.get(name, ()), *found.get(name, ())] for name in sorted(before | found)})

    def report(self) -> str:
        """Markdown: per term, the median ratio over all measurements, and the first and last one."""
        lines = ["| gradient over that of the supervised loss | median | first | last |", "| --- | --- | --- | --- |"]
        for name, values in self.ratios().items():
            lines.append(f"| {name} | {median(values):.2f} | {values[0]:.2f} | {values[-1]:.2f} |")
        return "\n".join(
            [*lines, f"At the backbone's maps; {len(self.norms)} measurements, every {self.every} steps.\n"]
        )
