"""Non-maximum suppression: keep the crest of a soft boundary map, one or two pixels wide.

Unusual here: which way a boundary runs is read from second derivatives of the smoothed map, so that the crest itself,
where the first derivative is zero, has a direction too.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from kdam_hf.errors import KdamValueError

Map = NDArray[np.floating]
SMOOTHING = 4  # radius of the triangle filter, pixels
BORDER = 5  # pixels over which the map fades in from the edge of the image
TOLERANCE = 1.01  # a pixel stays unless a neighbour on its normal is larger than it by more than this factor


def suppress_non_maxima(prediction: Map) -> Map:
    """Set to zero what is not the maximum within one pixel along its normal, and fade the border of the image out.

    Args:
        prediction: strength of boundaries, finite, (H, W); the result has its shape and type.

    Raises:
        KdamValueError: fewer than two rows or columns.

    Source:
        The non-maximum suppression of structured edge detection: Dollár and Zitnick, PAMI 37(8), 2015, with the
        settings of later evaluations (radius 1, border 5, factor 1.01).
    """
    if min(prediction.shape) < 2:
        raise KdamValueError(f"prediction is {prediction.shape}: a direction needs two rows and columns; leave nms out")
    strength = prediction.astype(np.float64)
    triangle = np.bartlett(2 * SMOOTHING + 3)[1:-1]
    triangle /= triangle.sum()
    smooth = ndimage.convolve1d(ndimage.convolve1d(strength, triangle, axis=0), triangle, axis=1)
    down, right = np.gradient(smooth)
    down_down, down_right = np.gradient(down)
    # curvature along each axis gives the size, the mixed derivative the quadrant; a flat region gets a normal to the right;
    # the published formula takes sign(0) = 0, by which a map of perfectly horizontal lines gets its normals along the lines
    across = np.stack([np.where(down_right > 0, -down_down, down_down), np.gradient(right, axis=1) + 1e-5])
    normal = across / np.maximum(np.hypot(*across), np.finfo(np.float64).tiny)
    places = np.indices(prediction.shape)
    keep = np.ones(prediction.shape, np.bool_)
    for side in (-1, 1):
        beside = ndimage.map_coordinates(strength, places + side * normal, order=1, mode="nearest")
        keep &= strength * TOLERANCE >= beside
    for index, side in zip(places, prediction.shape, strict=True):
        strength = strength * np.minimum(np.minimum(index, side - 1 - index) / min(BORDER, side // 2), 1)
    return np.where(keep, strength, 0).astype(prediction.dtype)
