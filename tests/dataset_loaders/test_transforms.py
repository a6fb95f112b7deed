import copy
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from conftest_kit import Made
from PIL import Image
from torch.utils.data import DataLoader

from dataset_loaders import (
    Collator,
    EpochSampler,
    EvalTransform,
    TrainTransform,
    TransformedDataset,
    transforms,
)
from dataset_loaders.transforms import Window, color_matrix
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.tasks import make_task

CLASSES = [f"class_{k}" for k in range(8)]
TASKS = tuple(
    make_task(n, CLASSES if n == "semseg" else ()) for n in ("semseg", "saliency", "depth", "normals", "edge")
)
INVALID = {"semseg": 255, "saliency": 255, "depth": 0, "normals": 0, "edge": 255}
PALETTE = np.random.default_rng(7).integers(0, 256, (8, 3), dtype=np.uint8)
PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}


def blocks(height, width, side=16):
    """A checkerboard of classes in blocks of `side` pixels."""
    ids = np.random.default_rng(1).integers(0, 8, (-(-height // side), -(-width // side)), dtype=np.uint8)
    return np.kron(ids, np.ones((side, side), np.uint8))[:height, :width]


def sample_of(height=60, width=80):
    """Each map is a function of the class, so that any misalignment shows."""
    ids = blocks(height, width)
    normals = np.random.default_rng(2).normal(size=(8, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    labels = {"semseg": ids, "saliency": ids % 2, "edge": ids // 4}
    labels |= {"depth": 1 + ids.astype(np.float32), "normals": normals.astype(np.float32)[ids]}
    return {"id": "x", "image": PALETTE[ids], "labels": labels}


def flat(view):
    return [view["pixel_values"], view["pixel_mask"], *view["labels"].values()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(flat(a), flat(b), strict=True))


def test_a_view_depends_on_seed_epoch_and_index_alone():
    transform = TrainTransform(TASKS, (32, 48), **PLAIN, seed=3)
    sample = sample_of()
    original = copy.deepcopy(sample)
    view = transform(sample, 1, 5)
    np.random.seed(0)
    torch.manual_seed(0)
    assert same(view, transform(sample, 1, 5))
    assert same(view, pickle.loads(pickle.dumps(transform))(sample, 1, 5))
    assert not same(view, transform(sample, 2, 5))
    assert not same(view, transform(sample, 1, 6))
    assert not same(view, TrainTransform(TASKS, (32, 48), **PLAIN, seed=4)(sample, 1, 5))
    assert view["index"] == 5
    for name, label in original["labels"].items():
        np.testing.assert_array_equal(sample["labels"][name], label)


@pytest.mark.parametrize("scale", [(0.5, 0.5), (1.0, 1.0), (1.37, 1.37), (0.5, 2.0)])
def test_image_and_labels_stay_aligned(scale):
    transform = TrainTransform(TASKS, (40, 56), **PLAIN, scale=scale, photometric=False)
    sample = sample_of(120, 160)
    shares = []
    for index in range(20):
        view = transform(sample, 0, index)
        ids = view["labels"]["semseg"]
        assert view["pixel_mask"].all()
        colors = torch.from_numpy(PALETTE).float()[ids].permute(2, 0, 1) / 255
        shares.append(((view["pixel_values"] - colors).abs().amax(0) < 2e-3).float().mean().item())
        assert torch.equal(view["labels"]["saliency"], ids % 2)
        assert torch.equal(view["labels"]["edge"][0], (ids // 4).float())
        steps = view["labels"]["depth"][0] / (1 + ids)  # 1 / scale everywhere
        assert torch.allclose(steps, steps[0, 0].expand_as(steps))
        assert 1 / scale[1] - 1e-6 <= steps[0, 0].item() <= 1 / scale[0] + 1e-6
    # Between blocks the image is blended over about two pixels; one pixel of shift would cost as much again.
    assert np.mean(shares) > {0.5: 0.6, 1.0: 0.999, 1.37: 0.85}[scale[0]] - 0.05 * (scale[0] != scale[1])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("size", [(12, 18), (20, 30), (21, 29), (34, 51)])
def test_a_window_is_resized_as_pillow_does_but_for_its_border(size, mirrored):
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    (top, left, height, width), (rows, columns) = (10, 20, 20, 30), size
    part = Window(top, left, height, width, rows, columns, mirrored).resize_image(image)
    box = (left, top, left + width, top + height)
    expected = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR, box))
    difference = np.abs(part[:, :: -1 if mirrored else 1].astype(int) - expected)
    assert part.shape == (rows, columns, 3)
    assert difference[2:-2, 2:-2].max() <= 2  # Pillow rounds between rows and columns, and sees beyond the window


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.6])
def test_labels_are_sampled_under_pixel_centres(scale):
    label = np.random.default_rng(0).integers(0, 256, (50, 60), dtype=np.uint8)
    window = Window(7, 11, 20, 30, round(20 * scale), round(30 * scale))
    box = (window.left, window.top, window.left + window.width, window.top + window.height)
    expected = Image.fromarray(label).resize((window.columns, window.rows), Image.Resampling.NEAREST, box)
    np.testing.assert_array_equal(window.resize_label(label), np.asarray(expected))


def test_every_size_and_scale_yields_a_full_view():
    rng = np.random.default_rng(0)
    for index in range(60):
        height, width, h, w = (int(v) for v in rng.integers(2, 60, 4))
        view = TrainTransform(TASKS, (h, w), **PLAIN, scale=(0.1, 4))(sample_of(height, width), 0, index)
        assert (view["pixel_values"].shape, view["pixel_values"].dtype) == ((3, h, w), torch.float32)
        assert view["pixel_mask"].any()
        assert torch.equal(view["labels"]["semseg"] < 8, view["pixel_mask"])


def test_a_flipped_view_mirrors_everything_and_negates_x_of_normals():
    kwargs = {**PLAIN, "scale": (1, 1), "photometric": False}
    sample = sample_of(32, 48)
    flipped = TrainTransform(TASKS, (32, 48), **kwargs)
    views = [flipped(sample, 0, index) for index in range(12)]
    plain = EvalTransform(TASKS, **PLAIN)(sample, 0, 0)
    mirrored = [not torch.equal(view["pixel_values"], plain["pixel_values"]) for view in views]
    assert 0 < sum(mirrored) < 12
    for view in (v for v, m in zip(views, mirrored, strict=True) if m):
        assert torch.equal(view["pixel_values"].flip(-1), plain["pixel_values"])
        for name, label in view["labels"].items():
            back = label.flip(-1)
            if name == "normals":
                back = back * torch.tensor([-1.0, 1, 1])[:, None, None]
            assert torch.equal(back, plain["labels"][name])


@pytest.mark.fault(17)
def test_padding_repeats_the_border_and_is_masked_and_invalid_for_every_task():
    transform = TrainTransform(TASKS, (100, 120), (0.4, 0.5, 0.6), (0.2, 0.2, 0.2), scale=(0.5, 0.5))
    view = transform(sample_of(60, 80), 0, 0)
    unlabelled = transform(sample_of(60, 80) | {"labels": {}}, 0, 0)
    mask = torch.zeros(100, 120, dtype=torch.bool)
    mask[:30, :40] = True
    assert torch.equal(view["pixel_mask"], mask)
    rows, columns = torch.arange(100).clamp_max(29), torch.arange(120).clamp_max(39)
    assert torch.equal(view["pixel_values"], view["pixel_values"][:, rows][:, :, columns])
    for name, invalid in INVALID.items():
        assert (view["labels"][name][..., ~mask] == invalid).all()
        assert not (view["labels"][name][..., mask] == invalid).all()
        assert (unlabelled["labels"][name] == invalid).all()


def test_no_class_covers_more_than_its_share_of_a_crop(monkeypatch):
    sample, ids = sample_of(120, 160), np.zeros((120, 160), np.uint8)
    ids[:, 80:] = 1
    sample["labels"]["semseg"] = ids
    transform = TrainTransform(TASKS, (30, 40), **PLAIN, scale=(1, 1))

    def shares(tries):
        monkeypatch.setattr(transforms, "CROP_TRIES", tries)
        views = (transform(sample, 0, index)["labels"]["semseg"] for index in range(30))
        return np.array([torch.bincount(view.flatten()).max().item() / view.numel() for view in views])

    assert (shares(1) > 0.75).mean() > 0.5
    assert (shares(200) <= 0.75).all()
    assert (shares(10) > 0.75).mean() < 0.25
    ids[:] = 255  # unlabelled pixels do not count
    last = transform(sample, 0, 0)
    monkeypatch.setattr(transforms, "CROP_TRIES", 1)
    assert same(last, transform(sample, 0, 0))


@pytest.mark.parametrize("seed", range(3))
def test_the_colour_matrix_is_the_four_steps_in_order(seed):
    rng = np.random.default_rng(seed)
    brightness, contrast, saturation, hue = rng.uniform([-32, 0.5, 0.5, -18], [32, 1.5, 1.5, 18])
    image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    x = (image.astype(np.float64) + brightness) * contrast
    luma = x @ [0.299, 0.587, 0.114]
    x = luma[..., None] + saturation * (x - luma[..., None])
    i, q = x @ [0.596, -0.274, -0.322], x @ [0.211, -0.523, 0.312]
    chroma = np.hypot(i, q) * np.exp(1j * (np.arctan2(q, i) + np.radians(hue)))
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    expected = np.linalg.solve(to_yiq, np.stack([luma, chroma.real, chroma.imag], -1)[..., None])[..., 0]
    matrix = color_matrix(brightness, contrast, saturation, hue)
    np.testing.assert_allclose(image @ matrix[:, :3].T + matrix[:, 3], expected, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_colours_are_clipped_once_and_then_normalised(seed):
    sample, size = sample_of(32, 48), (32, 48)
    sample["image"] = np.random.default_rng(seed).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    kwargs = {"scale": (1, 1), "hflip": False, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    view = TrainTransform(TASKS, size, **kwargs, seed=seed)(sample, 0, 0)["pixel_values"].double().numpy()
    colors = view.transpose(1, 2, 0) * kwargs["std"] + kwargs["mean"]
    assert colors.min() >= -1e-6
    assert colors.max() <= 1 + 1e-6
    # Where nothing was clipped, one affine map of the colours explains all pixels.
    free = ((colors > 1e-4) & (colors < 1 - 1e-4)).all(-1)
    pixels = np.column_stack([sample["image"][free], np.ones(free.sum())])
    matrix = np.linalg.lstsq(pixels, colors[free] * 255, rcond=None)[0]
    np.testing.assert_allclose(pixels @ matrix, colors[free] * 255, atol=1e-3)


@pytest.mark.parametrize(
    "bad", [{"size": (0, 4)}, {"scale": (0, 1)}, {"scale": (2, 1)}, {"std": (0, 1, 1)}, {"mean": (0,)}]
)
def test_unusable_settings_are_refused(bad):
    with pytest.raises(KdamValueError, match="expected"):
        TrainTransform(TASKS, **{"size": (4, 4), **PLAIN, **bad})


def test_batches_of_odd_sizes_are_padded_with_invalid_labels():
    sizes = [(17, 33), (20, 9), (20, 33)]
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    data = TransformedDataset(
        Made(*(partial(sample_of, *s) for s in sizes), tasks=TASKS), EvalTransform(TASKS, mean, std)
    )
    views = [data[k] for k in range(3)]
    expected = (sample_of(*sizes[1])["image"].astype(np.float64) / 255 - mean) / std
    np.testing.assert_allclose(views[1]["pixel_values"].numpy(), expected.transpose(2, 0, 1), atol=1e-5)
    batch = Collator(TASKS)(views)
    assert batch["pixel_values"].shape == (3, 3, 20, 33)
    assert torch.equal(batch["index"], torch.tensor([0, 1, 2]))
    assert batch["pixel_mask"].flatten(1).sum(1).tolist() == [h * w for h, w in sizes]
    for k, (h, w) in enumerate(sizes):
        padding = ~batch["pixel_mask"][k]
        assert torch.equal(batch["pixel_values"][k, :, :h, :w], views[k]["pixel_values"])
        rows, columns = torch.arange(20).clamp_max(h - 1), torch.arange(33).clamp_max(w - 1)
        assert torch.equal(batch["pixel_values"][k], views[k]["pixel_values"][:, rows][:, :, columns])
        for name, invalid in INVALID.items():
            label = batch["labels"][name][k]
            assert torch.equal(label[..., :h, :w], views[k]["labels"][name])
            assert (label[..., padding] == invalid).all()


def test_an_epoch_visits_every_sample_once_in_an_order_of_its_own():
    orders = {}
    for seed, epoch in np.ndindex(3, 3):
        sampler = EpochSampler(50, seed)
        sampler.set_epoch(epoch)
        epochs, orders[seed, epoch] = zip(*sampler, strict=True)
        assert {*epochs} == {epoch}
        assert [*zip(epochs, orders[seed, epoch], strict=True)] == list(sampler)
    assert sorted(orders[0, 0]) == [*range(50)]
    assert len({*orders.values()}) == 9


def test_batches_do_not_depend_on_workers_and_persistent_workers_see_the_new_epoch():
    data = TransformedDataset(Made(*[sample_of] * 6, tasks=TASKS), TrainTransform(TASKS, (16, 24), **PLAIN))

    def batches(num_workers):
        sampler = EpochSampler(len(data), seed=1)
        workers = {"num_workers": num_workers, "persistent_workers": num_workers > 0}
        loader = DataLoader(data, 2, sampler=sampler, collate_fn=Collator(TASKS), **workers)
        seen = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            seen += list(loader)
        return seen

    alone, together = batches(0), batches(2)
    assert len(alone) == 6
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))
    assert not same(alone[0], alone[3])


@pytest.mark.fault(22)
def test_a_bad_sample_stops_with_its_index_and_is_never_replaced():
    def broken():
        sample = sample_of()
        sample["labels"]["semseg"][0, 0] += 90
        return sample

    data = TransformedDataset(Made(sample_of, broken, tasks=TASKS), EvalTransform(TASKS, **PLAIN))
    data[0]
    with pytest.raises(DataIntegrityError, match=r"'x'.*semseg") as raised:
        data[1]
    assert raised.value.__notes__ == ["(index 1 of made val)"]


@pytest.mark.fault(10)
@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_a_batch_with_an_image_that_is_not_finite_is_refused_and_the_sample_named(value):
    views = [EvalTransform(TASKS, **PLAIN)(sample_of() | {"id": f"photo-{k}"}, 0, k) for k in range(3)]
    views[1]["pixel_values"][2, 3, 4] = value
    with pytest.raises(DataIntegrityError, match=r"'photo-1' \(index 1\)"):
        Collator(TASKS)(views)


def test_each_change_of_colour_is_drawn_for_half_of_the_samples_from_all_of_its_range(monkeypatch):
    monkeypatch.setattr(transforms, "color_matrix", lambda *drawn: drawn)
    drawn = np.array([transforms._draw_color_matrix(np.random.default_rng(k)) for k in range(400)])
    none, lowest, highest = (0, 1, 1, 0), np.array((-32, 0.5, 0.5, -18)), np.array((32, 1.5, 1.5, 18))
    assert (abs((drawn == none).mean(0) - 0.5) < 0.1).all()
    assert ((lowest <= drawn) & (drawn <= highest)).all()
    assert (np.ptp(drawn, 0) > 0.95 * (highest - lowest)).all()
