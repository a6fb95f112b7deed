"""Archives of data sets, opened safely: every member is checked before anything is written.

Unusual here: one bad member refuses the whole archive, so it is read twice, once to check and once to write. Writing goes
to a folder beside the target that is renamed when it is complete.
"""

import gzip
import io
import json
import re
import shutil
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock
from tqdm import tqdm

from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.io import file_sha256

SUFFIXES = (".tgz", ".tar.gz", ".tar", ".zip")
MAX_MEMBERS = 200_000
MAX_BYTES = 200 * 2**30
MAX_RATIO = 400
"""Bytes unpacked for one packed. A whole data set is near 1, as photos and PNG labels are packed already; labels alone as
8-byte .npy reach about 290; a bomb comes close to 1032, the most deflate can do."""
RATIO_FLOOR = 100 * 2**20
"""Bytes that any archive may unpack to: the ratio says little about small ones, and this much harms nobody."""
_STAMP = ".kdam-archive.json"
_CHUNK = 2**20


def is_archive(path: str | Path) -> bool:
    """Whether the name is that of an archive `extract` reads: .tgz, .tar.gz, .tar or .zip."""
    return str(path).lower().endswith(SUFFIXES)


def extract(
    path: str | Path,
    into: Path,
    *,
    max_members: int = MAX_MEMBERS,
    max_bytes: int = MAX_BYTES,
    sha256: str | None = None,
    progress: bool = True,
) -> Path:
    """Unpack an archive into the folder `into`, or take the folder as it is when it was made from this archive.

    The same archive means equal name, size and time of change. Only files and folders are accepted; they get plain
    permissions. Files that macOS adds on its own are left out.

    Args:
        path: the archive; nothing is written beside it unless `into` lies there.
        into: the folder to make. It is built under another name beside it and renamed when complete.
        max_members: limit on files and folders.
        max_bytes: limit on what the archive unpacks to, bytes.
        sha256: of the archive, as its publisher states it, in hexadecimal; compared before anything is parsed.
        progress: show a bar.

    Returns:
        The folder that holds the data: `into`, or the only folder at its top when there is nothing beside it.

    Raises:
        DataIntegrityError: the archive is missing, damaged, too large, or has a member that could harm; names it.
            Or its bytes are others than those of `sha256`.
        KdamValueError: no archive by its name, `into` holds something else, or the disk is too small.
    """
    source, target = Path(path), Path(into).absolute()
    if not is_archive(source):
        raise KdamValueError(f"{source}: no archive by its name; expected one of {', '.join(SUFFIXES)}.")
    try:
        facts = source.stat()
    except OSError as error:
        raise DataIntegrityError(f"{source}: cannot be read ({error.strerror}); expected an archive.") from error
    if sha256 is not None and (found := file_sha256(source)) != sha256.strip().lower():
        raise DataIntegrityError(
            f"{source}: SHA-256 is {found}; expected {sha256}. It is incomplete, altered or another version; nothing was "
            "opened. Get the file again."
        )
    stamp = {"name": source.name, "bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns}
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        if not _holds(target, stamp):
            limit = min(max_bytes, max(RATIO_FLOOR, MAX_RATIO * facts.st_size))
            with _reading(source):
                needed = _check(source, limit, max_members)
            if needed > (free := shutil.disk_usage(target.parent).free):
                raise KdamValueError(
                    f"{target}: needs {needed} bytes, {free} are free on this disk. Choose another disk."
                )
            _write(source, target, stamp, progress)
    entries = [entry for entry in target.iterdir() if entry.name != _STAMP]
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else target


def _holds(target: Path, stamp: dict[str, object]) -> bool:
    """Whether `target` was made from this very archive; an error when it is anything else but absent or empty."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    try:
        found = json.loads((target / _STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        found = None
    if found != stamp:
        raise KdamValueError(
            f"{target}: exists, and was not unpacked from {stamp} but from {found or 'no archive'}. "
            "Remove that folder to unpack again, or choose another one."
        )
    return True


# ---- reading ------------------------------------------------------------------------------------------------------------


class _Forward(io.RawIOBase):
    """The unpacked bytes of a tar: read forward only, in no larger pieces than a chunk."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._position, self._last = stream, 0, b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        if position < self._position:  # a negative size leads back, and tarfile would go round in a circle
            raise tarfile.ReadError(f"a header leads back to byte {position}")
        while self._position < position and self.read(min(_CHUNK, position - self._position)):
            pass
        return self._position

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= _CHUNK:  # content is read in smaller pieces: this is a header
            raise tarfile.ReadError(f"a header of {count} bytes, expected at most {_CHUNK}")
        self._last = self._stream.read(count)
        self._position += len(self._last)
        return self._last

    def expect_end(self) -> None:
        """tarfile takes a header it cannot read for the end; this is one only if the block is zero, and all after it."""
        complete = len(self._last) == tarfile.BLOCKSIZE
        while complete and self._last:
            complete = not self._last.strip(b"\0")
            self.read(_CHUNK)
        if not complete:
            raise tarfile.ReadError(f"no end mark at byte {self._position} of what it unpacks to")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Crafted bytes make the parsers raise nearly anything, struct.error and RecursionError among it."""
    try:
        yield
    except (DataIntegrityError, KdamValueError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:  # of the disk; that of a parser has no number
            raise KdamValueError(
                f"{path}: cannot be unpacked ({error}). Free some space, or choose another disk."
            ) from error
        raise DataIntegrityError(
            f"{path}: damaged, cut short or no archive of the kind its name says ({error or type(error).__name__}). "
            "Get the file again and compare its checksum."
        ) from error


def _members(path: Path, folder: Path | None = None) -> Iterator[tuple[str, str, int]]:
    """Name, kind (`file`, `folder` or what else it is) and size of each member; they are unpacked to `folder`, if given."""
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                yield member.orig_filename, _zip_kind(member), member.file_size  # `filename` is cut at NUL
                if folder and not _is_junk(member.filename):
                    archive.extract(member, folder)
        return
    with path.open("rb") as packed:
        stream = _Forward(packed if path.suffix.lower() == ".tar" else gzip.GzipFile(fileobj=packed))  # type: ignore[arg-type]
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            while (entry := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps them all
                kind = "folder" if entry.isdir() else "file" if entry.isreg() and not entry.issparse() else None
                yield (
                    entry.name,
                    kind or f"a link, device or sparse file ({entry.type!r} {entry.linkname!r:.120})",
                    entry.size,
                )
                if folder and not _is_junk(entry.name):
                    tar.extract(entry, folder, filter="data")
        stream.expect_end()


def _zip_kind(member: zipfile.ZipInfo) -> str:
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or device"
    if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"encrypted, or packed by method {member.compress_type}, neither stored nor deflated"
    return "folder" if stat.S_ISDIR(member.external_attr >> 16) or member.is_dir() else "file"


def _is_junk(name: str) -> bool:
    """What macOS adds to archives on its own."""
    parts = name.rstrip("/").split("/")
    return "__MACOSX" in parts or parts[-1] == ".DS_Store" or parts[-1].startswith("._")


# ---- checking and writing -----------------------------------------------------------------------------------------------


def _check(path: Path, limit: int, max_members: int) -> int:
    """Bytes on the disk that an archive needs which may be unpacked as a whole.

    Raises:
        DataIntegrityError: names the first member that must not be unpacked.
    """
    places = {_STAMP: (_STAMP, False)}  # as compared -> as named, and whether it is a folder
    count = total = files = 0
    for name, kind, size in _members(path):
        problem = _problem(name, kind, size) or _clash(name, kind, places)
        if problem:
            raise DataIntegrityError(
                f"{path}: member {name!r:.120} {problem}; expected files and folders only, each under a relative path of its "
                "own. Nothing was written. Get the archive from its publisher, or pack the folder again without it."
            )
        count, total = count + 1, total + size
        files += kind == "file" and not _is_junk(name)
        if total > limit or max(count, len(places)) > max_members:
            raise DataIntegrityError(
                f"{path}: {path.stat().st_size} bytes that unpack to more than {limit}, or to more than {max_members} files "
                "and folders, as a bomb does. Nothing was written. If you trust it, unpack it yourself and give the folder."
            )
    if not files:
        raise DataIntegrityError(f"{path}: holds no file; expected a data set.")
    return total + 4096 * count


def _problem(name: str, kind: str, size: int) -> str | None:
    parts = name.split("/")
    if not name.isprintable():
        return "has NUL, control characters or broken UTF-8 in its name"
    if name.startswith("/") or ".." in parts or "\\" in name or any(re.match("[A-Za-z]:", part) for part in parts):
        return "has an absolute path, '..', a backslash or a drive letter in its name"
    if len(name) > 1000 or any(len(part.encode()) > 255 for part in parts):
        return "has a name longer than 1000 characters, or 255 bytes between slashes"
    if kind not in ("file", "folder"):
        return f"is {kind}"
    if size < 0 or (kind == "file" and not name.strip("./")):
        return f"is a file of {size} bytes, or without a name"
    return None


def _clash(name: str, kind: str, places: dict[str, tuple[str, bool]]) -> str | None:
    """Each place is taken once, on file systems that ignore case or Unicode form too; `places` also gets the parents."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    for depth in range(1, len(parts) + 1):
        place, is_folder = "/".join(parts[:depth]), depth < len(parts) or kind == "folder"
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", place).casefold())
        if key not in places:
            places[key] = place, is_folder
        elif places[key] != (place, True) or not is_folder:  # the same folder may be named often
            return f"takes the place of {places[key][0]!r:.120}"
    return None


def _write(path: Path, target: Path, stamp: dict[str, Any], progress: bool) -> None:
    building = target.with_name(f".{target.name}.extracting")
    shutil.rmtree(building, ignore_errors=True)  # left by a process that was killed; a live one holds the lock
    try:
        building.mkdir()
        with _reading(path):
            for _ in tqdm(_members(path, building), f"unpacking {path.name}", unit="file", disable=not progress):
                pass
        (building / _STAMP).write_text(json.dumps(stamp), "utf-8")
        if target.exists():
            target.rmdir()  # empty
        building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
