"""The demo page, served by scripts/demo.py and opened in Debian's Chromium. Nothing is installed from here."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest_kit import Kit
from PIL import Image

from dataset_loaders.synthetic_rooms import CLASS_NAMES, SyntheticRooms
from kdam_hf.tasks import NYUD_V2, make_task

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Folders of student and teacher: the trained ones of MODEL and TEACHER, or small ones that have learned nothing."""
    given = [folder for name in ("MODEL", "TEACHER") if (folder := os.environ.get(name))]
    if len(given) == 1:
        pytest.exit("the tests compare two models: give both MODEL and TEACHER, or neither.", returncode=1)
    if given:
        return given
    tasks = (make_task("semseg", CLASS_NAMES), make_task("human_parts"), make_task("saliency"), *NYUD_V2[1:])
    folders = {role: str(tmp_path_factory.mktemp(role)) for role in ("student", "teacher")}
    for seed, (role, folder) in enumerate(folders.items()):
        Kit(folder).model(role, seed=seed, tasks=tasks, image_size=[96, 128]).save_pretrained(folder)
    return [*folders.values()]


@pytest.fixture(scope="session")
def rooms(tmp_path_factory):
    """Two rendered rooms as files."""
    folder, rooms = tmp_path_factory.mktemp("rooms"), SyntheticRooms("val", height=384, width=512)
    for index in (11, 18):
        Image.fromarray(rooms[index]["image"]).save(folder / f"room_{index}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def address(models):
    """Of the served page."""
    command = [sys.executable, "-u", ROOT / "scripts/demo.py", "--model", models[0], "--teacher", models[1]]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        printed = ""
        while (found := re.search(r"http://127\.0\.0\.1:\d+", printed)) is None:
            printed += (line := server.stdout.readline())
            assert line, f"the page stopped:\n{printed[-3000:]}"
        yield found[0]
        server.terminate()


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.exit(f"no browser found (looked for {', '.join(BROWSERS)}): apt-get install chromium", returncode=1)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """The page, freshly loaded; the test fails if it asked another host for anything, or if a script failed."""
    page, faults = browser.new_page(viewport={"width": 1440, "height": 1000}), []
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    page.on("request", lambda r: r.url.startswith((address, "data:", "blob:")) or faults.append(f"asked for {r.url}"))
    page.goto(address)
    page.wait_for_selector("#notice")
    yield page
    page.close()
    assert not faults
