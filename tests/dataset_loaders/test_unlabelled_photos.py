"""Photos without labels: every photo is found once, held-out ones stay held out, and each batch has its fixed share."""

import os
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from trees import encoded

from dataset_loaders import MixedDataset, MixedSampler, PhotosDataset, open_dataset
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.image_processing_kdam import KdamImageProcessor
from kdam_hf.photos_kdam import open_photo


def write(path, height=40, width=56, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "b.png", "day/a.jpg", "day/night/c.webp", "day/d.jpeg", "e.bmp", "day/a.png"):
        write(tmp_path / "photos" / name)
    return tmp_path / "photos"


def ids(folder, **options):
    return [list(PhotosDataset(folder, split, **options).ids) for split in ("train", "val")]


def test_every_photo_below_the_folder_has_a_name_of_its_own_and_no_label(folder):
    (folder / "notes.txt").write_text("none")
    (folder / ".hidden.jpg").write_bytes(b"")
    train, val = ids(folder)
    assert sorted(train + val) == ["a", "b", "day__a", "day__a.png", "day__d", "day__night__c", "e"]
    sample = open_dataset("photos", "train", folder)[0]
    assert sample["image"].dtype == np.uint8
    assert sample["labels"] == {}


def test_no_photo_is_in_both_splits_and_the_held_out_share_stays_when_others_are_added(folder):
    _, before = ids(folder, held_out=0.3)
    for k in range(30):
        write(folder / f"new{k}.jpg")
    train, after = ids(folder, held_out=0.3)
    assert not {*train} & {*after}
    assert (len(before), len(after)) == (2, round(0.3 * 37))


def test_a_name_that_is_not_utf_8_is_refused_with_all_others_that_cannot_be_learnt_from(folder):
    write(folder / "at 3.04\u202fPM\u3000é.jpg")
    assert "at 3.04\u202fPM\u3000é" in {*ids(folder)[0], *ids(folder)[1]}
    write(folder / os.fsdecode(b"caf\xe9.jpg"))
    with pytest.raises(DataIntegrityError, match=r"1 of .*caf.udce9.*rename"):
        ids(folder)


def test_a_turned_photo_is_upright_and_an_archive_is_a_folder(folder):
    shutil.rmtree(folder)
    folder.mkdir()
    for k in range(2):
        (folder / f"{k}.jpg").write_bytes(encoded(Image.new("RGB", (56, 40)), "JPEG", 6))
    archives = [shutil.make_archive(str(folder.parent / name), "zip", folder) for name in ("v1.0", "v1.1")]
    for source in (folder, *archives):
        assert open_dataset("photos", "train", source)[0]["image"].shape == (56, 40, 3)


def test_options_that_cannot_be_meant_are_refused_and_texts_are_numbers(folder):
    wrong = ("held_out", "abc"), ("held_out", "nan"), ("held_out", 1), ("shorter_side", "x"), ("shorter_side", 0)
    for option, value in wrong:
        with pytest.raises(KdamValueError, match=f"{option} {value}"):
            open_dataset("photos", "train", folder, **{option: value})
    assert len(open_dataset("photos", "val", folder, held_out="0.3", shorter_side="32")) == 2


def test_another_photo_in_its_place_is_another_stamp(folder):
    photos = PhotosDataset(folder, "train")
    before = photos.stamp(0)
    photos.photo(0).write_bytes(photos.photo(0).read_bytes() + b"\0")
    assert photos.stamp(0) != before


def test_of_fixed_views_no_other_is_asked_for():
    sampler = MixedSampler((5, 3), 0.5, views=2)
    for epoch in range(6):
        sampler.set_epoch(epoch)
        assert {view for view, _ in sampler} <= {0, 1}


@pytest.mark.parametrize("side", [48, None])
def test_large_photos_are_reduced_as_the_processor_of_the_student_does_and_small_ones_kept(folder, side):
    for k in range(4):
        write(folder / f"large{k}.png", 600 + k, 900)
    options, side = ({}, 480) if side is None else ({"shorter_side": str(side)}, side)
    data = [open_dataset("photos", split, folder, **options) for split in ("train", "val")]
    processor = KdamImageProcessor(size={"shortest_edge": side}, image_mean=[0, 0, 0], image_std=[1, 1, 1])
    for photos in data:
        for index, sample in enumerate(photos):
            file = open_photo(photos.photo(index))
            values = processor(images=file)["pixel_values"][0].permute(1, 2, 0) * 255
            assert np.array_equal(values.round().to(torch.uint8).numpy(), sample["image"])
            assert photos.photo_header(index)[:2] == sample["image"].shape[:2]
            assert min(sample["image"].shape[:2]) == min(side, min(file.size))


def cut(path, **options):
    write(path, 90, 120, **options)
    path.write_bytes(path.read_bytes()[:-40])


def cut_pair(path):
    """Two pictures in one JPEG, as telephones write them; the first is cut."""
    write(path, 90, 120, format="MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    path.write_bytes(path.read_bytes()[:4000])


def test_a_photo_with_something_behind_its_end_is_whole(folder):
    for name in ("more.jpg", "more.png"):
        write(folder / name, 40, 56)
        with (folder / name).open("ab") as file:
            file.write(b"a film, as some telephones write it")
    assert {"more", "more.png"} <= {name for split in ("train", "val") for name in PhotosDataset(folder, split).ids}


@pytest.mark.parametrize(
    ("damage", "error", "word"),
    [
        (lambda folder: (folder / "b.png").write_bytes(b"no picture"), DataIntegrityError, "b.png"),
        (lambda folder: cut(folder / "cut.jpg"), DataIntegrityError, "cut.jpg"),
        (lambda folder: cut(folder / "cut.png"), DataIntegrityError, "cut.png"),
        (lambda folder: cut_pair(folder / "pair.jpg"), DataIntegrityError, "pair.jpg"),
        (lambda folder: write(folder / "tiny.png", 3, 200), DataIntegrityError, "200x3"),
        (lambda folder: write(folder / "long.png", 33, 10_001), DataIntegrityError, "10001x33"),
        (shutil.rmtree, KdamValueError, "photos"),
        (lambda folder: [p.unlink() for p in folder.rglob("*.*")], KdamValueError, "0 photos"),
    ],
)
def test_what_cannot_be_learnt_from_is_named_before_training(folder, damage, error, word):
    damage(folder)
    with pytest.raises(error, match=word):
        PhotosDataset(folder, "train")


def test_the_image_column_of_a_data_set_is_taken_whatever_its_name(monkeypatch):
    import datasets

    rows = datasets.Dataset.from_dict({"picture": [Image.new("RGB", (50, 40))] * 4, "caption": ["x"] * 4})
    rows = rows.cast_column("picture", datasets.Image())
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: {"train": rows})
    assert PhotosDataset("org/photos", "train")[0]["image"].shape == (40, 50, 3)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: {"train": rows.remove_columns("picture")})
    with pytest.raises(KdamValueError, match="caption"):
        PhotosDataset("org/photos", "train")


def test_of_several_columns_of_images_the_photo_is_taken_or_asked_for(tmp_path):
    import datasets

    pictures = {"annotation": [Image.new("L", (56, 40))] * 4, "view": [Image.new("RGB", (50, 40))] * 4}
    rows = datasets.Dataset.from_dict(pictures)
    for name in pictures:
        rows = rows.cast_column(name, datasets.Image())
    rows.to_parquet(tmp_path / "data" / "train.parquet")
    with pytest.raises(KdamValueError, match=r"annotation, view.*--columns"):
        PhotosDataset(tmp_path / "data", "train")
    for options in ({}, {"streaming": True}):
        photos = open_dataset("photos", "train", tmp_path / "data", columns=["image=view"], **options)
        assert photos[0]["image"].shape == (40, 50, 3)
    rows.rename_column("view", "photo").to_parquet(tmp_path / "named" / "train.parquet")
    assert PhotosDataset(tmp_path / "named", "train")[0]["image"].shape == (40, 50, 3)


@pytest.mark.parametrize(("share", "counts"), [(0.25, (12, 7)), (0.5, (5, 40)), (0.8, (12, 7))])
def test_every_run_of_draws_has_its_share_and_nothing_is_drawn_more_often_than_the_rest(counts, share):
    sampler, drawn = MixedSampler(counts, share, seed=3), []
    for epoch in range(12):
        sampler.set_epoch(epoch)
        drawn.append(list(sampler))
    assert len(drawn[0]) == len(sampler) == round(counts[0] / (1 - share))
    assert drawn[0] != drawn[1]
    sampler.set_epoch(5)
    assert list(sampler) == drawn[5]  # whatever was drawn before
    for epoch in drawn:
        is_photo = [index >= counts[0] for _, index in epoch]
        for begin in range(len(epoch) - 8):
            assert abs(sum(is_photo[begin : begin + 8]) - 8 * share) < 1
    flat = [key for epoch in drawn for key in epoch]
    assert max(Counter(flat).values()) == 1  # another view of a sample every time
    seen = Counter(index for _, index in flat)
    for first, last in ((0, counts[0]), (counts[0], sum(counts))):
        times = [seen[index] for index in range(first, last)]
        assert max(times) - min(times) <= 1


@pytest.mark.parametrize("share", [0, 1, -1, float("nan")])
def test_a_share_that_leaves_one_kind_out_is_refused(folder, share):
    photos = PhotosDataset(folder, "train")
    with pytest.raises(KdamValueError, match="share"):
        MixedDataset(photos, photos, (), share)
