import numpy as np
import pytest
import torch
from PIL import Image

from kdam_hf import KdamImageProcessor, KdamOutput, KdamStudent
from kdam_hf.presets import make_config
from kdam_hf.tasks import NYUD_V2
from kdam_hf.upsampling_kdam import upsample


def processor_for(tasks, **kwargs):
    return KdamImageProcessor(tasks=[t.spec() for t in tasks], **kwargs)


def test_photos_are_normalised_and_those_of_different_sizes_share_a_padded_batch(all_tasks):
    photo = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    batch = processor_for(all_tasks)([photo, np.zeros((25, 10, 3), np.uint8)])
    assert batch["pixel_values"].shape == (2, 3, 25, 30)
    assert batch["pixel_mask"].sum((1, 2)).tolist() == [600, 250]
    expected = (photo / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(batch["pixel_values"][0, :, :20].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    assert torch.equal(batch["pixel_values"][1, :, :, 10:], batch["pixel_values"][1, :, :, 9:10].expand(3, 25, 20))


def test_large_photos_are_reduced_small_ones_kept_and_maps_have_the_photos_size(all_tasks):
    config = make_config("student", "tiny-resnet", all_tasks, image_size=[48, 64])
    model = KdamStudent(config).eval()
    processor = KdamImageProcessor.from_model_config(config)
    photos = [np.zeros((201, 301, 3), np.uint8), np.zeros((31, 45, 3), np.uint8)]
    batch = processor(photos)
    assert batch["pixel_values"].shape == (2, 3, 48, 72)
    for photo, maps in zip(photos, processor.post_process(model(**batch), [p.shape[:2] for p in photos]), strict=True):
        h, w = photo.shape[:2]
        assert {k: tuple(v.shape) for k, v in maps.items()} == {
            task.name: (3, h, w) if task.name == "normals" else (h, w) for task in all_tasks
        }
        assert maps["semseg"].dtype == torch.int64
        assert not any(value.requires_grad for value in maps.values())
        assert all(0 <= maps[name].min() <= maps[name].max() <= 1 for name in ("edge", "saliency"))


def test_photos_of_several_heights_in_one_batch_come_back_at_their_own_exactly_as_alone():
    """The taller one's padding once became rows of the shorter one's maps, where those take several bands."""
    model = KdamStudent(make_config("student", "tiny-resnet", NYUD_V2)).eval()
    processor = KdamImageProcessor.from_model_config(model.config)
    prediction = {task.name: torch.randn(2, task.channels, 120, 160) for task in NYUD_V2}
    seen = [(100, 640), (480, 640)]
    for size, maps in zip(seen, processor.post_process({"predictions": prediction}, seen), strict=True):
        for task in NYUD_V2:
            assert tuple(maps[task.name].shape[-2:]) == size, task.name
        edge = upsample(prediction["edge"], (480, 640))[seen.index(size), 0].sigmoid()
        torch.testing.assert_close(maps["edge"], edge[: size[0]])


def test_wrong_input_is_refused_with_what_was_expected(all_tasks):
    processor = processor_for(all_tasks)
    outputs = KdamOutput(predictions={t.name: torch.randn(1, t.channels, 5, 5) for t in all_tasks})
    for refused, reason in (
        (lambda: processor(np.zeros((4, 4, 3))), "uint8"),
        (lambda: processor([]), "no image"),
        (lambda: processor_for(all_tasks, size={"height": 3}), "shortest_edge"),
        (lambda: processor.post_process(outputs, [(20, 20), (20, 20)]), "2 target_sizes"),
        (lambda: processor.post_process(outputs, [(40, 40)]), "before preprocessing"),
    ):
        with pytest.raises(ValueError, match=reason):
            refused()


@pytest.mark.parametrize("height", [20, 3])
def test_arrays_and_tensors_are_told_apart_by_their_channels_unless_told_otherwise(all_tasks, height):
    photo = np.random.default_rng(0).integers(0, 256, (height, 30, 3), dtype=np.uint8)
    first = photo.transpose(2, 0, 1)
    processor = processor_for(all_tasks)
    expected = processor(Image.fromarray(photo))["pixel_values"]
    for array in (first, torch.tensor(first), [first], first[None], torch.tensor(first)[None]):
        assert torch.equal(processor(array)["pixel_values"], expected)
    for array in (photo, torch.tensor(photo), photo[None]):
        assert torch.equal(processor(array, input_data_format="channels_last")["pixel_values"], expected)
        if height != 3:
            assert torch.equal(processor(array)["pixel_values"], expected)
    with pytest.raises(ValueError, match="channels_last"):
        processor(photo, input_data_format="HWC")


def test_padding_lies_right_of_and_below_a_photo_that_is_reduced_bilinearly(all_tasks):
    sizes = [(20, 30), (60, 40)]
    wide, tall = (np.random.default_rng(k).integers(0, 256, (*s, 3), np.uint8) for k, s in enumerate(sizes))
    processor = processor_for(all_tasks, size={"shortest_edge": 20})
    batch, alone = processor([wide, tall]), processor(tall)
    assert torch.equal(batch["pixel_values"][0, :, :20], processor(wide)["pixel_values"][0])
    assert torch.equal(batch["pixel_values"][1, :, :, :20], alone["pixel_values"][0])
    reduced = np.asarray(Image.fromarray(tall).resize((20, 30), Image.Resampling.BILINEAR))
    expected = (reduced / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(alone["pixel_values"][0].permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_the_shorter_side_is_that_of_an_upright_image_too(all_tasks):
    config = make_config("student", "tiny-resnet", all_tasks, image_size=[64, 48])
    assert KdamImageProcessor.from_model_config(config).size == {"shortest_edge": 48}
