"""Collapsible groups in a task's log, and the one line about each that is readable without expanding it."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from airflow_provider_forge.exceptions import ForgeError
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LogGroup", "log_group"]

log = get_logger(__name__)

_PACKAGE = logging.getLogger(__name__.partition(".")[0])


class LogGroup(logging.Handler):
    """Counts the warnings in a group, because they are hidden while it is collapsed.

    Attributes:
        warnings: Number of warnings so far.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warnings = 0

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - logging's signature
        """Count a record."""
        self.warnings += 1

    def summarize(self, result: str, details: str) -> None:
        """Log the group's result outside of it, as a warning if the group has any."""
        if self.warnings:
            # Before the details, because the UI cuts off long lines.
            log.warning("%s; warnings above: %d; %s", result, self.warnings, details)
        else:
            log.info("%s; %s", result, details)


@contextlib.contextmanager
def log_group(title: str) -> Iterator[LogGroup]:
    """Put the lines logged inside into a group, with Airflow's own markers.

    Before Airflow 3.3 the UI identifies groups by title, so titles must be unique within a task.
    """
    group = LogGroup()
    log.info("::group::%s", title)
    _PACKAGE.addHandler(group)
    try:
        try:
            yield group
        finally:
            # An open group hides the rest of the log.
            _PACKAGE.removeHandler(group)
            log.info("::endgroup::")
    except ForgeError as error:
        # The details are in the error, and its handler decides how to log them.
        log.info("%s: not delivered, %s", title, type(error).__name__)
        raise
