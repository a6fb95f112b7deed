"""What the tests of exported and published models share: a process in which some packages cannot be imported."""


def without(*packages: str) -> str:
    """Source that makes every later import of these packages, and of their parts, fail in the process that runs it."""
    return f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages!r}:
            raise ImportError(name + " is not installed")
sys.meta_path.insert(0, Absent())
"""
