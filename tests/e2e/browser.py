"""A headless Chromium, and the pictures that it takes for the documentation."""

from __future__ import annotations

import io
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from playwright.sync_api import Page, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Locator

# Where pictures go. Without it none are taken: a run of the tests leaves the work tree as it is.
PICTURES = os.environ.get("SCREENSHOTS")
WIDTH, HEIGHT = 1280, 900
LARGEST_PICTURE = 150_000
PATIENCE_MS = 30_000


def find_chromium() -> str:
    """Return the program's path; skip the test if it is missing."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("the program chromium is missing (Debian package chromium)")
    return found


@contextmanager
def browser_page(program: str, base_url: str) -> Iterator[Page]:
    """Yield an empty page of a browser that speaks English, lives in UTC and prefers the light."""
    # Chromium refuses to make its sandbox as root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        context = browser.new_context(
            base_url=base_url,
            viewport={"width": WIDTH, "height": HEIGHT},
            color_scheme="light",
            locale="en-US",
            timezone_id="UTC",
        )
        context.set_default_timeout(PATIENCE_MS)
        try:
            yield context.new_page()
        finally:
            browser.close()


def take_picture(
    name: str, what: Page | Locator, *, height: int = HEIGHT, width: int = WIDTH, crop: int | None = None
) -> None:
    """Write `<name>.png` where pictures are wanted.

    Args:
        name: Of the file.
        what: A page, or the part of one that is shown.
        width: Of the window meanwhile.
        height: Likewise; what lies in a dialog below it would be cut off.
        crop: How many pixels of the picture's height are kept, from the top; None for all.
    """
    if not PICTURES:
        return
    page = what if isinstance(what, Page) else what.page
    page.set_viewport_size({"width": width, "height": height})
    # Airflow lays its page out anew after a change of the window.
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    picture = Image.open(io.BytesIO(what.screenshot(animations="disabled", caret="hide"))).convert("RGB")
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    if crop is not None:
        picture = picture.crop((0, 0, picture.width, crop))
    file = Path(PICTURES) / f"{name}.png"
    # A UI has few colours: with a palette the file is a third as large and looks the same.
    palette = Image.Quantize.MAXCOVERAGE
    picture.quantize(256, palette, dither=Image.Dither.NONE).save(file, optimize=True)
    assert file.stat().st_size < LARGEST_PICTURE
