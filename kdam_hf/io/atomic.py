"""Write a file or folder beside its place, then rename it: a reader sees the old content or the new one, never half."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place when the block ends without an error.

    Args:
        path: the file or folder to make. A file there is replaced; a folder there must be empty or absent.

    Yields:
        A path that does not exist yet. On an error whatever was written there is removed.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
    try:
        yield partial
        for part in (*(p for p in partial.rglob("*") if p.is_file()), partial):
            sync(part)
        os.replace(partial, final)
        sync(final.parent)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically; folders are made as needed."""
    with replacing(path) as partial:
        partial.write_text(text, "utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON atomically; folders are made as needed."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
