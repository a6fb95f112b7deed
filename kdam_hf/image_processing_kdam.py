"""Photos in, physical maps out: the image processor of KDAM models.

A photo is resized so that its shorter side is at most `size["shortest_edge"]` (never enlarged), normalised, and padded
with its batch on the right and at the bottom. `post_process` undoes all of it, so every map has the photo's own size.
PIL and torch only; torchvision is not needed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.image_utils import ChannelDimension

from .configuration_kdam import IMAGENET_MEAN, IMAGENET_STD, STRIDE, KdamConfig
from .photos_kdam import open_photo, reduced
from .readout_kdam import ClassIds, Metres, Readout, readout_of

# what `preprocess` does, in the words of the library, for programs that read preprocessor_config.json themselves
STEPS = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "resample": 2}


class KdamImageProcessor(BaseImageProcessor):
    """Image processor of `KdamTeacher` and `KdamStudent`.

    Args:
        tasks: the config's task entries; they say how a prediction is read, see `readout_kdam`.
        size: {"shortest_edge": pixels}; larger photos are reduced to it, smaller ones kept. None keeps every size.
        image_mean: RGB mean in [0, 1].
        image_std: RGB standard deviation in [0, 1].
    """

    model_input_names = ["pixel_values", "pixel_mask"]  # noqa: RUF012

    def __init__(
        self,
        tasks: list[dict[str, Any]] | None = None,
        size: dict[str, int] | None = None,
        image_mean: list[float] | None = None,
        image_std: list[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**(STEPS | {"do_resize": size is not None} | kwargs))
        if size is not None and (set(size) != {"shortest_edge"} or size["shortest_edge"] < 1):
            raise ValueError(f"size={size}; expected {{'shortest_edge': pixels}} or None.")
        self.tasks = tasks or []
        self.size = size
        self.image_mean = image_mean or IMAGENET_MEAN
        self.image_std = image_std or IMAGENET_STD

    @classmethod
    def from_model_config(cls, config: KdamConfig) -> "KdamImageProcessor":
        """The processor of a model; photos are reduced to the shorter side of `config.image_size`, if that is known."""
        size = {"shortest_edge": min(config.image_size)} if config.image_size else None
        return cls(tasks=config.tasks, size=size, image_mean=config.image_mean, image_std=config.image_std)

    def preprocess(
        self, images: Any, return_tensors: str | None = "pt", input_data_format: str | ChannelDimension | None = None
    ) -> BatchFeature:
        """Prepare one photo or a list of photos.

        Args:
            images: in any form that `open_photo` takes; arrays and tensors also in the other order of channels, and as a
                batch of four dimensions.
            return_tensors: "pt" or "np".
            input_data_format: "channels_first" or "channels_last", of arrays and tensors. By default the order is read off
                the shape, as processors of the library do: first, where the first side is 1 or 3.

        Returns:
            `pixel_values` float32 (B, 3, H, W), padded to the largest photo by repeating the border, `pixel_mask` bool
            (B, H, W), and `original_sizes` int64 (B, 2): height and width of each photo, upright, for `post_process`.
        """
        several = isinstance(images, (list, tuple)) or (isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4)
        upright = [open_photo(channels_last(image, input_data_format)) for image in (images if several else [images])]
        if not upright:
            raise ValueError("no image given; expected one photo or a list of photos.")
        photos = [self._prepare(photo) for photo in upright]
        height, width = (max(p.shape[k] for p in photos) for k in (1, 2))
        mask = torch.zeros(len(photos), height, width, dtype=torch.bool)
        for inside, (_, h, w) in zip(mask, (photo.shape for photo in photos), strict=True):
            inside[:h, :w] = True
        padded = [F.pad(p, (0, width - p.shape[2], 0, height - p.shape[1]), mode="replicate") for p in photos]
        sizes = torch.tensor([(photo.height, photo.width) for photo in upright])
        content = {"pixel_values": torch.stack(padded), "pixel_mask": mask, "original_sizes": sizes}
        return BatchFeature(content, tensor_type=return_tensors)

    def _prepare(self, photo: Image.Image) -> Tensor:
        height, width = self.resized((photo.height, photo.width))
        if (photo.height, photo.width) != (height, width):
            photo = photo.resize((width, height), Image.Resampling.BILINEAR)
        values = torch.from_numpy(np.array(photo)).permute(2, 0, 1).float() / 255
        return (values - torch.tensor(self.image_mean)[:, None, None]) / torch.tensor(self.image_std)[:, None, None]

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) at which a photo of `size` (height, width) enters the model."""
        return size if self.size is None else reduced(size, self.size["shortest_edge"])

    def post_process(self, outputs: Any, target_sizes: Sequence[Sequence[int]] | Tensor) -> list[dict[str, Tensor]]:
        """Maps at the photos' own sizes in physical units.

        Args:
            outputs: what the model returned for a batch made by `preprocess`.
            target_sizes: (height, width) in pixels of each photo: `original_sizes` of `preprocess`.

        Returns:
            Per photo a dict task -> class ids int64, probabilities or metres float32 (H, W); unit vectors float32 (3, H, W).
        """
        return self._read(outputs, target_sizes, [readout_of(task) for task in self.tasks])

    def post_process_semantic_segmentation(self, outputs: Any, target_sizes: Any) -> list[Tensor]:
        """Class ids int64 (H, W) per photo, as `pipeline("image-segmentation")` asks: of the first task that has classes.

        Arguments are those of `post_process`. Raises ValueError where no task has classes.
        """
        found = [ClassIds(task) for task in self.tasks if task["class_names"]]
        return self._read_first(outputs, target_sizes, found, "classes")

    def post_process_depth_estimation(self, outputs: Any, target_sizes: Any) -> list[dict[str, Tensor]]:
        """`predicted_depth` per photo, metres float32 (H, W), as `pipeline("depth-estimation")` asks.

        Arguments are those of `post_process`. Raises ValueError where no task is in metres.
        """
        found = [reader for reader in map(readout_of, self.tasks) if isinstance(reader, Metres)]
        return [{"predicted_depth": metres} for metres in self._read_first(outputs, target_sizes, found, "metres")]

    def _read_first(self, outputs: Any, target_sizes: Any, found: Sequence[Readout], what: str) -> list[Tensor]:
        if not found:
            names = ", ".join(task["name"] for task in self.tasks)
            raise ValueError(f"no task of this model predicts {what}; it has {names}. Use another model or pipeline.")
        return [maps[found[0].entry["name"]] for maps in self._read(outputs, target_sizes, found[:1])]

    @torch.no_grad()
    def _read(
        self, outputs: Any, target_sizes: Sequence[Sequence[int]] | Tensor, readers: Sequence[Readout]
    ) -> list[dict[str, Tensor]]:
        predictions = outputs["predictions"]
        batch = len(next(iter(predictions.values())))
        if len(target_sizes) != batch:
            raise ValueError(f"{len(target_sizes)} target_sizes for a batch of {batch}; expected one per photo.")
        results: list[dict[str, Tensor]] = [{} for _ in range(batch)]
        for k, (height, width) in enumerate(target_sizes):
            target = int(height), int(width)
            inside = self.resized(target)
            for reader in readers:
                prediction = predictions[reader.entry["name"]][k : k + 1]
                seen = tuple(min(STRIDE * side, most) for side, most in zip(prediction.shape[-2:], inside, strict=True))
                if seen != inside:
                    raise ValueError(
                        f"photo {k}: target size {target} needs predictions for {inside} pixels but the model saw "
                        f"{seen}; give original_sizes, the (height, width) before preprocessing."
                    )
                values = reader.read([prediction], inside, target)[0][0]
                results[k][reader.entry["name"]] = values[0] if values.ndim == 3 and len(values) == 1 else values
        return results


def channels_last(image: Any, layout: str | ChannelDimension | None = None) -> Any:
    """A picture in colour as an array (H, W, C), where it is an array or tensor; anything else as it is.

    Args:
        image: (H, W, C) or (C, H, W).
        layout: "channels_first" or "channels_last"; by default first where the first side is 1 or 3.
    """
    if not isinstance(image, (np.ndarray, Tensor)) or image.ndim != 3:
        return image
    layout = layout or (ChannelDimension.FIRST if image.shape[0] in (1, 3) else ChannelDimension.LAST)
    array = image.cpu().numpy() if isinstance(image, Tensor) else image
    return array.transpose(1, 2, 0) if ChannelDimension(layout) == ChannelDimension.FIRST else array
