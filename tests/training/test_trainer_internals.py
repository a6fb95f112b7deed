"""What is used of `Trainer` beyond its documented interface is there, as the installed transformers has it."""

import inspect

import pytest
from transformers import Trainer

from kdam_hf.training import DistillationTrainer
from kdam_hf.training.resumable_trainer import TRAINER_INTERNALS


@pytest.mark.parametrize(("name", "parameters"), TRAINER_INTERNALS)
def test_every_internal_has_the_signature_that_is_relied_upon(name, parameters):
    assert tuple(inspect.signature(getattr(Trainer, name)).parameters) == parameters
    assert tuple(inspect.signature(getattr(DistillationTrainer, name)).parameters) == parameters


def test_no_other_private_member_of_the_trainer_is_overridden_or_hidden_by_one_of_ours():
    kinds = DistillationTrainer.__mro__
    ours = {name for kind in kinds[: kinds.index(Trainer)] for name in vars(kind)}
    theirs = {name for name in dir(Trainer) if name.startswith("_") and not name.startswith("__")}
    assert ours & theirs == {"_save_checkpoint"}
