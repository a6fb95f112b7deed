"""List the recipes that `--config` knows by name, one line each.

    kdam recipes
    kdam distill --config photos_student ...

A recipe is a flat YAML file of keys; the command line overrides it.
"""

from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "recipes"


def main(argv: Sequence[str] = ()) -> None:
    for path in sorted(FOLDER.glob("*.yaml")):
        print(f"{path.stem:34}{path.read_text('utf-8').splitlines()[0].removeprefix('# ')}")
    print(f"\nFiles to start from: {FOLDER}")
