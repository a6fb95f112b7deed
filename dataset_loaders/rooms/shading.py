"""The photograph: textures, lights, one soft shadow and the sensor, for all visible pixels at once.

Unusual here: everything that is constant on a surface stands in one table per quantity, indexed by the surface each
pixel sees, so the cost does not depend on the number of objects. Colours are linear until the last step.

Shapes: P = H * W pixels; S surfaces (see raycast).
"""

from __future__ import annotations

import numpy as np

from dataset_loaders.rooms.raycast import PixelGrid, cast_primitives, pixel_grid
from dataset_loaders.rooms.scene import (
    BOX,
    CLASS_NAMES,
    CYLINDER,
    ELLIPSOID,
    FACES,
    ROOM_SURFACES,
    Camera,
    Scene,
    Vector,
)
from dataset_loaders.rooms.textures import LEVELS, TEXELS, texture_bank

SHADOW_PIXELS = 224
SHADOW_HALF_WIDTH = 2.2  # tangent of the half angle of the shadow map, which looks straight down
_ROOM_NORMALS = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=np.float64)


def world_normals(scene: Scene, surface: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Unit normals (3,P) float32 in the world frame, of the surfaces (P,) seen at world points (3,P)."""
    primitives = scene.primitives
    local_eye = np.einsum("nij,ni->nj", primitives.rotation, scene.camera.position - primitives.centre)
    faces = primitives.rotation * np.sign(local_eye)[:, None, :]
    faces[primitives.kind == CYLINDER, :, 0] = 0.0
    table = np.concatenate([_ROOM_NORMALS, faces.transpose(0, 2, 1).reshape(-1, 3)]).astype(np.float32)
    normals = table.T.take(surface, axis=1)
    curved_primitive = primitives.kind != BOX
    if not curved_primitive.any():
        return normals
    is_curved = np.zeros(len(table), dtype=bool)
    is_curved[ROOM_SURFACES::FACES] = curved_primitive
    pixels = np.flatnonzero(is_curved[surface])
    owner = (surface[pixels] - ROOM_SURFACES) // FACES
    # The gradient of the quadric: R S^-2 R^T (p - c), where a cylinder has no extent along its own axis.
    weight = primitives.half**-2.0
    weight[:, 1] *= primitives.kind == ELLIPSOID
    gradient = np.einsum("nik,nk,njk->ijn", primitives.rotation, weight, primitives.rotation).astype(np.float32)
    centre = primitives.centre.T.astype(np.float32)
    offset = points[:, pixels] - centre[:, owner]
    curved = [sum(gradient[i, j][owner] * offset[j] for j in range(3)) for i in range(3)]
    scale = 1.0 / np.sqrt(curved[0] ** 2 + curved[1] ** 2 + curved[2] ** 2)
    for axis in range(3):
        normals[axis, pixels] = curved[axis] * scale
    return normals


def photograph(
    scene: Scene,
    grid: PixelGrid,
    depth: np.ndarray,
    surface: np.ndarray,
    points: np.ndarray,
    normals: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """The image (H,W,3) uint8.

    Args:
        depth: (H,W) float32 metres.
        surface: (P,) integer surface ids.
        points, normals: (3,P) float32, world frame.
        rng: for the shadow's softness and the sensor.
    """
    albedo, glow = _albedo(scene, grid, depth.ravel(), surface, points)
    shadow = _shadow(scene, points, normals, rng).reshape(depth.shape)
    for _ in range(2):
        _blur(shadow, np.float32(1.0 / 3.0), 0)
        _blur(shadow, np.float32(1.0 / 3.0), 1)
    light = _irradiance(scene, points, normals, shadow.ravel())
    light *= _corner_darkening(scene.size, points, normals)
    light += glow
    light *= albedo
    return _sensor(light.reshape(3, *depth.shape), rng)


def _albedo(
    scene: Scene, grid: PixelGrid, depth: np.ndarray, surface: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Textured reflectance (3,P) and emission (P,)."""
    flat, start = texture_bank()
    materials = scene.room_materials + [material for material in scene.primitives.materials for _ in range(FACES)]
    texels_per_metre = np.array([TEXELS / material.period for material in materials])
    u_table, v_table = (_texture_axes(scene, which) * texels_per_metre for which in (0, 1))
    column, row = (
        np.floor(sum(table[k].astype(np.float32)[surface] * points[k] for k in range(3))).astype(np.int32)
        for table in (u_table, v_table)
    )
    footprint = depth * (1.3 * texels_per_metre / grid.focal).astype(np.float32)[surface]
    level = np.clip(np.frexp(footprint)[1], 0, LEVELS - 1)
    patterns = np.array([material.texture for material in materials])
    begin = start[patterns].ravel()[surface * LEVELS + level]
    row = (row & (TEXELS - 1)) >> level
    column = (column & (TEXELS - 1)) >> level
    mix = flat[begin + row * (TEXELS >> level) + column]
    first = np.array([material.colour for material in materials], dtype=np.float32).T
    change = np.array([material.second for material in materials], dtype=np.float32).T - first
    albedo = change.take(surface, axis=1)
    albedo *= mix
    albedo += first.take(surface, axis=1)
    glow = np.array([material.glow for material in materials], dtype=np.float32)[surface]
    return albedo, glow


def _texture_axes(scene: Scene, which: int) -> np.ndarray:
    """World axes (3,S) along which texture coordinate `which` of each surface grows."""
    room = np.eye(3)[[2, 2, 0, 0, 0, 0] if which == 0 else [1, 1, 2, 2, 1, 1]]
    face_axes = [2, 0, 0] if which == 0 else [1, 2, 1]
    faces = scene.primitives.rotation[:, :, face_axes].transpose(0, 2, 1).reshape(-1, 3)
    return np.concatenate([room, faces]).T


def _irradiance(scene: Scene, points: np.ndarray, normals: np.ndarray, shadow: np.ndarray) -> np.ndarray:
    """Light (3,P) that falls on each point: ambient, and per light Lambert's law with a softened distance law."""
    # A little more ambient light from above gives form to what no lamp reaches.
    sky = 1.0 + 0.25 * normals[1]
    light = np.array(scene.ambient, dtype=np.float32)[:, None] * sky
    for number, source in enumerate(scene.lights):
        towards = np.array(source.position, dtype=np.float32)[:, None] - points
        square = towards[0] * towards[0] + towards[1] * towards[1] + towards[2] * towards[2]
        facing = towards[0] * normals[0] + towards[1] * normals[1] + towards[2] * normals[2]
        np.maximum(facing, 0, out=facing)
        facing /= np.sqrt(square) * (1.0 + 0.35 * square)
        if number == 0:
            facing *= shadow
        for channel in range(3):
            light[channel] += facing * np.float32(3.0 * source.colour[channel])
    return light


def _shadow(scene: Scene, points: np.ndarray, normals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whether the first light reaches each point, (P,) 0 or 1, by a depth map seen from the light, downwards.

    A random offset of a texel dithers the border, which a blur then turns into a penumbra. Points are lifted off
    their surface by a texel, or steep faces would shade themselves in spots.
    """
    primitives = scene.primitives
    lamp = CLASS_NAMES.index("lamp")
    casts = (primitives.class_id != lamp) & (primitives.half.max(axis=1) > 0.06)
    position = np.array(scene.lights[0].position)
    looks_down = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    view = Camera(position, looks_down, SHADOW_HALF_WIDTH)
    grid = pixel_grid(view, SHADOW_PIXELS, SHADOW_PIXELS)
    nearest = np.full((SHADOW_PIXELS, SHADOW_PIXELS), np.inf, dtype=np.float32)
    cast_primitives(primitives, np.flatnonzero(casts), view, grid, nearest, np.empty(nearest.shape, dtype=np.int32))
    lifted = points + np.float32(0.06) * normals
    below = np.maximum(np.float32(position[1]) - lifted[1], np.float32(0.02))
    scale = np.float32(grid.focal) / below
    count = points.shape[1]
    jitter = rng.integers(0, 256, (2, count), dtype=np.uint8).astype(np.float32)
    jitter *= np.float32(2.0 / 256)
    jitter -= np.float32(1.0)
    middle = np.float32(0.5 * SHADOW_PIXELS)
    column = (lifted[0] - np.float32(position[0])) * scale + jitter[0] + middle
    row = (lifted[2] - np.float32(position[2])) * scale + jitter[1] + middle
    np.clip(column, 0, SHADOW_PIXELS - 1, out=column)
    np.clip(row, 0, SHADOW_PIXELS - 1, out=row)
    blocker = nearest.ravel()[row.astype(np.int32) * SHADOW_PIXELS + column.astype(np.int32)]
    return (below < blocker + np.float32(0.05)).astype(np.float32)


def _corner_darkening(size: Vector, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """A cheap ambient occlusion (P,): things darken within half a metre of a wall, floor or ceiling they face along."""
    result = np.ones(points.shape[1], dtype=np.float32)
    for axis in range(3):
        distance = np.minimum(points[axis], np.float32(size[axis]) - points[axis])
        closeness = np.maximum(np.float32(1.0) - distance * np.float32(2.0), 0)
        closeness *= closeness
        closeness *= np.float32(0.45) * (np.float32(1.0) - np.abs(normals[axis]))
        result *= np.float32(1.0) - closeness
    return result


def _sensor(linear: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exposure, white balance, lens blur, gamma, noise and rounding: (3,H,W) float32 linear light to (H,W,3) uint8."""
    exposure, warmth, tint, blur, noise = rng.random(5)
    level = (0.16 + 0.12 * exposure) / max(float(linear.mean()), 1e-3)
    balance = np.array([1.0 + 0.16 * (warmth - 0.5), 1.0 + 0.08 * (tint - 0.5), 1.0 - 0.16 * (warmth - 0.5)])
    linear *= (level * balance).astype(np.float32)[:, None, None]
    np.clip(linear, 0.0, 1.0, out=linear)
    np.sqrt(linear, out=linear)
    share = np.float32(0.08 + 0.14 * blur)
    for axis in (1, 2):
        _blur(linear, share, axis)
    grain = rng.standard_normal(linear.shape, dtype=np.float32)
    grain *= np.float32(1.0 + 4.0 * noise)
    linear *= np.float32(255.0)
    linear += grain
    np.clip(linear, 0.0, 255.0, out=linear)
    return np.ascontiguousarray((linear + np.float32(0.5)).astype(np.uint8).transpose(1, 2, 0))


def _blur(image: np.ndarray, share: np.float32, axis: int) -> None:
    """Blend each pixel with its two neighbours along an axis, in place; the border keeps its value."""
    if image.shape[axis] < 3:
        return
    lower, middle, upper = ([slice(None)] * image.ndim for _ in range(3))
    lower[axis], middle[axis], upper[axis] = slice(0, -2), slice(1, -1), slice(2, None)
    around = image[tuple(lower)] + image[tuple(upper)]
    around *= share
    image[tuple(middle)] *= np.float32(1.0) - 2 * share
    image[tuple(middle)] += around
