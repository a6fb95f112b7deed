import numpy as np
import pytest
import torch
from scipy import ndimage

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics import BoundaryScores, EdgeF, boundary_counts, score_boundaries

SETTINGS = {"thresholds": 9, "max_dist": 0.05}


def soft_maps(seed, number=5, shape=(24, 32)):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((number, *shape)), (0, 1.5, 1.5))
    return (noise - noise.min()) / np.ptp(noise)


def batch():
    """Probabilities and labels in {0, 1, 255}."""
    label = (soft_maps(0) > 0.6).astype(np.int64)
    label[:, :3] = 255
    return torch.from_numpy(soft_maps(50)), torch.from_numpy(label)


def scored(prediction, label):
    metric = BoundaryScores(**SETTINGS)
    metric.update(prediction, label)
    return metric


def reference_scores(images):
    """ODS, OIS and their threshold by plain loops over images and thresholds."""
    per_image = [np.array(boundary_counts(*image, **SETTINGS)) for image in images]

    def f(counts):
        r, p = counts[0] / max(counts[1], 1), counts[2] / max(counts[3], 1)
        return 2 * p * r / (p + r) if p + r else 0.0

    whole = sum(per_image)
    of_threshold = [f(whole[:, k]) for k in range(9)]
    own = sum(counts[:, int(np.argmax([f(counts[:, k]) for k in range(9)]))] for counts in per_image)
    return {
        "odsf": 100 * max(of_threshold),
        "oisf": 100 * f(own),
        "ods_threshold": (1 + int(np.argmax(of_threshold))) / 10,
    }


def as_images(prediction, label):
    return [(p.numpy(), [a.numpy() == 1], a.numpy() == 255) for p, a in zip(prediction, label, strict=True)]


def test_values_agree_with_loops_over_images_and_thresholds():
    values = scored(*batch()).compute()
    expected = reference_scores(as_images(*batch()))
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    p, r = values["ods_precision"], values["ods_recall"]
    assert values["odsf"] == pytest.approx(2 * p * r / (p + r))
    assert 0 < values["ap"] <= 100
    exact = EdgeF()
    exact.update(*batch())
    assert values["maxf"] == exact.compute()["maxf"]


def several_annotators(number=6):
    annotators = [soft_maps(20 + k, number) > 0.6 for k in range(3)]
    return [(p, [a[k] for a in annotators]) for k, p in enumerate(soft_maps(10, number))]


def test_processes_count_as_one_does():
    images = several_annotators()
    alone = score_boundaries(images, **SETTINGS)
    assert score_boundaries(iter(images), num_proc=2, **SETTINGS).compute() == pytest.approx(
        alone.compute(), nan_ok=True
    )
    assert alone.compute()["odsf"] == pytest.approx(reference_scores(images)["odsf"])
    assert int(alone.state["images"]) == len(images)


@pytest.mark.parametrize("num_proc", [1, 2])
def test_a_refused_image_is_named(num_proc):
    images = several_annotators(3)
    images[1] = (5 * images[1][0], images[1][1])
    with pytest.raises(KdamValueError, match=r"image 1 .*between"):
        score_boundaries(images, num_proc, **SETTINGS)
    with pytest.raises(KdamValueError, match="num_proc is 0"):
        score_boundaries(images, num_proc=0)


@pytest.mark.parametrize("num_proc", [1, 2])
def test_images_are_taken_as_they_are_needed(num_proc):
    images = iter([(5 * image, annotations) for image, annotations in several_annotators(20)])
    with pytest.raises(KdamValueError, match="image 0"):
        score_boundaries(images, num_proc, **SETTINGS)
    assert len(list(images)) >= 20 - 2 * num_proc
