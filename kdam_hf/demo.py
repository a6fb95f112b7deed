"""The demo page: a photo in, one picture per task out, the student beside its teacher (extra `demo`).

    serve(build_page(DemoModels("outputs/demo/cs", "outputs/demo/teacher")))

Nothing is fetched from elsewhere: system fonts, no analytics. Names that come from a model are escaped.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from kdam_hf.photos_kdam import open_photo
from kdam_hf.pipeline_kdam import MultiTaskDensePredictionPipeline
from kdam_hf.readout_kdam import readout_of
from kdam_hf.tasks import task_from_spec
from kdam_hf.training import load_model
from kdam_hf.training.report import hardware
from kdam_hf.training.teacher import check_tasks_agree

LARGEST, LARGEST_FILE = 768, "50mb"
ROUNDS = 3  # of timing; a large teacher takes seconds on a CPU
MOST_CLASSES = 12
SESSIONS, KEPT = 20, 3600  # photos whose values are remembered, and for how many seconds
TITLE = "One photo, every map"
TASK_TITLES = {"semseg": "Semantic segmentation", "normals": "Surface normals", "edge": "Boundaries"}
HINT = "Upload a photo or choose an example. Then click any map to read all of them at that place."
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
PICTURE: dict[str, Any] = {"format": "png", "interactive": False, "min_width": 120, "buttons": ["fullscreen"]}
BAR = '<i style="flex: 1; height: 0.6em; background: linear-gradient(90deg, {})"></i>'
SQUARE = '<span><i style="display: inline-block; width: 0.8em; height: 0.8em; background: {}"></i> {}</span>'
ROW = '<div style="display: flex; flex-wrap: wrap; align-items: center; gap: 0 0.9em">{}</div>'


@dataclass(frozen=True)
class PhotoResult:
    """What the models make of a photo.

    Args:
        values: role -> task -> decoded map of the upright photo, no side over 768 pixels.
        seconds: role -> times of one forward pass, in rounds of all models: other load hits them alike.
    """

    values: Mapping[str, Mapping[str, NDArray[Any]]]
    seconds: Mapping[str, Sequence[float]]


class DemoModels:
    """Student and perhaps teacher, by folder or hub id, ready to predict; the student may be any model.

    Raises:
        CheckpointError: no complete model there.
        KdamValueError: a task that both have is of another kind, number of channels or classes.
    """

    def __init__(self, student: str, teacher: str | None = None) -> None:
        places = {"Student": student, "Teacher": teacher} if teacher else {"Model": student}
        self.names = {role: Path(place).name if Path(place).is_dir() else place for role, place in places.items()}
        of_model = MultiTaskDensePredictionPipeline.of_model
        self.pipes = {role: of_model(load_model(place)) for role, place in places.items()}
        own, *others = (pipe.model.config.tasks for pipe in self.pipes.values())
        theirs = [entry for entries in others for entry in entries]
        shared = [entry for entry in own if entry["name"] in {other["name"] for other in theirs}]
        check_tasks_agree(theirs, shared, "the teacher", "the student")  # one legend is shown for both
        self.tasks = {entry["name"]: entry for entry in (*own, *theirs, *own)}

    def predict(self, photo: str | Path | Image.Image) -> PhotoResult:
        """All tasks of a photo by every model, and the time of one forward pass of each.

        Raises:
            ValueError: no readable photo, or one too large; see `open_photo`.
        """
        image = open_photo(photo)
        image.thumbnail((LARGEST, LARGEST))
        found = {role: pipe(image) for role, pipe in self.pipes.items()}
        values = {role: {name: result["values"] for name, result in maps.items()} for role, maps in found.items()}
        rounds = [{role: _seconds(pipe, image) for role, pipe in self.pipes.items()} for _ in range(ROUNDS)]
        return PhotoResult(values, {role: [each[role] for each in rounds] for role in self.pipes})


@torch.inference_mode()
def _seconds(pipe: MultiTaskDensePredictionPipeline, image: Image.Image) -> float:
    pixel_values = pipe.image_processor(image)["pixel_values"].to(pipe.device)
    start = time.perf_counter()
    predictions = pipe.model(pixel_values).predictions
    next(iter(predictions.values())).sum().item()  # waits for the device
    return time.perf_counter() - start


def build_page(models: DemoModels, examples: Sequence[Path] = ()) -> gr.Blocks:
    """The page, to be given to `serve`."""
    known = {role: pipe.model.config.task_names for role, pipe in models.pipes.items()}
    readers = {name: readout_of(entry) for name, entry in models.tasks.items()}
    views = [(role, name) for name in models.tasks for role in known if name in known[role]]

    def look(path: str | None) -> list[Any]:
        blank = [None, "", *(gr.Image(None, label=role) for role, _ in views), *([""] * len(models.tasks))]
        if path is None:
            return [HINT, *blank]
        try:
            image = open_photo(path)
        except ValueError as error:
            return [f"**That photo cannot be used.** {escape(str(error).replace(path, Path(path).name))}", *blank]
        result = models.predict(image)  # whatever fails here is no fault of the photo
        values = {(role, name): result.values[role][name] for role, name in views}
        # in the colours of the student's entry, so that one legend holds for both
        pictures = [gr.Image(readers[name].colours(values[role, name]), label=role) for role, name in views]
        legends = [legend(entry, result) for entry in models.tasks.values()]
        return [HINT, values, facts(models, result), *pictures, *legends]

    def read(values: dict[tuple[str, str], Any] | None, at: gr.SelectData) -> list[Any]:
        if not values:
            return [gr.skip() for _ in views]
        x, y = at.index
        texts = [value_text(models.tasks[name], values[role, name][y, x]) for role, name in views]
        return [gr.Image(label=f"{role}: {text}") for (role, _), text in zip(views, texts, strict=True)]

    with gr.Blocks(title=f"kdam-hf: {TITLE}", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        who = "a small student and its teacher each predict" if len(known) > 1 else "one network predicts"
        gr.Markdown(f"# {TITLE}\n\nIn a single forward pass {who} {len(models.tasks)} dense maps of a photo.")
        kept = gr.State(None, time_to_live=KEPT)
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                photo = gr.Image(label="Photo", type="filepath", height=250, elem_id="photo")
                # the file is handed over unread, so that the checks and messages of `open_photo` apply
                photo.preprocess = lambda payload: payload.path if payload else None  # type: ignore[method-assign]
                if examples:
                    gr.Examples([[str(path)] for path in examples], [photo], elem_id="examples")
                notice = gr.Markdown(HINT, elem_id="notice")
            with gr.Column(scale=4, min_width=320, elem_id="maps"):
                table = gr.Markdown(elem_id="facts")
                pictures, legends, names = [], [], list(models.tasks)
                for pair in (names[k : k + 2] for k in range(0, len(names), 2)):  # two tasks side by side
                    with gr.Row():
                        for name in pair:
                            with gr.Column(min_width=380), gr.Group():
                                title = TASK_TITLES.get(name, name.replace("_", " ").capitalize())
                                gr.Markdown(f"### {title}", padding=True)
                                with gr.Row():
                                    pictures += [gr.Image(label=r, **PICTURE) for r, task in views if task == name]
                                legends.append(gr.HTML(padding=True))
        outputs = [notice, kept, table, *pictures, *legends]
        photo.change(look, photo, outputs, api_name="predict", show_progress="minimal", trigger_mode="always_last")
        for picture in pictures:
            picture.select(read, kept, pictures, show_progress="hidden", api_visibility="private")
    return page


def serve(page: gr.Blocks, port: int | None = None, **launch: Any) -> Any:
    """Serve the page on this machine (on a Space, to the world) until it is stopped.

    At `port`, or the first free one from 7860 on; `launch` are further settings of `Blocks.launch`.

    Raises:
        OSError: the port is not free.
    """
    mono = ("ui-monospace", "monospace")
    theme = gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=FONTS, font_mono=mono)
    settings: dict[str, Any] = {"max_file_size": LARGEST_FILE, "state_session_capacity": SESSIONS, "theme": theme}
    return page.launch(server_port=port, share=False, footer_links=[], **(settings | launch))


def facts(models: DemoModels, result: PhotoResult) -> str:
    """Markdown: size and time of each model."""
    rows = [f"| {hardware()} | size | one forward pass on this photo (median) |", "| --- | --- | --- |"]
    sizes = {role: pipe.model.num_parameters() for role, pipe in models.pipes.items()}
    for role, size in sizes.items():
        time_ms = 1000 * statistics.median(result.seconds[role])
        rows.append(f"| {role} `{models.names[role]}` | {size / 1e6:.2f} M parameters | {time_ms:.1f} ms |")
    if len(sizes) == 2:
        student, teacher = sizes.values()
        ratio = statistics.median(there / here for here, there in zip(*result.seconds.values(), strict=True))
        share = f"{100 * student / teacher:.1f} % of the size"
        rows.append(f"| Student against teacher | {share} | {ratio:.1f} times as fast |")
    return "\n".join(rows)


def legend(entry: Mapping[str, Any], result: PhotoResult) -> str:
    """HTML: what the colours of a task mean, in words. Of classes those in view, largest first."""
    reader = readout_of(entry)
    words = [(escape(text.replace("_", " ")), f"rgb({r} {g} {b})") for text, (r, g, b) in reader.legend()]
    if reader.has_ids:
        shown = [maps[entry["name"]].ravel() for maps in result.values.values() if entry["name"] in maps]
        counts = np.bincount(np.concatenate(shown), minlength=len(words))
        words = [words[k] for k in np.argsort(-counts, kind="stable") if counts[k]]
    if reader.has_scale:
        parts = [words[0][0], BAR.format(", ".join(colour for _, colour in words)), words[-1][0]]
    else:
        parts = [SQUARE.format(colour, text) for text, colour in words[:MOST_CLASSES]]
        parts += [f"and {len(words) - MOST_CLASSES} more"] if len(words) > MOST_CLASSES else []
    return f'<div style="opacity: 0.7">{escape(reader.words)}</div>{ROW.format("".join(parts))}'


def value_text(entry: Mapping[str, Any], value: Any) -> str:
    """One pixel of a decoded map in words: the class, or numbers with their unit."""
    reader = readout_of(entry)
    if reader.has_ids:
        return reader.legend()[int(value)][0]
    numbers = ", ".join(f"{number:.2f}" for number in np.atleast_1d(value))
    return f"{numbers} {task_from_spec(entry).unit}".strip()
