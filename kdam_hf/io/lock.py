"""One process at a time writes into a folder."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ENOLCK, ENOSYS, ENOTSUP
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from kdam_hf.errors import CheckpointError

NO_LOCKS = {ENOLCK, ENOSYS, ENOTSUP}


@contextmanager
def exclusive(lock: str | Path, what: str, wait_s: float = -1) -> Iterator[None]:
    """Hold a lock file; re-entrant within a process.

    Where the file system has no locks, a file `LOCK.held` that names its process stands for one. It stays behind if that
    process is killed; a process of the same machine then takes it over.

    Args:
        lock: the lock file; its folder is made as needed.
        what: what it guards, for messages.
        wait_s: seconds to wait for another process; -1 waits until it ends.

    Raises:
        CheckpointError: the other process goes on, or nothing can be written there.
    """
    try:
        Path(lock).parent.mkdir(parents=True, exist_ok=True)
        held = _try(FileLock(lock, is_singleton=True))
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise CheckpointError(f"{what}: {error}; choose a folder that this account can write to.") from error
        lock = f"{lock}.held"
        held = _try(SoftFileLock(lock, is_singleton=True))
    if not held.is_locked:
        print(f"{what}: another process writes there; waiting{f' up to {wait_s:.0f} s' * (wait_s >= 0)}", flush=True)
        try:
            held.acquire(timeout=wait_s)
        except Timeout as error:
            raise CheckpointError(
                f"another process writes into {what}; stop it, wait for it, or choose another folder. If there is none on "
                f"any machine, remove {lock}."
            ) from error
    try:
        yield
    finally:
        held.release()


def _try(lock: BaseFileLock) -> BaseFileLock:
    with suppress(Timeout):
        lock.acquire(timeout=0)
    return lock
