"""Judges a storm by what the receiver kept, what was said beforehand, and why a point came twice."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.storms.journal import Event
    from tests.storms.plans import Plan

__all__ = ["Verdict", "judge", "story_of"]

# What a log says of points that may be there twice.
AMBIGUOUS = "duplicate of each is possible"
CONTENDED = "may have been sent twice"

DEATHS = ("dies", "killed from outside", "is dead")


@dataclass
class _Opening:
    """One answer on its way to the receiver: from the opening of its page in the record to its closing."""

    who: str
    opened: int
    events: list[Event]
    ambiguous: int = 0
    contended: bool = False
    named: set[str] = field(default_factory=set)

    @property
    def run(self) -> str:
        return self.who.partition("/")[0]

    @property
    def records(self) -> tuple[int, int]:
        """The first and the last record of its window, five minutes each; all, where none is told."""
        window = self.events[0].details.get("window") if self.events else None
        if window is None:
            return 0, 24 * 12
        start, end = map(_seconds, window.split("-"))
        if end <= start:  # past midnight
            end += 24 * 3600
        return start // 300, (end - 1) // 300

    def is_at_once_with(self, other: _Opening) -> bool:
        return self.opened < other.ended and other.opened < self.ended

    def shares_record_with(self, other: _Opening) -> bool:
        (first, last), (others_first, others_last) = self.records, other.records
        return first <= others_last and others_first <= last

    @property
    def ended(self) -> float:
        return next((event.at for event in self.events if event.what in ("closed", *DEATHS)), float("inf"))


@dataclass
class _Arrival:
    """A point that the receiver kept."""

    event: Event
    sent: int
    opening: _Opening


@dataclass
class Verdict:
    """What is to be said of a storm.

    Attributes:
        lost: Points that never arrived, and were not rejected.
        missing: Points that had not arrived when a run said that it had delivered all.
        silent: Points that came twice and were named by nobody.
        causeless: Points that were named, and came twice although the first one was acknowledged and
            nothing had befallen its sender.
        unfounded: Tries that said that another one was there, where leases keep the others away.
        doubled: Number of points that came twice, by cause.
    """

    lost: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    causeless: list[str] = field(default_factory=list)
    unfounded: list[str] = field(default_factory=list)
    doubled: Counter[str] = field(default_factory=Counter)

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.missing or self.silent or self.causeless or self.unfounded)

    def add(self, point: str, double: _Double) -> None:
        """Count a point that came once more."""
        self.doubled[double.cause or "none"] += 1
        if not double.is_named:
            self.silent.append(point)
        elif double.cause is None:
            self.causeless.append(point)


def judge(plan: Plan, events: list[Event]) -> Verdict:
    """Compare what arrived with what there was."""
    openings = _openings(events)
    arrivals, rejected = _arrivals(openings)
    machines = {run.name: run.machine for run in plan.runs}
    verdict = Verdict()
    if len({*machines.values()}) == 1:
        verdict.unfounded = [opening.who for opening in openings if opening.contended]
    verdict.missing = _missing(plan, events)
    # Where leases keep the others away, nobody writes what another one is about to write.
    erased = _erased(events) if len({*machines.values()}) > 1 else set()
    for point, expected in plan.generated.items():
        came = arrivals[point]
        if len(came) + rejected[point] < expected:
            verdict.lost.append(point)
        # Copies that cannot be told apart: any that nothing explains may be one that was still to come.
        copies = expected - 1
        for number in range(1, len(came)):
            found = _Double(point, came[:number], came[number], machines, erased, openings)
            if expected == 1:
                found.use_name(point)
            if found.is_right or not copies:
                verdict.add(point, found)
            else:
                copies -= 1
    return verdict


def _missing(plan: Plan, events: list[Event]) -> list[str]:
    """Return points that were nowhere when a run succeeded that was to deliver them."""
    there: Counter[str] = Counter()
    missing = []
    for event in events:
        if event.what == "kept":
            there.update([*event["ids"], *event.details.get("rejected", ())])
        elif event.what == "succeeded":
            due = plan.due(event.who.partition("/")[0])
            missing += [point.id for point in due if there[point.id] < point.copies]
    return missing


def _erased(events: list[Event]) -> set[str]:
    """Return the tries of which something was erased by a writer that had not seen it."""
    return {victim for event in events if event.what == "erases" for victim in event["victims"]}


def story_of(point: str, events: list[Event]) -> list[str]:
    """Return what each try did that sent a point, from the moment it opened the record."""
    arrivals, _ = _arrivals(_openings(events))
    openings = {id(arrival.opening): arrival.opening for arrival in arrivals[point]}
    told = sorted({event.at: event for each in openings.values() for event in each.events}.items())
    kept = {arrival.event.at for arrival in arrivals[point]}
    return [f"{event}{'  <- ' + point if at in kept else ''}" for at, event in told]


def _arrivals(openings: list[_Opening]) -> tuple[defaultdict[str, list[_Arrival]], Counter[str]]:
    """Return who sent each point, in the order of sending, and how many were rejected."""
    arrivals: defaultdict[str, list[_Arrival]] = defaultdict(list)
    rejected: Counter[str] = Counter()
    for opening in openings:
        sent = opening.opened
        for event in opening.events:
            if event.what == "posts":
                sent = event.at
            elif event.what == "kept":
                rejected.update(event.details.get("rejected", ()))
                for point in event["ids"]:
                    arrivals[point].append(_Arrival(event, sent, opening))
    for came in arrivals.values():
        # Of a sender that was killed, a request may be read when the next one's has been already.
        came.sort(key=lambda arrival: (arrival.sent, arrival.event.at))
    return arrivals, rejected


def _seconds(time: str) -> int:
    hours, minutes, seconds = map(int, time.split(":"))
    return hours * 3600 + minutes * 60 + seconds


def _openings(events: list[Event]) -> list[_Opening]:
    current: dict[str, _Opening] = {}
    openings = []
    for event in events:
        who = event.details.get("by", event.who)
        if event.what == "opened":
            current[who] = _Opening(who, event.at, [])
            openings.append(current[who])
        if who not in current:
            continue
        opening = current[who]
        opening.events.append(event)
        if event.what == "closed" and event.details.get("contended"):
            opening.contended = True
        elif event.what == "warned" and AMBIGUOUS in event["text"]:
            opening.ambiguous += int(event["text"].split()[0])
        elif event.what == "warned" and CONTENDED in event["text"]:
            opening.contended = True
    return openings


class _Double:
    """A point that came again: why, and whether that was said.

    Attributes:
        cause: What made it possible; None where nothing did.
        is_named: Whether somebody has said beforehand that it may come twice.
    """

    def __init__(
        self,
        point: str,
        earlier: list[_Arrival],
        later: _Arrival,
        machines: dict[str, int],
        erased: set[str],
        openings: list[_Opening],
    ) -> None:
        self._is_counted = False
        if erased & {each.opening.who for each in earlier}:
            # A store that writes without a look leaves no trace of it that anybody could name.
            self.cause: str | None = "erased unseen by one that shares no lease"
            self.is_named = True
            return
        causes = (_cause(each, later, machines, openings) for each in reversed(earlier))
        self.cause = next(filter(None, causes), None)
        # A name is one of a point, however often its window sends it.
        self.is_named = point in later.opening.named or any(
            each.opening.contended for each in (*earlier, later)
        )
        self._opening = later.opening
        if not self.is_named and later.opening.ambiguous:
            self.is_named = True
            self._is_counted = True

    def use_name(self, point: str) -> None:
        """Let the name stand for no other point; which of several copies has it, nobody can tell."""
        if self._is_counted:
            self._opening.ambiguous -= 1
            self._opening.named.add(point)

    @property
    def is_right(self) -> bool:
        return self.is_named and self.cause is not None


def _cause(
    earlier: _Arrival, later: _Arrival, machines: dict[str, int], openings: list[_Opening]
) -> str | None:
    """Return what made it possible that a point came again; None where nothing did."""
    first, second = earlier.opening, later.opening
    answer = earlier.event["answer"]
    if not answer.startswith("200"):
        return f"no acknowledgement: {answer}"

    def is_apart(each: _Opening) -> bool:
        return machines.get(each.run) != machines.get(first.run) and each.is_at_once_with(first)

    if is_apart(second):
        return "two at once that share no lease"
    if first.contended and len(set(machines.values())) > 1:
        return "its record was contended by one that shares no lease"
    if mishap := _mishap(earlier):
        return mishap
    # Its write may bring back the marks of points in flight that the first one has just replaced.
    if any(is_apart(each) and each.shares_record_with(first) for each in openings):
        return "a third one at once that shares no lease"
    return None


def _mishap(arrival: _Arrival) -> str | None:
    """Return what kept the acknowledgement of a point from being recorded; None where nothing did."""
    # Until its next request or its end: by then, what was acknowledged is on record.
    for event in arrival.opening.events:
        if event.at <= arrival.sent or event.what in ("kept", "refused"):
            continue
        if event.what in DEATHS:
            return "killed before the record"
        if event.what == "no record":
            return "the record failed"
        if event.what in ("posts", "closed"):
            break
    return None
