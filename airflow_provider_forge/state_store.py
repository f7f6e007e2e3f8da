"""State stores: one small JSON object that outlives a task."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["NullStateStore", "StateStore"]


class StateStore(Protocol):
    """Keeps one JSON object."""

    def load(self) -> dict[str, Any]:
        """Return the object; an empty one if none was saved."""

    def save(self, content: dict[str, Any]) -> None:
        """Replace the object."""


class NullStateStore:
    """Keeps nothing."""

    def load(self) -> dict[str, Any]:
        """Return an empty object."""
        return {}

    def save(self, content: dict[str, Any]) -> None:
        """Discard the object."""
