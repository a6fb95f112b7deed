"""The Gradio page: a place for the photo, examples, a blend slider, and the results.

Nothing is fetched from elsewhere: system fonts, no analytics, and the script and style travel with the package.
"""

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio as gr

from kdam_hf.demo import markup
from kdam_hf.demo.exhibition import Exhibition
from kdam_hf.photos_kdam import open_photo

TITLE = "One photo, every map"
BLEND = "(share) => document.documentElement.style.setProperty('--kdam-blend', share / 100)"
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
LARGEST_FILE = "50mb"


def build_page(exhibition: Exhibition, examples: Sequence[Path] = ()) -> gr.Blocks:
    """The page, to be given to `serve`."""
    welcome = markup.welcome(exhibition.tasks)

    def look(path: str | None) -> str:
        if path is None:
            return welcome
        try:
            image = open_photo(path)
        except ValueError as error:
            return markup.problem(str(error).replace(path, Path(path).name))
        return markup.results(exhibition.visit(image))  # whatever fails here is no fault of the photo

    with gr.Blocks(title=f"kdam-hf: {TITLE}") as page:
        gr.Markdown(_introduction(exhibition), elem_classes="kdam-title")
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=260, elem_id="controls"):
                photo = gr.Image(
                    label="Photo",
                    type="filepath",
                    sources=["upload", "webcam", "clipboard"],
                    height=250,
                    elem_id="photo",
                )
                # the file is handed over unread, so that the pipeline's own checks and messages apply
                photo.preprocess = lambda payload: payload.path if payload else None  # type: ignore[method-assign]
                blend = gr.Slider(0, 100, value=100, step=1, label="Photo ↔ maps", elem_id="blend")
                if examples:
                    gr.Examples([[str(path)] for path in examples], [photo], label="Examples", elem_id="examples")
            with gr.Column(scale=4, min_width=320):
                script = files("kdam_hf.demo").joinpath("page.js").read_text()
                shown = gr.HTML(welcome, js_on_load=script, elem_id="results", apply_default_css=False)
        photo.change(look, photo, shown, api_name="predict", show_progress="minimal", trigger_mode="always_last")
        blend.change(None, blend, None, js=BLEND, api_visibility="private")
    return page


def serve(page: gr.Blocks, port: int | None = None, **launch: Any) -> Any:
    """Serve the page on this machine (on a Space, to the world) until it is stopped.

    Args:
        page: of `build_page`.
        port: None for the first free one from 7860 on.
        launch: further settings of `Blocks.launch`.
    """
    theme = gr.themes.Soft(
        primary_hue="indigo", neutral_hue="slate", font=FONTS, font_mono=("ui-monospace", "monospace")
    )
    style = files("kdam_hf.demo").joinpath("page.css").read_text()
    return page.launch(
        server_port=port, theme=theme, css=style, max_file_size=LARGEST_FILE, footer_links=[], share=False, **launch
    )


def _introduction(exhibition: Exhibition) -> str:
    who = "a small student and its teacher each predict" if len(exhibition.pipes) > 1 else "one network predicts"
    return (
        f"# {TITLE}\n\nIn a single forward pass {who} {len(exhibition.tasks)} dense maps of a photo. "
        "Point at any picture to read every map at that place: classes, probabilities, metres, directions."
    )
