import pytest
from torch.utils.data import DataLoader

from dataset_loaders import Collator, DenseDataset, EvalTransform, TransformedDataset, open_dataset
from kdam_hf import KdamImageProcessor
from kdam_hf.errors import KdamValueError
from kdam_hf.training import evaluate_model


class MixedSizes(DenseDataset):
    """Rooms of several sizes in one split, as photos are."""

    def __init__(self, kit):
        self.sizes = [(40, 56), (64, 33), (97, 70), (40, 56)]
        self.rooms = [open_dataset("synthetic_rooms", "val", num_images=4, height=h, width=w) for h, w in self.sizes]
        self.tasks, self.name, self.split = kit.tasks, "mixed", "val"

    @property
    def ids(self):
        return [room.ids[k] for k, room in enumerate(self.rooms)]

    def __getitem__(self, index):
        return self.rooms[index][index]


def batches(kit, size):
    transform = EvalTransform(kit.tasks, [0.5] * 3, [0.25] * 3)
    return DataLoader(TransformedDataset(MixedSizes(kit), transform), size, collate_fn=Collator(kit.tasks))


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
    transform = EvalTransform(kit.tasks, [0.5] * 3, [0.25] * 3)
    loader = DataLoader([transform(sample, 0, 0)], 1, collate_fn=Collator(kit.tasks))
    scored = evaluate_model(model, loader, kit.tasks, progress=False)
    assert seen == pytest.approx(scored, rel=1e-4, nan_ok=True)


@pytest.mark.fault(31)
def test_an_empty_split_is_an_error(kit):
    with pytest.raises(KdamValueError, match="holds no image"):
        evaluate_model(kit.model(), [], kit.tasks, progress=False)
