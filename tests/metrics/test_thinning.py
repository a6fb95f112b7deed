import numpy as np
import pytest
from scipy import ndimage
from skimage import morphology

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.thinning import thin


def blobs(seed, density, scale):
    noise = np.random.default_rng(seed).random((40, 50))
    smooth = ndimage.gaussian_filter(noise, scale)
    return smooth > np.quantile(smooth, 1 - density)


MASKS = {
    "empty": np.zeros((5, 7), bool),
    "all_ones": np.ones((23, 31), bool),
    "one_pixel": np.ones((1, 1), bool),
    "one_row": np.ones((1, 9), bool),
    "one_column": np.ones((9, 1), bool),
    "square": np.pad(np.ones((2, 2), bool), 1),
    "ring": np.hypot(*np.mgrid[-15:16, -15:16]) // 4 == 2,
    "checkerboard": np.indices((12, 13)).sum(0) % 2 == 0,
    "cross": (np.abs(np.arange(21) - 10) < 3)[:, None] | (np.abs(np.arange(25) - 12) < 4)[None, :],
} | {f"blobs_{d}_{s}": blobs(i, d, s) for i, (d, s) in enumerate([(0.1, 0), (0.5, 0), (0.9, 0), (0.3, 1), (0.6, 3)])}
every_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())


@every_mask
def test_every_pixel_agrees_with_scikit_image_and_the_mask_stays_as_it_was(mask):
    before = mask.copy()
    for turned in (mask, mask[::-1], mask.T, mask[:, ::-1].T):
        assert np.array_equal(thin(turned), morphology.thin(turned))
    assert np.array_equal(mask, before)


def test_every_neighbourhood_agrees_with_scikit_image():
    """All 3x3 masks, spread over one image with a gap of two."""
    codes = np.arange(512)
    cells = np.pad(((codes[:, None] >> np.arange(9)) & 1).reshape(-1, 3, 3).astype(bool), ((0, 0), (0, 2), (0, 2)))
    mask = cells.reshape(16, 32, 5, 5).swapaxes(1, 2).reshape(80, 160)
    assert np.array_equal(thin(mask), morphology.thin(mask))


def test_other_inputs_are_refused_with_what_was_given():
    with pytest.raises(KdamValueError, match=r"uint8 \(2, 3\)"):
        thin(np.zeros((2, 3), np.uint8))
    with pytest.raises(KdamValueError, match=r"bool \(1, 2, 3\)"):
        thin(np.zeros((1, 2, 3), bool))
