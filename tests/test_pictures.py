"""The pictures in the documentation show the forms and dashboards as they are.

`make screenshots` and `make dashboard-images` write a note beside each picture, with what it shows.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from airflow_provider_forge.connection_forms import FORGE, OTLP
from airflow_provider_forge.operators.form import trigger_form
from airflow_provider_forge.operators.links import DeveloperConsoleLink
from tests.pictures import DIRECTORY, digest, read_note

ROOT = Path(__file__).parent.parent
PICTURES = sorted(DIRECTORY.glob("*.png"))
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
STATIC = ROOT / "airflow_provider_forge" / "page" / "static"
UI = (ROOT / "docs" / "ui.md").read_text()
SCREENSHOTS, DRAWINGS = "run `make screenshots`", "run `make dashboard-images`"

BOTH = pytest.mark.parametrize(("name", "form"), [("forge", FORGE), ("otlp", OTLP)], ids=["forge", "otlp"])


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.stem)
def test_a_note_belongs_to_its_picture(picture):
    advice = DRAWINGS if picture.stem.startswith("dashboard-") else SCREENSHOTS
    assert read_note(picture.stem)["sha256"] == digest(picture), advice


def test_each_note_has_a_picture_and_each_picture_is_shown():
    names = {picture.stem for picture in PICTURES}
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert names == {note.stem for note in DIRECTORY.glob("*.json")}
    assert names == {name for page in pages for name in re.findall(r"images/([\w-]+)\.png", page.read_text())}


@BOTH
def test_a_connections_fields(name, form):
    note = read_note(f"connection-{name}")
    airflows = {"Connection ID *", "Connection Type *", "Description"}
    assert set(note["labels"]) - airflows == {field.label for field in form.standard}, SCREENSHOTS
    # A field that has a value shows no placeholder.
    assert note["placeholders"]
    assert set(note["placeholders"]) <= {field.placeholder for field in form.standard}, SCREENSHOTS
    assert {"Standard Fields", "Extra Fields", "Save"} <= set(note["buttons"])


@BOTH
def test_a_connections_extra_fields(name, form):
    note = read_note(f"connection-{name}-extra")
    assert note["labels"][2:] == [extra.label for extra in form.extras], SCREENSHOTS
    assert note["help"][1:] == [extra.description for extra in form.extras], SCREENSHOTS
    # A list of choices has no name.
    names = [f"element_{extra.name}" for extra in form.extras if not extra.choices]
    assert [field for field in note["fields"] if field.startswith("element_")] == names, SCREENSHOTS


@pytest.mark.parametrize(("name", "button"), [("trigger", "Trigger"), ("backfill", "Run Backfill")])
def test_the_trigger_form_is_in_both_dialogs(name, button):
    note, form = read_note(name), trigger_form().values()
    titles = [param.schema["title"] for param in form]
    assert note["labels"][-len(titles) :] == titles, SCREENSHOTS
    assert note["help"][-len(titles) :] == [param.description for param in form], SCREENSHOTS
    assert button in note["buttons"]


def test_the_page_explains_the_fields_of_a_backfill_by_their_names():
    explained = UI.partition("## 4.")[2].partition("\n## ")[0]
    note = read_note("backfill")
    shown = "\n".join(note["headings"] + note["labels"] + note["buttons"] + note["others"])
    for name in re.findall(r"^- \*\*(.+?)\*\*", explained, re.MULTILINE):
        assert re.search(re.escape(name).replace("…", ".+"), shown), name


def test_the_page_has_the_headings_and_buttons_of_its_pictures():
    sources = "\n".join(path.read_text() for path in STATIC.glob("*.[hj]*"))
    pictures = [picture.stem for picture in PICTURES if picture.stem.startswith("page-")]
    assert pictures
    for note in map(read_note, pictures):
        # The first button chooses an export, and has its name.
        for text in note["headings"] + note["buttons"][1:]:
            assert text in sources, SCREENSHOTS


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.stem)
def test_a_dashboards_panels(dashboard):
    shown = json.loads(dashboard.read_text())
    note = read_note(f"dashboard-{shown['uid'].removeprefix('forge-')}")
    assert note["dashboard"] == shown["title"], DRAWINGS
    assert note["panels"] == [panel["title"] for panel in shown["panels"]], DRAWINGS


def test_the_link():
    assert DeveloperConsoleLink.name in read_note("link")["links"], SCREENSHOTS
