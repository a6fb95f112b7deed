"""Derived labels against geometry on paper: planes through a pinhole camera, and a map small enough to draw."""

import numpy as np
import pytest

from dataset_loaders.geometry import KINECT_COLOR, Intrinsics, normals_from_depth, segment_borders

CAMERA = Intrinsics(260.0, 240.0, 61.5, 40.25)  # about a Kinect at half its size; pixels neither square nor centred
H, W = 90, 121


def plane_depth(normal, distance, camera, height=H, width=W):
    """Depth in metres, float64, of the plane {p : <normal, p> = -distance} seen from the origin (x right, y up, z backwards).

    A pixel sees along (x, y, -1) with x = (u - cx) / fx and y = (cy - v) / fy; its point is depth * (x, y, -1).
    """
    v, u = np.mgrid[:height, :width].astype(np.float64)
    rays = np.stack([(u - camera.cx) / camera.fx, (camera.cy - v) / camera.fy, -np.ones_like(u)], -1)
    return -distance / (rays @ np.asarray(normal, np.float64))


def degrees(found, expected):
    """Angles in float64, by the sine where they are small."""
    p, g = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return np.degrees(2 * np.arctan2(np.linalg.norm(p - g, axis=-1), np.linalg.norm(p + g, axis=-1)))


# ---- normals ----


@pytest.mark.parametrize(("slant", "tilt"), [(0, 0), (25, 37), (25, 200), (70, 145), (70, 290)])
def test_a_plane_has_its_normal_at_every_pixel(slant, tilt):
    """Reference in float64, depth stored as float32; `slant` from the optical axis, `tilt` about it, degrees."""
    s, t = np.radians(slant), np.radians(tilt)
    normal = np.array([np.sin(s) * np.cos(t), np.sin(s) * np.sin(t), np.cos(s)])
    depth = plane_depth(normal, 2.5, CAMERA)
    depth[(depth < 0.5) | (depth > 15)] = 0  # behind the camera, or beyond any sensor
    found = normals_from_depth(depth.astype(np.float32), CAMERA)
    valid = found.any(-1)
    assert valid.mean() > 0.5
    np.testing.assert_array_equal(valid, depth > 0)
    np.testing.assert_allclose(np.linalg.norm(found[valid].astype(np.float64), axis=-1), 1, atol=1e-6)
    assert degrees(found[valid], normal).max() < 0.1


def test_invalid_depth_has_no_normal_and_does_not_reach_its_neighbours_and_a_line_is_no_plane():
    depth = plane_depth((0.3, 0.4, np.sqrt(0.75)), 2.0, CAMERA).astype(np.float32)
    holes = np.random.default_rng(0).random(depth.shape) < 0.2
    holes[10:20, 10:25] = True
    depth[holes] = 0
    found = normals_from_depth(depth, CAMERA)
    assert (found[holes] == 0).all()
    assert found[~holes].any(-1).mean() > 0.99
    assert degrees(found[found.any(-1)], (0.3, 0.4, np.sqrt(0.75))).max() < 0.1
    line = np.zeros((15, 15), np.float32)
    line[9, 2:14] = 2  # any plane through it fits
    assert not normals_from_depth(line, CAMERA).any()


def test_a_step_in_depth_keeps_both_normals():
    """Two walls that face each other across a jump of a metre, each exact up to its rim."""
    left, right = (0.5, 0, np.sqrt(0.75)), (-0.5, 0, np.sqrt(0.75))
    depth = np.where(np.arange(W) < 50, plane_depth(left, 1.5, CAMERA), plane_depth(right, 3.5, CAMERA))
    found = normals_from_depth(depth.astype(np.float32), CAMERA)
    assert found.any(-1).all()
    assert degrees(found[:, :50], left).max() < 0.1
    assert degrees(found[:, 50:], right).max() < 0.1


def test_a_scaled_camera_sees_the_same_plane():
    """A picture of half the size: the centre of pixel (0, 0) is at (0.5, 0.5) of the large one."""
    half = KINECT_COLOR.scaled(0.5, 0.5)
    assert (half.fx, half.cx) == pytest.approx((518.85790117 / 2, (324.58244941 - 0.5) / 2))
    assert KINECT_COLOR.scaled(1, 1) == KINECT_COLOR


# ---- borders ----


def test_a_border_stands_on_the_pixel_whose_right_or_lower_neighbour_differs():
    segments = np.array([[5, 5, 7, 7], [5, 5, 7, 7], [5, 9, 9, 9]])
    assert segment_borders(segments).tolist() == [[0, 1, 0, 0], [0, 1, 1, 1], [1, 0, 0, 0]]
    assert segment_borders(segments).dtype == np.uint8
