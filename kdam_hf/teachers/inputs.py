"""What a model's image processor does to a photo: learnt by running it on photos of one colour, so that nothing is assumed.

Unusual here: size rule, normalisation and order of channels are measured, not read from names of settings, of which each
family has its own. A crop of training is a tensor; it is brought to that size and colours without leaving the device.
"""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoImageProcessor, ViTImageProcessorPil
from transformers.image_processing_utils import BaseImageProcessor

from kdam_hf.errors import CheckpointError, KdamValueError
from kdam_hf.pretrained import explained

COLOURS = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))
# steps that would hide a part of the photo, or add to it; the whole crop is resized instead
WITHOUT = ("do_center_crop", "do_pad", "do_split_image")


class InputRule:
    """Brings RGB images in [0, 1] to the form that an image processor gives them.

    Args:
        processor: of the library; called as `processor(images=..., return_tensors="pt")`.
        name: of the model, for messages.
    """

    fixed: tuple[int, int] | None = None
    """Height and width that every photo gets, for a model that takes no other."""

    def __init__(self, processor: Any, name: str) -> None:
        self.processor, self.name = processor, name
        self._known: dict[tuple[int, int], tuple[tuple[int, int], Tensor, Tensor]] = {}

    def __call__(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> (B, 3, h, w) float32."""
        size, matrix, shift = self.measured((pixel_values.shape[-2], pixel_values.shape[-1]))
        if size != tuple(pixel_values.shape[-2:]):
            pixel_values = F.interpolate(pixel_values, size, mode="bilinear", antialias=True)
        coloured = torch.einsum("oc,bchw->bohw", matrix.to(pixel_values.device), pixel_values)
        return coloured + shift.to(pixel_values.device)[:, None, None]

    def measured(self, size: tuple[int, int]) -> tuple[tuple[int, int], Tensor, Tensor]:
        """For photos of `size` (height, width): the size they get, and their colours: matrix (3, 3) and shift (3,).

        Raises:
            KdamValueError: the processor does more than resize and change colours.
        """
        if size not in self._known:
            found = [self._run(size, colour) for colour in COLOURS]
            if max(float(x.flatten(1).std(1).max()) for x in found) > 1e-3:
                raise KdamValueError(f"{self.name}: its image processor pads or crops a photo of {size[0]}x{size[1]}.")
            black, *primary = (x.mean((1, 2)).double() for x in found)
            matrix = torch.stack([x - black for x in primary], 1)
            # where it would have padded to a multiple, the photo is resized to that
            divisor = (getattr(self.processor, "do_pad", False) and getattr(self.processor, "size_divisor", 0)) or 1
            height, width = (-(-side // divisor) * divisor for side in found[0].shape[-2:])
            self._known[size] = self.fixed or (height, width), matrix.float(), black.float()
        return self._known[size]

    def _run(self, size: tuple[int, int], colour: tuple[int, int, int]) -> Tensor:
        """A photo of one colour, processed: (3, h, w)."""
        options = {key: False for key in WITHOUT if getattr(self.processor, key, False)}
        photo = Image.new("RGB", (size[1], size[0]), colour)
        with explained(CheckpointError, f"{self.name}: its image processor cannot be used"):
            found = self.processor(images=photo, return_tensors="pt", **options)["pixel_values"]
        return torch.as_tensor(found)[0].float()


def input_rule(name: str, revision: str | None = None) -> InputRule:
    """The rule of the image processor in a folder or hub id.

    Raises:
        CheckpointError: there is none.
    """
    remedy = "It says what the model expects of a photo; save it beside the weights with processor.save_pretrained."
    with explained(CheckpointError, f"{name}: no preprocessor_config.json", remedy):
        facts, _ = BaseImageProcessor.get_image_processor_dict(name, revision=revision)
    try:
        processor: Any = AutoImageProcessor.from_pretrained(name, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        if "torchvision" not in str(error).lower():
            raise CheckpointError(f"{name}: its image processor cannot be used ({error}).") from error
        # the usual steps as they are stated, where torchvision is missing; nothing that is not stated is assumed
        assumed = {"do_resize": "size" in facts, "image_mean": None, "image_std": None}
        processor = ViTImageProcessorPil.from_dict(assumed | facts)
    return InputRule(processor, Path(name).name)
