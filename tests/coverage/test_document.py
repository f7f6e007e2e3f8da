"""The document that the page and programs read."""

from __future__ import annotations

import datetime as dt
import json

from airflow_provider_forge.coverage.coverage import QUARTER, Coverage, Quarter, WindowStatus
from airflow_provider_forge.coverage.document import to_document

HOUR = dt.timedelta(hours=1)
MINUTE = dt.timedelta(minutes=1)
START = dt.datetime(2026, 11, 22, 22, tzinfo=dt.timezone.utc)
NOW = dt.datetime(2026, 11, 23, 2, 20, tzinfo=dt.timezone.utc)
KEEP = dt.timedelta(hours=5)
LARGEST = 64_000
"""The size in bytes above which Airflow warns of a value."""


def document(*quarters: Quarter, alert_before: dt.timedelta = HOUR, keep: dt.timedelta = KEEP) -> dict:
    return to_document(Coverage(quarters, ("production",), ("COUNT",), keep), NOW, alert_before, "mine")


def test_each_quarter_hour_is_a_letter_with_its_figures():
    end = START + QUARTER
    late = Quarter(START, WindowStatus.DELIVERED, 7, 2, first=end + 6 * MINUTE, latest=end + 66 * MINUTE)
    empty = Quarter(START + QUARTER, WindowStatus.EMPTY, 0, 1, first=end + QUARTER + 6 * MINUTE)
    others = (
        WindowStatus.DELIVERED,
        WindowStatus.MISSING,
        WindowStatus.FAILED,
        WindowStatus.REJECTED,
        WindowStatus.MISSING,
        WindowStatus.FAILED,
        WindowStatus.PENDING,
    )
    rest = (Quarter(START + number * QUARTER, each) for number, each in enumerate(others, 2))
    found = document(late, empty, *rest, alert_before=1.75 * HOUR)
    # The first gap is lost from 3:45 on, the second from 4:30.
    assert found["cells"] == "ledMFrmfp"
    assert found["points"] == [7, 0, 0, 0, 0, 0, 0, 0, 0]
    assert found["minutes"][:3] == [66, 6, None]
    assert found["attempts"][:3] == [2, 1, 0]
    assert (found["start"], found["expire_after"]) == ("2026-11-22T22:00:00Z", 5 * 3600)
    assert (found["windows"]["delivered"], found["late"], found["catchup"]) == (2, 1, None)
    assert found["lateness"] == {
        "windows": 1,
        "late": 1,
        "p50_seconds": 3960,
        "p95_seconds": 3960,
        "advice": "Advice needs 20 windows that were delivered live; there are 1",
    }
    assert [gap["expiring_soon"] for gap in found["gaps"]] == [True, False]
    assert found["gaps"][0]["windows"] == {"failed": 1, "missing": 1}
    assert "--dag-id mine" in found["gaps"][0]["backfill"]


def test_a_gap_that_can_no_longer_be_delivered_has_no_backfill():
    found = document(Quarter(START, WindowStatus.MISSING), keep=4.8 * HOUR)
    assert [gap["backfill"] for gap in found["gaps"]] == [None]


def test_windows_that_a_catchup_has_yet_to_come_to_are_pending():
    statuses = (WindowStatus.MISSING, WindowStatus.MISSING, WindowStatus.FAILED, WindowStatus.DELIVERED)
    quarters = [Quarter(START + number * QUARTER, each) for number, each in enumerate(statuses)]
    coverage = Coverage(tuple(quarters), ("production",), ("COUNT",), KEEP).with_catchup(START + QUARTER)
    found = to_document(coverage, NOW, HOUR, "mine")
    assert (found["cells"], found["catchup"], found["gap_count"]) == ("Mpfd", "2026-11-22T22:15:00Z", 2)


def test_the_largest_fits_into_a_value():
    """Fourteen days with a gap in every second window, and points by the million."""
    quarters = [
        Quarter(
            NOW - (1344 - number) * QUARTER,
            WindowStatus.MISSING if number % 2 else WindowStatus.DELIVERED,
            points=9_999_999,
            attempts=99,
            first=NOW,
            latest=NOW,
        )
        for number in range(1344)
    ]
    found = document(*quarters, alert_before=400 * HOUR, keep=336 * HOUR)
    assert (found["gap_count"], len(found["gaps"]), len(found["cells"])) == (672, 50, 1344)
    assert len(json.dumps(found)) < LARGEST


def test_without_a_quarter_hour():
    assert (document()["start"], document()["cells"]) == (None, "")
