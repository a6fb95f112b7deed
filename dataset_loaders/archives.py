"""Archives of data sets, opened safely: every member is checked before anything is written.

Unusual here: one bad member refuses the whole archive, so it is read twice, once to check and once to write. Writing goes
to a folder beside the target that is renamed when it is complete.
"""

import gzip
import json
import re
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dataset_loaders.reading import is_listable
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.io import exclusive, file_sha256, replacing

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


def without_suffix(name: str) -> str:
    """The name of an archive without what says its kind."""
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), name)


def extract(path: str | Path, into: Path, *, sha256: str | None = None) -> Path:
    """Unpack an archive into the folder `into`, or take the folder as it is when it was made from this archive.

    The same archive means equal name, size and time of change. Only files and folders are accepted; they get plain
    permissions. Files that macOS adds on its own are left out.

    Args:
        path: the archive; nothing is written beside it unless `into` lies there.
        into: the folder to make. It is built under another name beside it and renamed when complete.
        sha256: of the archive, as its publisher states it, in hexadecimal; compared before anything is parsed.

    Returns:
        The folder that holds the data: `into`, or the only folder at its top when there is nothing beside it.

    Raises:
        DataIntegrityError: the archive is missing, damaged, too large, has a member that could harm, or other bytes than
            those of `sha256`.
        KdamValueError: no archive by its name, `into` holds something else, or the disk is full.
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
    with exclusive(target.with_name(f".{target.name}.lock"), str(target)):
        if not _holds(target, stamp):
            with _reading(source):
                _check(source, min(MAX_BYTES, max(RATIO_FLOOR, MAX_RATIO * facts.st_size)))
                _write(source, target, stamp)
    entries = [entry for entry in target.iterdir() if entry.name != _STAMP]
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else target


def _holds(target: Path, stamp: dict[str, object]) -> bool:
    """Whether `target` was made from this very archive; an error when it is anything else but absent or empty."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    found = None
    with suppress(OSError, ValueError):
        found = json.loads((target / _STAMP).read_text("utf-8"))
    if found != stamp:
        given = f"exists, and was not unpacked from {stamp} but from {found or 'no archive'}"
        raise KdamValueError(f"{target}: {given}. Remove that folder to unpack again, or choose another one.")
    return True


class _Header(tarfile.TarInfo):
    """Refuses what tarfile would take for the end of the archive, go back for, or read into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no end mark, but {error}") from error
        if header.size < 0 or (header.type not in tarfile.REGULAR_TYPES and header.size > _CHUNK):
            raise tarfile.ReadError(f"a header of {header.size} bytes, expected at most {_CHUNK}")
        return header


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
                f"{path}: cannot be unpacked ({error}). Free space, or choose another disk."
            ) from error
        found = f"damaged, cut short or no archive of the kind its name says ({error or type(error).__name__})"
        raise DataIntegrityError(f"{path}: {found}. Get the file again and compare its checksum.") from error


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
        stream = packed if path.suffix.lower() == ".tar" else gzip.GzipFile(fileobj=packed)
        with tarfile.open(fileobj=stream, mode="r:", tarinfo=_Header) as tar:
            while (entry := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps them all
                kind = "folder" if entry.isdir() else "file" if entry.isreg() and not entry.issparse() else None
                strange = f"a link, device or sparse file ({entry.type!r} {entry.linkname!r:.120})"
                yield entry.name, kind or strange, entry.size
                if folder and not _is_junk(entry.name):
                    tar.extract(entry, folder, filter="data")
        while rest := stream.read(_CHUNK):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("data behind the end mark")


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


def _check(path: Path, limit: int) -> None:
    """Raise DataIntegrityError that names the first member that must not be unpacked."""
    places = {_STAMP: (_STAMP, False)}  # as compared -> as named, and whether it is a folder
    count = total = files = 0
    for name, kind, size in _members(path):
        if problem := _problem(name, kind, size) or _clash(name, kind, places):
            raise DataIntegrityError(
                f"{path}: member {name!r:.120} {problem}; expected files and folders, each under a relative path of its own. "
                "Nothing was written. Get the archive from its publisher, or pack the folder again without it."
            )
        count, total, files = count + 1, total + size, files + (kind == "file" and not _is_junk(name))
        if total > limit or max(count, len(places)) > MAX_MEMBERS:
            raise DataIntegrityError(
                f"{path}: {path.stat().st_size} bytes that unpack to more than {limit}, or to more than {MAX_MEMBERS} files "
                "and folders, as a bomb does. Nothing was written. If you trust it, unpack it yourself and give the folder."
            )
    if not files:
        raise DataIntegrityError(f"{path}: holds no file; expected a data set.")


def _problem(name: str, kind: str, size: int) -> str | None:
    parts = name.split("/")
    if not is_listable(name):
        return "has NUL, control characters, line ends, turns of direction or broken UTF-8 in its name"
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


def _write(path: Path, target: Path, stamp: dict[str, Any]) -> None:
    # what a process that was killed left there goes first; a live one holds the lock
    with replacing(target, target.with_name(f".{target.name}.extracting"), durable=False) as building:
        building.mkdir()
        for _ in tqdm(_members(path, building), f"unpacking {path.name}", unit="file", disable=None):
            pass
        (building / _STAMP).write_text(json.dumps(stamp), "utf-8")
