"""The files of the page as they are served, and its entry in Airflow."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys

import httpx
import pytest

from airflow_provider_forge.page.app import STATIC, PageFiles
from airflow_provider_forge.plugin import HAS_PAGES, ForgePlugin
from tests.airflow_version import AIRFLOW

FILES = sorted(path.name for path in STATIC.iterdir())


def ask(method, path):
    async def answer():
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(PageFiles()), base_url="http://airflow"
        ) as client:
            return await client.request(method, path)

    return asyncio.run(answer())


@pytest.mark.parametrize("name", ["", *FILES])
def test_each_file_is_served_with_its_protections(name):
    answer = ask("GET", f"/{name}")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/../app.py", "/%2e%2e/app.py", "/nothing.js", "/static"])
def test_there_is_nothing_else(path):
    assert ask("GET", path).status_code == 404


def test_nothing_can_be_sent():
    assert ask("POST", "/index.html").status_code == 405


def test_it_has_no_web_sockets():
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(PageFiles()({"type": "websocket"}, None, send))
    assert sent == [{"type": "websocket.close"}]


def test_the_files_need_no_other_host_and_no_inline_code():
    for path in STATIC.iterdir():
        text = path.read_text()
        hosts = set(re.findall(r"https?://[^\s\"'/]+", text)) - {"http://www.w3.org"}
        assert not hosts, path.name
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", text), path.name
    html = (STATIC / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style| style=| on[a-z]+=", html)


def test_the_page_loads_all_modules_at_once():
    """A module that only another one names would be a round trip more."""
    html = (STATIC / "index.html").read_text()
    named = set(re.findall(r'(?:href|src)="(\w+\.js)"', html))
    assert named == {name for name in FILES if name.endswith(".js")}


@pytest.mark.skipif(AIRFLOW < (3, 1), reason="Airflow has pages of plugins as of 3.1")
def test_airflow_has_an_entry_and_the_files():
    [view], [app] = ForgePlugin.external_views, ForgePlugin.fastapi_apps
    assert (view["name"], view["destination"], view["url_route"]) == ("Forge", "nav", "forge")
    # Below Airflow's base URL, whatever its path.
    for address in (view["href"], view["icon"], view["icon_dark_mode"]):
        assert address.startswith("forge/")
    assert app["url_prefix"] == "/forge"


@pytest.mark.skipif(AIRFLOW < (3, 1), reason="Airflow has pages of plugins as of 3.1")
def test_airflow_accepts_the_entry():
    from airflow import plugins_manager
    from airflow.api_fastapi.core_api.datamodels.plugins import PluginResponse

    [info] = [each for each in plugins_manager.get_plugin_info() if each["name"] == "forge"]
    answer = PluginResponse.model_validate(info)
    assert [view.url_route for view in answer.external_views] == ["forge"]
    assert [app.url_prefix for app in answer.fastapi_apps] == ["/forge"]


def test_airflow_3_0_has_neither():
    has_any = bool(ForgePlugin.external_views), bool(ForgePlugin.fastapi_apps)
    assert {HAS_PAGES, *has_any} == {AIRFLOW >= (3, 1)}


def test_the_plugin_loads_no_web_framework():
    """Each component of Airflow loads it."""
    code = (
        "import sys, airflow.plugins_manager; before = set(sys.modules);"
        "import airflow_provider_forge.page.app; loaded = set(sys.modules) - before;"
        "print([name for name in loaded if name.partition('.')[0] in ('fastapi', 'starlette')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
