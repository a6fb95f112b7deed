"""Files and what they came from: atomic writes, locks, and one fingerprint that says whether two things are the same."""

from kdam_hf.io.atomic import (
    discard,
    make_folder,
    refuse_unwritable,
    replacing,
    restore_replaced,
    sync,
    write_json,
    write_text,
)
from kdam_hf.io.fingerprint import differences, file_sha256, flatten, lines_sha256, tensors_sha256
from kdam_hf.io.json_text import as_scores, to_json
from kdam_hf.io.lock import exclusive
from kdam_hf.io.source import list_checkpoints, source_parts
from kdam_hf.io.yaml_file import read_yaml

__all__ = [
    "as_scores",
    "differences",
    "discard",
    "exclusive",
    "file_sha256",
    "flatten",
    "lines_sha256",
    "list_checkpoints",
    "make_folder",
    "read_yaml",
    "refuse_unwritable",
    "replacing",
    "restore_replaced",
    "source_parts",
    "sync",
    "tensors_sha256",
    "to_json",
    "write_json",
    "write_text",
]
