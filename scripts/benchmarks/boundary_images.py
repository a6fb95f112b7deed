"""Images for the boundary benchmark: soft predictions and annotations from photographs with labels, or from rendered rooms.

Unusual here: there is no trained model. A prediction is either the gradient of the image or the label blurred by distance
and noise, alternately; further annotators are crests of the gradient at several scales, moved about by a pixel or so.
"""

from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from dataset_loaders import open_dataset
from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.boundary_nms import suppress_non_maxima
from kdam_hf.metrics.thinning import thin

SUFFIXES = {".png", ".jpg", ".jpeg"}
SCALES = (1.5, 2.0, 3.0, 4.0)  # of the gradient, pixels


class Scene(NamedTuple):
    """What is scored: a soft map (H, W) float32 in [0, 1] and masks, bool (H, W); the first is the label."""

    name: str
    prediction: NDArray[np.float32]
    annotations: list[NDArray[np.bool_]]


def load_scenes(args: Namespace) -> list[Scene]:
    """`args.num_images` scenes of `args.height` x `args.width`, evenly spread over the folder or the split."""
    pairs = _from_folders(args) if args.images else _from_rooms(args)
    return [_scene(k, name, grey, edges, args.seed) for k, (name, grey, edges) in enumerate(pairs)]


def _from_folders(args: Namespace):
    images = sorted(path for path in Path(args.images).iterdir() if path.suffix.lower() in SUFFIXES)
    labels = {path.stem: path for path in Path(args.edges).iterdir() if path.suffix.lower() == ".png"}
    pairs = [(path, labels[path.stem]) for path in images if path.stem in labels]
    if not pairs:
        raise KdamValueError(f"no image in {args.images} has a PNG of the same name in {args.edges}")
    for k in np.linspace(0, len(pairs) - 1, min(args.num_images, len(pairs))).astype(int):
        path, label = pairs[k]
        grey = Image.open(path).convert("L").resize((args.width, args.height), Image.Resampling.BICUBIC)
        edges = Image.open(label).resize((args.width, args.height), Image.Resampling.NEAREST)
        yield path.stem, np.asarray(grey, np.float32) / 255, np.asarray(edges) > 0


def _from_rooms(args: Namespace):
    size = {"height": args.height, "width": args.width}
    rooms = open_dataset("synthetic_rooms", "val", tasks=["edge"], num_images=args.num_images, seed=args.seed, **size)
    for k in range(args.num_images):
        sample = rooms[k]
        yield sample["id"], sample["image"].mean(-1, dtype=np.float32) / 255, sample["labels"]["edge"] == 1


def _scene(k: int, name: str, grey: NDArray, edges: NDArray, seed: int) -> Scene:
    rng = np.random.default_rng([seed, k])
    annotations = [edges, *(_jittered(_crest(grey, scale, edges.mean()), rng) for scale in SCALES)]
    prediction = _gradient(grey, 1.5) if k % 2 == 0 else _blurred(annotations, rng)
    return Scene(name, np.clip(prediction, 0, 1).astype(np.float32), annotations)


def _gradient(grey: NDArray, scale: float) -> NDArray:
    strength = ndimage.gaussian_gradient_magnitude(grey, scale)
    return strength / max(np.quantile(strength, 0.995), 1e-6)


def _blurred(annotations: list[NDArray], rng: np.random.Generator) -> NDArray:
    near = np.mean([np.exp(-((ndimage.distance_transform_edt(~mask) / 2.8) ** 2)) for mask in annotations], axis=0)
    noise = ndimage.gaussian_filter(rng.standard_normal(near.shape), 1.5)
    return 0.1 + 0.75 * near / max(near.max(), 1e-6) + 0.12 * noise / noise.std()


def _crest(grey: NDArray, scale: float, share: float) -> NDArray[np.bool_]:
    """The strongest lines of the gradient, about as many pixels as the label has."""
    crest = suppress_non_maxima(_gradient(grey, scale))
    return thin(crest >= max(np.quantile(crest, 1 - min(1.3 * share, 0.1)), 1e-6))


def _jittered(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Moved by a smooth field of about one pixel."""
    position = np.indices(mask.shape)
    for axis in range(2):
        field = ndimage.gaussian_filter(rng.standard_normal(mask.shape), 20)
        moved = np.rint(position[axis] + field / field.std()).astype(int)
        position[axis] = np.clip(moved, 0, mask.shape[axis] - 1)
    return thin(mask[position[0], position[1]])
