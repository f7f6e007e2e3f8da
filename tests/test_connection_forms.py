"""The forms, as each of Airflow's ways of asking gets them."""

from __future__ import annotations

import json
import re
import sys
from importlib import resources
from pathlib import Path
from types import ModuleType

import jsonschema
import pytest
from airflow.api_fastapi.core_api.services.ui import connections as services
from airflow.providers_manager import ProvidersManager

from airflow_provider_forge import get_provider_info
from airflow_provider_forge.connection_forms import FORGE, OTLP
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.hooks.otlp import OtlpHook
from airflow_provider_forge.otlp.endpoint import COMPRESSIONS, DEFAULT_MAX_BODY_BYTES, PROTOCOLS

BOTH = pytest.mark.parametrize(
    ("form", "hook"), [(FORGE, ForgeMetricsHook), (OTLP, OtlpHook)], ids=["forge", "otlp"]
)
STANDARD = {"host", "login", "password", "port", "schema"}


@BOTH
def test_each_field_that_every_connection_has_is_relabelled_or_hidden(form, hook):
    shown = [field.name for field in form.standard]
    assert sorted([*shown, *form.hidden]) == sorted(STANDARD)
    assert all(field.label and field.placeholder for field in form.standard)


@BOTH
def test_it_has_the_extras_that_the_hook_reads_and_no_others(form, hook):
    source = Path(sys.modules[hook.__bases__[0].__module__].__file__).read_text()
    read = set(re.findall(r'extras\.(?:get|text|choice|flag|object|number|whole_number)\("(\w+)"', source))
    source_of_text = set(re.findall(r'Extras\(self\._conn\(\)\)\.text\("(\w+)"', source))
    assert {extra.name for extra in form.extras} == read | source_of_text


@BOTH
def test_each_extra_is_explained(form, hook):
    for extra in form.extras:
        assert extra.label
        assert extra.help
        assert not extra.help.endswith(".")


def test_the_help_texts_match_the_code():
    extras = {extra.name: extra for extra in OTLP.extras}
    assert extras["protocol"].choices == PROTOCOLS
    assert extras["compression"].choices == COMPRESSIONS
    assert (extras["protocol"].default, extras["compression"].default) == (PROTOCOLS[0], COMPRESSIONS[0])
    assert extras["max_body_bytes"].default == str(DEFAULT_MAX_BODY_BYTES)


@BOTH
def test_no_extra_is_for_a_secret(form, hook):
    # When a token expires is none.
    names = {extra.name for extra in form.extras} - {"token_expires_on"}
    assert not [name for name in names if re.search("secret|token|password", name)]


@BOTH
def test_nothing_is_filled_in_because_a_saved_value_outlives_a_default(form, hook):
    for field in form.conn_fields().values():
        assert "default" not in field["schema"]
        assert "null" in field["schema"]["type"]


@BOTH
def test_the_metadata_has_it(form, hook):
    (entry,) = [
        entry
        for entry in get_provider_info()["connection-types"]
        if entry["connection-type"] == hook.conn_type
    ]
    assert entry["conn-fields"] == form.conn_fields()
    assert entry["ui-field-behaviour"] == form.ui_field_behaviour()


@BOTH
def test_airflow_shows_it(form, hook):
    """As its API server does: in 3.2 and later of the metadata, before of the hook."""
    if not hasattr(ProvidersManager, "_load_ui_metadata"):
        pytest.importorskip("wtforms")
    (meta,) = [
        meta for meta in services.HookMetaService.hook_meta_data() if meta.connection_type == hook.conn_type
    ]
    assert meta.hook_name == hook.hook_name
    shown = meta.standard_fields
    for field in form.standard:
        assert getattr(shown, field.name).title == field.label
        assert getattr(shown, field.name).placeholder == field.placeholder
    for name in form.hidden:
        assert getattr(shown, {"schema": "url_schema"}.get(name, name)).hidden
    assert list(meta.extra_fields) == [extra.name for extra in form.extras]
    for extra in form.extras:
        field = meta.extra_fields[extra.name]
        assert field["schema"]["title"] == extra.label
        assert field["description"] == extra.description
        assert field["value"] is None
        assert tuple(field["schema"].get("enum", ())) == extra.choices


@pytest.fixture
def wtforms(monkeypatch):
    """Stand in for wtforms with Airflow's own classes, as its API server does when it asks a hook."""
    service = services.HookMetaService
    package, validators = ModuleType("wtforms"), ModuleType("wtforms.validators")
    package.StringField, package.IntegerField = service.MockStringField, service.MockIntegerField
    validators.any_of = service.MockEnum
    monkeypatch.setitem(sys.modules, "wtforms", package)
    monkeypatch.setitem(sys.modules, "wtforms.validators", validators)


@BOTH
def test_airflow_shows_it_with_the_hook(form, hook, wtforms):
    widgets = hook.get_connection_form_widgets()
    assert list(widgets) == [extra.name for extra in form.extras]
    for extra in form.extras:
        shown = widgets[extra.name].param.dump()
        assert shown["schema"]["title"] == extra.label
        assert shown["description"] == extra.description
        assert shown["schema"]["type"] == ["integer" if extra.kind == "integer" else "string", "null"]
        assert tuple(shown["schema"].get("enum", ())) == extra.choices
        assert shown["value"] is None


@BOTH
def test_the_hook_describes_airflows_fields(form, hook):
    behaviour = hook.get_ui_field_behaviour()
    schema = resources.files("airflow").joinpath("customized_form_field_behaviours.schema.json")
    jsonschema.validate(behaviour, json.loads(schema.read_text()))
    assert behaviour["hidden_fields"] == list(form.hidden)
    assert behaviour["relabeling"] == {field.name: field.label for field in form.standard}


@BOTH
def test_without_wtforms_the_error_names_the_missing_module(form, hook, monkeypatch):
    monkeypatch.setitem(sys.modules, "wtforms", None)
    with pytest.raises(ImportError) as missing:
        hook.get_connection_form_widgets()
    assert missing.value.name == "wtforms"


@BOTH
def test_the_hook_defines_both_methods_itself_as_airflow_requires(form, hook):
    assert {"get_connection_form_widgets", "get_ui_field_behaviour"} <= vars(hook).keys()
