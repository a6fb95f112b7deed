"""Frames of video files through PyAV (the extra `video`) or OpenCV, and of cameras through OpenCV, one at a time."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdam_hf.errors import KdamValueError

SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")


def is_video(place: Any) -> bool:
    """Whether it is the number of a camera or the name of a video file, for which a library is installed.

    Raises:
        KdamValueError: it is, but none is installed.
    """
    camera = isinstance(place, int)
    if not camera and not (isinstance(place, (str, Path)) and Path(place).suffix.lower() in SUFFIXES):
        return False
    if not find_spec("cv2") and (camera or not find_spec("av")):
        remedy = "OpenCV: pip install opencv-python-headless" if camera else "PyAV: pip install 'kdam-hf[video]'"
        raise KdamValueError(f"{'camera ' if camera else ''}{place} needs {remedy}.")
    return True


def frames(place: str | Path | int) -> Iterator[NDArray[np.uint8]]:
    """Upright frames, RGB uint8 (H, W, 3), of a video file, or of the camera of this number until it stops.

    Raises:
        ValueError: nothing can be read there, or what follows the frames before is broken.
    """
    reader = _through_opencv if isinstance(place, int) or not find_spec("av") else _through_av
    count = 0
    try:
        for frame in reader(place):
            yield frame
            count += 1
    except Exception as error:  # those of FFmpeg share no other base
        raise ValueError(f"{place}: not readable after {count} frames ({error}).") from error
    if not count:
        raise ValueError(f"{place}: no frame could be read; expected a video, or the number of a camera that is free.")


def _through_av(place: Any) -> Iterator[NDArray[np.uint8]]:
    import av

    with av.open(f"file:{place}", options={"protocol_whitelist": "file"}) as container:
        for frame in container.decode(video=0):
            yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))


def _through_opencv(place: Any) -> Iterator[NDArray[np.uint8]]:
    import cv2

    capture = cv2.VideoCapture(place if isinstance(place, int) else str(place))
    try:
        while (read := capture.read())[0]:
            yield np.ascontiguousarray(read[1][..., ::-1])
    finally:
        capture.release()
