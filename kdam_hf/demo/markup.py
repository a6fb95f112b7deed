"""The results of a visit as HTML; names that come from a model are escaped.

Pictures are data URLs, so the page needs no file of its own. Beside each picture travels a second one that holds the
numbers, 16 bits in two channels, which the script of the page reads under the pointer.
"""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from kdam_hf.colours_kdam import RGB
from kdam_hf.demo.exhibition import Exhibit, Visit
from kdam_hf.demo.wording import Reading, Wording
from kdam_hf.training.report import hardware

MOST_CLASSES = 12


def welcome(tasks: Sequence[Wording]) -> str:
    """What stands where the results will be."""
    titles = ", ".join(escape(task.title.lower()) for task in tasks)
    return f'<div class="kdam-note"><b>Drop a photo, or pick an example.</b><span>You will see {titles}.</span></div>'


def problem(message: str) -> str:
    """Why there are no results."""
    text = "That photo cannot be used."
    return f'<div class="kdam-note kdam-problem" role="alert"><b>{text}</b><span>{escape(message)}</span></div>'


def results(visit: Visit) -> str:
    """Facts of the models, then one card per task."""
    photo = data_url(visit.photo, "JPEG", quality=90)
    cards = "".join(_card(visit, task) for task in visit.tasks)
    ratio = f"{visit.photo.width} / {visit.photo.height}"
    many = "kdam-pairs" if len(visit.exhibits) > 1 else "kdam-singles"
    style = f"--kdam-photo: url({photo}); --kdam-ratio: {ratio}"
    return (
        f'<div class="kdam-results" style="{style}">{_facts(visit)}<div class="kdam-cards {many}">{cards}</div></div>'
    )


def _facts(visit: Visit) -> str:
    facts = [
        f'<div class="kdam-fact"><span>{escape(exhibit.role)} · {escape(exhibit.name)}</span>'
        f"<b>{_count(exhibit.parameters)} parameters</b><b>{_short(exhibit.milliseconds)} ms</b></div>"
        for exhibit in visit.exhibits
    ]
    if visit.speedup is not None:
        student, teacher = visit.exhibits
        facts.append(
            '<div class="kdam-fact kdam-ratio"><span>Student against teacher</span>'
            f"<b>{_short(100 * student.parameters / teacher.parameters)} % the size</b>"
            f"<b>{_short(visit.speedup)} × as fast</b></div>"
        )
    note = f"One forward pass on this photo, median of interleaved runs; {hardware()}."
    return f'<div class="kdam-facts">{"".join(facts)}</div><p class="kdam-small">{escape(note)}</p>'


def _card(visit: Visit, task: Wording) -> str:
    shown = [exhibit for exhibit in visit.exhibits if task.name in exhibit.results]
    views = "".join(_view(exhibit, task) for exhibit in shown)
    legend = _legend(task, [exhibit.results[task.name] for exhibit in shown])
    heading = f"<h3>{escape(task.title)}</h3><p>{escape(task.explanation)}</p>"
    return (
        f'<section class="kdam-card" data-task="{escape(task.name)}"><header>{heading}</header>'
        f'<div class="kdam-views">{views}</div>{legend}</section>'
    )


def _view(exhibit: Exhibit, task: Wording) -> str:
    result = exhibit.results[task.name]
    picture = data_url(result["picture"], "PNG")
    numbers = picture if task.reading.vector else data_url(packed(result["values"], task.reading), "PNG")
    reading = escape(json.dumps(asdict(task.reading)))
    alt = escape(f"{task.title}, {exhibit.role}")
    return (
        f'<figure><div class="kdam-view" data-reading="{reading}"><img class="kdam-picture" alt="{alt}" src="{picture}">'
        f'<img class="kdam-numbers" alt="" src="{numbers}"><i></i></div>'
        f"<figcaption><span>{escape(exhibit.role)}</span><output></output></figcaption></figure>"
    )


def packed(values: Any, reading: Reading) -> Image.Image:
    """Numbers (H, W) as a picture: round(scale * value) in 16 bits, high byte in red, low byte in green."""
    numbers = np.rint(np.clip(values * np.float64(reading.scale), 0, 65535)).astype(np.uint16)
    return Image.fromarray(np.stack([numbers >> 8, numbers & 255, numbers * 0], -1).astype(np.uint8))


def _legend(task: Wording, shown: Sequence[Mapping[str, Any]]) -> str:
    if task.reading.names:
        return _chips(*_largest_classes(task, shown))
    if task.reading.vector:
        return _chips(task.legend, 0)
    colours = ", ".join(_rgb(rgb) for _, rgb in task.legend)
    texts = [task.legend[0][0], task.legend[-1][0]]
    if task.reading.unit == "%":
        texts = [f"{100 * float(text):.0f} %" for text in texts]
    bar = f'<i class="kdam-bar" style="background: linear-gradient(90deg, {colours})"></i>'
    return f'<footer class="kdam-scale"><span>{escape(texts[0])}</span>{bar}<span>{escape(texts[1])}</span></footer>'


def _largest_classes(task: Wording, shown: Sequence[Mapping[str, Any]]) -> tuple[list[tuple[str, RGB]], int]:
    """The classes in view, largest first, and how many were left out."""
    counts = sum(np.bincount(result["values"].ravel(), minlength=len(task.legend)) for result in shown)
    present = [int(k) for k in np.argsort(-np.asarray(counts), kind="stable") if np.asarray(counts)[k]]
    return [task.legend[k] for k in present[:MOST_CLASSES]], max(0, len(present) - MOST_CLASSES)


def _chips(entries: Sequence[tuple[str, RGB]], more: int) -> str:
    chips = "".join(
        f'<span><i style="background: {_rgb(rgb)}"></i>{escape(text.replace("_", " "))}</span>' for text, rgb in entries
    )
    return f'<footer class="kdam-chips">{chips}{f"<span>and {more} more</span>" if more else ""}</footer>'


def _rgb(rgb: RGB) -> str:
    return f"rgb({rgb[0]} {rgb[1]} {rgb[2]})"


def _count(number: int) -> str:
    return f"{number / 1e6:.3g} M" if number >= 1e5 else f"{number:,}"


def _short(number: float) -> str:
    return f"{number:.1f}" if number < 9.95 else f"{number:,.0f}"


def data_url(image: Image.Image, kind: str, **settings: Any) -> str:
    """A picture as a data URL."""
    buffer = BytesIO()
    image.save(buffer, kind, **settings)
    return f"data:image/{kind.lower()};base64,{b64encode(buffer.getvalue()).decode()}"
