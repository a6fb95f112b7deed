"""Boundary matching: time and agreement beside the matcher behind published numbers, and the whole NYUD protocol.

Unusual here: both sides get the same suppressed maps and do the same work (threshold, thin, match) for one image and one
threshold, alternately in one process; a ratio is one of neighbouring measurements, in processor time of one thread.
"""

import os
import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.boundary_images import Scene, load_scenes
from benchmarks.harness import settings_of, spread, table
from kdam_hf.errors import KdamValueError
from kdam_hf.jit import HAS_NUMBA
from kdam_hf.metrics import (
    BOUNDARY_PROTOCOLS,
    BoundaryCounts,
    boundary_counts,
    boundary_matching,
    score_boundaries,
    thinning,
)
from kdam_hf.metrics.boundaries import precision_recall_f
from kdam_hf.metrics.boundary_nms import suppress_non_maxima

NYUD_TEST_IMAGES = 654
OPPONENT = "pyedgeeval"
QUICK = {"num_images": 4, "race_images": 2, "race_thresholds": [0.2, 0.5], "rounds": 2}
DIFFERENCES = ("f_difference", "theirs_mirrored")
RACES = {"one annotator, 0.011 of the diagonal": (1, 0.011), "five annotators, 0.0075 of the diagonal": (5, 0.0075)}


def add_arguments(parser: ArgumentParser) -> None:
    """Options of this section."""
    parser.add_argument("--images", help="folder of photographs; rendered rooms when left out")
    parser.add_argument("--edges", help="folder of edge labels, PNG of the same names, 0 is no edge")
    parser.add_argument("--num_images", type=int, default=20, help="images of the full protocol")
    parser.add_argument("--race_images", type=int, default=6, help="the first of them are raced against the opponent")
    parser.add_argument("--race_thresholds", type=float, nargs="+", default=[0.05, 0.2, 0.35, 0.5, 0.65, 0.8])
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each case; medians count")
    parser.add_argument("--height", type=int, default=425)
    parser.add_argument("--width", type=int, default=560)
    parser.add_argument("--num_proc", type=int, default=2, help="processes of the full protocol")
    parser.add_argument("--seed", type=int, default=0)


def run(args: Namespace) -> dict[str, Any]:
    """Measure and print; what is returned holds every number that is printed."""
    if bool(args.images) != bool(args.edges):
        raise KdamValueError("--images and --edges belong together: give both folders, or none for rendered rooms")
    scenes = load_scenes(args)
    source = "photographs" if args.images else "synthetic_rooms"
    print(f"{len(scenes)} images ({source}), {args.height}x{args.width}, numba: {HAS_NUMBA}")
    boundary_counts(scenes[0].prediction, scenes[0].annotations, thresholds=2)  # loads or compiles the loops
    full = full_protocol(scenes, args.num_proc)
    opponent = find_opponent()
    if opponent is None:
        print(f"{OPPONENT} is not installed: ours is timed alone (pip install '.[bench]' adds it)")
    raced = scenes[: args.race_images]
    races = {name: race(name, raced, opponent, args, *case) for name, case in RACES.items()}
    return {
        "settings": {**settings_of(args, "images", "edges"), "source": source, "images_found": len(scenes)},
        "numba": HAS_NUMBA,
        "opponent": OPPONENT if opponent else None,
        "full_protocol": full,
        "races": races,
        "without_numba": without_numba(raced[0], args) if HAS_NUMBA else None,
        "thinning": thinning_race(raced[0], args),
    }


def find_opponent() -> Callable[..., BoundaryCounts] | None:
    """The same signature as `ours`; None when it is not installed."""
    try:
        from pyEdgeEval.common.binary_label.evaluate_boundaries import evaluate_boundaries_threshold_multiple_gts
    except ImportError:
        return None

    def theirs(prediction, annotations, threshold, max_dist, thin=True):
        counts = evaluate_boundaries_threshold_multiple_gts(
            np.array([threshold]), prediction, annotations, max_dist, apply_thinning=thin
        )
        return BoundaryCounts(*(np.asarray(each, np.int64) for each in counts))

    return theirs


def ours(prediction, annotations, threshold, max_dist) -> BoundaryCounts:
    """Threshold, thin, match."""
    return boundary_counts(prediction, annotations, thresholds=[threshold], max_dist=max_dist)


def timed(function: Callable[..., BoundaryCounts], *arguments: Any) -> tuple[float, BoundaryCounts]:
    """Milliseconds of processor time, and the result."""
    start = time.process_time()
    result = function(*arguments)
    return 1e3 * (time.process_time() - start), result


def race(name: str, scenes: list[Scene], opponent, args: Namespace, annotators: int, max_dist: float) -> dict[str, Any]:
    """Both sides at every image and threshold, in `args.rounds` rounds; who goes first alternates."""
    soft_maps = [suppress_non_maxima(scene.prediction.astype(np.float64)) for scene in scenes]
    cases = [
        (scene.name, (soft, scene.annotations[:annotators], threshold, max_dist))
        for scene, soft in zip(scenes, soft_maps, strict=True)
        for threshold in args.race_thresholds
    ]
    sides = {"ours": ours} | ({"theirs": opponent} if opponent else {})
    rows = [{"image": image, "threshold": case[2], **{f"{side}_ms": [] for side in sides}} for image, case in cases]
    counts: list[dict[str, BoundaryCounts]] = [{} for _ in cases]
    for number in range(args.rounds):
        for row, (_, case), count in zip(rows, cases, counts, strict=True):
            for side in list(sides)[:: 1 if number % 2 == 0 else -1]:
                milliseconds, count[side] = timed(sides[side], *case)
                row[f"{side}_ms"].append(milliseconds)
    for row, (_, case), count in zip(rows, cases, counts, strict=True):
        row["predicted"] = int(count["ours"].precision_total[0])
        if opponent:
            row["ratio"] = median(t / o for o, t in zip(row["ours_ms"], row["theirs_ms"], strict=True))
            row |= agreement(count["ours"], count["theirs"])
            row["theirs_mirrored"] = agreement(opponent(*mirrored(case)), count["theirs"])["f_difference"]
        row |= {f"{side}_ms": median(row[f"{side}_ms"]) for side in sides}
    by_threshold = [summary(rows[k :: len(args.race_thresholds)]) for k in range(len(args.race_thresholds))]
    for k, part in enumerate(by_threshold if opponent else []):
        whole = counts[k :: len(args.race_thresholds)]
        of_set = [BoundaryCounts(*np.sum([count[side] for count in whole], axis=0)) for side in sides]
        part["f_difference_of_the_set"] = abs(agreement(*of_set)["f_difference"])
    result = {"summary": summary(rows), "by_threshold": dict(zip(args.race_thresholds, by_threshold, strict=True))}
    print(f"\n{name}: {len(scenes)} images, {args.rounds} rounds; medians over cases (image and threshold)")
    print(race_table(result))
    return {**result, "cases": rows}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Spread of every number that was measured over cases; differences in F by their absolute value."""
    names = [name for name in rows[0] if name not in ("image", "threshold")]
    return {name: spread([abs(row[name]) if name in DIFFERENCES else row[name] for row in rows]) for name in names}


def race_table(result: dict[str, Any]) -> str:
    """One line per threshold, and one for all."""
    lines = {**result["by_threshold"], "all": result["summary"]}
    medians = [name for name in ("predicted", "ours_ms", "theirs_ms", "ratio") if name in result["summary"]]
    rows = [[str(key), *(line[name]["median"] for name in medians)] for key, line in lines.items()]
    header = ["threshold", *medians]
    if "ratio" in medians:
        header += ["ratio min", "ratio max", "|dF| max", "|dF| of the set", "theirs mirrored |dF| max"]
        for row, line in zip(rows, lines.values(), strict=True):
            row += [line["ratio"]["min"], line["ratio"]["max"], line["f_difference"]["max"]]
            row += [line.get("f_difference_of_the_set", "-"), line["theirs_mirrored"]["max"]]
    return table(header, rows)


def mirrored(case: tuple) -> tuple:
    """The pixels that are matched, seen in a mirror: which of two equally good matchings is found may change."""
    prediction, annotations, threshold, max_dist = case
    thinned = thinning.thin(prediction >= threshold)[:, ::-1]
    return thinned.astype(np.float64), [mask[:, ::-1] for mask in annotations], 0.5, max_dist, False


def agreement(mine: BoundaryCounts, theirs: BoundaryCounts) -> dict[str, float]:
    """How many more annotated pixels are matched, and the difference in F, at one threshold."""
    difference = precision_recall_f(mine)[2] - precision_recall_f(theirs)[2]
    return {
        "pairs_more": int(mine.recall_matched[0] - theirs.recall_matched[0]),
        "f_difference": float(difference[0]),
    }


def full_protocol(scenes: list[Scene], num_proc: int) -> dict[str, Any]:
    """NYUD: suppression, 101 thresholds, thinning, matching; wall time, and memory of all processes together."""
    images = [(scene.prediction, scene.annotations[:1]) for scene in scenes]
    memory = PeakMemory()
    start, start_cpu = time.perf_counter(), _all_processor_seconds()
    values = score_boundaries(images, num_proc, **BOUNDARY_PROTOCOLS["nyud"]).compute()
    seconds = time.perf_counter() - start
    cpu_seconds = _all_processor_seconds() - start_cpu
    result = {
        "images": len(images),
        "num_proc": num_proc,
        "wall_seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "minutes_for_654_images": seconds / len(images) * NYUD_TEST_IMAGES / 60,
        "peak_mib": memory.stop(),
        "load_average": os.getloadavg()[0],
        "values": values,
    }
    peak = f"{result['peak_mib']:.0f} MiB" if result["peak_mib"] else "not measured here"
    print(
        f"NYUD protocol: {len(images)} images in {seconds:.1f} s with {num_proc} processes ({cpu_seconds:.1f} s of "
        f"processor time), 654 images in {result['minutes_for_654_images']:.1f} min (extrapolated); peak memory {peak}; "
        f"load average {result['load_average']:.1f}"
    )
    return result


def without_numba(scene: Scene, args: Namespace) -> dict[str, float]:
    """The same loops as plain Python, on one image."""
    soft = suppress_non_maxima(scene.prediction)
    plain = {name: each.py_func for name, each in vars(boundary_matching).items() if hasattr(each, "py_func")}
    times = []
    for threshold in args.race_thresholds:
        case = soft, scene.annotations[:1], threshold, 0.011
        fast_ms, fast = timed(ours, *case)
        with mock.patch.multiple(boundary_matching, **plain), mock.patch.object(thinning, "HAS_NUMBA", False):
            slow_ms, slow = timed(ours, *case)
        if not np.array_equal(fast, slow):
            raise SystemExit(f"with and without numba disagree at threshold {threshold}: {fast} and {slow}")
        times.append((slow_ms, slow_ms / fast_ms))
    result = {"ms": median(ms for ms, _ in times), "times_slower": median(ratio for _, ratio in times)}
    print(
        f"\nwithout numba: {result['ms']:.0f} ms per threshold, {result['times_slower']:.0f} times slower, same counts"
    )
    return result


def thinning_race(scene: Scene, args: Namespace) -> dict[str, float] | None:
    """Thinning beside scikit-image, on thresholded maps with and without suppression."""
    try:
        from skimage import morphology
    except ImportError:
        print("scikit-image is not installed: thinning is not compared")
        return None
    maps = suppress_non_maxima(scene.prediction), scene.prediction
    rows = []
    for mask in [each >= threshold for each in maps for threshold in args.race_thresholds]:
        for _ in range(args.rounds):
            our_ms, mine = timed(thinning.thin, mask)
            their_ms, theirs = timed(morphology.thin, mask)
            if not np.array_equal(mine, theirs):
                raise SystemExit("thinning differs from scikit-image")
            rows.append((our_ms, their_ms, their_ms / our_ms))
    result = dict(
        zip(("ours_ms", "skimage_ms", "ratio"), (median(column) for column in zip(*rows, strict=True)), strict=True)
    )
    print(
        "thinning: " + "  ".join(f"{name} {value:.3g}" for name, value in result.items()) + "  (medians; same pixels)"
    )
    return result


class PeakMemory:
    """Largest sum of the proportional memory of this process and its children, sampled; MiB, None where /proc is missing."""

    def __init__(self) -> None:
        self.peak = 0
        self.running = True
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def stop(self) -> float | None:
        """End sampling and give the peak."""
        self.running = False
        self.thread.join()
        return self.peak / 1024 or None

    def _watch(self) -> None:
        while self.running:
            processes = [os.getpid(), *(child.pid for child in active_children())]
            self.peak = max(self.peak, sum(_proportional_kib(process) for process in processes))
            time.sleep(0.1)


def _all_processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _proportional_kib(process: int | None) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # the process has ended, or this is not Linux
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
