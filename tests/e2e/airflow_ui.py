"""Airflow's UI as a person uses it: pages, forms and dialogs by what is written on them.

Where Airflow has no label that a program could go by, its test ids are used. Seen with 3.3.2.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from playwright.sync_api import expect

from demo.dagfile import DAG_ID
from tests.e2e.browser import PATIENCE_MS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from playwright.sync_api import Locator, Page

# Browsers have each colour converted by painting it.
COLOUR = """element => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    canvas.fillStyle = getComputedStyle(element).backgroundColor;
    canvas.fillRect(0, 0, 1, 1);
    return Array.from(canvas.getImageData(0, 0, 1, 1).data);
}"""

expect.set_options(timeout=PATIENCE_MS)


def log_in(page: Page, username: str, password: str) -> None:
    page.goto("/")
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Admin")).to_be_visible()


class Dialog:
    """A dialog with fields beside their labels."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.box = page.locator("[data-scope=dialog][role=dialog]")
        expect(self.box).to_be_visible()

    def field(self, label: str) -> Locator:
        """Return a field with its label and help."""
        text = re.compile(rf"^{re.escape(label)}\s*\*?$")
        # Airflow's labels name ids that their fields do not have.
        return self.box.get_by_role("group").filter(has=self.page.locator("label", has_text=text)).last

    def fill(self, label: str, text: str) -> None:
        """Type into a field, or choose from a list."""
        entry = self.field(label).locator("input, textarea").first
        entry.fill(text)
        if entry.get_attribute("role") == "combobox":
            entry.press("Enter")
            expect(self.field(label).get_by_text(text, exact=True)).to_be_visible()

    def expect_value(self, label: str, text: str) -> None:
        """Wait until a field has this value."""
        entry = self.field(label).locator("input, textarea").first
        if entry.get_attribute("role") == "combobox":
            expect(self.field(label).get_by_text(text, exact=True)).to_be_visible()
        else:
            expect(entry).to_have_value(text)

    def choose_time(self, opener: Locator, moment: datetime) -> None:
        """Give a moment in UTC to the field that `opener` shows."""
        opener.click()
        picker = self.page.locator("[data-scope=popover][data-part=content][data-state=open]")
        expect(picker.get_by_text("UTC")).to_be_visible()
        picker.get_by_placeholder("YYYY/MM/DD").fill(f"{moment:%Y/%m/%d}")
        picker.get_by_placeholder("HH:mm").fill(f"{moment:%H:%M}")
        self.box.get_by_role("heading").first.click()
        expect(picker).to_have_count(0)
        expect(opener).to_contain_text(f"{moment:%H:%M}")

    def submit(self, button: str) -> None:
        """Press the button and wait until the dialog has gone."""
        self.box.get_by_role("button", name=button, exact=True).click()
        expect(self.box).to_be_hidden()


class ConnectionForm(Dialog):
    """The form of a Connection, new or there already."""

    @classmethod
    def add(cls, page: Page, conn_id: str, conn_type: str) -> ConnectionForm:
        page.goto("/connections")
        page.get_by_role("button", name="Add Connection").click()
        form = cls(page)
        form.fill("Connection ID", conn_id)
        form.fill("Connection Type", conn_type)
        return form

    @classmethod
    def edit(cls, page: Page, conn_id: str) -> ConnectionForm:
        page.goto("/connections")
        connection_row(page, conn_id).get_by_role("button", name="Edit Connection").click()
        return cls(page)

    def open_section(self, name: str) -> None:
        """Open one of the sections, which closes the others."""
        section = self.box.get_by_role("button", name=name, exact=True)
        if section.get_attribute("aria-expanded") != "true":
            section.click()
        expect(section).to_have_attribute("aria-expanded", "true")

    def fill_in(self, standard: Mapping[str, str], extras: Mapping[str, str]) -> None:
        """Fill in both sections, by labels."""
        for name, values in (("Standard Fields", standard), ("Extra Fields", extras)):
            self.open_section(name)
            for label, text in values.items():
                self.fill(label, text)

    def expect_values(self, standard: Mapping[str, str], extras: Mapping[str, str]) -> None:
        """Wait until both sections show these."""
        for name, values in (("Standard Fields", standard), ("Extra Fields", extras)):
            self.open_section(name)
            for label, text in values.items():
                self.expect_value(label, text)


def connection_row(page: Page, conn_id: str) -> Locator:
    return page.get_by_role("row").filter(has_text=conn_id)


def press_test(page: Page, conn_id: str) -> Locator:
    """Press Test in the list of Connections and return the message that comes."""
    # The page anew has no messages of before.
    page.goto("/connections")
    connection_row(page, conn_id).get_by_role("button", name="Test Connection").click()
    message = page.locator("[data-scope=toast][data-part=root]").filter(has_text="Test Connection")
    expect(message).to_be_visible()
    return message


def switch(page: Page, *, on: bool) -> None:
    """Switch the DAG whose switch the page shows on or off."""
    control = page.get_by_test_id("toggle-pause")
    before, after = ("unchecked", "checked") if on else ("checked", "unchecked")
    expect(control).to_have_attribute("data-state", before)
    control.click()
    expect(control).to_have_attribute("data-state", after)


def open_run_dialog(page: Page) -> Dialog:
    """Open the dialog that the DAG's Trigger button does."""
    page.goto(f"/dags/{DAG_ID}")
    page.get_by_test_id("trigger-dag-button").click()
    return Dialog(page)


def form_time(dialog: Dialog, label: str) -> Locator:
    """Return what opens a time of the trigger form."""
    return dialog.field(label).get_by_test_id("datetime-input")


def grid_cells(page: Page, run_type: str = "") -> Locator:
    """Return the squares of the grid of runs whose ids begin with this."""
    return page.locator(f"[data-testid^='grid-{run_type}'] [data-testid=task-state-badge]")


def is_green(square: Locator) -> bool:
    red, green, blue, _ = square.evaluate(COLOUR)
    return green > 2 * max(red, blue)


def colors(squares: Locator) -> list[list[int]]:
    """Return the colors of all squares that there are now: red, green, blue and alpha, from 0 to 255."""
    return squares.evaluate_all(f"squares => squares.map({COLOUR})")


def is_red(color: list[int]) -> bool:
    red, green, blue, _ = color
    # Skipped squares are pink: (229, 0, 122).
    return red > 3 * max(green, blue)


def drag_border(page: Page, to: int) -> None:
    """Drag the border between grid and details to so many pixels from the left."""
    border = page.locator("[data-panel-resize-handle-id]")
    box = border.bounding_box()
    assert box
    page.mouse.move(box["x"] + 1, box["y"] + box["height"] - 50)
    page.mouse.down()
    page.mouse.move(to, box["y"] + box["height"] - 50, steps=5)
    page.mouse.up()
