"""Boundary matching: time and agreement beside the matcher behind published numbers, and the whole NYUD protocol.

Both sides get the same suppressed maps and do the same work (threshold, thin, match) for one image and one threshold, in
neighbouring measurements. No trained model: predictions are blurred annotations with noise, and further annotators are lines of
the image's gradient at several scales, moved by up to a pixel. `--data_dir` names photographs with edge labels in the layout of
your own data; without it images are rendered rooms.
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
from kdam_hf.metrics.thinning import thin

THRESHOLDS = [0.05, 0.2, 0.35, 0.5, 0.65, 0.8]
OPTIONS = {"data_dir": "", "height": 425, "width": 560, "num_images": 20, "num_proc": 2, "race_images": 6, "rounds": 3}
OPTIONS |= {"thresholds": THRESHOLDS}
QUICK = {"num_images": 2, "race_images": 1, "thresholds": [0.5], "rounds": 1, "height": 96, "width": 128}
RACES = {"one annotator, 0.011 of the diagonal": (1, 0.011), "five annotators, 0.0075 of the diagonal": (5, 0.0075)}
SCALES = (1.5, 2.0, 3.0, 4.0)  # of the gradient, pixels
OURS, OPPONENT = "ours", "pyedgeeval"
Masks = list[NDArray[np.bool_]]
Matcher = Callable[..., BoundaryCounts]
Scene = tuple[NDArray[np.float32], Masks]
"""A soft map (H, W) in [0, 1] and annotations, bool (H, W); the first is the label."""


def run(args: Namespace) -> dict[str, Any]:
    """Measure and print."""
    scenes, sides = make_scenes(args), matchers()
    races = {name: race_matchers(name, scenes[: args.race_images], sides, args, *case) for name, case in RACES.items()}
    return {"sides": list(sides), "races": races, "nyud_protocol": nyud_protocol(scenes, args.num_proc)}


def matchers() -> dict[str, Matcher]:
    """Threshold, thin (or not), match: ours, and the opponent if it is installed."""

    def ours(prediction: NDArray, annotations: Masks, threshold: float, max_dist: float) -> BoundaryCounts:
        return boundary_counts(prediction, annotations, thresholds=[threshold], max_dist=max_dist)

    try:
        from pyEdgeEval.common.binary_label.evaluate_boundaries import evaluate_boundaries_threshold_multiple_gts
    except ImportError:
        print(f"{OPPONENT} is not installed: ours is timed alone (pip install '.[bench]' adds it)")
        return {OURS: ours}

    def theirs(prediction: NDArray, annotations: Masks, threshold: float, max_dist: float, thinned: bool = False):
        given = np.array([threshold]), prediction, annotations, max_dist
        counts = evaluate_boundaries_threshold_multiple_gts(*given, apply_thinning=not thinned)
        return BoundaryCounts(*(np.asarray(each, np.int64) for each in counts))

    return {OURS: ours, OPPONENT: theirs}


def race_matchers(
    title: str, scenes: Sequence[Scene], sides: dict[str, Matcher], args: Namespace, annotators: int, max_dist: float
) -> dict[str, Any]:
    """Both sides at every image and threshold, and what the counts of all images say at each threshold."""
    measured = [
        measure(
            (suppress_non_maxima(prediction.astype(np.float64)), masks[:annotators], threshold, max_dist), sides, args
        )
        for prediction, masks in scenes
        for threshold in args.thresholds
    ]
    rows = [row for row, _ in measured]
    found = {key: spread([row[key] for row in rows]) for key in rows[0]}
    if OPPONENT in sides:
        counts = np.array([counts for _, counts in measured]).reshape(len(scenes), len(args.thresholds), 2, 4, 1)
        found["|dF| of the set"] = spread([f_difference(*(BoundaryCounts(*x) for x in two)) for two in counts.sum(0)])
    print_table([f"{title}, {len(rows)} cases", "median", "min", "max"], [[k, *v.values()] for k, v in found.items()])
    return {"summary": found, "cases": rows}


def measure(case: tuple, sides: dict[str, Matcher], args: Namespace) -> tuple[dict[str, float], list[BoundaryCounts]]:
    """Times and agreement of one case, and the counts of each side."""
    timings = race({side: partial(match, *case) for side, match in sides.items()}, args)
    counts = [match(*case) for match in sides.values()]
    row = {f"ms, {side}": spread(ms)["median"] for side, ms in timings.items()}
    if OPPONENT in sides:
        soft, annotations, threshold, max_dist = case
        # the same pixels in a mirror: which of two equally good matchings is found may change
        mirror = thin(soft >= threshold)[:, ::-1].astype(np.float64), [mask[:, ::-1] for mask in annotations]
        row["times faster"] = ratio(timings, OPPONENT, OURS)["median"]
        row["matched pixels more"] = float(counts[0].recall_matched[0] - counts[1].recall_matched[0])
        row["|dF|"] = f_difference(*counts)
        row["|dF| of theirs in a mirror"] = f_difference(sides[OPPONENT](*mirror, 0.5, max_dist, True), counts[1])
    return row, counts


def f_difference(one: BoundaryCounts, other: BoundaryCounts) -> float:
    """|F - F| at one threshold."""
    return float(abs(precision_recall_f(one)[2] - precision_recall_f(other)[2])[0])


def nyud_protocol(scenes: Sequence[Scene], num_proc: int) -> dict[str, Any]:
    """Suppression, 101 thresholds, thinning, matching."""
    images = [(prediction, annotations[:1]) for prediction, annotations in scenes]
    used, start = os.times(), time.perf_counter()
    values = score_boundaries(images, num_proc, **BOUNDARY_PROTOCOLS["nyud"]).compute()
    wall, now = time.perf_counter() - start, os.times()
    cpu = sum(now[:4]) - sum(used[:4])  # of children that have ended too
    print(
        f"NYUD protocol: {len(images)} images in {wall:.1f} s with {num_proc} processes, {cpu:.1f} s of processor time"
    )
    return {"images": len(images), "wall_s": wall, "cpu_s": cpu, "values": values}


def make_scenes(args: Namespace) -> list[Scene]:
    """Scenes evenly spread over the split."""
    size = {"height": args.height, "width": args.width, "num_images": args.num_images, "seed": args.seed}
    source = ("folder", {"data_dir": args.data_dir}) if args.data_dir else ("synthetic_rooms", size)
    data = open_dataset(source[0], "val", tasks=["edge"], **source[1])
    indices = np.linspace(0, len(data) - 1, min(args.num_images, len(data))).astype(int)
    samples = (data[int(k)] for k in indices)
    rng = np.random.default_rng(args.seed)
    return [make_scene(x["image"].mean(-1, dtype=np.float32), x["labels"]["edge"] == 1, rng) for x in samples]


def make_scene(grey: NDArray, edges: NDArray, rng: np.random.Generator) -> Scene:
    """A soft map that responds to all annotators, and noise; each annotator has about as many pixels as the label."""
    annotations = [edges]
    for scale in SCALES:
        crest = suppress_non_maxima(ndimage.gaussian_gradient_magnitude(grey, scale) / 255)
        strongest = thin(crest >= max(np.quantile(crest, 1 - min(1.3 * edges.mean(), 0.1)), 1e-6))
        annotations.append(np.roll(strongest, rng.integers(-1, 2, 2), (0, 1)))
    near = np.mean([np.exp(-((ndimage.distance_transform_edt(~mask) / 2.8) ** 2)) for mask in annotations], axis=0)
    noise = ndimage.gaussian_filter(rng.standard_normal(near.shape), 1.5)
    soft = 0.1 + 0.75 * near / max(near.max(), 1e-6) + 0.12 * noise / noise.std()
    return np.clip(soft, 0, 1).astype(np.float32), annotations
