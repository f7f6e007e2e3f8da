"""The notes beside the pictures in `docs/images`: the labels, fields and buttons in each of them.

`tests/test_pictures.py` compares them with the code.

A picture and its note are written together, so a picture that is older than the form it shows has a note that
differs from the form.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parents[1] / "docs" / "images"


def write_note(picture: Path, shown: dict[str, Any]) -> None:
    """Write the note of a picture.

    Args:
        picture: The PNG file, written already.
        shown: Its content, such as lists of labels and buttons.
    """
    note = {"sha256": digest(picture), **shown}
    picture.with_suffix(".json").write_text(json.dumps(note, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read_note(name: str) -> dict[str, Any]:
    """Return the note of a picture.

    Args:
        name: Name of the picture, without its suffix.
    """
    note: dict[str, Any] = json.loads((DIRECTORY / f"{name}.json").read_text("utf-8"))
    return note


def digest(picture: Path) -> str:
    """Return the hash of a picture's file."""
    return sha256(picture.read_bytes()).hexdigest()
