"""Boundary matching: time and agreement beside the matcher behind published numbers, and the whole NYUD protocol.

Both sides get the same suppressed maps and do the same work (threshold, thin, match) for one image and one threshold, in
neighbouring measurements. No trained model: predictions are blurred labels with noise. `--data_dir` names photographs with edge
labels in the layout of your own data; without it images are rendered rooms.
"""

import os
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.harness import print_table, race, ratio, spread
from dataset_loaders import open_dataset
from kdam_hf.metrics import BOUNDARY_PROTOCOLS, BoundaryCounts, boundary_counts, score_boundaries
from kdam_hf.metrics.boundaries import precision_recall_f
from kdam_hf.metrics.boundary_nms import suppress_non_maxima

OPTIONS = {"data_dir": "", "height": 425, "width": 560, "num_images": 20, "num_proc": 2, "race_images": 6, "rounds": 3}
OPTIONS |= {"thresholds": [0.05, 0.2, 0.35, 0.5, 0.65, 0.8]}
QUICK = {"num_images": 2, "race_images": 1, "thresholds": [0.5], "rounds": 1, "height": 96, "width": 128}
MAX_DIST = BOUNDARY_PROTOCOLS["nyud"]["max_dist"]  # as a share of the diagonal
OURS, OPPONENT = "ours", "pyedgeeval"
Matcher = Callable[[NDArray, list[NDArray], float, float], BoundaryCounts]
Scene = tuple[NDArray[np.float32], list[NDArray[np.bool_]]]
"""A soft map (H, W) in [0, 1] and its label, bool (H, W), as the only annotation."""


def run(args: Namespace) -> dict[str, Any]:
    """Measure and print."""
    scenes, sides = make_scenes(args), matchers()
    race = race_matchers(scenes[: args.race_images], sides, args)
    return {"sides": list(sides), "race": race, "nyud_protocol": nyud_protocol(scenes, args.num_proc)}


def matchers() -> dict[str, Matcher]:
    """Threshold, thin, match: ours, and the opponent if it is installed."""

    def ours(prediction: NDArray, annotations: list[NDArray], threshold: float, max_dist: float) -> BoundaryCounts:
        return boundary_counts(prediction, annotations, thresholds=[threshold], max_dist=max_dist)

    try:
        from pyEdgeEval.common.binary_label.evaluate_boundaries import evaluate_boundaries_threshold_multiple_gts
    except ImportError:
        print(f"{OPPONENT} is not installed: ours is timed alone (pip install '.[bench]' adds it)")
        return {OURS: ours}

    def theirs(prediction: NDArray, annotations: list[NDArray], threshold: float, max_dist: float) -> BoundaryCounts:
        given = np.array([threshold]), prediction, annotations, max_dist
        counts = evaluate_boundaries_threshold_multiple_gts(*given, apply_thinning=True)
        return BoundaryCounts(*(np.asarray(each, np.int64) for each in counts))

    return {OURS: ours, OPPONENT: theirs}


def race_matchers(scenes: Sequence[Scene], sides: dict[str, Matcher], args: Namespace) -> dict[str, Any]:
    """Both sides at every image and threshold, and what the counts of all images say at each threshold."""
    rows, counts = [], []
    for prediction, label in scenes:
        crests = suppress_non_maxima(prediction.astype(np.float64))
        for threshold in args.thresholds:
            case = crests, label, threshold, MAX_DIST
            timings = race({side: partial(match, *case) for side, match in sides.items()}, args)
            counts.append([match(*case) for match in sides.values()])
            rows.append({f"ms, {side}": spread(ms)["median"] for side, ms in timings.items()})
            if OPPONENT in sides:
                ours, theirs = counts[-1]
                rows[-1]["times faster"] = ratio(timings, OPPONENT, OURS)["median"]
                rows[-1]["matched pixels more"] = float(ours.recall_matched[0] - theirs.recall_matched[0])
                rows[-1]["|dF|"] = f_difference(ours, theirs)
    found = {key: spread([row[key] for row in rows]) for key in rows[0]}
    if OPPONENT in sides:
        sums = np.array(counts).reshape(len(scenes), len(args.thresholds), 2, 4, 1).sum(0)
        found["|dF| of the set"] = spread([f_difference(*(BoundaryCounts(*side) for side in two)) for two in sums])
    print_table([f"{len(rows)} cases", "median", "min", "max"], [[k, *v.values()] for k, v in found.items()])
    return {"summary": found, "cases": rows}


def f_difference(one: BoundaryCounts, other: BoundaryCounts) -> float:
    """|F - F| at one threshold."""
    return float(abs(precision_recall_f(one)[2] - precision_recall_f(other)[2])[0])


def nyud_protocol(scenes: Sequence[Scene], num_proc: int) -> dict[str, Any]:
    """Suppression, 101 thresholds, thinning, matching."""
    used, start = os.times(), time.perf_counter()
    values = score_boundaries(scenes, num_proc, **BOUNDARY_PROTOCOLS["nyud"]).compute()
    wall = time.perf_counter() - start
    cpu = sum(os.times()[:4]) - sum(used[:4])  # of children that have ended too
    print(f"NYUD protocol: {len(scenes)} images, {num_proc} processes: {wall:.1f} s, {cpu:.1f} s of processor time")
    return {"images": len(scenes), "wall_s": wall, "cpu_s": cpu, "values": values}


def make_scenes(args: Namespace) -> list[Scene]:
    """Scenes evenly spread over the split."""
    size = {"height": args.height, "width": args.width, "num_images": args.num_images, "seed": args.seed}
    source = ("folder", {"data_dir": args.data_dir}) if args.data_dir else ("synthetic_rooms", size)
    data = open_dataset(source[0], "val", tasks=["edge"], **source[1])
    indices = np.linspace(0, len(data) - 1, min(args.num_images, len(data))).astype(int)
    rng = np.random.default_rng(args.seed)
    return [make_scene(data[int(k)]["labels"]["edge"] == 1, rng) for k in indices]


def make_scene(label: NDArray, rng: np.random.Generator) -> Scene:
    """A soft map that responds near the label, and noise."""
    near = np.exp(-((ndimage.distance_transform_edt(~label) / 2.8) ** 2))
    noise = ndimage.gaussian_filter(rng.standard_normal(near.shape), 1.5)
    return np.clip(0.1 + 0.75 * near + 0.12 * noise / noise.std(), 0, 1).astype(np.float32), [label]
