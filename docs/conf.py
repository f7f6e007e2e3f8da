"""Configuration of the documentation site: `make docs` builds it from the pages in this directory.

The pages are written for GitHub, which shows them as they are. `complete` adds what only the site needs.
"""

from __future__ import annotations

import functools
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parent
ROOT = DOCS.parent
SOURCE = "https://github.com/airflow-provider-forge/airflow-provider-forge"
# Files outside this directory that are pages of the site.
PAGES = {"README.md": "index", "CHANGELOG.md": "changelog"}

# Airflow, which autodoc imports, makes its home at once.
_home = tempfile.TemporaryDirectory(prefix="forge-docs-")
os.environ["AIRFLOW_HOME"] = _home.name

from airflow_provider_forge import __version__  # noqa: E402

project = "airflow-provider-forge"
copyright = "the airflow-provider-forge authors"  # noqa: A001 - Sphinx's name
version = release = __version__
html_title = f"{project} {release}"
html_baseurl = "https://airflow-provider-forge.github.io/airflow-provider-forge/"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["images"]
# As GitHub does: a page links to the headings of another.
myst_heading_anchors = 3
# The lexer of SQL does not know every dialect.
suppress_warnings = ["misc.highlighting_failure"]
# Docstrings are written with Markdown's single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
python_maximum_signature_line_length = 80

html_theme = "furo"
html_theme_options = {"source_repository": SOURCE, "source_branch": "main", "source_directory": "docs/"}
copybutton_prompt_text = "$ "


def complete(app: Sphinx, page: str, source: list[str]) -> None:  # noqa: ARG001 - Sphinx's signature
    """Prepend the README or the changelog to its page, and resolve the links of a page."""
    directory = DOCS
    for name, title in PAGES.items():
        if page == title:
            directory = ROOT
            # The list of pages is the navigation here.
            source[0] = (ROOT / name).read_text().partition("\n## More\n")[0] + "\n\n" + source[0]
    source[0] = re.sub(r"(?<=\]\()(?!https?:|#)[^)\s]+", functools.partial(resolve, directory), source[0])


def resolve(directory: Path, link: re.Match[str]) -> str:
    """Return the target of a relative link: a page or a picture of the site, or a file on GitHub.

    Args:
        directory: The directory of the file with the link.
        link: The match of a target.
    """
    name, hash_sign, anchor = link[0].partition("#")
    target = (directory / name).resolve()
    path = target.relative_to(ROOT).as_posix()
    if path in PAGES:
        return f"{PAGES[path]}.md{hash_sign}{anchor}"
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix() + hash_sign + anchor
    return f"{SOURCE}/{'tree' if target.is_dir() else 'blob'}/v{release}/{path}{hash_sign}{anchor}"


def setup(app: Sphinx) -> None:
    """Call `complete` for each page that is read."""
    app.connect("source-read", complete)
