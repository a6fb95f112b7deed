"""Where things are: data as a user names them, and the checkpoints in a folder."""

from pathlib import Path


def source_parts(source: str) -> tuple[str, str | None]:
    """The id or folder, and the configuration that may follow it after a colon, as in `org/scenes:indoor`."""
    place, _, configuration = source.rpartition(":")
    whole = not configuration or "/" in configuration or Path(source).exists()
    return (source, None) if whole or not place else (place, configuration)


def list_checkpoints(output: Path) -> list[Path]:
    """All checkpoint folders, sealed or not, most steps first."""
    folders = [path for path in output.glob("checkpoint-*") if path.is_dir() and path.name[11:].isdecimal()]
    return sorted(folders, key=lambda path: int(path.name[11:]), reverse=True)
