"""One process at a time writes into a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from kdam_hf.errors import CheckpointError


@contextmanager
def exclusive(lock: str | Path, what: str, wait_s: float = -1) -> Iterator[None]:
    """Hold a lock file; re-entrant within a process.

    Args:
        lock: the lock file; its folder is made as needed.
        what: what it guards, for messages.
        wait_s: seconds to wait for another process; -1 waits until it ends.

    Raises:
        CheckpointError: the other process goes on.
    """
    Path(lock).parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock, is_singleton=True)
    try:
        held.acquire(timeout=0)
    except Timeout:
        print(f"{what}: another process writes there; waiting{f' up to {wait_s:.0f} s' * (wait_s >= 0)}", flush=True)
        try:
            held.acquire(timeout=wait_s)
        except Timeout as error:
            raise CheckpointError(
                f"another process writes into {what}; stop it, wait for it, or choose another folder."
            ) from error
    try:
        yield
    finally:
        held.release()
