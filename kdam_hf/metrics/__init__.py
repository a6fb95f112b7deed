"""Metrics of dense prediction: pure functions that sum over pixels, and thin streaming classes that keep the sums.

NaN or Inf in a prediction is an error; a value that no valid pixel defines is NaN. `delta_m` compares a set of results.
"""

from kdam_hf.configuration_kdam import IGNORE_INDEX
from kdam_hf.metrics.base import Metric
from kdam_hf.metrics.boundaries import BOUNDARY_PROTOCOLS, BoundaryCounts, BoundaryScores, boundary_counts
from kdam_hf.metrics.confusion import MeanIoU
from kdam_hf.metrics.delta_m import delta_m
from kdam_hf.metrics.depth import DepthErrors
from kdam_hf.metrics.normals import NormalErrors
from kdam_hf.metrics.parallel import in_processes
from kdam_hf.metrics.protocols import PROTOCOLS, Protocol, under_protocol
from kdam_hf.metrics.saliency import Saliency
from kdam_hf.metrics.thresholds import EdgeF

__all__ = [
    "BOUNDARY_PROTOCOLS",
    "IGNORE_INDEX",
    "PROTOCOLS",
    "BoundaryCounts",
    "BoundaryScores",
    "DepthErrors",
    "EdgeF",
    "MeanIoU",
    "Metric",
    "NormalErrors",
    "Protocol",
    "Saliency",
    "boundary_counts",
    "delta_m",
    "in_processes",
    "under_protocol",
]
