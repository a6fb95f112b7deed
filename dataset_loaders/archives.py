"""Archives of data sets, opened safely: every member is checked before anything is written.

Unusual here: one bad member refuses the whole archive, and a tar is read twice, once to check and once to write. What
a header promises is not believed: bytes are counted while they are unpacked. Writing goes to a folder beside the
target that is renamed when it is complete.
"""

import gzip
import hashlib
import io
import json
import logging
import re
import shutil
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from filelock import FileLock
from tqdm import tqdm
from tqdm.utils import CallbackIOWrapper

from kdam_hf.errors import DataIntegrityError, KdamValueError

SUFFIXES = (".tgz", ".tar.gz", ".tar", ".zip")
MAX_MEMBERS = 200_000
MAX_BYTES = 200 * 2**30
MAX_RATIO = 400.0
"""Bytes unpacked for one packed. A whole data set is near 1, as photos and PNG labels are packed already; labels alone as
8-byte .npy reach about 290 (edges and classes of synthetic rooms); a bomb comes close to 1032, the most deflate can do."""
RATIO_FLOOR = 100 * 2**20
"""Bytes that any archive may unpack to: the ratio says little about small ones, and this much harms nobody."""

_STAMP = ".kdam-archive.json"  # in lower case, as names are compared
_CHUNK = 2**20
_BLOCK = 4096
_MAX_NAME, _MAX_PART = 1000, 255
_BYTES: dict[str, Any] = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
_log = logging.getLogger(__name__)


def is_archive(path: str | Path) -> bool:
    """Whether the name is that of an archive `extract` reads: .tgz, .tar.gz, .tar or .zip."""
    return str(path).lower().endswith(SUFFIXES)


def extract(
    path: str | Path,
    into: Path,
    *,
    max_members: int = MAX_MEMBERS,
    max_bytes: int = MAX_BYTES,
    max_ratio: float = MAX_RATIO,
    sha256: str | None = None,
    progress: bool = True,
) -> Path:
    """Unpack an archive into the folder `into`, or take the folder as it is when it was made from this archive.

    The same archive means equal name, size and time of change. Only files and folders are accepted; they get plain
    permissions. Files that macOS adds on its own are left out and counted in the log.

    Args:
        path: the archive; nothing is written beside it unless `into` lies there.
        into: the folder to make. It is built under another name beside it and renamed when complete.
        max_members: limit on files and folders.
        max_bytes: limit on what the archive unpacks to, bytes.
        max_ratio: limit on bytes unpacked for one packed, for archives that unpack to more than `RATIO_FLOOR`.
        sha256: of the archive, as its publisher states it, in hexadecimal; compared before anything is parsed.
        progress: show bars, by bytes.

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
    stamp = _stamp_of(source)
    if sha256 is not None:
        _compare(source, sha256)
    if not _holds(target, stamp):
        archive = _Archive(source, min(max_bytes, max(RATIO_FLOOR, int(max_ratio * stamp["bytes"]))))
        with tqdm(total=stamp["bytes"], desc=f"checking {source.name}", disable=not progress, **_BYTES) as bar:
            members = _check(archive, max_members, bar.update)
        _check_space(target, members)
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if not _holds(target, stamp):  # otherwise another process was faster
                _build(archive, members, target, stamp, progress)
    return _top(target)


def _compare(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256.strip().lower():
        raise DataIntegrityError(
            f"{path}: SHA-256 is {found}; expected {sha256}. It is incomplete, altered or another version; nothing was opened. "
            "Get the file again."
        )


# ---- reading ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Member:
    """An entry as its header describes it; `kind` is `file`, `folder` or what else it is."""

    name: str
    kind: str
    size: int

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(part for part in self.name.split("/") if part not in ("", "."))

    @property
    def is_junk(self) -> bool:
        parts = self.parts
        return "__MACOSX" in parts or (bool(parts) and (parts[-1] == ".DS_Store" or parts[-1].startswith("._")))


@dataclass(frozen=True)
class _Archive:
    """An archive on disk and the bytes that may come out of it."""

    path: Path
    limit: int

    def walk(self, consumed: Callable[[int], object] = lambda count: None) -> Iterator[tuple[_Member, Iterator[bytes]]]:
        """Members in order, each with its content, to be read before the next one; `consumed` gets packed bytes."""
        with _reading(self.path):
            yield from (self._walk_zip() if self.path.suffix.lower() == ".zip" else self._walk_tar(consumed))

    def _walk_zip(self) -> Iterator[tuple[_Member, Iterator[bytes]]]:
        with zipfile.ZipFile(self.path) as archive:
            for info in archive.infolist():
                yield _zip_member(info), self._content(partial(archive.open, info))

    def _walk_tar(self, consumed: Callable[[int], object]) -> Iterator[tuple[_Member, Iterator[bytes]]]:
        with self.path.open("rb") as file:
            packed = CallbackIOWrapper(consumed, file, "read")
            metered = _Metered(packed if self.path.suffix.lower() == ".tar" else gzip.GzipFile(fileobj=packed), self)
            with tarfile.open(fileobj=metered, mode="r:") as archive:
                while (info := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps them all
                    yield _tar_member(info), self._content(partial(archive.extractfile, info))
            metered.expect_end()

    def _content(self, start: Callable[[], IO[bytes] | None]) -> Iterator[bytes]:
        with _reading(self.path):
            stream = start()
            while stream is not None and (chunk := stream.read(_CHUNK)):
                yield chunk

    def too_large(self) -> DataIntegrityError:
        return DataIntegrityError(
            f"{self.path}: {self.path.stat().st_size} bytes that unpack to more than {self.limit}, as a bomb does. "
            "Nothing was kept. If you trust the archive, unpack it yourself and give the folder."
        )


class _Metered(io.RawIOBase):
    """The unpacked bytes of a tar, forward only and counted, headers included."""

    def __init__(self, stream: Any, archive: _Archive) -> None:
        self._stream, self._archive = stream, archive
        self._limit = archive.limit + _CHUNK + archive.limit // 8  # headers and padding come on top
        self._position, self._last = 0, b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        if position < self._position:  # a negative size leads back, and tarfile would go round in a circle
            raise tarfile.ReadError(f"a header leads back to byte {position}")
        while self._position < position and self.read(min(_CHUNK, position - self._position)):
            pass
        return self._position

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= _CHUNK:  # content is read in chunks: this is a header
            raise DataIntegrityError(
                f"{self._archive.path}: a header of {count} bytes; expected at most {_CHUNK}. Pack the data again."
            )
        self._last = self._stream.read(count)
        self._position += len(self._last)
        if self._position > self._limit:
            raise self._archive.too_large()
        return self._last

    def expect_end(self) -> None:
        """tarfile takes a header it cannot read for the end; this is one only if the block is zero, and all after it."""
        complete = len(self._last) == tarfile.BLOCKSIZE
        while complete and self._last:
            complete = not self._last.strip(b"\0")
            self.read(_CHUNK)
        if not complete:
            raise DataIntegrityError(
                f"{self._archive.path}: damaged or cut short at byte {self._position} of what it unpacks to; expected "
                "another member or the end mark. Get the file again."
            )


def _tar_member(info: tarfile.TarInfo) -> _Member:
    kinds = {
        tarfile.REGTYPE: "file",
        tarfile.AREGTYPE: "file",
        tarfile.DIRTYPE: "folder",
        tarfile.SYMTYPE: f"a symbolic link to {info.linkname!r:.120}",
        tarfile.LNKTYPE: f"a hard link to {info.linkname!r:.120}",
        tarfile.CHRTYPE: "a character device",
        tarfile.BLKTYPE: "a block device",
        tarfile.FIFOTYPE: "a FIFO",
    }
    kind = "a sparse file" if info.issparse() else kinds.get(info.type, f"an entry of type {info.type!r}")
    return _Member(info.name, kind, info.size if kind == "file" else 0)


def _zip_member(info: zipfile.ZipInfo) -> _Member:
    name = info.orig_filename  # `filename` is cut at NUL
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFDIR: "folder",
    }
    kind = kinds.get(stat.S_IFMT(info.external_attr >> 16), "folder" if name.endswith("/") else "file")
    if kind == "file" and info.flag_bits & 1:
        kind = "an encrypted file"
    elif kind == "file" and info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        kind = f"a file packed by method {info.compress_type}, neither stored nor deflated"
    return _Member(name, kind, info.file_size if kind == "file" else 0)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Crafted bytes make the parsers raise nearly anything, struct.error and RecursionError among it."""
    try:
        yield
    except (DataIntegrityError, MemoryError):
        raise
    except Exception as error:
        raise DataIntegrityError(
            f"{path}: damaged, cut short or no archive of the kind its name says ({error or type(error).__name__}). "
            "Get the file again and compare its checksum."
        ) from error


# ---- checking -----------------------------------------------------------------------------------------------------------


def _check(archive: _Archive, max_members: int, consumed: Callable[[int], object]) -> list[_Member]:
    """All members of an archive that may be unpacked as a whole.

    Raises:
        DataIntegrityError: names the first member that must not be unpacked.
    """
    members: list[_Member] = []
    seen: dict[str, tuple[str, bool]] = {_STAMP: (_STAMP, False)}
    total = 0
    for member, _ in archive.walk(consumed):
        _check_member(member, archive.path)
        _check_place(member, seen, archive.path)
        total += member.size
        if total > archive.limit:
            raise archive.too_large()
        members.append(member)
        if max(len(members), len(seen)) > max_members:
            raise DataIntegrityError(
                f"{archive.path}: more than {max_members} files and folders. Nothing was written. If you trust the "
                "archive, unpack it yourself and give the folder."
            )
    if not any(member.kind == "file" and not member.is_junk for member in members):
        raise DataIntegrityError(f"{archive.path}: holds no file; expected a data set.")
    return members


def _check_member(member: _Member, path: Path) -> None:
    name = member.name
    parts = name.split("/")
    if not name.isprintable():
        found = "has NUL, control characters or broken UTF-8 in its name"
    elif name.startswith("/"):
        found = "has an absolute path"
    elif ".." in parts:
        found = "has '..' in its path"
    elif "\\" in name:
        found = "has a backslash in its path"
    elif any(re.match("[A-Za-z]:", part) for part in parts):
        found = "has a drive letter in its path"
    elif len(name) > _MAX_NAME or any(len(part.encode()) > _MAX_PART for part in parts):
        found = f"has a name longer than {_MAX_NAME} characters, or {_MAX_PART} bytes between slashes"
    elif member.kind not in ("file", "folder"):
        found = f"is {member.kind}"
    elif member.kind == "file" and (not member.parts or member.size < 0):
        found = f"is a file of {member.size} bytes, or without a name"
    else:
        return
    raise _refusal(member, path, found)


def _check_place(member: _Member, seen: dict[str, tuple[str, bool]], path: Path) -> None:
    """Each place is taken once, on file systems that ignore case or Unicode form too; `seen` also gets the parents."""
    for depth in range(1, len(member.parts) + 1):
        place = "/".join(member.parts[:depth])
        is_folder = depth < len(member.parts) or member.kind == "folder"
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", place).casefold())
        if key not in seen:
            seen[key] = place, is_folder
        elif seen[key] != (place, True) or not is_folder:  # the same folder may be named often
            raise _refusal(member, path, f"takes the place of {seen[key][0]!r:.120}")


def _refusal(member: _Member, path: Path, found: str) -> DataIntegrityError:
    return DataIntegrityError(
        f"{path}: member {member.name!r:.120} {found}; expected files and folders only, each under a relative path of "
        "its own. Nothing was written. Get the archive from its publisher, or pack the folder again without it."
    )


def _check_space(target: Path, members: Sequence[_Member]) -> None:
    needed = sum(-(-member.size // _BLOCK) * _BLOCK + _BLOCK for member in members if not member.is_junk)
    free = _free(target)
    if needed > free:
        raise KdamValueError(
            f"{target}: needs {needed} bytes, {free} are free on this disk. Free some, or choose a folder on another disk."
        )


def _free(target: Path) -> int:
    return shutil.disk_usage(next(parent for parent in target.parents if parent.exists())).free


# ---- writing ------------------------------------------------------------------------------------------------------------


def _build(archive: _Archive, members: Sequence[_Member], target: Path, stamp: dict[str, Any], progress: bool) -> None:
    building = target.with_name(f".{target.name}.extracting")
    shutil.rmtree(building, ignore_errors=True)  # left by a process that was killed; a live one holds the lock
    left_out = sum(member.is_junk for member in members)
    try:
        building.mkdir()
        _write(archive, members, building, progress)
        (building / _STAMP).write_text(json.dumps(stamp | {"left_out": left_out}), "utf-8")
        if target.exists():
            target.rmdir()  # empty
        building.rename(target)
    except OSError as error:
        raise KdamValueError(
            f"{target}: cannot be written ({error}); {_free(target)} bytes are free on this disk. "
            "Free some, or choose a folder on another disk."
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    if left_out:
        _log.info("%s: %d macOS notes (__MACOSX, ._*, .DS_Store) were left out.", archive.path, left_out)


def _write(archive: _Archive, members: Sequence[_Member], folder: Path, progress: bool) -> None:
    total = sum(member.size for member in members if not member.is_junk)
    expected = iter(members)
    with tqdm(total=total, desc=f"unpacking {archive.path.name}", disable=not progress, **_BYTES) as bar:
        for member, content in archive.walk():
            if member != next(expected, None):
                raise _changed(archive.path)
            if member.is_junk:
                continue
            place = folder.joinpath(*member.parts)
            (place if member.kind == "folder" else place.parent).mkdir(parents=True, exist_ok=True)
            if member.kind == "file":
                _write_file(member, content, place, archive.path, bar.update)
    if next(expected, None) is not None:
        raise _changed(archive.path)


def _write_file(
    member: _Member, content: Iterator[bytes], place: Path, path: Path, unpacked: Callable[[int], object]
) -> None:
    """Never more than the header said, as the checks counted on it; never over another file."""
    count = 0
    with place.open("xb") as file:
        for chunk in content:
            count += len(chunk)
            if count > member.size:
                break
            file.write(chunk)
            unpacked(len(chunk))
    if count != member.size:
        raise DataIntegrityError(
            f"{path}: member {member.name!r:.120} unpacks to {'more' if count > member.size else count} bytes; expected "
            f"{member.size} by its header. Get the file again and compare its checksum."
        )


def _changed(path: Path) -> DataIntegrityError:
    return DataIntegrityError(f"{path}: changed while it was unpacked; nothing was kept. Wait until it is complete.")


# ---- what was made ------------------------------------------------------------------------------------------------------


def _stamp_of(path: Path) -> dict[str, Any]:
    try:
        facts = path.stat()
    except OSError as error:
        raise DataIntegrityError(f"{path}: cannot be read ({error.strerror}); expected an archive.") from error
    return {"name": path.name, "bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns}


def _holds(target: Path, stamp: dict[str, Any]) -> bool:
    """Whether `target` was made from this very archive; an error when it is anything else but absent or empty."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    try:
        found = json.loads((target / _STAMP).read_text("utf-8"))
        differing = {key: found.get(key) for key in stamp if found.get(key) != stamp[key]}
    except (OSError, ValueError, AttributeError) as error:
        raise KdamValueError(
            f"{target}: exists and was not unpacked from an archive; remove it or choose another folder."
        ) from error
    if differing:
        raise KdamValueError(
            f"{target}: unpacked from another archive, with {differing}; now it is {stamp}. "
            "Remove that folder to unpack again, or choose another one."
        )
    return True


def _top(target: Path) -> Path:
    entries = [entry for entry in target.iterdir() if entry.name != _STAMP]
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else target
