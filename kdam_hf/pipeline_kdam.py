"""`pipeline("multi-task-dense-prediction", model=...)`: photos in, physical maps and pictures of every task out.

Unusual here: only photos of one prepared size share a forward pass, so a prediction never depends on its neighbours in the
batch. This file travels with published models and imports the other flat files only.
"""

from typing import Any

import torch
from PIL import Image
from transformers import AutoModel, Pipeline, PreTrainedModel

from .image_processing_kdam import KdamImageProcessor, channels_last
from .photos_kdam import open_photo
from .readout_kdam import as_map, readout_of

TASK = "multi-task-dense-prediction"


class MultiTaskDensePredictionPipeline(Pipeline):
    """Predicts all tasks of a `KdamTeacher` or `KdamStudent` on photos.

    Called with one photo, a list, a generator or a `Dataset` of them, in any form that `open_photo` reads. Settings, at
    construction or in the call:

    Args:
        flip: average with the prediction of the mirrored photo, which takes twice the time: class probabilities, metres
            and unit vectors are averaged (the latter with x mirrored, and normalised again), never ids or logits.
        return_probabilities: add the probability of each class, for tasks with classes.
        return_pictures: add a rendered picture.
        timeout: seconds to wait for a URL.
        batch_size: photos per forward pass, as far as they have one size when prepared.

    Returns:
        Per photo a dict: task name -> a dict with, at the photo's own upright size,

        - `values`: class ids int64 (H, W), probabilities float32 (H, W), metres float32 (H, W), or unit vectors float32
          (H, W, 3), x right, y up, z towards the camera; for other tasks numbers float32 (H, W) or (H, W, C);
        - `probabilities`: float32 (H, W, C) in the order of the config's `class_names`, if asked for;
        - `picture`: PIL RGB image, if asked for.

    Raises:
        ValueError: what was given is no photo, is broken, too large, empty, or of more than 8 bits a channel.
    """

    _load_image_processor = True
    _load_processor = _load_feature_extractor = _load_tokenizer = _load_video_processor = False

    @classmethod
    def of_model(cls, model: PreTrainedModel, **settings: Any) -> "MultiTaskDensePredictionPipeline":
        """The pipeline of a model, on the GPU if there is one; settings as at construction."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        processor = KdamImageProcessor.from_model_config(model.config)
        return cls(model.eval(), image_processor=processor, device=device, **settings)

    def _sanitize_parameters(self, **settings: Any) -> tuple[dict[str, Any], ...]:
        steps = (("timeout",), ("flip",), ("return_probabilities", "return_pictures"))
        if unknown := sorted(set(settings) - set(sum(steps, ()))):
            raise TypeError(f"unknown settings {', '.join(unknown)}; expected some of {', '.join(sum(steps, ()))}")
        return tuple({name: settings[name] for name in step if settings.get(name) is not None} for step in steps)

    def preprocess(self, photo: Any, timeout: float | None = None) -> dict[str, Any]:
        """One photo -> its prepared pixels (1, 3, h, w) and its own (height, width)."""
        image = open_photo(channels_last(photo), timeout)
        pixel_values = self.image_processor(image)["pixel_values"]
        return {"photo": {"pixel_values": pixel_values, "size": (image.height, image.width)}}

    def _forward(self, inputs: dict[str, Any], flip: bool = False) -> dict[str, Any]:
        """Predictions per photo; photos of one prepared size go through the model together."""
        photos = inputs["photo"] if isinstance(inputs["photo"], list) else [inputs["photo"]]
        groups: dict[tuple[int, ...], list[int]] = {}
        for k, photo in enumerate(photos):
            groups.setdefault(tuple(photo["pixel_values"].shape), []).append(k)
        results: list[dict[str, Any]] = [{"size": photo["size"]} for photo in photos]
        for members in groups.values():
            pixel_values = torch.cat([photos[k]["pixel_values"] for k in members])
            views = [pixel_values, pixel_values.flip(-1)] if flip else [pixel_values]
            predicted = [self.model(view)["predictions"] for view in views]
            for row, k in enumerate(members):
                results[k]["views"] = [{name: x[row : row + 1] for name, x in view.items()} for view in predicted]
                results[k]["seen"] = tuple(pixel_values.shape[-2:])
        return {"photo": results}

    def postprocess(
        self, outputs: dict[str, Any], return_probabilities: bool = False, return_pictures: bool = False
    ) -> dict[str, dict[str, Any]]:
        """Predictions of one photo -> values, probabilities and pictures at its own size."""
        photo = outputs["photo"][0] if isinstance(outputs["photo"], list) else outputs["photo"]
        results: dict[str, dict[str, Any]] = {}
        for spec in self.image_processor.tasks:
            reader, views = readout_of(spec), [view[spec["name"]] for view in photo["views"]]
            keep = return_probabilities and bool(spec["class_names"])
            values, probabilities = reader.read(views, photo["seen"], photo["size"], keep)
            result = results[spec["name"]] = {"values": as_map(values[0])}
            if probabilities is not None:
                result["probabilities"] = probabilities[0].numpy()
            if return_pictures:
                result["picture"] = Image.fromarray(reader.colours(result["values"]))
        return results

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Save model, processor and pipeline with their code, so that they load where the package is not installed."""
        type(self.model.config).register_for_auto_class()
        type(self.model).register_for_auto_class("AutoModel")
        type(self.image_processor).register_for_auto_class("AutoImageProcessor")
        super().save_pretrained(save_directory, **kwargs)


# Known to the class itself, and not only to the registry, so that a pipeline loaded as remote code saves its code again.
MultiTaskDensePredictionPipeline._registered_impl = {
    TASK: {"impl": MultiTaskDensePredictionPipeline, "pt": (AutoModel,), "type": "image"}
}
