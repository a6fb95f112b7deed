from functools import partial

import pytest
import torch
from conftest_kit import Made
from torch.utils.data import DataLoader, Subset

from dataset_loaders import Collator, open_dataset
from kdam_hf import KdamImageProcessor
from kdam_hf.distributed import LOCAL, Processes
from kdam_hf.errors import KdamValueError
from kdam_hf.training import evaluate_model
from kdam_hf.training.evaluation import score_model


def batches(kit, size):
    """Rooms of several sizes, as photos are."""
    sizes = [(40, 56), (64, 33), (97, 70), (40, 56)]
    rooms = [open_dataset("synthetic_rooms", "val", num_images=4, height=h, width=w) for h, w in sizes]
    mixed = Made(*(partial(room.__getitem__, k) for k, room in enumerate(rooms)), tasks=kit.tasks)
    return DataLoader(kit.eval_data(mixed), size, collate_fn=Collator(kit.tasks))


def test_scores_do_not_depend_on_an_images_neighbours_in_the_batch_or_on_the_mode_which_stays(kit):
    model, scores = kit.model("teacher"), []
    for size, mode in ((1, True), (4, False)):
        scores.append(evaluate_model(model.train(mode), batches(kit, size), kit.tasks, progress=False))
        assert model.training is mode
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_the_image_processor_gives_the_maps_that_are_scored(kit):
    """For photos of the training size nothing is resized: the user sees what the metrics saw."""
    model = kit.model("teacher", image_size=[40, 56]).eval()
    processor = KdamImageProcessor.from_model_config(model.config)
    sample = kit.rooms[0]
    inputs = processor(sample["image"])
    maps = processor.post_process(model(**inputs), inputs["original_sizes"])[0]
    metrics = {task.name: task.metric() for task in kit.tasks}
    for task in kit.tasks:
        label = task.label.to_tensor(sample["labels"][task.name])
        value = maps[task.name]
        metrics[task.name].update(value[None] if label.ndim == 3 and value.ndim == 2 else value, label)
    seen = {f"{name}/{k}": v for name, metric in metrics.items() for k, v in metric.compute().items()}
    loader = DataLoader([kit.eval_data().transform(sample, 0, 0)], 1, collate_fn=Collator(kit.tasks))
    scored = evaluate_model(model, loader, kit.tasks, progress=False)
    assert seen == pytest.approx(scored, rel=1e-4, nan_ok=True)


@pytest.mark.fault(31)
def test_an_empty_split_is_an_error(kit):
    with pytest.raises(KdamValueError, match="holds no image"):
        evaluate_model(kit.model(), [], kit.tasks, progress=False)


def scores(kit, model, size=1, indices=range(5), processes=LOCAL):
    loader = DataLoader(Subset(kit.eval_data(), indices), size, collate_fn=Collator(kit.tasks))
    return evaluate_model(model, loader, kit.tasks, processes=processes, progress=False)


def test_images_of_one_size_score_in_one_batch_as_they_do_alone_and_no_module_changes_its_mode(kit):
    model = kit.model("teacher").train()
    model.encoder.backbone.eval()
    modes = [module.training for module in model.modules()]
    assert scores(kit, model, 5) == pytest.approx(scores(kit, model), rel=1e-5)
    assert [module.training for module in model.modules()] == modes


class Beside(Processes):
    """A process that hears what another one, done before, has said."""

    def __init__(self, other=None):
        super().__init__()
        self.said, self.shared, self.other = [], [], other

    def gather(self, value):
        self.said.append(value)
        return [value] if self.other is None else [value, self.other.said[len(self.said) - 1]]

    def share_buffers(self, module):
        self.shared.append(module)


def test_scores_are_those_of_the_shares_of_all_processes_and_of_one_model(kit):
    model, first = kit.model(), Beside()
    scores(kit, model, indices=[3, 4], processes=first)
    both = scores(kit, model, indices=[0, 1, 2], processes=Beside(first))
    assert both == pytest.approx(scores(kit, model))
    assert first.shared == [model]


def test_only_tasks_that_nothing_labels_are_scored_against_the_teacher(kit):
    def blank(samples):
        batch = Collator(kit.tasks)(samples)
        batch["labels"]["depth"].zero_()
        return batch

    loader = DataLoader(kit.eval_data(), 2, collate_fn=blank)
    found = score_model(kit.model(), loader, kit.tasks, kit.frozen, torch.device("cpu"), progress=False)
    assert {key.split("/")[1] for key in found if key.startswith("agreement/")} == {"depth"}
    assert {key.split("/")[0] for key in found} == {"agreement", *(task.name for task in kit.tasks)} - {"depth"}
