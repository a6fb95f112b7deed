"""Data from strangers: ids, archives and published rows; and splits that hold too little."""

import hashlib

import numpy as np
import pytest
import torch
import trees
from datasets import Dataset, Features, Value
from datasets import Image as ImageColumn
from PIL import Image
from pyarrow.parquet import write_table
from torch.utils.data import Subset

from dataset_loaders import TransformedDataset, open_dataset, read_array
from dataset_loaders.archives import extract
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.tasks import make_task
from kdam_hf.training import MultiTaskTrainer
from kdam_hf.training.prediction_files import save_maps
from kdam_hf.training.scoring import ImageMaps

ESCAPES = ["../outside", "..", "/tmp/outside", "a/b", "a\\b", "x\0y"]


@pytest.mark.fault(34)
@pytest.mark.parametrize("name", ESCAPES)
def test_predictions_are_written_below_their_folder_only(tmp_path, name):
    task = make_task("semseg", "ab")
    one = ImageMaps(0, {"semseg": torch.zeros(2, 2, dtype=torch.long)}, {}, {})
    with pytest.raises(DataIntegrityError, match="sample id"):
        list(save_maps([one], tmp_path / "deep" / "maps", [task], [name]))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def rows(tmp_path, image, sample_id="0001"):
    """A data set of one row as Parquet, whose image is given by its bytes or only by a path."""
    feature = Features({"id": Value("string"), "image": ImageColumn(), "saliency": ImageColumn()})
    label = {"bytes": trees.encoded(np.zeros((4, 6), np.uint8)), "path": None}
    row = {"id": [sample_id], "image": [image], "saliency": [label]}
    (tmp_path / "data").mkdir()
    table = Dataset.from_dict(row, feature).with_format("arrow")[:]  # to_parquet would open the path itself
    write_table(table, tmp_path / "data/train-00000-of-00001.parquet")
    return open_dataset("hub", "train", tmp_path)


@pytest.mark.fault(34)
def test_a_published_row_cannot_point_at_a_file_of_this_machine_and_an_id_cannot_leave_a_folder(tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "private.png")
    for name in ("path", "id"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataIntegrityError, match="expected the bytes of an image in the row"):
        rows(tmp_path / "path", {"bytes": None, "path": str(tmp_path / "private.png")})[0]
    dataset = rows(tmp_path / "id", {"bytes": trees.encoded(np.zeros((4, 6, 3), np.uint8)), "path": None}, "../../x")
    with pytest.raises(DataIntegrityError, match=r"sample id '\.\./\.\./x'"):
        TransformedDataset(dataset, None)[0, 0]


@pytest.mark.fault(25)
def test_an_altered_archive_is_refused_before_it_is_parsed(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/0001.png").write_bytes(b"1")
    archive = trees.make_archive(tmp_path / "data", tmp_path / "data.tar.gz")
    stated = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert extract(archive, tmp_path / "good", sha256=stated.upper()).is_dir()
    with archive.open("r+b") as file:  # the name of the packed file: no checksum of gzip covers it
        file.seek(9)
        file.write(b"\x07")
    extract(archive, tmp_path / "unnoticed")
    for folder in ("bad", "unnoticed"):  # what was unpacked before is not taken for it either
        with pytest.raises(DataIntegrityError, match=rf"data\.tar\.gz: SHA-256 is .*expected {stated}"):
            extract(archive, tmp_path / folder, sha256=stated)
    assert not (tmp_path / "bad").exists()


@pytest.mark.fault(31)
@pytest.mark.parametrize("images", [0, 1])
def test_fewer_images_than_a_batch_are_refused_before_training(kit, images):
    with pytest.raises(KdamValueError, match=rf"^{images} training images are fewer than one batch of 2 .*0 optimis"):
        MultiTaskTrainer(kit.model(), kit.args(), kit.tasks, Subset(kit.train_data(), range(images)))


@pytest.mark.fault(22)
def test_an_array_that_promises_more_than_its_file_holds_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((50, 60), np.float32))
    data = (tmp_path / "x.npy").read_bytes()
    for broken in (b"", data[:20], data[:-1], data.replace(b"(50, 60)", b"(9999999, 60)")):
        (tmp_path / "x.npy").write_bytes(broken)
        with pytest.raises(DataIntegrityError, match=r"x\.npy"):
            read_array(tmp_path / "x.npy")
