"""A bank of small tileable greyscale patterns with mip levels, made once per process.

Unusual here: every texture of every surface is one table look-up, so a frame costs the same whatever its surfaces are
made of.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

TEXELS = 256
LEVELS = 5
PLAIN = 0
PATTERNS = tuple(range(1, 12))


@lru_cache(maxsize=1)
def texture_bank() -> tuple[np.ndarray, np.ndarray]:
    """All textures at all levels.

    Returns:
        flat: (S,) float32 in [0, 1]; texture by texture, level by level, row by row.
        start: (T, LEVELS) int32; where a texture's level begins in `flat`. Level l has TEXELS >> l rows and columns.
    """
    pieces, start = [], np.zeros((len(PATTERNS) + 1, LEVELS), np.int32)
    offset = 0
    for number, pattern in enumerate(_patterns()):
        level_map = pattern.astype(np.float32)
        for level in range(LEVELS):
            if level:
                level_map = level_map.reshape(level_map.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3), dtype=np.float32)
            start[number, level] = offset
            pieces.append(level_map.ravel())
            offset += level_map.size
    return np.concatenate(pieces), start


def _noise(rng: np.random.Generator, slope: float) -> np.ndarray:
    """Tileable 1/f^slope noise, stretched to [0, 1]."""
    frequency = np.hypot(np.fft.fftfreq(TEXELS)[:, None], np.fft.fftfreq(TEXELS)[None, :])
    frequency[0, 0] = 1.0
    spectrum = np.fft.fft2(rng.standard_normal((TEXELS, TEXELS))) / frequency**slope
    spectrum[0, 0] = 0.0
    field = np.real(np.fft.ifft2(spectrum))
    low, high = np.percentile(field, (2, 98))
    return np.clip((field - low) / (high - low), 0.0, 1.0)


def _patterns() -> list[np.ndarray]:
    """The textures, PLAIN first; each (TEXELS, TEXELS) in [0, 1] and periodic."""
    rng = np.random.default_rng(20200604)
    grain, cloud, blotch = _noise(rng, 0.7), _noise(rng, 1.3), _noise(rng, 2.0)
    row, column = np.mgrid[:TEXELS, :TEXELS] / TEXELS
    turn = 2 * np.pi
    wood = 0.5 + 0.5 * np.sin(turn * (10 * column + 1.5 * blotch + 0.3 * grain))
    board = np.floor(column * 8)
    shifted = (row + 0.37 * board) % 1.0
    planks = 0.7 * ((board * 0.618) % 1.0) + 0.3 * grain
    planks = np.where(((column * 8) % 1.0 < 0.04) | (shifted < 0.01), 1.0, planks * 0.8)
    brick_row = np.floor(row * 16)
    brick_x = (column * 8 + 0.5 * (brick_row % 2)) % 1.0
    bricks = np.where((brick_x < 0.06) | ((row * 16) % 1.0 < 0.12), 1.0, 0.5 * cloud)
    tiles = np.where(((row * 6) % 1.0 < 0.04) | ((column * 6) % 1.0 < 0.04), 1.0, 0.35 * cloud)
    dots = (np.hypot((row * 12) % 1.0 - 0.5, (column * 12) % 1.0 - 0.5) < 0.28).astype(float)
    weave = 0.5 + 0.25 * np.sin(turn * 48 * row) + 0.25 * np.sin(turn * 48 * column)
    return [
        cloud,
        ((column * 12) % 1.0 < 0.5) * 0.9 + 0.1 * grain,
        ((row * 16) % 1.0 < 0.3) * 0.9 + 0.1 * grain,
        (np.floor(row * 8) + np.floor(column * 8)) % 2 * 0.9 + 0.1 * cloud,
        wood,
        planks,
        grain,
        blotch,
        tiles,
        dots,
        0.8 * weave + 0.2 * cloud,
        bricks,
    ]
