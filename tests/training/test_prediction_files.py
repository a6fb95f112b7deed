import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from dataset_loaders import Collator, SubsetDataset, open_dataset
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.training.evaluation import predict_maps
from kdam_hf.training.prediction_files import StoredPredictions, save_maps
from kdam_hf.training.scoring import count_maps, flat_values, make_metrics


@pytest.fixture
def rooms():
    return open_dataset("synthetic_rooms", "val", num_images=3, height=40, width=56)


def predicted(kit, rooms):
    batches = DataLoader(kit.eval_data(rooms), 2, collate_fn=Collator(kit.tasks))
    return predict_maps(kit.model(), batches, kit.tasks, progress=False)


@pytest.fixture
def saved(kit, rooms, tmp_path):
    """A folder of predictions."""
    assert len(list(save_maps(predicted(kit, rooms), tmp_path / "maps", kit.tasks, rooms.ids))) == 3
    return tmp_path / "maps"


def test_files_lie_where_labels_would(rooms, saved):
    names = sorted(path.relative_to(saved).as_posix() for path in saved.rglob("*.*"))
    ends = {"depth": "npy", "edge": "png", "human_parts": "png", "normals": "npy", "saliency": "png", "semseg": "png"}
    assert names == sorted(f"{task}/{sample_id}.{end}" for task, end in ends.items() for sample_id in rooms.ids)


@pytest.mark.fault(34)
def test_a_folder_that_holds_something_is_not_written_to(kit, rooms, saved, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(KdamValueError, match="not an empty folder"):
        save_maps(predicted(kit, rooms), saved, kit.tasks, rooms.ids)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_missing_files_and_folders_are_named_before_anything_is_scored(kit, rooms, saved):
    (saved / "semseg" / f"{rooms.ids[1]}.png").unlink()
    with pytest.raises(DataIntegrityError, match=rf"semseg: no prediction for 1 of 3 .*{rooms.ids[1]}\.png or \.npy"):
        StoredPredictions(saved, rooms, kit.tasks)
    few = SubsetDataset(rooms, [rooms.ids[0], rooms.ids[2]])
    assert len(list(StoredPredictions(saved, few, kit.tasks))) == 2
    (saved / "edge").rename(saved / "edges")
    with pytest.raises(DataIntegrityError, match=r"edge: cannot be listed.*--tasks"):
        StoredPredictions(saved, few, kit.tasks)
    assert len(StoredPredictions(saved, few, kit.tasks[:3])) == 2


def test_a_map_of_another_size_or_kind_is_named_and_never_resized(kit, rooms, saved):
    path = saved / "semseg" / f"{rooms.ids[0]}.png"
    Image.fromarray(np.zeros((20, 28), np.uint8)).save(path)
    with pytest.raises(DataIntegrityError, match=rf"{rooms.ids[0]}\.png: 20x28 pixels, the image 40x56"):
        StoredPredictions(saved, rooms, kit.tasks)[0]
    path.write_bytes(b"GIF89a")
    with pytest.raises(DataIntegrityError, match=rf"{rooms.ids[0]}\.png: not a readable PNG"):
        StoredPredictions(saved, rooms, kit.tasks)[0]


@pytest.mark.fault(12)
def test_a_value_that_cannot_be_scored_is_named_with_its_file(kit, rooms, saved):
    Image.fromarray(np.full((40, 56), 77, np.uint8)).save(saved / "semseg" / f"{rooms.ids[2]}.png")
    with pytest.raises(KdamValueError, match=rf"semseg/{rooms.ids[2]}\.png: prediction holds class ids from 77"):
        count_maps(StoredPredictions(saved, rooms, kit.tasks), make_metrics(kit.tasks))


def test_an_image_without_a_label_does_not_count(kit, rooms, saved):

    class Partial(SubsetDataset):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return sample | {"labels": {} if index else sample["labels"]}

    metrics, alone = make_metrics(kit.tasks), make_metrics(kit.tasks)
    count_maps(StoredPredictions(saved, Partial(rooms, rooms.ids), kit.tasks), metrics)
    count_maps(StoredPredictions(saved, SubsetDataset(rooms, rooms.ids[:1]), kit.tasks), alone)
    assert flat_values(metrics) == pytest.approx(flat_values(alone), nan_ok=True)
