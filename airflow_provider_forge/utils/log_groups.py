"""Sections of a task's log, which Airflow's UI folds up, and what people read without unfolding them."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LogGroup", "log_group"]

log = get_logger(__name__)

_PACKAGE = logging.getLogger(__name__.partition(".")[0])


class LogGroup(logging.Handler):
    """Counts the warnings in a section, because whoever reads the folded log does not see them.

    Attributes:
        warnings: How many there were until now.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warnings = 0

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - logging's signature
        """Count a record."""
        self.warnings += 1

    def say(self, outcome: str, particulars: str) -> None:
        """Log what became of it, outside of the section: as a warning where there were any."""
        if self.warnings:
            # Early, because the UI shows no more of a line than fits.
            log.warning("%s; warnings above: %d; %s", outcome, self.warnings, particulars)
        else:
            log.info("%s; %s", outcome, particulars)


@contextlib.contextmanager
def log_group(title: str) -> Iterator[LogGroup]:
    """Put what is logged inside into a section.

    The markers are those that Airflow's own task runner uses. Before Airflow 3.3 its UI knows sections by
    their titles, so give no two of a task the same.
    """
    counter = LogGroup()
    log.info("::group::%s", title)
    _PACKAGE.addHandler(counter)
    try:
        yield counter
    finally:
        _PACKAGE.removeHandler(counter)
        # Also when it failed: a section left open swallows the rest of the log.
        log.info("::endgroup::")
