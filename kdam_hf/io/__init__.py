"""Files and what they came from: atomic writes, and one fingerprint that says whether two things are the same."""

from kdam_hf.io.atomic import replacing, sync, write_json, write_text
from kdam_hf.io.fingerprint import differences, file_sha256, flatten, lines_sha256, tensors_sha256

__all__ = [
    "differences",
    "file_sha256",
    "flatten",
    "lines_sha256",
    "replacing",
    "sync",
    "tensors_sha256",
    "write_json",
    "write_text",
]
