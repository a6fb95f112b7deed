"""Show a model on a web page of this machine: drop a photo, see all tasks, the student beside its teacher.

    kdam demo --model outputs/demo/cs --teacher outputs/demo/teacher

Needs the extra `demo`. Works offline on local models.
"""

import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from dataset_loaders.synthetic_rooms import SyntheticRooms
from kdam_hf.commands.predict import photos_in
from kdam_hf.errors import KdamValueError
from kdam_hf.training import parse_recipe
from kdam_hf.training.arguments import option, required

ROOMS = (0, 3, 6, 9)


@dataclass
class DemoArguments:
    """Which models the page shows, and where."""

    model: str = required("folder or hub id of the model to show")
    teacher: str | None = option(None, "folder or hub id of a model to show beside it")
    examples: str | None = option(None, "folder of photos to offer; rendered rooms by default")
    port: int | None = option(None, "default: the first free one from 7860 on")


def main(argv: list[str] | None = None) -> None:
    args, _ = parse_recipe((DemoArguments,), argv, __doc__)
    if find_spec("gradio") is None:
        raise KdamValueError("the demo page needs gradio, which is not installed: pip install 'kdam-hf[demo]'.")
    from kdam_hf.demo import DemoModels, build_page, serve

    with tempfile.TemporaryDirectory() as folder:
        examples = photos_in(Path(args.examples)) if args.examples else []
        rooms = SyntheticRooms("val", height=384, width=512)
        for index in () if examples else ROOMS:
            examples.append(Path(folder) / f"room_{index}.png")
            Image.fromarray(rooms[index]["image"]).save(examples[-1])
        page = build_page(DemoModels(args.model, args.teacher), examples)
        try:
            serve(page, args.port)
        except OSError as error:
            if args.port is None:
                raise
            raise KdamValueError(f"port {args.port} is not free; give another --port, or leave it out.") from error
