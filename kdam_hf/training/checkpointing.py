"""Checkpoint folders that are whole or not there.

A checkpoint is written to a hidden folder beside its place, every file is synced, `manifest.json` with the size and
SHA-256 of each is written last, and one rename puts it in place. Whoever is killed at any moment leaves the checkpoints
that were there. Nothing of a checkpoint is parsed before its manifest verifies.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from kdam_hf.errors import CheckpointError, KdamError

MANIFEST = "manifest.json"
FORMAT = 1
# read by torch or safetensors: must not stand in a sealed folder without being part of the seal
PARSED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".safetensors")


def checkpoint_folder(output: Path, step: int) -> Path:
    """Where the checkpoint of a step belongs."""
    return output / f"checkpoint-{step}"


def partial_folder(output: Path, step: int) -> Path:
    """Where it is written."""
    return output / f".checkpoint-{step}.partial"


def list_checkpoints(output: Path) -> list[Path]:
    """All checkpoint folders, sealed or not, most steps first."""
    folders = [path for path in output.glob("checkpoint-*") if path.is_dir() and path.name[11:].isdecimal()]
    return sorted(folders, key=lambda path: int(path.name[11:]), reverse=True)


def seal(folder: Path, final: Path, facts: Mapping[str, Any]) -> None:
    """Sync and hash what a folder holds, add the manifest, and rename the folder into place.

    The files are synced by a thread while they are hashed, which mostly takes longer.

    Args:
        folder: as written; on the file system of `final`.
        final: where it belongs. What stands there is replaced.
        facts: what the checkpoint is, as plain data.
    """
    paths, files = sorted(path for path in folder.rglob("*") if path.is_file()), {}
    with ThreadPoolExecutor(1) as beside:
        syncs = [beside.submit(_sync, path) for path in paths]
        for path in paths:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
        for sync in syncs:
            sync.result()
    content = json.loads(json.dumps({"format": FORMAT, **facts, "files": files}))
    with (folder / MANIFEST).open("w") as file:
        json.dump(content | {"seal": _digest(content)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    for directory in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        _sync(directory)
    if final.exists():
        os.rename(final, final.with_name(f".{final.name}.replaced"))
    os.rename(folder, final)
    _sync(final.parent)
    _discard(final.with_name(f".{final.name}.replaced"))


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a sealed checkpoint, every byte of which is as it was written.

    Raises:
        CheckpointError: names the file that is missing, not part of the seal, or of another size or hash.
    """
    manifest = _read_manifest(folder)
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path}: missing; the manifest lists it with {expected['bytes']} bytes.")
        if path.stat().st_size != expected["bytes"]:
            raise CheckpointError(f"{path}: {path.stat().st_size} bytes; expected {expected['bytes']}.")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected["sha256"]:
            raise CheckpointError(f"{path}: SHA-256 {found[:16]}...; expected {expected['sha256'][:16]}...: damaged.")
    for path in folder.rglob("*"):
        if path.suffix in PARSED and path.relative_to(folder).as_posix() not in manifest["files"]:
            raise CheckpointError(f"{path}: not listed in {MANIFEST}; remove it if you trust the rest.")
    return manifest


def newest_sealed(output: Path, quiet: bool = False) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint with the most steps that verifies, and its manifest; None when there is no checkpoint at all.

    Args:
        output: the folder of the run.
        quiet: do not print which ones were skipped, and why.

    Raises:
        CheckpointError: there are checkpoints, but none verifies.
    """
    reasons = []
    for folder in list_checkpoints(output):
        try:
            return folder, verify(folder)
        except CheckpointError as error:
            reasons.append(str(error))
            if not quiet:
                print(f"skipped {error}", flush=True)
    if reasons:
        raise CheckpointError(
            f"none of the {len(reasons)} checkpoints in {output} verifies: {' '.join(reasons)} "
            "Remove them to start over, or choose another output_dir."
        )
    return None


def rotate(output: Path, limit: int | None, keep: Collection[Path]) -> None:
    """Delete the sealed checkpoints that were sealed first, until at most `limit` remain.

    Args:
        output: the folder of the run.
        limit: None keeps all.
        keep: never deleted: the one just sealed, and the best one.

    Raises:
        CheckpointError: one could not be deleted.
    """
    if limit is None or limit < 1:
        return
    sealed = [folder for folder in list_checkpoints(output) if (folder / MANIFEST).exists()]
    sealed.sort(key=lambda folder: ((folder / MANIFEST).stat().st_mtime_ns, int(folder.name[11:])))
    kept = {folder.name for folder in keep}
    for folder in [folder for folder in sealed if folder.name not in kept][: max(0, len(sealed) - limit)]:
        discarded = folder.with_name(f".{folder.name}.discarded")
        try:
            _discard(discarded)
            os.rename(folder, discarded)
            _discard(discarded)
        except OSError as error:
            raise CheckpointError(
                f"{folder}: could not be deleted to make room ({error}); newer ones are sealed."
            ) from error


def clean(output: Path) -> None:
    """Remove what a killed run was writing or deleting, and put back what it was about to replace."""
    for folder in output.glob(".checkpoint-*.replaced"):
        final = folder.with_name(folder.name[1:].removesuffix(".replaced"))
        if not final.exists():
            os.rename(folder, final)
    for pattern in (".checkpoint-*.partial", ".checkpoint-*.discarded", ".checkpoint-*.replaced", ".model.partial"):
        for folder in output.glob(pattern):
            _discard(folder)


def move_files(folder: Path, target: Path) -> None:
    """Move files to another folder, each replaced at once and after it was synced; the folder goes.

    Raises:
        OSError: the disk is full, or similar; files of `target` are whole, old or new.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        _sync(path)
        os.replace(path, target / path.name)
    _sync(target)
    _discard(folder)


@contextmanager
def writing_to(folder: Path) -> Iterator[Path]:
    """An empty folder to write to; a failure removes it and says how much space there is.

    Raises:
        CheckpointError: something could not be written.
    """
    try:
        _discard(folder)
        folder.mkdir(parents=True)
        yield folder
    except KdamError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise CheckpointError(
            f"{folder}: could not be written ({(str(error) or type(error).__name__).splitlines()[0]}); "
            f"without it {shutil.disk_usage(existing(folder)).free:,} bytes are free there. Earlier checkpoints are "
            "intact: make room, then run the same command with --resume_from_checkpoint last."
        ) from error


@contextmanager
def exclusive(output: Path, wait_s: float = 60) -> Iterator[None]:
    """One process at a time trains into a folder; re-entrant within it.

    Args:
        output: the folder of the run.
        wait_s: seconds to wait for another process, which may be saving its last checkpoint.

    Raises:
        CheckpointError: the other process goes on.
    """
    output.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output / ".lock", is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{output}: another process trains into it; waiting up to {wait_s:.0f} s", flush=True)
        try:
            lock.acquire(timeout=wait_s)
        except Timeout as error:
            raise CheckpointError(
                f"another process trains into {output}; stop it, wait for it, or choose another output_dir."
            ) from error
    try:
        yield
    finally:
        lock.release()


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
        seal_ = content.pop("seal")
        if content["format"] != FORMAT or not isinstance(content["files"], dict):
            raise CheckpointError(f"{path}: format {content['format']!r}; expected {FORMAT}.")
    except OSError as error:
        raise CheckpointError(
            f"{path}: {error.strerror}; the checkpoint was not written to its end, or by another program."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a manifest ({type(error).__name__}); damaged.") from error
    if seal_ != _digest(content):
        raise CheckpointError(f"{path}: its own checksum does not fit; damaged.")
    return content


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sync(path: Path) -> None:
    """Make a file durable, or the names in a folder: a rename is only on disk once its folder is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
