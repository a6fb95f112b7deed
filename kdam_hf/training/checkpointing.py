"""Checkpoint folders that are whole or not there.

A checkpoint is written to a hidden folder beside its place; `manifest.json` with the size and SHA-256 of every file is
written last, everything is synced, and one rename puts it in place. A kill at any moment leaves earlier checkpoints
intact. Nothing of a checkpoint is parsed before its manifest verifies.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from kdam_hf.errors import CheckpointError, KdamError
from kdam_hf.io import discard, file_sha256, lines_sha256, list_checkpoints, restore_replaced, sync

MANIFEST = "manifest.json"
FORMAT = 2
SAVING, MODEL = ".saving", ".model."  # hidden folders, in which a checkpoint and the final model are written
# read by torch or safetensors: must not stand in a sealed folder without being listed in its manifest
PARSED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".safetensors")


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Hash every file of a checkpoint that is complete into its manifest, beside plain facts of what it is."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    content = json.loads(json.dumps({"format": FORMAT, **facts, "files": files}))
    (folder / MANIFEST).write_text(json.dumps(content | {"seal": _digest(content)}, indent=1), "utf-8")


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a sealed checkpoint, every byte of which is as it was written.

    Raises:
        CheckpointError: names the file that is missing, not listed, or of another size or hash.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        seal, files = manifest.pop("seal"), dict(manifest["files"])
        if manifest["format"] != FORMAT:
            raise CheckpointError(f"{path}: format {manifest['format']!r}; expected {FORMAT}.")
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; not written to its end, or by another program.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a manifest ({type(error).__name__}); damaged.") from error
    if seal != _digest(manifest):
        raise CheckpointError(f"{path}: its own checksum does not fit; damaged.")
    for name, expected in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != expected["bytes"]:
            found = f"{path.stat().st_size} bytes" if path.is_file() else "missing"
            raise CheckpointError(f"{path}: {found}; expected {expected['bytes']} bytes.")
        digest = file_sha256(path)
        if digest != expected["sha256"]:
            raise CheckpointError(f"{path}: SHA-256 {digest[:16]}...; expected {expected['sha256'][:16]}...: damaged.")
    for path in folder.rglob("*"):
        if path.suffix in PARSED and path.relative_to(folder).as_posix() not in files:
            raise CheckpointError(f"{path}: not listed in {MANIFEST}; remove it if you trust the rest.")
    return manifest


def newest_sealed(output: Path, quiet: bool = False) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint with the most steps that verifies, and its manifest; None when there is no checkpoint at all.

    Prints which ones were skipped, and why, unless `quiet`.

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
    """Delete the sealed checkpoints that were sealed first, but none of `keep`, until at most `limit` remain; None keeps all.

    Raises:
        CheckpointError: one could not be deleted.
    """
    if limit is None:
        return
    sealed = [folder for folder in list_checkpoints(output) if (folder / MANIFEST).exists()]
    sealed.sort(key=lambda folder: ((folder / MANIFEST).stat().st_mtime_ns, int(folder.name[11:])))
    kept = {folder.name for folder in keep}
    for folder in [folder for folder in sealed if folder.name not in kept][: max(0, len(sealed) - limit)]:
        discarded = folder.with_name(f".{folder.name}.discarded")
        try:
            discard(discarded)
            os.rename(folder, discarded)
            discard(discarded)
        except OSError as error:
            raise CheckpointError(f"{folder}: could not be deleted ({error}); newer ones are sealed.") from error


def clean(output: Path) -> None:
    """Remove what a killed run was writing or deleting, and put back what it was about to replace."""
    for folder in output.glob(".checkpoint-*.replaced"):
        restore_replaced(folder.with_name(folder.name[1:].removesuffix(".replaced")))
    for pattern in (".checkpoint-*.discarded", SAVING, f"{MODEL}*"):
        for folder in output.glob(pattern):
            discard(folder)


def move_files(folder: Path, target: Path) -> None:
    """Move files to another folder, each replaced at once and after it was synced."""
    for path in sorted(folder.iterdir()):
        sync(path)
        os.replace(path, target / path.name)
    sync(target)


@contextmanager
def explained_disk_errors(folder: Path) -> Iterator[None]:
    """Turn a failure to write into an error that says why, and how much space there is.

    Raises:
        CheckpointError: something could not be written to `folder`.
    """
    try:
        yield
    except KdamError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch and safetensors do not say why
        full = not isinstance(error, OSError) or error.errno in (ENOSPC, EDQUOT)
        raise CheckpointError(
            f"{folder}: could not be written ({(str(error) or type(error).__name__).splitlines()[0]}); "
            f"{shutil.disk_usage(existing(folder)).free:,} bytes are free there. What was complete before is intact: "
            f"{'make room' if full else 'mend that'}, then run the same command, a training with --resume_from_checkpoint last."
        ) from error


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _digest(content: Mapping[str, Any]) -> str:
    return lines_sha256([json.dumps(content, sort_keys=True)])
