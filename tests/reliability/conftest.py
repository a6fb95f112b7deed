import sys
from pathlib import Path

from conftest_kit import kit, teacher  # noqa: F401

sys.path.append(str(Path(__file__).parents[2] / "scripts"))  # kill_test; last, since a script may be named as a library
