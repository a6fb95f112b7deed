import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics import BoundaryScores, boundary_counts, score_boundaries

SETTINGS = {"thresholds": 9, "max_dist": 0.05}


def soft_maps(seed, number=5, shape=(24, 32)):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((number, *shape)), (0, 1.5, 1.5))
    return (noise - noise.min()) / np.ptp(noise)


def batch(seed=0, number=5):
    """Probabilities and labels in {0, 1, 255}."""
    label = (soft_maps(seed, number) > 0.6).astype(np.int64)
    label[:, :3] = 255
    return torch.from_numpy(soft_maps(seed + 50, number)), torch.from_numpy(label)


def scored(*batches, **settings):
    metric = BoundaryScores(**{**SETTINGS, **settings})
    for prediction, label in batches:
        metric.update(prediction, label)
    return metric


def reference_scores(images, **settings):
    """ODS, OIS and their threshold by plain loops over images and thresholds."""
    per_image = [np.array(boundary_counts(*image, **{**SETTINGS, **settings})) for image in images]

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
    values = scored(batch()).compute()
    expected = reference_scores(as_images(*batch()))
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    p, r = values["ods_precision"], values["ods_recall"]
    assert values["odsf"] == pytest.approx(2 * p * r / (p + r))
    assert 0 < values["ap"] <= 100


def test_batches_order_and_extra_axes_do_not_matter():
    prediction, label = batch()
    whole = scored((prediction, label)).compute()
    assert scored((prediction[:2], label[:2]), (prediction[2:], label[2:])).compute() == whole
    assert scored(*zip(prediction.flip(0), label.flip(0), strict=True)).compute() == whole
    assert scored((prediction[:, None], label[:, None].float())).compute() == whole


def test_merged_parts_equal_the_whole():
    prediction, label = batch()
    first, second = scored((prediction[:2], label[:2])), scored((prediction[2:], label[2:]))
    first.merge(second)
    assert first.compute() == scored((prediction, label)).compute()
    with pytest.raises(KdamValueError, match="max_dist"):
        first.merge(scored(max_dist=0.01))
    with pytest.raises(KdamValueError, match="thresholds"):
        first.merge(scored(thresholds=[0.5]))


def test_state_is_additive_and_of_constant_size():
    metric = scored()
    before = {name: (value.shape, value.dtype) for name, value in metric.state.items()}
    metric.update(*batch())
    assert {name: (value.shape, value.dtype) for name, value in metric.state.items()} == before
    assert all(dtype == torch.int64 for _, dtype in before.values())


def test_settings_survive_a_copy_with_changes():
    metric = scored(nms=True).with_settings(thin=False)
    assert (metric.max_dist, metric.nms, metric.thin, len(metric.thresholds)) == (0.05, True, False, 9)


def test_no_valid_pixel_gives_nan_and_changes_nothing():
    prediction, label = batch()
    nothing = (prediction, torch.full_like(label, 255))
    assert all(math.isnan(value) for value in scored().compute().values())
    assert all(math.isnan(value) for value in scored(nothing).compute().values())
    assert scored(nothing, (prediction, label)).compute() == scored((prediction, label)).compute()


def test_nan_on_ignored_pixels_does_no_harm_and_on_valid_pixels_is_refused():
    prediction, label = batch()
    spoilt = torch.where(label == 255, torch.nan, prediction)
    assert scored((spoilt, label)).compute() == scored((prediction, label)).compute()
    with pytest.raises(KdamValueError, match="NaN or Inf"):
        scored((torch.where(label == 1, torch.nan, prediction), label))


def test_perfect_predictions_score_100_and_wrong_ones_0():
    label = torch.zeros(2, 24, 32)
    label[:, 12] = 1
    values = scored((label, label)).compute()
    assert values["odsf"] == values["oisf"] == 100
    assert scored((label, torch.zeros_like(label))).compute()["odsf"] == 0
    assert scored((torch.zeros_like(label), label)).compute()["odsf"] == 0


def test_a_threshold_per_image_is_never_worse_here_than_one_for_all():
    """Two images whose strengths differ by a factor: one threshold has to lose on one of them."""
    label = torch.zeros(2, 24, 32)
    label[:, 12] = 1
    prediction = 0.4 * label
    prediction[:, 4] = 0.2
    prediction[1] *= 2
    values = scored((prediction, label)).compute()
    assert values["oisf"] == 100
    assert values["odsf"] < 100


def several_annotators(number=6):
    annotators = [soft_maps(20 + k, number) > 0.6 for k in range(3)]
    return [(p, [a[k] for a in annotators]) for k, p in enumerate(soft_maps(10, number))]


def test_processes_count_as_one_does():
    images = several_annotators()
    alone = score_boundaries(images, progress=False, **SETTINGS)
    assert score_boundaries(iter(images), num_proc=2, progress=False, **SETTINGS).compute() == alone.compute()
    assert alone.compute()["odsf"] == pytest.approx(reference_scores(images)["odsf"])
    assert int(alone.state["images"]) == len(images)


def test_ignored_pixels_can_be_given_per_image():
    prediction, label = batch()
    by_function = score_boundaries(as_images(prediction, label), progress=False, **SETTINGS)
    assert by_function.compute() == scored((prediction, label)).compute()


@pytest.mark.parametrize("num_proc", [1, 2])
def test_a_refused_image_is_named(num_proc):
    images = several_annotators(3)
    images[1] = (5 * images[1][0], images[1][1])
    with pytest.raises(KdamValueError, match=r"image 1 .*between"):
        score_boundaries(images, num_proc, progress=False, **SETTINGS)


def test_images_are_taken_as_they_are_needed():
    taken = 0

    def images():
        nonlocal taken
        for image in several_annotators(6):
            taken += 1
            yield image
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        score_boundaries(images(), progress=False, **SETTINGS)
    assert taken == 6


def test_a_bar_shows_progress(capsys):
    score_boundaries(several_annotators(2), **SETTINGS)
    assert "2/2" in capsys.readouterr().err


def test_no_process_is_refused():
    with pytest.raises(KdamValueError, match="num_proc is 0"):
        score_boundaries([], num_proc=0)
