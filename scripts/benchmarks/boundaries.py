"""Boundary matching: time and agreement beside the matcher behind published numbers, and the whole NYUD protocol.

Both sides get the same suppressed maps and do the same work (threshold, thin, match) for one image and one threshold, in
neighbouring measurements. No trained model: predictions are blurred labels with noise. `--data_dir` names photographs with edge
labels in the layout of your own data; without it images are rendered rooms.
"""

import os
import time
from argparse import Namespace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.harness import print_table, race, ratio, spread
from dataset_loaders import open_dataset
from kdam_hf.metrics import BOUNDARY_PROTOCOLS, BoundaryCounts, BoundaryScores, boundary_counts, in_processes
from kdam_hf.metrics.boundaries import precision_recall_f
from kdam_hf.metrics.boundary_nms import suppress_non_maxima

try:
    from pyEdgeEval.common.binary_label.evaluate_boundaries import evaluate_boundaries_threshold_multiple_gts as theirs
except ImportError:
    theirs = None

OPTIONS = {"data_dir": "", "height": 425, "width": 560, "num_images": 20, "num_proc": 2, "race_images": 6, "rounds": 3}
OPTIONS |= {"thresholds": [0.05, 0.2, 0.35, 0.5, 0.65, 0.8]}
QUICK = {"num_images": 2, "race_images": 1, "thresholds": [0.5], "rounds": 1, "height": 96, "width": 128}
OURS, OPPONENT = "ours", "pyedgeeval"
Scene = tuple[NDArray[np.float32], list[NDArray[np.bool_]]]
"""A soft map (H, W) in [0, 1] and its label, bool (H, W), as the only annotation."""


def run(args: Namespace) -> dict[str, Any]:
    """Measure and print."""
    size = {"height": args.height, "width": args.width, "num_images": args.num_images, "seed": args.seed}
    source = ("folder", {"data_dir": args.data_dir}) if args.data_dir else ("synthetic_rooms", size)
    data, rng = open_dataset(source[0], "val", tasks=["edge"], **source[1]), np.random.default_rng(args.seed)
    spaced = np.linspace(0, len(data) - 1, min(args.num_images, len(data))).astype(int)
    scenes = [make_scene(data[int(k)]["labels"]["edge"] == 1, rng) for k in spaced]
    cases = [row for scene in scenes[: args.race_images] for row in race_matchers(scene, args)]
    if theirs is None:
        print(f"{OPPONENT} is not installed: ours is timed alone (pip install '.[bench]' adds it)")
    summary = {key: spread([row[key] for row in cases]) for key in cases[0]}
    print_table([f"{len(cases)} cases", "median", "min", "max"], [[k, *v.values()] for k, v in summary.items()])
    return {"race": {"summary": summary, "cases": cases}, "nyud_protocol": nyud_protocol(scenes, args.num_proc)}


def race_matchers(scene: Scene, args: Namespace) -> list[dict[str, float]]:
    """At every threshold the time of each side, and of two how far their F is apart; the opponent if it is installed."""
    given = suppress_non_maxima(scene[0].astype(np.float64)), scene[1]
    max_dist, rows = BOUNDARY_PROTOCOLS["nyud"]["max_dist"], []  # as a share of the diagonal
    for threshold in np.array(args.thresholds)[:, None]:
        sides = {OURS: partial(boundary_counts, *given, thresholds=threshold, max_dist=max_dist)}
        if theirs is not None:
            sides[OPPONENT] = partial(theirs, threshold, *given, max_dist, apply_thinning=True)
        timings = race(sides, args)
        rows.append({f"ms, {side}": spread(ms)["median"] for side, ms in timings.items()})
        if theirs is not None:
            f, other = (precision_recall_f(BoundaryCounts(*match()))[2] for match in sides.values())
            faster = ratio(timings, OPPONENT, OURS)["median"]
            rows[-1] |= {"times faster": faster, "|dF|": float(abs(f - other)[0])}
    return rows


def nyud_protocol(scenes: list[Scene], num_proc: int) -> dict[str, Any]:
    """Suppression, 101 thresholds, thinning, matching."""
    used, start = os.times(), time.perf_counter()
    metric = BoundaryScores(**BOUNDARY_PROTOCOLS["nyud"])
    for counts in in_processes(count_scene, scenes, num_proc):
        metric.add(counts)
    values = metric.compute()
    wall = time.perf_counter() - start
    cpu = sum(os.times()[:4]) - sum(used[:4])  # of children that have ended too
    print(f"NYUD protocol: {len(scenes)} images, {num_proc} processes: {wall:.1f} s, {cpu:.1f} s of processor time")
    return {"images": len(scenes), "wall_s": wall, "cpu_s": cpu, "values": values}


def count_scene(scene: Scene) -> BoundaryCounts:
    """Of one image under the NYUD protocol."""
    return boundary_counts(*scene, **BOUNDARY_PROTOCOLS["nyud"])


def make_scene(label: NDArray, rng: np.random.Generator) -> Scene:
    """A soft map that responds near the label, and noise."""
    near = np.exp(-((ndimage.distance_transform_edt(~label) / 2.8) ** 2))
    noise = ndimage.gaussian_filter(rng.standard_normal(near.shape), 1.5)
    return np.clip(0.1 + 0.75 * near + 0.12 * noise / noise.std(), 0, 1).astype(np.float32), [label]
