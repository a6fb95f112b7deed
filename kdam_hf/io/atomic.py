"""Write a file or folder beside its place, then rename it: a reader sees the old content or the new one, never half."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EACCES, EBADF, EINVAL, EISDIR, ENOSYS, ENOTSUP, EPERM
from pathlib import Path
from typing import Any

from kdam_hf.errors import KdamValueError
from kdam_hf.io.json_text import to_json

# what network file systems and Windows answer to a sync of a folder, which PostgreSQL passes over too (fsync_fname_ext):
# the rename itself is done; only after a loss of power may the old content be there
NO_SYNC_OF_FOLDERS = {EACCES, EBADF, EINVAL, EISDIR, ENOSYS, ENOTSUP, EPERM}


@contextmanager
def replacing(path: str | Path, partial: Path | None = None, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; sync it and rename it into place when the block ends without an error.

    Args:
        path: the file or folder to make. What is there is replaced; a folder is moved to `.NAME.replaced` first, and
            `restore_replaced` puts it back if the process was killed in between.
        partial: the temporary path, where other processes must know it; chosen by default.
        durable: sync what was written, which takes its time for many files; else a loss of power may leave them empty.

    Yields:
        A path that does not exist yet. On an error whatever was written there is removed.
    """
    final = Path(path)
    make_folder(final.parent)
    partial = partial or final.with_name(f".{final.name}.{os.getpid()}.partial")
    discard(partial)
    try:
        yield partial
        for part in (*partial.rglob("*"), partial) if durable else ():
            sync(part)
        old = _replaced(final)
        if final.is_dir():
            discard(old)
            os.rename(final, old)
        os.replace(partial, final)
        sync(final.parent)
        discard(old)
    except BaseException:
        discard(partial, ignore_errors=True)
        raise


def make_folder(path: str | Path) -> Path:
    """The folder, with those above it; it may be there.

    Raises:
        KdamValueError: a file has its name, or that of a folder above it.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise KdamValueError(f"{path}: a file is there, or above it; expected a folder to write to.") from error
    except PermissionError as error:
        raise KdamValueError(f"{path}: may not be made ({error.strerror}); give a folder of your own.") from error
    return Path(path)


def refuse_unwritable(path: str | Path) -> None:
    """Raise KdamValueError unless a file can be written there; its folder is made."""
    if Path(path).is_dir():
        raise KdamValueError(f"{path}: a folder is there; expected a file to write.")
    if not os.access(make_folder(Path(path).parent), os.W_OK):
        raise KdamValueError(f"{path}: may not be written in this folder; give another one.")


def restore_replaced(path: str | Path) -> None:
    """Put back, or remove, what `replacing` had moved aside when its process was killed."""
    final = Path(path)
    if _replaced(final).exists() and not final.exists():
        os.rename(_replaced(final), final)
    discard(_replaced(final))


def discard(path: Path, ignore_errors: bool = False) -> None:
    """Remove a file or a folder with its content, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=ignore_errors)
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically; folders are made as needed. Raises KdamValueError where it may not be written."""
    refuse_unwritable(path)
    with replacing(path) as partial:
        partial.write_text(text, "utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write `to_json` atomically; folders are made as needed."""
    write_text(path, to_json(content))


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder where its file system can tell, are on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC_OF_FOLDERS or not path.is_dir():
            raise


def _replaced(final: Path) -> Path:
    return final.with_name(f".{final.name}.replaced")
