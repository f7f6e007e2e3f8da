"""The documentation site builds without a warning, and what its pages show can be run."""

from __future__ import annotations

import ast
import html.parser
import json
import re
import shlex
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

import airflow_provider_forge
from airflow_provider_forge.cli.parser import parse

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` does."""
    [recipe] = re.findall(r"^docs:.*\n\t(.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    target = tmp_path_factory.mktemp("site")
    command = recipe.removeprefix("$(BIN)/python ").replace("build/docs", str(target)).split()
    assert {"-W", "--keep-going"} <= set(command)
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


class Page(html.parser.HTMLParser):
    """The links of a page, and its anchors."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.text = path.read_text()
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        self.links += [given[name] for name in ("href", "src") if given.get(name)]


@pytest.fixture(scope="module")
def pages(site):
    return {path.name: Page(path) for path in site.glob("*.html")}


def test_every_link_inside_the_site_leads_somewhere(site, pages):
    followed = 0
    for name, page in pages.items():
        for link in page.links:
            url = urllib.parse.urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = urllib.parse.unquote(url.path) or name
            assert (site / target).exists(), f"{name}: {link}"
            if url.fragment and target in pages:
                assert urllib.parse.unquote(url.fragment) in pages[target].anchors | {""}, f"{name}: {link}"
            followed += 1
    assert followed >= 500


def test_every_link_to_the_repository_is_of_this_version_and_exists(pages):
    [source] = re.findall(r'^Source = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    links = {link for page in pages.values() for link in page.links if link.startswith(f"{source}/")}
    versioned = re.compile(rf"{re.escape(source)}/(blob|tree)/v{airflow_provider_forge.__version__}/([^#]+)")
    files = {found for link in links if (found := versioned.match(link))}
    assert len(files) >= 10
    for found in files:
        target = ROOT / found[2]
        assert target.is_dir() if found[1] == "tree" else target.is_file(), found[0]


def test_it_has_every_page_search_the_version_and_light_and_dark(site, pages):
    assert {f"{page.stem}.html" for page in PAGES[1:]} | {"search.html", "genindex.html"} <= pages.keys()
    front = pages["index.html"].text
    assert airflow_provider_forge.__version__ in front
    assert 'class="theme-toggle' in front
    assert 'role="search"' in front
    assert "ledger" in (site / "searchindex.js").read_text()
    # The README is the front page, and each page is in the navigation.
    assert "In ten minutes" in front
    assert {f"{page.stem}.html" for page in PAGES[1:]} - {"index.html"} <= set(pages["index.html"].links)


def test_the_api_reference_has_every_public_class(pages):
    info = airflow_provider_forge.get_provider_info()
    modules = [
        module
        for kind in ("operators", "hooks")
        for entry in info[kind]
        for module in entry["python-modules"]
    ]
    classes = {
        f"{module}.{name}"
        for module in [*modules, "airflow_provider_forge.exceptions", "airflow_provider_forge.timetables"]
        for name in public_classes(module)
    }
    assert len(classes) >= 25
    assert classes <= pages["api.html"].anchors


def public_classes(module):
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    return [
        node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]


def blocks(page, *languages):
    found = re.findall(r"^ *```(\w+)\n(.+?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_blocks_can_be_read(page):
    for text in blocks(page, "json"):
        json.loads(text)
    for text in blocks(page, "python"):
        # Some show entries of a dictionary.
        compile("{" + text + "}" if text.startswith('"') else text, page.name, "exec")
    for text in blocks(page, "console"):
        # A prompt belongs to no command; <…> stands for a value.
        script = re.sub(r"<[^>\n]+>", "VALUE", text)
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_commands_parse(page):
    for text in blocks(page, "console"):
        for line in text.replace("\\\n", " ").splitlines():
            found = re.search(r"(?:airflow forge|forge-metrics|python -m airflow_provider_forge) (.+)", line)
            if found:
                arguments = shlex.split(re.sub(r"<[^>]+>", "VALUE", found[1]), comments=True)
                parse(arguments)
