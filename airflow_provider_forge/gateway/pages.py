"""Pages: follows the cursors of a list of the gateway, until its last page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_forge.exceptions import BrokenAnswer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_forge.gateway.responses import GatewayResponse, PageInfo

__all__ = ["Cursor", "follow_pages"]


class Cursor:
    """The position in a list.

    Args:
        entries: Name of the list's entries, for errors.

    Attributes:
        after: Cursor of the page to read next; None for the first.
        at_end: Whether the last page has been read.
    """

    def __init__(self, entries: str) -> None:
        self.after: str | None = None
        self.at_end = False
        self._entries = entries
        self._seen: set[str | None] = {None}

    def move(self, info: PageInfo, response: GatewayResponse[Any]) -> None:
        """Move to the end of a page.

        Args:
            info: The end of the page.
            response: The response that contains the page.

        Raises:
            BrokenAnswer: An earlier page has the same end, so the list would never end.
        """
        self.at_end = not info.has_next_page
        if info.has_next_page and info.end_cursor in self._seen:
            response.broken(f"a page of {self._entries} whose end cursor is that of an earlier page")
        self._seen.add(info.end_cursor)
        self.after = info.end_cursor


def follow_pages(owner: str, entries: str, *, most: int, remedy: str) -> Iterator[Cursor]:
    """Yield the position before each page of a list. The caller reads the page, and moves the cursor.

    Args:
        owner: Owner of the list, for errors.
        entries: Name of its entries, likewise.
        most: Maximum number of pages. Each costs a call, so a list without end would exhaust the budget.
        remedy: Sentence for the error; the address of Atlassian's status page follows it.

    Raises:
        BrokenAnswer: The list has more pages.
    """
    cursor = Cursor(entries)
    for _ in range(most):
        yield cursor
        if cursor.at_end:
            return
    raise BrokenAnswer(
        f"The gateway's list of {owner} {entries} has no end: {most} pages were read. {remedy}"
        " https://developer.status.atlassian.com"
    )
