"""What a visitor does, in a real browser."""

import os
import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from kdam_hf import KdamImageProcessor, MultiTaskDensePredictionPipeline
from kdam_hf.training import load_model

TASKS = ["semseg", "human_parts", "saliency", "depth", "normals", "edge"]


def upload(page, path):
    """Give the page a photo and wait for its answer."""
    if page.locator("#photo img").count():
        page.locator("#photo button[aria-label='Remove Image']").click()
        page.wait_for_selector("#results .kdam-note:not(.kdam-problem)")
    page.locator("#photo input[type=file]").set_input_files(str(path))
    page.wait_for_selector("#results .kdam-results, #results .kdam-problem")


def pictures(page):
    return page.locator(".kdam-picture").evaluate_all("images => images.map(image => image.src)")


def point_at(page, view, x, y):
    """Move the pointer to a share of a picture's width and height."""
    view.scroll_into_view_if_needed()
    box = view.bounding_box()
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])


def test_a_photo_gives_every_map_of_student_and_teacher_and_another_photo_others(page, rooms):
    upload(page, rooms[0])
    cards = page.locator(".kdam-card").evaluate_all("cards => cards.map(card => card.dataset.task)")
    assert cards == TASKS
    first = pictures(page)
    assert len(first) == 2 * len(TASKS)
    facts = page.locator(".kdam-fact").all_inner_texts()
    assert len(facts) == 3
    assert all("parameters" in fact and re.search(r"\d ms", fact) for fact in facts[:2])
    assert "as fast" in facts[2]
    upload(page, rooms[1])
    changed = [a != b for a, b in zip(first, pictures(page), strict=True)]
    assert sum(changed) > len(TASKS), "a model that has learned nothing may see one class everywhere, not more"


def test_an_example_is_as_good_as_a_photo(page):
    page.locator("#examples img, .gallery-item img").first.click()
    page.wait_for_selector("#results .kdam-results")


def test_depth_is_read_in_metres_where_the_pointer_is(page, rooms, models):
    upload(page, rooms[0])
    views = page.locator("[data-task=depth] .kdam-view")
    shares = (0.253, 0.748)
    point_at(page, views.first, *shares)
    texts = page.locator("[data-task=depth] output").all_inner_texts()
    for folder, text in zip(models, texts, strict=True):
        model = load_model(folder)
        pipe = MultiTaskDensePredictionPipeline(
            model, image_processor=KdamImageProcessor.from_model_config(model.config)
        )
        metres = pipe(str(rooms[0]))["depth"]["values"]
        row, column = int(shares[1] * metres.shape[0]), int(shares[0] * metres.shape[1])
        near = metres[row - 2 : row + 3, column - 2 : column + 3]  # the pointer stands on a pixel of the screen
        shown = float(re.fullmatch(r"(\d+\.\d\d) m", text)[1])
        assert near.min() - 0.006 <= shown <= near.max() + 0.006
    page.mouse.move(5, 5)
    assert page.locator("[data-task=depth] output").all_inner_texts() == ["", ""]


def test_the_pointer_reads_every_map_at_once(page, rooms):
    upload(page, rooms[0])
    point_at(page, page.locator("[data-task=semseg] .kdam-view").nth(1), 0.5, 0.9)
    patterns = {"saliency": r"\d+ %", "edge": r"\d+ %", "normals": r"-?\d\.\d\d(, -?\d\.\d\d){2}"}
    for task in TASKS:
        for text in page.locator(f"[data-task={task}] output").all_inner_texts():
            assert re.fullmatch(patterns.get(task, r"[a-z0-9. ]+"), text), f"{task}: {text!r}"


def test_the_slider_blends_from_maps_to_photo(page, rooms):
    upload(page, rooms[0])
    view = page.locator("[data-task=normals] .kdam-view").first
    box = view.bounding_box()
    photo = np.asarray(Image.open(rooms[0]).resize((round(box["width"]), round(box["height"]))), np.float64)

    def distance_to_photo():
        page.mouse.move(5, 5)
        shown = np.asarray(Image.open(BytesIO(view.screenshot())).convert("RGB").resize(photo.shape[1::-1]), np.float64)
        return np.abs(shown - photo).mean()

    distances = [distance_to_photo()]
    slider = page.locator("#blend input[type=range]")
    for share in (50, 0):
        slider.fill(str(share))
        page.wait_for_function(f"getComputedStyle(document.querySelector('.kdam-picture')).opacity == {share / 100}")
        distances.append(distance_to_photo())
    assert distances[0] > 1.5 * distances[1] > 2 * distances[2]
    assert distances[2] < 10
    upload(page, rooms[1])
    assert page.locator(".kdam-picture").first.evaluate("image => getComputedStyle(image).opacity") == "0"


def bad_files(folder):
    """File, and what the page must say."""
    (folder / "notes.png").write_text("no photo at all")
    (folder / "broken.png").write_bytes((folder / "room.png").read_bytes()[:3000])
    Image.new("1", (20_000, 20_000)).save(folder / "large.png")
    Image.new("L", (20_000, 12)).save(folder / "long.png")
    return {
        "notes.png": "not a readable photo",
        "broken.png": "not a readable photo",
        "large.png": "too large",
        "long.png": "20000x12",
    }


def test_bad_files_get_a_message_and_the_page_keeps_serving(page, rooms, tmp_path):
    Image.open(rooms[0]).save(tmp_path / "room.png")
    for name, message in bad_files(tmp_path).items():
        upload(page, tmp_path / name)
        text = page.locator(".kdam-problem").inner_text()
        assert message in text, name
        assert name in text
        assert str(tmp_path) not in text
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.png")
    for path in (tmp_path / "dot.png", rooms[0]):
        upload(page, path)
        assert page.locator(".kdam-card").count() == len(TASKS)


def test_a_text_file_is_refused_before_it_is_sent(page, rooms, tmp_path):
    (tmp_path / "notes.txt").write_text("no photo at all")
    page.locator("#photo input[type=file]").set_input_files(str(tmp_path / "notes.txt"))
    page.get_by_text("Invalid file type").first.wait_for()
    assert page.locator("#results .kdam-results").count() == 0
    upload(page, rooms[0])


@pytest.mark.skipif(not os.environ.get("SCREENSHOT"), reason="asked for with SCREENSHOT=FILE")
def test_screenshot(page, rooms):
    upload(page, rooms[0])
    page.wait_for_timeout(500)  # the progress of the upload fades
    point_at(page, page.locator("[data-task=depth] .kdam-view").first, 0.6, 0.7)
    page.screenshot(path=os.environ["SCREENSHOT"], full_page=True)
    assert Image.open(os.environ["SCREENSHOT"]).width == 1440
