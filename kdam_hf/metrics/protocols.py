"""The named ways in which the field scores, as data: what differs from ours, who does it, and the settings that repeat it.

Unusual here: a protocol never adds code, only constructor arguments of metrics. The sources stand in docs/metrics.md too.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.base import Metric
from kdam_hf.metrics.confusion import MeanIoU
from kdam_hf.metrics.saliency import Saliency


@dataclass(frozen=True)
class Protocol:
    """One way of scoring: what differs from `ours` and whose numbers it repeats, in words.

    Args:
        settings: per kind of metric, constructor arguments that differ.
    """

    differs: str
    source: str
    settings: Mapping[type[Metric], Mapping[str, Any]]


_LITERATURE = {"absent": "literature"}
PROTOCOLS: Mapping[str, Protocol] = {
    "ours": Protocol("nothing", "the defaults of kdam_hf.metrics", {}),
    "atrc": Protocol(
        "a class in neither side counts as IoU 0 in the mean",
        "ATRC (arXiv:2104.13874), github.com/brdav/atrc, src/data/metrics.py",
        {MeanIoU: _LITERATURE},
    ),
    "invpt": Protocol(
        "as atrc, and saliency: a sigmoid on top of the probability, so that of the thresholds 0.05 ... 0.95 only four, "
        "at probability 0.20, 0.41, 0.62 and 0.85, remain beside 'everything is salient'",
        "InvPT (arXiv:2203.07997), TaskPrompter, DiffusionMTL: github.com/prismformore/Multi-Task-Transformer, "
        "evaluation/eval_sal.py",
        {
            MeanIoU: _LITERATURE,
            # sigmoid(p) >= t is p >= logit(t); up to t = 0.50 every pixel passes, from 0.75 on none does
            Saliency: {"thresholds": (0.0, *(math.log(t / (1 - t)) for t in (0.55, 0.60, 0.65, 0.70)))},
        },
    ),
    "mtl_pytorch": Protocol(
        "a class in neither side counts as IoU 0; saliency: precision, recall and IoU averaged over images, beta^2 = 1, "
        "15 thresholds 0.20, 0.25 ... 0.90 that a pixel must exceed",
        "Vandenhende et al. (arXiv:2004.13379), github.com/SimonVandenhende/Multi-Task-Learning-PyTorch, and ASTMT "
        "(arXiv:1904.08918), github.com/facebookresearch/astmt, evaluation/eval_{semseg,human_parts,sal}.py",
        {
            MeanIoU: _LITERATURE,
            Saliency: {
                "thresholds": tuple(k / 100 for k in range(20, 95, 5)),
                "beta_squared": 1.0,
                "strict": True,
                "pooling": "image",
            },
        },
    ),
}


def under_protocol(metric: Metric, name: str) -> Metric:
    """An empty metric of the same kind that scores under the protocol called `name`; the other settings stay.

    Raises:
        KdamValueError: unknown protocol.
    """
    if name not in PROTOCOLS:
        raise KdamValueError(f"protocol is {name!r}: expected one of {', '.join(PROTOCOLS)}")
    return metric.with_settings(**PROTOCOLS[name].settings.get(type(metric), {}))
