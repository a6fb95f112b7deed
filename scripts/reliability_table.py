"""Run the tests that prove a row of docs/reliability_rows.yaml, and write docs/reliability.md from their results.

    python scripts/reliability_table.py
    python -m pytest --junit-xml=report.xml; python scripts/reliability_table.py --report report.xml

A test says `@pytest.mark.fault(ROW, ...)`. A row without a passing test, or with a failing one, is named and the exit code
is 1; the page is written all the same, and says so.
"""

import argparse
import ast
import platform
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import yaml

ROOT = Path(__file__).parents[1]
ROWS, PAGE = ROOT / "docs" / "reliability_rows.yaml", ROOT / "docs" / "reliability.md"
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "numpy", "scipy", "pillow")
Tests = dict[int, list[str]]
"""Row -> `file.py::test`, in order."""
Counts = Mapping[str, Counter[str]]
"""`file.py::test` -> how many of its cases passed, failed or were skipped."""


def read_rows(path: Path = ROWS) -> dict[int, dict[str, str]]:
    """The rows by number: `fault`, `elsewhere` and `here`."""
    return yaml.safe_load(path.read_text("utf-8"))


def marked_tests(root: Path = ROOT / "tests") -> Tests:
    """What the tests say they prove, read from the source."""
    tests: Tests = defaultdict(list)
    for path in sorted(root.rglob("test_*.py")):
        module = ast.parse(path.read_text("utf-8"))
        shared = [row for node in module.body for row in _rows_of_module(node)]
        for node in module.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for row in {*shared, *(row for decorator in node.decorator_list for row in _rows_of(decorator))}:
                    tests[row].append(f"{path.relative_to(root.parent).as_posix()}::{node.name}")
    return dict(tests)


def _rows_of(node: ast.AST) -> list[int]:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
        return [ast.literal_eval(argument) for argument in node.args]
    return []


def _rows_of_module(node: ast.AST) -> list[int]:
    if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["pytestmark"]:
        return [row for part in ast.walk(node.value) for row in _rows_of(part)]
    return []


def read_outcomes(report: Path) -> Counts:
    """What became of the cases of each test, from a JUnit report of pytest."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for case in ElementTree.parse(report).iter("testcase"):
        found = {child.tag for child in case}
        outcome = "failed" if found & {"failure", "error"} else "skipped" if "skipped" in found else "passed"
        test = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name', '').partition('[')[0]}"
        counts[test][outcome] += 1
    return counts


def outcome_of(counts: Counter[str]) -> str:
    """`12 passed`, or what went wrong first."""
    order = ("failed", "passed", "skipped")
    return ", ".join(f"{counts[name]} {name}" for name in order if counts[name]) or "not run"


def is_proven(tests: list[str], counts: Counts) -> bool:
    """Whether a row has a passing test and no failing one."""
    found = [counts.get(test, Counter()) for test in tests]
    return any(c["passed"] for c in found) and not any(c["failed"] for c in found)


def render(rows: Mapping[int, Mapping[str, str]], tests: Tests, counts: Counts, facts: str) -> str:
    """The page."""
    lines = [
        "# Faults and bad inputs",
        "",
        "What goes wrong in long trainings on shared machines and with data from strangers, what becomes of it in the usual",
        "trainers, and what becomes of it here. Every row is proven by the tests it names. This page is written by",
        "`python scripts/reliability_table.py` from their results; the texts stand in `reliability_rows.yaml`.",
        "",
        facts,
        "",
        "| # | fault | elsewhere | here | tests | result |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row, text in rows.items():
        names = tests.get(row, [])
        links = "<br>".join(f"[`{test.partition('::')[2]}`](../{test.partition('::')[0]})" for test in names)
        total = sum((counts.get(test, Counter()) for test in names), Counter())
        result = outcome_of(total) if is_proven(names, counts) else f"**not proven** ({outcome_of(total)})"
        cells = (str(row), text["fault"], text["elsewhere"], text["here"], links, result)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, help="JUnit report of an earlier run of pytest; runs the tests without")
    parser.add_argument("--output", type=Path, default=PAGE, help="page to write")
    args = parser.parse_args(argv)
    rows, tests = read_rows(), marked_tests()
    functions = sorted({test for row in rows for test in tests.get(row, [])})
    with TemporaryDirectory() as folder:
        report = args.report or Path(folder) / "report.xml"
        if args.report is None:
            command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *functions]
            subprocess.run(command, cwd=ROOT, check=False)
        counts = read_outcomes(report)
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    facts = f"{datetime.now(UTC).date().isoformat()}, Python {platform.python_version()}, {versions}."
    args.output.write_text(render(rows, tests, counts, facts), "utf-8")
    unproven = [row for row in rows if not is_proven(tests.get(row, []), counts)]
    print(f"{args.output}: {len(rows) - len(unproven)} of {len(rows)} rows proven by {len(functions)} tests")
    if unproven:
        print(f"not proven: rows {', '.join(map(str, unproven))}")
    return 1 if unproven else 0


if __name__ == "__main__":
    sys.exit(main())
