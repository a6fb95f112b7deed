"""What a measurement was hoped to show, and whether it did."""

from collections.abc import Sequence
from typing import Any

from benchmarks.harness import Spread, table


def target(
    what: str, found: Spread | float, at_most: float | None = None, at_least: float | None = None
) -> dict[str, Any]:
    """A target, judged by the median of what was found; exactly one limit is given."""
    spread = found if isinstance(found, dict) else {"median": found, "min": found, "max": found}
    met = spread["median"] <= at_most if at_most is not None else spread["median"] >= at_least
    limit = {"at_most": at_most} if at_most is not None else {"at_least": at_least}
    return {"what": what, **spread, **limit, "met": bool(met)}


def print_targets(targets: Sequence[dict[str, Any]], quick: bool) -> None:
    """One line each. With `quick` there is no verdict: targets are stated for the full settings."""
    for each in targets if quick else []:
        each["met"] = None
    verdicts = {True: "met", False: "not met", None: "no verdict with --quick"}
    rows = [
        [
            each["what"],
            each["median"],
            f"{each['min']:.3g} to {each['max']:.3g}",
            f"<= {each['at_most']:g}" if "at_most" in each else f">= {each['at_least']:g}",
            verdicts[each["met"]],
        ]
        for each in targets
    ]
    print("\n" + table(["target", "median", "rounds", "wanted", ""], rows))
