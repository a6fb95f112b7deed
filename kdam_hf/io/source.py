"""How a user names data: a folder, or the id of a data set on the Hub."""

from pathlib import Path


def source_parts(source: str) -> tuple[str, str | None]:
    """The id or folder, and the configuration that may follow it after a colon, as in `org/scenes:indoor`."""
    place, _, configuration = source.rpartition(":")
    whole = not configuration or "/" in configuration or Path(source).exists()
    return (source, None) if whole or not place else (place, configuration)
