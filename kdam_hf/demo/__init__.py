"""The demo page: drop a photo, see every task side by side, student beside teacher (extra `demo`).

`Exhibition` loads the models, predicts and times; `markup` turns what it found into HTML; `page` is the Gradio page around it
and its script; `space` writes the folder of a Hugging Face Space.
"""

from kdam_hf.demo.exhibition import Exhibit, Exhibition, Visit
from kdam_hf.demo.page import build_page, serve
from kdam_hf.demo.space import export_space

__all__ = ["Exhibit", "Exhibition", "Visit", "build_page", "export_space", "serve"]
