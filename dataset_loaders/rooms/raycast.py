"""Which surface does each pixel see, and how far away is it.

Unusual here: there are no triangles. Each primitive is solved in closed form over its own screen rectangle, with a
ray whose component along the optical axis is one, so that the ray parameter IS the z-depth. Directions in a
primitive's frame are affine in the pixel, hence sums of a row and a column.

Shapes: H, W pixels; h, w a rectangle of them; N primitives; S = ROOM_SURFACES + FACES * N surfaces.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dataset_loaders.rooms.scene import BOX, ELLIPSOID, FACES, ROOM_SURFACES, Camera, Primitives, Vector

NEAR = 0.05  # metres; what lies closer to the camera plane is not drawn
_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
_EDGES = np.array([(i, j) for i in range(8) for j in range(i) if bin(i ^ j).count("1") == 1])

Hit = tuple[np.ndarray, np.ndarray, np.ndarray | np.int32]  # depth, whether it counts, face


class PixelGrid(NamedTuple):
    """Rays through pixel centres: camera-frame direction (x[column], y[row], -1)."""

    x: np.ndarray
    y: np.ndarray
    focal: float


def pixel_grid(camera: Camera, height: int, width: int) -> PixelGrid:
    """The rays of a (height, width) image whose half width subtends `camera.half_width`; square pixels."""
    focal = 0.5 * width / camera.half_width
    x = (np.arange(width) + 0.5 - 0.5 * width) / focal
    y = (0.5 * height - 0.5 - np.arange(height)) / focal
    return PixelGrid(x, y, focal)


def world_rays(camera: Camera, grid: PixelGrid) -> np.ndarray:
    """World directions (3,H,W) float32 of rays with unit component along the optical axis."""
    right, up, back = camera.rotation
    across = (grid.x[None, :] * right[:, None] - back[:, None]).astype(np.float32)
    down = (grid.y[None, :] * up[:, None]).astype(np.float32)
    return across[:, None, :] + down[:, :, None]


def cast_room(size: Vector, camera: Camera, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth (H,W) float32 metres and surface (H,W) int32 of the empty room around the camera."""
    depth = np.full(rays.shape[1:], np.inf, dtype=np.float32)
    surface = np.zeros(rays.shape[1:], dtype=np.int32)
    for axis in range(3):
        half = 0.5 * size[axis]
        inverse = np.float32(1.0) / rays[axis]
        far = np.abs(inverse)
        far *= np.float32(half)
        inverse *= np.float32(half - camera.position[axis])
        far += inverse
        number = np.int32(2 * axis) + (rays[axis] > 0)
        np.copyto(surface, number, where=far < depth)
        np.minimum(depth, far, out=depth)
    return depth, surface


def cast_primitives(
    primitives: Primitives, chosen: np.ndarray, camera: Camera, grid: PixelGrid, depth: np.ndarray, surface: np.ndarray
) -> None:
    """Draw the chosen primitives (indices) into depth and surface, in place, wherever they are nearer."""
    rotation = np.matmul(camera.rotation, primitives.rotation[chosen])  # local axes as columns, in the camera frame
    centre = (primitives.centre[chosen] - camera.position) @ camera.rotation.T
    half = primitives.half[chosen]
    bounds = _screen_bounds(rotation, centre, half, grid)
    scaled = rotation / half[:, None, :]  # column k: local coordinate k in units of its half size
    origin = -np.einsum("nij,ni->nj", scaled, centre)
    fields = _affine_fields(scaled, origin)
    x, y = grid.x, grid.y
    kinds = primitives.kind[chosen].tolist()
    firsts = (ROOM_SURFACES + FACES * chosen).tolist()
    for item, (left, right, top, bottom) in enumerate(bounds.tolist()):
        if left >= right or top >= bottom:
            continue
        kind = kinds[item]
        number = 3 if kind == BOX else 7
        coefficient = fields[item, :, :number]
        across = (coefficient[0, :, None] * x[left:right] + coefficient[2, :, None]).astype(np.float32)
        down = (coefficient[1, :, None] * y[top:bottom]).astype(np.float32)
        field = across[:, None, :] + down[:, :, None]
        here = depth[top:bottom, left:right]
        if kind == BOX:
            near, hit, face = _hit_box(field, origin[item], here)
        elif kind == ELLIPSOID:
            near, hit, face = _hit_ellipsoid(field, here)
        else:
            near, hit, face = _hit_cylinder(field, origin[item], here)
        np.copyto(here, near, where=hit)
        np.copyto(surface[top:bottom, left:right], face + np.int32(firsts[item]), where=hit)


def _affine_fields(scaled: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Coefficients (N,3,7) of x, y and 1 in: direction D (3), D cross origin (3), D . origin.

    The cross product is what keeps thin poles exact in float32: the discriminant |D|^2 (|o|^2 - 1) - (D . o)^2
    cancels, while |D|^2 - |D x o|^2, equal to it by Lagrange's identity, does not.
    """
    direction = np.stack([scaled[:, 0], scaled[:, 1], -scaled[:, 2]], axis=1)
    cross = np.cross(direction, origin[:, None, :])
    dot = np.einsum("nck,nk->nc", direction, origin)
    return np.concatenate([direction, cross, dot[:, :, None]], axis=2)


def _hit_box(field: np.ndarray, origin: np.ndarray, limit: np.ndarray) -> Hit:
    inverse = np.float32(1.0) / field
    reach = np.abs(inverse)
    inverse *= origin.astype(np.float32)[:, None, None]
    near = -inverse
    near -= reach
    reach -= inverse
    enter = np.maximum(np.maximum(near[0], near[1]), near[2])
    leave = np.minimum(np.minimum(reach[0], reach[1]), reach[2])
    hit = (enter < leave) & (enter < limit) & (enter > NEAR)
    face = np.where(near[2] == enter, np.int32(2), (near[1] == enter).astype(np.int32))
    return enter, hit, face


def _hit_ellipsoid(field: np.ndarray, limit: np.ndarray) -> Hit:
    square = field[:6] * field[:6]
    length = square[0] + square[1] + square[2]
    root = length - (square[3] + square[4] + square[5])
    hit = root > 0
    np.maximum(root, 0, out=root)
    enter = -(field[6] + np.sqrt(root)) / length
    hit &= (enter < limit) & (enter > NEAR)
    return enter, hit, np.int32(0)


def _hit_cylinder(field: np.ndarray, origin: np.ndarray, limit: np.ndarray) -> Hit:
    """Side (face 0) and caps (face 1) of a cylinder along its local y."""
    length = field[0] * field[0] + field[2] * field[2]
    dot = field[6] - field[1] * np.float32(origin[1])
    root = length - field[4] * field[4]
    hit = root > 0
    np.maximum(root, 0, out=root)
    np.sqrt(root, out=root)
    inverse = np.float32(1.0) / field[1]
    reach = np.abs(inverse)
    inverse *= np.float32(-origin[1])
    side = -(dot + root) / length
    cap = inverse - reach
    enter = np.maximum(side, cap)
    leave = np.minimum((root - dot) / length, inverse + reach)
    hit &= (enter < leave) & (enter < limit) & (enter > NEAR)
    return enter, hit, (cap > side).astype(np.int32)


def _screen_bounds(rotation: np.ndarray, centre: np.ndarray, half: np.ndarray, grid: PixelGrid) -> np.ndarray:
    """Pixel rectangles (N,4) left, right, top, bottom (half open) around the boxes; empty where nothing is in view."""
    corners = centre[:, None, :] + (_CORNERS[None] * half[:, None, :]) @ rotation.transpose(0, 2, 1)
    ahead = -corners[:, :, 2]
    start, end = corners[:, _EDGES[:, 0]], corners[:, _EDGES[:, 1]]
    from_near, to_near = -start[:, :, 2] - NEAR, -end[:, :, 2] - NEAR
    crosses = from_near * to_near < 0
    share = np.where(crosses, from_near / np.where(crosses, from_near - to_near, 1.0), 0.0)
    clipped = start + share[:, :, None] * (end - start)
    points = np.concatenate([corners, clipped], axis=1)
    used = np.concatenate([ahead >= NEAR, crosses], axis=1)
    depth = np.where(used, -points[:, :, 2], 1.0)
    column = points[:, :, 0] / depth * grid.focal + 0.5 * len(grid.x)
    row = 0.5 * len(grid.y) - points[:, :, 1] / depth * grid.focal
    bounds = [
        np.where(used, column, np.inf).min(axis=1),
        np.where(used, column, -np.inf).max(axis=1) + 1,
        np.where(used, row, np.inf).min(axis=1),
        np.where(used, row, -np.inf).max(axis=1) + 1,
    ]
    limits = (len(grid.x), len(grid.x), len(grid.y), len(grid.y))
    return np.stack([np.clip(b, 0, n) for b, n in zip(bounds, limits, strict=True)], axis=1).astype(np.int64)
