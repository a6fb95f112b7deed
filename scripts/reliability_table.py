"""Run the tests that prove a row of docs/reliability_rows.yaml, and write docs/reliability.md from their results.

    python scripts/reliability_table.py

A test says `@pytest.mark.fault(ROW, ...)`. Rows without a passing test, or with a failing one, are marked on the page, and the
exit code is 1. The title and the introduction of the page are kept.
"""

import argparse
import platform
import sys
from collections import Counter, defaultdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "numpy", "scipy", "pillow")
TABLE = "| # | fault | elsewhere | here | tests | result |\n| --- | --- | --- | --- | --- | --- |\n"


class Outcomes:
    """A plugin of pytest: row -> (test, outcome) of every marked case."""

    def __init__(self) -> None:
        self.marked: dict[str, set[int]] = {}
        self.rows: dict[int, list[tuple[str, str]]] = defaultdict(list)

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Note the rows of every test."""
        for item in items:
            self.marked[item.nodeid] = {row for mark in item.iter_markers("fault") for row in mark.args}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note one case."""
        if report.when == "call" or report.outcome != "passed":
            for row in self.marked[report.nodeid]:
                self.rows[row].append((report.nodeid.partition("[")[0], report.outcome))


def render(number: int, text: dict[str, str], cases: list[tuple[str, str]]) -> tuple[str, bool]:
    """A line of the page, and whether the row is proven."""
    total = Counter(outcome for _, outcome in cases)
    proven = total["passed"] > 0 and total["failed"] == 0
    result = ", ".join(f"{count} {outcome}" for outcome, count in sorted(total.items())) or "not run"
    tests = (test.partition("::") for test in sorted({test for test, _ in cases}))
    links = "<br>".join(f"[`{name}`](../{path})" for path, _, name in tests)
    cells = [str(number), text["fault"], text["elsewhere"], text["here"], links]
    cells.append(result if proven else f"**not proven** ({result})")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n", proven


def main(argv: list[str] | None = None) -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    outcomes, page = Outcomes(), ROOT / "docs/reliability.md"
    sys.path.insert(0, str(ROOT))  # before tests/, which has a folder dataset_loaders too
    pytest.main(["-q", "-m", "fault", f"--rootdir={ROOT}", str(ROOT / "tests")], plugins=[outcomes])
    texts = yaml.safe_load((ROOT / "docs/reliability_rows.yaml").read_text("utf-8"))
    lines, proven = zip(*(render(row, text, outcomes.rows[row]) for row, text in texts.items()), strict=True)
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    facts = f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {versions}."
    kept = page.read_text("utf-8").split("\n\n")[:2]
    page.write_text("\n\n".join([*kept, facts, TABLE + "".join(lines)]), "utf-8")
    print(f"{page}: {sum(proven)} of {len(proven)} rows proven")
    return 0 if all(proven) else 1


if __name__ == "__main__":
    sys.exit(main())
