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

from tests.pictures import write_note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import FloatRect, Locator

# Where pictures go. Without it none are taken: a run of the tests leaves the work tree as it is.
PICTURES = os.environ.get("SCREENSHOTS")
WIDTH, HEIGHT = 1280, 900
LARGEST_PICTURE = 150_000
PATIENCE_MS = 30_000

# What a person reads in a box of an element, each text once. A button without a text has a label for screen
# readers, and a field whose name begins with an underscore has a new one each time.
SHOWN = """(root, box) => {
    const within = element => {
        const {x, y, width, height} = element.getBoundingClientRect();
        return width > 0 && height > 0 && element.checkVisibility({visibilityProperty: true})
            && x >= box.x && x + width <= box.x + box.width + 1
            && y >= box.y && y + height <= box.y + box.height + 1;
    };
    const texts = (selector, text) => [...new Set(
        [...root.querySelectorAll(selector)].filter(within).map(text)
            .map(each => (each ?? "").replace(/\\s+/g, " ").trim()).filter(each => each))];
    return {
        headings: texts("h1, h2, h3", element => element.innerText),
        labels: texts("label", element => element.innerText),
        fields: texts("[name]:not([name^=_]):is(input, textarea)", element => element.name),
        placeholders: texts("input, textarea", element => element.value ? "" : element.placeholder),
        help: texts("[data-part=helper-text]", element => element.innerText),
        buttons: texts("button", element => element.innerText || element.ariaLabel),
        links: texts("a", element => element.innerText),
        messages: texts("[data-scope=toast][data-part=root]", element => element.innerText),
        others: texts("p, span, div:not(:has(*))", element => element.innerText),
    };
}"""


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
    """Write `<name>.png`, and what it shows as `<name>.json`, where pictures are wanted.

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
    if crop is not None:
        picture = picture.crop((0, 0, picture.width, crop))
    root = what.locator("body") if isinstance(what, Page) else what
    shown = root.evaluate(SHOWN, _box(what, picture))
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    file = Path(PICTURES) / f"{name}.png"
    # A UI has few colours: with a palette the file is a third as large and looks the same.
    palette = Image.Quantize.MAXCOVERAGE
    picture.quantize(256, palette, dither=Image.Dither.NONE).save(file, optimize=True)
    assert file.stat().st_size < LARGEST_PICTURE
    write_note(file, shown)


def _box(what: Page | Locator, picture: Image.Image) -> FloatRect:
    """Return the part of the page that the picture shows."""
    place = None if isinstance(what, Page) else what.bounding_box()
    x, y = (place["x"], place["y"]) if place else (0, 0)
    return {"x": x, "y": y, "width": picture.width, "height": picture.height}
