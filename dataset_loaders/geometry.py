"""Labels that follow from other labels: normals from depth, borders from segments.

Camera frame: x right, y up, z towards the camera; pixel (u, v) counts columns and rows from the top left centre.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera, in pixels: focal lengths along a row and a column, column and row of the principal point."""

    fx: float
    fy: float
    cx: float
    cy: float

    def scaled(self, vertical: float, horizontal: float) -> "Intrinsics":
        """The camera of a picture enlarged by these factors."""
        cx, cy = (self.cx + 0.5) * horizontal - 0.5, (self.cy + 0.5) * vertical - 0.5
        return Intrinsics(self.fx * horizontal, self.fy * vertical, cx, cy)


RADIUS, TOLERANCE = 3, 0.05  # of the window, pixels; largest relative difference in depth from its centre
# The colour camera of NYU Depth v2 (camera_params.m of its toolbox), counted from 0.
KINECT_COLOR = Intrinsics(518.85790117, 519.46961112, 324.58244941, 252.73616633)


def normals_from_depth(depth: NDArray[np.float32], camera: Intrinsics) -> NDArray[np.float32]:
    """Normals of planes fitted around each pixel.

    On a plane the inverse depth is linear in pixel coordinates, 1/z = a u + b v + c, and the normal that faces the camera
    is proportional to (-a fx, b fy, c + a cx + b cy). The plane is fitted by least squares to the pixels of a square window
    whose depth is near that of its centre, so that a fit does not cross a depth edge.

    Args:
        depth: (H, W), metres along the optical axis; 0 where invalid.
        camera: in pixels of this picture.

    Returns:
        (H, W, 3) unit vectors facing the camera; (0, 0, 0) where the depth is invalid or fewer than 5 pixels fit.
    """
    height, width = depth.shape
    valid = depth > 0
    padded = np.pad(depth, RADIUS).astype(np.float64)
    # sums over the window of 1, u, v, uu, uv, vv and of w, uw, vw, where w is the inverse depth
    sums = np.zeros((9, height, width))
    for dv in range(-RADIUS, RADIUS + 1):
        for du in range(-RADIUS, RADIUS + 1):
            z = padded[RADIUS + dv : RADIUS + dv + height, RADIUS + du : RADIUS + du + width]
            near = (z > 0) & (np.abs(z - depth) <= TOLERANCE * depth)
            w = np.where(near, 1 / np.where(near, z, 1), 0)
            for k, factor in enumerate((1, du, dv, du * du, du * dv, dv * dv, 1, du, dv)):
                if factor:
                    sums[k] += factor * (near if k < 6 else w)
    n, su, sv, suu, suv, svv, sw, suw, svw = sums
    n = np.maximum(n, 1)
    # centred second moments and the slopes a, b of the fit
    cuu, cuv, cvv = suu - su * su / n, suv - su * sv / n, svv - sv * sv / n
    cuw, cvw = suw - su * sw / n, svw - sv * sw / n
    determinant = cuu * cvv - cuv * cuv
    valid &= (n >= 5) & (determinant > 1e-3)
    safe = np.where(valid, determinant, 1)
    a, b = (cvv * cuw - cuv * cvw) / safe, (cuu * cvw - cuv * cuw) / safe
    here = (sw - a * su - b * sv) / n  # inverse depth of the plane at the centre
    v, u = np.mgrid[:height, :width]
    normal = np.stack([-a * camera.fx, b * camera.fy, here - a * (u - camera.cx) - b * (v - camera.cy)], -1)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    return np.where(valid[..., None], normal / np.maximum(length, 1e-12), 0).astype(np.float32)


def segment_borders(segments: NDArray[np.integer]) -> NDArray[np.uint8]:
    """1 where the right or the lower neighbour belongs to another segment; (H, W) uint8 in {0, 1}."""
    border = np.zeros(segments.shape, np.uint8)
    border[:, :-1] |= segments[:, :-1] != segments[:, 1:]
    border[:-1] |= segments[:-1] != segments[1:]
    return border
