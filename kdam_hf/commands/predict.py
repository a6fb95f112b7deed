"""Maps of photos, videos and cameras.

    kdam predict --model outputs/demo/cs --images a.jpg photos/ 'more/*.png' https://example.org/b.jpg
    kdam predict --model org/kdam-student --images clip.mp4 --overlay --batch_size 8
    kdam predict --model outputs/demo/cs --images 0 --max_frames 100

Writes, per photo and task, at the photo's own size
  NAME_TASK.npy            class ids uint8 (uint16 above 256 classes), probabilities float32 or metres float32, all (H, W);
                           unit vectors float32 (H, W, 3), x right, y up, z towards the camera
  NAME_TASK.png            a picture of it, RGB
  NAME_TASK_overlay.png    half of it over the photo
and contact_sheet.png, the first photos with a legend. Frames of a video lie in a folder of its name, by their number.
What cannot be read is named at the end, with exit code 1; the rest is written.
"""

import glob
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image
from tqdm import tqdm

from dataset_loaders.reading import PHOTO_SUFFIXES
from kdam_hf import MultiTaskDensePredictionPipeline
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.image_processing_kdam import channels_last
from kdam_hf.io import make_folder
from kdam_hf.photos_kdam import open_photo
from kdam_hf.readout_kdam import readout_of
from kdam_hf.training import load_model, parse_recipe
from kdam_hf.training.arguments import check_numbers, option, required
from kdam_hf.video import SUFFIXES, frames, is_video
from kdam_hf.visualization import contact_sheet, legend_picture, shrunk

SHOWN = 8


@dataclass
class PredictionArguments:
    """Which model and photos, and where the maps go."""

    model: str = required("folder or hub id")
    images: list[str] = required("photos, folders of them, patterns, URLs, videos, numbers of cameras")
    output_dir: str = option("outputs/predictions", "folder to write to")
    batch_size: int = option(1, "photos per forward pass, as far as they have one size")
    overlay: bool = option(False, "write each picture blended over the photo too")
    max_frames: int | None = option(None, "of each video or camera; all by default")


def main(argv: list[str] | None = None) -> None:
    args, _ = parse_recipe((PredictionArguments,), argv, __doc__)
    check_numbers(args, {"at least 1": "batch_size max_frames"})
    places = list({str(place): (name, place) for name, place in find_photos(args.images)}.values())
    names = Counter(name for name, _ in places)
    if twice := next((name for name in names if names[name] > 1), None):
        both = " and ".join(str(place) for name, place in places if name == twice)
        raise KdamValueError(f"{both} have one file name, {twice}, which names the outputs; predict them apart.")
    folders = {Path(str(place)).parent.resolve() for _, place in places if Path(str(place)).is_file()}
    if Path(args.output_dir).resolve() in folders:
        raise KdamValueError(f"output_dir {args.output_dir} is where the photos are; give another one.")
    total = None if any(is_video(place) for _, place in places) else len(places)
    pipe = MultiTaskDensePredictionPipeline.of_model(load_model(args.model), return_pictures=True)
    output = make_folder(args.output_dir)
    if found := sum(path.is_file() for path in output.rglob("*")):
        print(f"{output} holds {found} files; those of the same name are replaced.", flush=True)
    rows: dict[str, list[np.ndarray]] = {}
    broken: list[ValueError] = []
    opened = open_photos(places, args.max_frames, broken)
    start, count = time.perf_counter(), 0
    predicted = predict(pipe, opened, args.batch_size)
    for name, photo, maps in tqdm(predicted, "Predicting", total, unit="photo", disable=None):
        count += 1
        (output / name).parent.mkdir(exist_ok=True)
        shown = [shrunk(np.array(photo))]
        for task in pipe.image_processor.tasks:
            values, picture = maps[task["name"]]["values"], maps[task["name"]]["picture"]
            ids = values.dtype == np.int64
            path = f"{output / name}_{task['name']}"
            np.save(f"{path}.npy", values.astype(np.min_scalar_type(task["channels"] - 1)) if ids else values)
            picture.save(f"{path}.png")
            if args.overlay:
                Image.blend(photo, picture, 0.5).save(f"{path}_overlay.png")
            shown.append(shrunk(np.array(picture)))
        if len(rows) < SHOWN:
            rows[name] = shown
    seconds = time.perf_counter() - start
    if rows:
        size = next(iter(rows.values()))[0].shape[:2]
        legends = [legend_picture(readout_of(task).legend(), *size) for task in pipe.image_processor.tasks]
        titles = ["photo", *pipe.model.config.task_names]
        contact_sheet([*rows.values(), [None, *legends]], [*rows, "legend"], titles).save(output / "contact_sheet.png")
    print(f"{count} photos, {count / seconds:.2f} a second with reading and writing; written to {output}")
    if broken:
        print(f"{len(broken)} could not be read:", *broken, sep="\n  ", file=sys.stderr)
        raise SystemExit(1)


def find_photos(given: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """What to open, and the name of what is written: a photo in a form of `open_photo`, a video, the number of a camera.

    Raises:
        DataIntegrityError: nothing there.
    """
    for number, one in enumerate(given):
        text = str(one)
        if not isinstance(one, (str, Path, int)):
            yield f"photo{number}", one
        elif text.lower().startswith(("http://", "https://")):
            yield Path(urlsplit(text).path).stem or urlsplit(text).hostname or "photo", text
        elif Path(text).is_file():
            yield Path(text).stem, one
        elif text.isdecimal() and not Path(text).exists():
            yield f"camera{text}", int(text)
        elif Path(text).is_dir():
            yield from ((path.stem, path) for path in photos_in(Path(text)))
        else:
            matches = [Path(path) for path in sorted(glob.glob(text, recursive=True))]
            matches = [path for path in matches if path.suffix.lower() in (*PHOTO_SUFFIXES, *SUFFIXES)]
            if not matches:
                raise DataIntegrityError(f"{text}: no such photo, folder or video, and nothing that matches.")
            yield from ((path.stem, path) for path in matches)


def photos_in(folder: Path) -> list[Path]:
    """The photos of a folder, by name."""
    listed = folder.iterdir() if folder.is_dir() else ()
    found = sorted(path for path in listed if path.suffix.lower() in PHOTO_SUFFIXES)
    if not found:
        raise DataIntegrityError(f"{folder}: no photo there; expected {', '.join(PHOTO_SUFFIXES)} files.")
    return found


def open_photos(
    places: Sequence[tuple[str, Any]], max_frames: int | None = None, broken: list[ValueError] | None = None
) -> Iterator[tuple[str, Image.Image]]:
    """Name and photo of what `find_photos` found, one at a time; what cannot be read goes to `broken`, or is raised."""
    for name, place in places:
        try:
            if is_video(place):
                for number, frame in enumerate(islice(frames(place), max_frames)):
                    yield f"{name}/{number:06d}", open_photo(frame)
            else:
                yield name, open_photo(channels_last(place))
        except ValueError as error:
            if broken is None:
                raise
            broken.append(error)


def predict(
    pipe: MultiTaskDensePredictionPipeline, opened: Iterator[tuple[str, Image.Image]], batch_size: int
) -> Iterator[tuple[str, Image.Image, dict[str, dict[str, Any]]]]:
    """Name, photo and what the pipeline makes of it; no more than a batch is held."""
    waiting: deque[tuple[str, Image.Image]] = deque()

    def photos() -> Iterator[Image.Image]:
        for each in opened:
            waiting.append(each)
            yield each[1]

    for maps in pipe(photos(), batch_size=batch_size):
        yield *waiting.popleft(), maps
