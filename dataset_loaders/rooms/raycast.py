"""What does each pixel see: which primitive, how far away, facing where.

Unusual here: there are no triangles. Each primitive is solved in closed form over its own screen rectangle, with a ray
whose component along the optical axis is one, so that the ray parameter IS the z-depth. Directions in a primitive's
frame are affine in the pixel, hence sums of a row and a column.

Shapes: H, W pixels; h, w a rectangle of them; P = H * W; N primitives.
"""

from typing import NamedTuple

import numpy as np

from dataset_loaders.rooms.scene import BOX, CYLINDER, ELLIPSOID, UP, Camera

NEAR = 0.05  # metres; what lies closer to the camera plane is not drawn
FACES = 3  # of a primitive: one per axis of a box; side and cap of a cylinder
_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
Hit = tuple[np.ndarray, np.ndarray, np.ndarray | int]  # depth, whether it counts, face


class View(NamedTuple):
    """Per pixel: depth (H,W); primitive and face (P,); point in the world and in the primitive's frame, normal (3,P)."""

    depth: np.ndarray
    owner: np.ndarray
    face: np.ndarray
    points: np.ndarray
    local: np.ndarray
    normals: np.ndarray


def pixel_grid(camera: Camera, height: int, width: int) -> tuple[np.ndarray, np.ndarray, float]:
    """x (W,) and y (H,) of the rays (x, y, -1) through pixel centres, camera frame; focal length in pixels."""
    focal = 0.5 * width / camera.half_width
    return (np.arange(width) + 0.5 - 0.5 * width) / focal, (0.5 * height - 0.5 - np.arange(height)) / focal, focal


def look(primitives: np.ndarray, camera: Camera, height: int, width: int) -> View:
    """See a scene in which there is something behind every pixel."""
    depth, surface = cast(primitives, camera, height, width)
    surface_P = surface.ravel().astype(np.intp)
    owner = surface_P // FACES
    x, y, _ = pixel_grid(camera, height, width)
    ahead = np.stack([depth * x.astype(np.float32), depth * y.astype(np.float32)[:, None], -depth]).reshape(3, -1)
    points = camera.rotation.T.astype(np.float32) @ ahead + camera.position.astype(np.float32)[:, None]
    # Every face is a level set of sum_k w_k q_k^2 in local coordinates q: w = 1 / half^2 on an ellipsoid, without its
    # own axis on the side of a cylinder, and one axis alone on a plane. The normal is the gradient.
    kind, curved = primitives["kind"], primitives["half"] ** -2.0
    weight = np.tile(np.eye(3), (len(primitives), 1, 1))
    weight[kind == ELLIPSOID, 0] = curved[kind == ELLIPSOID]
    weight[kind == CYLINDER, 0] = (curved * (1.0, 0.0, 1.0))[kind == CYLINDER]
    weights = weight.reshape(-1, 3).T.astype(np.float32).take(surface_P, axis=1)
    rotation = rotations(primitives).transpose(1, 2, 0).astype(np.float32).take(owner, axis=2)
    offset = points - primitives["centre"].T.astype(np.float32).take(owner, axis=1)
    local = np.einsum("ijp,ip->jp", rotation, offset)
    normals = np.einsum("ijp,jp->ip", rotation, weights * local)
    normals /= np.sqrt(normals[0] ** 2 + normals[1] ** 2 + normals[2] ** 2)
    return View(depth, owner, surface_P - FACES * owner, points, local, normals)


def rotations(primitives: np.ndarray) -> np.ndarray:
    """Right-handed rotations (N,3,3) to the world; column 1 is along the unit vector `axis`, turned by `yaw`."""
    sine, cosine, zero = np.sin(primitives["yaw"]), np.cos(primitives["yaw"]), np.zeros(len(primitives))
    right, front = np.stack([cosine, zero, -sine], axis=1), np.stack([sine, zero, cosine], axis=1)
    x, y, z = primitives["axis"].T[:, :, None]
    axis = x * right + y * np.array(UP) + z * front
    side = np.cross(axis, np.where(np.abs(z) > 0.9, (0.0, -1.0, 0.0), front))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    return np.stack([side, axis, np.cross(side, axis)], axis=2)


def cast(primitives: np.ndarray, camera: Camera, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Depth (H,W) float32 metres and FACES * primitive + face (H,W) int32 of what is nearest; infinity and -1 if nothing."""
    depth, surface = np.full((height, width), np.inf, np.float32), np.full((height, width), -1, np.int32)
    pixel_x, pixel_y, focal = pixel_grid(camera, height, width)
    rotation = camera.rotation @ rotations(primitives)  # local axes as columns, in the camera frame
    centre = (primitives["centre"] - camera.position) @ camera.rotation.T
    half = primitives["half"][:, None, :]
    bounds = _screen_bounds(centre[:, None, :] + (_CORNERS * half) @ rotation.transpose(0, 2, 1), height, width, focal)
    local = rotation / half  # column k: local coordinate k in units of its half size
    origin = -np.einsum("nij,ni->nj", local, centre)
    # Coefficients (N,3,7) of x, y and 1 in the direction D (3), D x origin (3) and D . origin. The cross product is what
    # keeps thin poles exact in float32: the discriminant |D|^2 (|o|^2 - 1) - (D . o)^2 cancels, while |D|^2 - |D x o|^2,
    # equal to it by Lagrange's identity, does not.
    direction, o = local * np.array([1.0, 1.0, -1.0])[:, None], origin[:, None, :]
    dot = (direction * o).sum(axis=2, keepdims=True)
    fields = np.concatenate([direction, np.cross(direction, o), dot], axis=2).astype(np.float32)
    kinds = primitives["kind"].tolist()
    pixel_x, pixel_y, origin = pixel_x.astype(np.float32), pixel_y.astype(np.float32), origin.astype(np.float32)
    # Rays parallel to a face divide by zero; the infinity that follows compares as it should.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for item in np.flatnonzero((bounds[:, 0] < bounds[:, 1]) & (bounds[:, 2] < bounds[:, 3])).tolist():
            left, right, top, bottom = bounds[item].tolist()
            x, y, one = fields[item, :, : 3 if kinds[item] == BOX else 7, None]
            field = (x * pixel_x[left:right] + one)[:, None, :] + (y * pixel_y[top:bottom])[:, :, None]
            near, hit, face = _HIT[kinds[item]](field, origin[item])
            here = depth[top:bottom, left:right]
            hit &= (near < here) & (near > NEAR)
            np.copyto(here, near, where=hit)
            np.copyto(surface[top:bottom, left:right], face + np.int32(FACES * item), where=hit)
    return depth, surface


def _hit_box(field: np.ndarray, origin: np.ndarray) -> Hit:
    inverse = np.float32(1.0) / field
    reach = np.abs(inverse)
    inverse *= origin[:, None, None]
    near = -inverse
    near -= reach
    reach -= inverse
    enter = np.maximum(np.maximum(near[0], near[1]), near[2])
    leave = np.minimum(np.minimum(reach[0], reach[1]), reach[2])
    return enter, enter < leave, np.where(near[2] == enter, np.int32(2), (near[1] == enter).astype(np.int32))


def _hit_ellipsoid(field: np.ndarray, origin: np.ndarray) -> Hit:
    square = field[:6] * field[:6]
    length = square[0] + square[1] + square[2]
    root = length - (square[3] + square[4] + square[5])
    return -(field[6] + np.sqrt(np.maximum(root, 0))) / length, root > 0, 0


def _hit_cylinder(field: np.ndarray, origin: np.ndarray) -> Hit:
    """Side (face 0) and caps (face 1) of a cylinder along its local y."""
    length = field[0] * field[0] + field[2] * field[2]
    dot = field[6] - field[1] * origin[1]
    square = length - field[4] * field[4]
    root = np.sqrt(np.maximum(square, 0))
    inverse = np.float32(1.0) / field[1]
    reach = np.abs(inverse)
    inverse *= -origin[1]
    side, cap = -(dot + root) / length, inverse - reach
    enter, leave = np.maximum(side, cap), np.minimum((root - dot) / length, inverse + reach)
    return enter, (square > 0) & (enter < leave), (cap > side).astype(np.int32)


_HIT = {BOX: _hit_box, ELLIPSOID: _hit_ellipsoid, CYLINDER: _hit_cylinder}


def _screen_bounds(corners: np.ndarray, height: int, width: int, focal: float) -> np.ndarray:
    """Pixel rectangles (N,4) left, right, top, bottom (half open) around boxes (N,8,3); empty where nothing is in view.

    A box that reaches behind the camera plane may be anywhere on the screen.
    """
    ahead = -corners[:, :, 2]
    shown, whole = ahead.max(axis=1) > NEAR, ahead.min(axis=1) < NEAR
    bounds = []
    for along, count in ((corners[:, :, 0], width), (-corners[:, :, 1], height)):
        pixel = along / np.maximum(ahead, NEAR) * focal + 0.5 * count
        bounds += [np.where(whole, 0, pixel.min(axis=1)), np.where(whole, count, pixel.max(axis=1) + 1) * shown]
    return np.clip(np.stack(bounds, axis=1), 0, [width, width, height, height]).astype(np.int64)
