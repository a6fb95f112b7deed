import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from kdam_hf.metrics.boundary_matching import match_pixels

FORBIDDEN = 10**7


def pair_costs(first, second, width, radius):
    """Hundredths of a pixel, (N, M) of flat indices; FORBIDDEN beyond the radius."""
    rows, columns = (np.subtract.outer(part(first, width), part(second, width)) for part in (np.floor_divide, np.mod))
    squared = rows**2 + columns**2
    return np.where(squared <= radius**2, np.rint(100 * np.sqrt(squared)), FORBIDDEN).astype(int)


def best_by_assignment(first, second, radius):
    """(pairs, cost) of a dense assignment: most pairs, then least cost."""
    cost = pair_costs(np.flatnonzero(first), np.flatnonzero(second), first.shape[1], radius)
    chosen = cost[linear_sum_assignment(cost)]
    return int((chosen < FORBIDDEN).sum()), int(chosen[chosen < FORBIDDEN].sum())


def result(first, second, radius, shortest=True):
    """(pairs, cost), after checking that the pairs are a one-to-one matching within the radius."""
    sides = np.flatnonzero(first), np.flatnonzero(second)
    pairs = match_pixels(*sides, first.shape[1], radius, shortest)
    a, b = sides[0][pairs[:, 0]], sides[1][pairs[:, 1]]
    assert first.flat[a].all()
    assert second.flat[b].all()
    assert len(set(a.tolist())) == len(a) == len(set(b.tolist()))
    cost = pair_costs(a, b, first.shape[1], radius).diagonal() if len(a) else np.zeros(0, int)
    assert (cost < FORBIDDEN).all()
    return len(a), int(cost.sum())


def random_masks(rng, shape, count):
    masks = np.zeros((2, *shape), bool)
    for mask in masks:
        mask.flat[rng.choice(mask.size, rng.integers(0, min(count, mask.size) + 1), replace=False)] = True
    return masks


def random_lines(rng, shape, jitter):
    """Wavy lines and a copy moved by a few pixels, with pixels dropped and added: long components."""
    masks = np.zeros((2, *shape), bool)
    x = np.arange(shape[1])
    for _ in range(4):
        y = shape[0] * rng.random() + 3 * np.sin(x / rng.uniform(3, 9) + rng.uniform(0, 6))
        for mask, shift in zip(masks, (0, rng.uniform(-jitter, jitter)), strict=True):
            inside = (rng.random(len(x)) < 0.9) & (y + shift > 0) & (y + shift < shape[0] - 1)
            mask[np.rint(y + shift)[inside].astype(int), x[inside]] = True
    masks[0] |= rng.random(shape) < 0.03
    return masks


def test_random_maps_agree_with_dense_assignments():
    rng = np.random.default_rng(1)
    maps = [(random_masks(rng, rng.integers(1, 7, 2), 7), rng.choice([0.5, 1, 1.5, 2.3, 3, 10])) for _ in range(150)]
    maps += [(random_masks(rng, (30, 40), 250), rng.uniform(1, 5)) for _ in range(8)]
    maps += [(random_lines(rng, (40, 60), jitter=4), rng.uniform(1, 5)) for _ in range(8)]
    for (first, second), radius in maps:
        expected = best_by_assignment(first, second, radius)
        assert result(first, second, radius) == result(second, first, radius) == expected
        assert result(first, second, radius, shortest=False)[0] == expected[0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (13, 9)])
def test_empty_and_full_masks(shape):
    full, empty = np.ones(shape, bool), np.zeros(shape, bool)
    for first, second in ((empty, empty), (full, empty), (empty, full)):
        assert result(first, second, 4) == (0, 0)
    assert result(full, full, 4) == result(full, full, 100) == (full.size, 0)


def test_a_line_is_matched_up_to_the_radius_and_not_beyond():
    line = np.zeros((20, 30), bool)
    line[5] = True
    for shift in (0, 1, 5, 6):
        moved = np.roll(line, shift, axis=0)
        assert result(line, moved, 5.0) == ((30, 30 * 100 * shift) if shift <= 5 else (0, 0))
    assert result(line, np.roll(line, 5, axis=0), 4.999) == (0, 0)
