"""Datasets with dense labels: where samples come from, how they are checked, transformed, prepared and put into batches.

Every data set is a `DenseDataset` of raw samples (see `sample`); `open_dataset` makes one by name.
"""

from dataset_loaders import folder, hub, nyud_v2, pascal_context, synthetic_rooms  # they register themselves
from dataset_loaders.collate import Collator
from dataset_loaders.photos import MixedDataset, PhotosDataset, TaughtDataset
from dataset_loaders.prepared import PreparedDataset, prepare
from dataset_loaders.reading import check_id, read_array, read_ids, read_image
from dataset_loaders.registry import DATASETS, open_dataset, register
from dataset_loaders.sample import DenseDataset, Sample, SubsetDataset, check_sample
from dataset_loaders.transforms import (
    EpochSampler,
    EvalTransform,
    MixedSampler,
    TrainTransform,
    TransformedDataset,
    shuffled,
)

__all__ = [
    "DATASETS",
    "Collator",
    "DenseDataset",
    "EpochSampler",
    "EvalTransform",
    "MixedDataset",
    "MixedSampler",
    "PhotosDataset",
    "PreparedDataset",
    "Sample",
    "SubsetDataset",
    "TaughtDataset",
    "TrainTransform",
    "TransformedDataset",
    "check_id",
    "check_sample",
    "folder",
    "hub",
    "nyud_v2",
    "open_dataset",
    "pascal_context",
    "prepare",
    "read_array",
    "read_ids",
    "read_image",
    "register",
    "shuffled",
    "synthetic_rooms",
]
