"""What the arguments make of the devices that are there."""

import pytest
import torch

from kdam_hf.errors import KdamValueError
from kdam_hf.training import KdamTrainingArguments


def test_one_process_uses_one_gpu_though_it_sees_several(tmp_path, monkeypatch):
    monkeypatch.setattr(KdamTrainingArguments, "_n_gpu", 2, raising=False)
    monkeypatch.setattr(KdamTrainingArguments, "_setup_devices", torch.device("cpu"))
    with pytest.warns(UserWarning, match="accelerate launch"):
        args = KdamTrainingArguments(output_dir=str(tmp_path), per_device_train_batch_size=4)
    assert args.n_gpu == 1
    assert args.train_batch_size == 4


def test_full_determinism_is_refused_where_gradients_are_not_deterministic(tmp_path, monkeypatch):
    monkeypatch.setattr(KdamTrainingArguments, "_n_gpu", 1, raising=False)
    monkeypatch.setattr(KdamTrainingArguments, "_setup_devices", torch.device("cuda"))
    with pytest.raises(KdamValueError, match="full_determinism"):
        KdamTrainingArguments(output_dir=str(tmp_path), full_determinism=True)
