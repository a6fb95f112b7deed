"""Run an exported model on photos with numpy, onnxruntime and Pillow alone; neither torch nor kdam_hf is needed.

    kdam onnx --model outputs/onnx --images photo.jpg --output_dir outputs/maps
    python kdam_hf/commands/run_onnx.py --model outputs/onnx --images photo.jpg --output_dir outputs/maps

An example to copy from: the folder of `kdam export` holds all that is needed. Writes, per task, the map at the photo's
own size (.npy: class ids, probabilities, metres, unit vectors or other numbers) and, but for other numbers of several
channels, a picture. What cannot be read is named at the end, with exit code 1; the rest is written.
"""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

try:
    import onnxruntime
except ModuleNotFoundError:
    sys.exit("kdam onnx runs models by onnxruntime, which is not installed: pip install onnxruntime")

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
MODES = ("RGB", "RGBA", "L", "LA", "P", "PA", "CMYK", "YCbCr", "1")
MAX_PIXELS, MAX_SIDE = 50_000_000, 10_000
FACTS = {"file", "input", "dynamic", "resize", "image_mean", "image_std", "output_stride", "tasks"}
# what becomes of the numbers (C, H, W) of a task; "foreground" is the softmax probability of the last class
READ = {
    "argmax": lambda x: x.argmax(0).astype(np.uint8 if len(x) <= 256 else np.uint16),
    "foreground": lambda x: 1 / np.exp(x - x[-1]).sum(0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "unit": lambda x: x / np.maximum(np.linalg.norm(x, axis=0), 1e-6),
    "none": lambda x: x,
}
READ_DECODED = {"unit": READ["unit"]}  # vectors are shorter where they were interpolated
VECTORS = ("unit",)  # of which each pixel is drawn as one colour
RANGES = {"foreground": (0, 1), "sigmoid": (0, 1)}  # of colours; of others from the smallest to the largest value


def main(argv: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", required=True, help="folder that kdam export wrote")
    parser.add_argument("--images", "--image", required=True, nargs="+", help="photos")
    parser.add_argument("--output_dir", required=True, help="folder to write to")
    parser.add_argument("--int8", action="store_true", help="run the quantised form")
    args = parser.parse_args(argv)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files in a terminal without UTF-8
    by_name: dict[str, str] = {}
    for path in args.images:
        if (name := Path(path).stem) in by_name:
            sys.exit(f"{by_name[name]} and {path} have one name, which names the outputs; run them apart.")
        by_name[name] = path
    output = Path(args.output_dir)
    if any(Path(path).parent.resolve() == output.resolve() for path in args.images):
        sys.exit(f"{output} is where the photos are; give another --output_dir.")
    facts, session = load(Path(args.model), args.int8)
    broken = []
    for name, path in by_name.items():
        try:
            photo = read_photo(path)
        except ValueError as error:
            broken.append(str(error))
            continue
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            sys.exit(f"{output}: cannot be made ({error.strerror}); give another --output_dir.")
        for task, values in run(session, facts, photo):
            file = output / f"{name}_{task['name']}"
            np.save(f"{file}.npy", values)
            if values.ndim == 2 or task["readout"] in VECTORS:
                Image.fromarray(draw(values, task)).save(f"{file}.png")
            print(f"{file}: {task['values']}, {values.shape} {values.dtype}")
    if broken:
        sys.exit("\n".join(broken))


def run(session: onnxruntime.InferenceSession, facts: dict, photo: Image.Image) -> Iterator[tuple[dict, np.ndarray]]:
    """Each task and its values at the size of a photo."""
    pixels, mask = prepare(photo, facts)
    feed = {facts["input"]["name"]: pixels} | ({facts["mask"]["name"]: mask} if "mask" in facts else {})
    predictions = session.run([task["name"] for task in facts["tasks"]], feed)
    inside = int(mask[0].any(1).sum()), int(mask[0].any(0).sum())
    for task, prediction in zip(facts["tasks"], predictions, strict=True):
        full = at_photo(prediction[0], inside, (photo.height, photo.width), facts["output_stride"])
        yield task, read(full, task, READ_DECODED if facts.get("decoded") else READ)


def load(folder: Path, int8: bool) -> tuple[dict, onnxruntime.InferenceSession]:
    """The description and the session of an exported model."""
    try:
        facts = json.loads((folder / "kdam.json").read_text("utf-8"))
        if missing := FACTS - facts.keys():
            raise ValueError(f"without {', '.join(sorted(missing))}")
        if int8 and "int8" not in facts:
            sys.exit(f"{folder} holds no int8 form; export with --int8 and data, or leave --int8 out.")
        file = folder / (facts["int8"] if int8 else facts)["file"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        sys.exit(f"{folder}: no readable kdam.json ({error}); give a folder that kdam export wrote.")
    try:
        return facts, onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has classes of its own
        sys.exit(f"{file}: not there, or not whole ({error!s:.200}); export again.")


def read_photo(path: str) -> Image.Image:
    """An upright RGB photo, or ValueError; what is taken and refused is as in `kdam_hf/photos_kdam.py`."""
    try:
        photo = Image.open(path, formats=FORMATS)
        if photo.mode not in MODES or photo.width * photo.height > MAX_PIXELS or max(photo.size) > MAX_SIDE:
            raise ValueError(f"{photo.width}x{photo.height} pixels of mode {photo.mode}")
        return ImageOps.exif_transpose(photo).convert("RGB")
    except Exception as error:  # crafted bytes make Pillow raise nearly anything
        expected = f"give one of {', '.join(FORMATS)} with 8 bits a channel."
        raise ValueError(f"{path}: not a usable photo ({error}); {expected}") from error


def prepare(photo: Image.Image, facts: dict) -> tuple[np.ndarray, np.ndarray]:
    """Pixels float32 (1, 3, H, W) of a photo, reduced to what the model takes, never enlarged, and normalised.

    And a mask bool (1, H, W), False on the right and at the bottom of a graph of one size where the photo does not reach.
    """
    size = photo.height, photo.width
    fixed = facts["input"]["shape"][2:] if "height" not in facts["dynamic"] else None
    scales = [1.0, *([facts["resize"]["shortest_edge"] / min(size)] if facts["resize"] else [])]
    scale = min(scales + [most / side for most, side in zip(fixed or (), size, strict=bool(fixed))])
    inside = height, width = tuple(max(1, round(side * scale)) for side in size)
    photo = photo if inside == size else photo.resize((width, height), Image.Resampling.BILINEAR)
    values = np.asarray(photo, np.float32).transpose(2, 0, 1) / 255
    mean, std = (np.array(facts[name], np.float32)[:, None, None] for name in ("image_mean", "image_std"))
    margins = ((0, 0), *((0, most - side) for most, side in zip(fixed or inside, inside, strict=True)))
    return np.pad((values - mean) / std, margins)[None], np.pad(np.ones((1, *inside), bool), margins)


def at_photo(prediction: np.ndarray, inside: tuple[int, int], target: tuple[int, int], stride: int) -> np.ndarray:
    """Prediction (C, h, w) or (h, w) -> (C, H, W) of the photo: enlarged by the stride, cut to it, brought to its size.

    Bilinear as torch's `interpolate`, since nothing is reduced; of decoded class ids the nearest.
    """
    rows, columns = (-(-side // stride) for side in inside)
    how = Image.Resampling.NEAREST if prediction.dtype.kind == "u" else Image.Resampling.BILINEAR
    maps = []
    for channel in prediction.reshape(-1, *prediction.shape[-2:])[:, :rows, :columns]:
        whole = Image.fromarray(channel).resize((stride * columns, stride * rows), how)
        maps.append(np.asarray(whole.crop((0, 0, *inside[::-1])).resize(target[::-1], how)))
    return np.stack(maps)


def read(numbers: np.ndarray, task: dict, table: dict = READ) -> np.ndarray:
    """(C, H, W) -> values (H, W), or (H, W, C) of several channels."""
    values = table.get(task["readout"], READ["none"])(numbers)
    return values if values.ndim == 2 else values[0] if len(values) == 1 else values.transpose(1, 2, 0)


def draw(values: np.ndarray, task: dict) -> np.ndarray:
    """Colours (H, W, 3) uint8: one per class, the axes of vectors as RGB, otherwise those of the legend, low to high."""
    if values.ndim == 3:
        return np.rint(np.clip((values + 1) * 127.5, 0, 255)).astype(np.uint8)
    colors = np.array([rgb for _, rgb in task["legend"]], np.float32)
    if values.dtype.kind == "u":
        return colors[values].astype(np.uint8)
    low, high = RANGES.get(task["readout"], (values.min(), values.max()))
    if "nearest" in task["settings"]:  # metres, on a log scale
        low, high = np.log(task["settings"]["nearest"]), np.log(task["settings"]["farthest"])
        values = np.log(np.maximum(values, 1e-3))
    place = (values - low) / max(high - low, 1e-12) * (len(colors) - 1)
    channels = [np.interp(place, range(len(colors)), channel) for channel in colors.T]
    return np.rint(np.stack(channels, -1)).astype(np.uint8)


if __name__ == "__main__":
    main()
