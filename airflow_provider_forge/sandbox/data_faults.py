"""The faults in the generated data: duplicates, lateness, outages and unaligned times."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_forge.sandbox.app_model import DAY
from airflow_provider_forge.sandbox.catalogue import DELTA, METRICS, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from random import Random

    from airflow_provider_forge.sandbox.scenario import Scenario

__all__ = ["apply"]

DUPLICATED_SHARE, SHORT_SHARE, SHIFTED_SHARE = 0.03, 0.05, 0.1
SHORT_NS, SECOND_NS = 6 * 10**6, 10**9
SOON, LATER, MUCH_LATER = 3 * 60.0, 20 * 60.0, (2 * 3600.0, 6 * 3600.0)
OUTAGE, OUTAGE_FILLED_AT = range(5 * 60 + 20, 6 * 60), 7 * 60


def apply(scenario: Scenario, samples: Iterable[Sample], stream: Callable[[str], Random]) -> list[Sample]:
    """Return the data points of a minute with the faults that the scenario switches on.

    Args:
        scenario: The switches.
        samples: The points of one minute, aligned and visible immediately.
        stream: Returns the minute's random stream for a purpose.
    """
    if scenario.unaligned_points:
        samples = _unaligned(samples, stream("unaligned"))
    if scenario.exact_duplicates:
        samples = _duplicated(samples, stream("duplicates"))
    if scenario.lateness:
        samples = _delayed(samples, stream("lateness"))
    if scenario.outage:
        samples = map(_held_back, samples)
    return list(samples)


def _unaligned(samples: Iterable[Sample], rng: Random) -> Iterator[Sample]:
    for sample in samples:
        drawn, offset = rng.random(), int(rng.random() * 50_000) * 10**6
        if METRICS[sample.label].temporality != DELTA or drawn >= SHORT_SHARE + SHIFTED_SHARE:
            yield sample
            continue
        start = sample.start + offset
        time = start + SHORT_NS if drawn < SHORT_SHARE else sample.time + offset
        yield replace(sample, start=start, time=time, visible_from=max(sample.visible_from, time / SECOND_NS))


def _duplicated(samples: Iterable[Sample], rng: Random) -> Iterator[Sample]:
    for sample in samples:
        yield sample
        if rng.random() < DUPLICATED_SHARE:
            yield sample


def _delayed(samples: Iterable[Sample], rng: Random) -> Iterator[Sample]:
    for sample in samples:
        drawn, part, raised = rng.random(), rng.random(), rng.random() < 0.5
        if drawn < 0.95:
            yield replace(sample, visible_from=sample.visible_from + part * SOON)
        elif drawn < 0.99:
            yield replace(sample, visible_from=sample.visible_from + SOON + part * (LATER - SOON))
        else:
            least, most = MUCH_LATER
            visible_from = sample.visible_from + least + part * (most - least)
            if raised and isinstance(sample.value, int) and sample.value > 1:
                yield replace(sample, value=sample.value // 2, visible_until=visible_from)
            yield replace(sample, visible_from=visible_from)


def _held_back(sample: Sample) -> Sample:
    day, minute_of_day = divmod(sample.minute, DAY)
    if minute_of_day not in OUTAGE:
        return sample
    filled_at = (day * DAY + OUTAGE_FILLED_AT) * 60.0
    return replace(sample, visible_from=max(sample.visible_from, filled_at))
