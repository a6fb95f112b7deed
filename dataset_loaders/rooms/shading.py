"""The photograph: patterns, lights, one soft shadow and the sensor, for all visible pixels at once.

Unusual here: what is constant on a primitive is looked up by the primitive that each pixel sees, so the cost does not
depend on the number of objects. Colours are linear until the last step. P = H * W pixels.
"""

import numpy as np

from dataset_loaders.rooms.materials import LEVELS, PATTERNS, TEXELS, pattern_bank
from dataset_loaders.rooms.raycast import View, cast, pixel_grid
from dataset_loaders.rooms.scene import CLASS_NAMES, Camera, Scene

SHADOW_PIXELS = 128
SHADOW_HALF_WIDTH = 2.2  # tangent of the half angle of the shadow map
_LOOKS_DOWN = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
_PATTERN_AXES = np.array([[1, 2, 1], [2, 0, 0]])  # of the rows and columns of the pattern on each face
_NO_SHADOW = [CLASS_NAMES.index(c) for c in ("wall", "floor", "ceiling", "door", "window", "picture", "lamp")]


def photograph(scene: Scene, view: View, rng: np.random.Generator) -> np.ndarray:
    """The image (H,W,3) uint8 of what the scene's camera sees; `rng` softens the shadow and makes the noise."""
    primitives, owner = scene.primitives, view.owner
    shadow = _shadow(scene, view, rng).reshape(view.depth.shape)
    for _ in range(2):
        _blur(shadow, 1 / 3)
    light = _irradiance(scene, view, shadow.ravel())
    light += primitives["glow"][owner]
    first, second = primitives["colour"].T, primitives["second"].T
    light *= (second - first).take(owner, axis=1) * _pattern(scene, view) + first.take(owner, axis=1)
    return _sensor(light.reshape(3, *view.depth.shape), rng)


def _pattern(scene: Scene, view: View) -> np.ndarray:
    """How much of its second colour each pixel shows, (P,) float32 in [0, 1]."""
    density = (TEXELS / scene.primitives["period"])[view.owner]
    start = np.arange(len(density))
    row, column = (
        np.floor(view.local.take(axes[view.face] * len(density) + start) * density).astype(np.int32) & (TEXELS - 1)
        for axes in _PATTERN_AXES
    )
    pixel = 2.0 * scene.camera.half_width / view.depth.shape[1]  # width per metre of depth
    level = np.clip(np.frexp(np.float32(1.3 * pixel) * view.depth.ravel() * density)[1], 0, LEVELS - 1)
    start = (level * PATTERNS + scene.primitives["pattern"][view.owner]) * TEXELS
    return pattern_bank().ravel().take((start + row) * TEXELS + column)


def _irradiance(scene: Scene, view: View, shadow: np.ndarray) -> np.ndarray:
    """Light (3,P) that falls on each point: ambient, and per light Lambert's law with a softened distance law.

    A little more ambient light from above gives form to what no lamp reaches; for a cheap ambient occlusion, things
    darken within half a metre of a wall, floor or ceiling they face along.
    """
    light = np.array(scene.ambient, dtype=np.float32)[:, None] * (1.0 + 0.25 * view.normals[1])
    for number, (position, colour) in enumerate(scene.lights):
        towards = np.array(position, dtype=np.float32)[:, None] - view.points
        square = np.einsum("kp,kp->p", towards, towards)
        facing = np.maximum(np.einsum("kp,kp->p", towards, view.normals), 0)
        facing /= np.sqrt(square) * (1.0 + 0.35 * square)
        if number == 0:
            facing *= shadow
        light += np.array(colour, dtype=np.float32)[:, None] * (3.0 * facing)
    to_wall = np.minimum(view.points, np.array(scene.size, dtype=np.float32)[:, None] - view.points)
    corner = np.maximum(1.0 - 2.0 * to_wall, 0) ** 2 * (1.0 - np.abs(view.normals))
    return light * (1.0 - np.float32(0.45) * corner).prod(axis=0)


def _shadow(scene: Scene, view: View, rng: np.random.Generator) -> np.ndarray:
    """Whether the first light reaches each point, (P,) float32 0 or 1, by a depth map seen from it, downwards.

    A random offset of a texel dithers the border, which a blur then turns into a penumbra. Points are lifted off their
    surface by a texel, or steep faces would shade themselves in spots.
    """
    primitives = scene.primitives
    casts = ~np.isin(primitives["class_id"], _NO_SHADOW) & (primitives["half"].max(axis=1) > 0.08)
    camera = Camera(np.array(scene.lights[0][0]), _LOOKS_DOWN, SHADOW_HALF_WIDTH)
    nearest, _ = cast(primitives[casts], camera, SHADOW_PIXELS, SHADOW_PIXELS)
    x, y, z = view.points + np.float32(0.07) * view.normals - camera.position.astype(np.float32)[:, None]
    below = np.maximum(-y, np.float32(0.02))
    scale = np.float32(pixel_grid(camera, SHADOW_PIXELS, SHADOW_PIXELS)[2]) / below
    jitter = rng.random((2, len(x)), dtype=np.float32) * np.float32(2.0) + np.float32(0.5 * SHADOW_PIXELS - 1.0)
    column, row = np.clip(np.stack([x * scale, z * scale]) + jitter, 0, SHADOW_PIXELS - 1).astype(np.int32)
    return (below < nearest[row, column] + np.float32(0.05)).astype(np.float32)


def _sensor(linear: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exposure, white balance, gamma, lens blur, noise and rounding: (3,H,W) float32 linear light to (H,W,3) uint8."""
    exposure, warmth, tint, blur, noise = rng.random(5)
    level = (0.16 + 0.12 * exposure) / max(float(linear.mean()), 1e-3)
    balance = np.array([1.0 + 0.16 * (warmth - 0.5), 1.0 + 0.08 * (tint - 0.5), 1.0 - 0.16 * (warmth - 0.5)])
    shown = np.sqrt(np.clip(linear * (level * balance).astype(np.float32)[:, None, None], 0.0, 1.0))
    _blur(shown, 0.08 + 0.14 * blur)
    shown *= np.float32(255.0)
    shown += np.float32(1.0 + 4.0 * noise) * rng.standard_normal(shown.shape[1:], dtype=np.float32)
    return np.ascontiguousarray((np.clip(shown, 0.0, 255.0) + np.float32(0.5)).astype(np.uint8).transpose(1, 2, 0))


def _blur(image: np.ndarray, share: float) -> None:
    """Blend each pixel with its neighbours along the last two axes, in place; the rim keeps its value."""
    for rows in (image, image.swapaxes(-1, -2)):
        around = rows[..., :-2] + rows[..., 2:]
        rows[..., 1:-1] *= np.float32(1.0 - 2.0 * share)
        rows[..., 1:-1] += np.float32(share) * around
