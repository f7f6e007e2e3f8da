"""What a storm's judge lets pass, and what not: each story is told in a few events."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from tests.storms.journal import Event, Journal
from tests.storms.judge import AMBIGUOUS, CONTENDED, Verdict, judge, story_of
from tests.storms.plans import Plan


def story(text: str) -> list[Event]:
    """Return events, one a line: who, what, and details as `name=value`."""
    events = []
    for at, line in enumerate(filter(str.strip, text.splitlines()), start=1):
        who, what, *details = line.split("|")
        events.append(Event(at, who.strip(), what.strip(), dict(map(detail, details))))
    return events


def detail(text: str) -> tuple[str, Any]:
    name, _, value = text.strip().partition("=")
    return name, value.split(",") if name in ("ids", "victims") else value


def verdict(text: str, **generated: int) -> Verdict:
    return judge(plan(**(generated or {"p": 1})), story(text))


def plan(machines: dict[str, int] | None = None, **generated: int) -> Any:
    """Return as much of a plan as a judge looks at."""
    machines = machines or {"a": 0, "b": 0, "c": 1}
    runs = [SimpleNamespace(name=name, machine=machine) for name, machine in machines.items()]
    points = [SimpleNamespace(id=point, copies=copies) for point, copies in generated.items()]
    return SimpleNamespace(generated=Counter(generated), runs=runs, due=lambda run: points)


DELIVERED = """
    a/1 | opened
    a/1 | posts
    receiver | kept | by=a/1 | ids=p | answer=200
    a/1 | acknowledged
    a/1 | closed
"""
AGAIN = DELIVERED.replace("a/1", "a/2")
NAMED = AGAIN.replace("a/2 | posts", f"a/2 | warned | text=1 points {AMBIGUOUS}\n    a/2 | posts", 1)
CONTESTED = AGAIN.replace("a/2 | posts", f"a/2 | warned | text={CONTENDED}\n    a/2 | posts", 1)
NO_ANSWER = DELIVERED.replace("answer=200", "answer=hang-up after it kept").replace(
    "acknowledged", "no success"
)
KILLED = DELIVERED.replace("    a/1 | closed\n", "").replace("acknowledged", "is dead")
NOT_RECORDED = DELIVERED.replace("    a/1 | closed", "    a/1 | no record\n    a/1 | closed")


def test_a_point_that_arrives_once_is_right():
    assert verdict(DELIVERED) == Verdict()


def test_a_point_that_never_arrives_is_lost():
    assert verdict(DELIVERED, p=1, q=1).lost == ["q"]


def test_a_run_that_succeeds_has_delivered_all():
    late = "    a/2 | opened\n    receiver | kept | by=a/2 | ids=q | answer=200\n"
    assert verdict(DELIVERED + late + "a/1 | succeeded", p=1, q=1).is_good
    assert verdict(DELIVERED + "a/1 | succeeded\n" + late, p=1, q=1).missing == ["q"]


def test_a_copy_that_never_arrives_is_lost():
    assert verdict(DELIVERED, p=2).lost == ["p"]
    assert verdict(DELIVERED + AGAIN, p=2) == Verdict()


def test_a_copy_still_on_its_way_is_not_a_duplicate():
    # In flight was one of two; the last try sends the other one.
    assert verdict(NO_ANSWER + NAMED + AGAIN.replace("a/2", "a/3"), p=2).is_good
    assert verdict(NO_ANSWER + AGAIN + AGAIN.replace("a/2", "a/3"), p=2).silent == ["p"]


def test_a_point_that_was_rejected_is_not_lost():
    rejected = story(DELIVERED)
    rejected[2].details.update(ids=[], rejected=["p"])
    assert judge(plan(p=1), rejected).is_good


@pytest.mark.parametrize("first", [DELIVERED, NO_ANSWER, KILLED, NOT_RECORDED])
def test_a_duplicate_has_to_be_reported(first):
    assert verdict(first + AGAIN).silent == ["p"]


@pytest.mark.parametrize(
    ("first", "cause"),
    [
        (NO_ANSWER, "no acknowledgement: hang-up after it kept"),
        (KILLED, "killed before the record"),
        (NOT_RECORDED, "the record failed"),
    ],
)
@pytest.mark.parametrize("second", [NAMED, CONTESTED], ids=["ambiguous", "contended"])
def test_a_duplicate_with_a_reason_is_right_if_it_is_reported(first, cause, second):
    found = verdict(first + second)
    assert found.is_good
    assert found.doubled == {cause: 1}


def test_a_duplicate_of_an_acknowledged_point_is_wrong_even_if_reported():
    assert verdict(DELIVERED + NAMED).causeless == ["p"]


def interleaved(other: str) -> str:
    """Return a story in which another try opens the record while the first one has it open."""
    opens, rest = NAMED.replace("a/2", other).strip("\n").split("\n", 1)
    return f"{opens}\n{DELIVERED}\n{rest}"


def test_concurrent_tasks_are_a_reason_only_without_a_shared_lease():
    assert verdict(interleaved("b/1")).causeless == ["p"]
    assert verdict(interleaved("c/1")).is_good


def test_a_third_task_with_the_same_record_open_is_a_reason_only_without_a_shared_lease():
    """It may write the record as it was, with the points in flight, though it sends none of them."""

    def third(who: str, window: str) -> str:
        opens = DELIVERED.replace("opened", "opened | window=10:00:00-10:15:00", 1).strip("\n").split("\n")
        opens.insert(2, f"{who} | opened | window={window}")
        return "\n".join([*opens, f"{who} | closed"]) + NAMED

    assert verdict(third("b/1", "10:14:00-10:20:00")).causeless == ["p"]
    assert verdict(third("c/1", "10:15:00-10:30:00")).causeless == ["p"]
    found = verdict(third("c/1", "10:14:00-10:20:00"))
    assert found.is_good
    assert found.doubled == {"a third one at once that shares no lease": 1}


def test_a_contended_record_may_be_lost():
    assert verdict(CONTESTED.replace("a/2", "c/1") + NAMED).is_good


def test_points_erased_unseen_cannot_be_reported():
    erases = "c/1 | erases | victims=a/1\n"
    assert verdict(DELIVERED + erases + AGAIN).is_good
    assert verdict(DELIVERED + erases.replace("a/1", "b/1") + AGAIN).silent == ["p"]


def test_no_task_contends_if_leases_reach_all():
    assert judge(plan({"a": 0, "b": 0}, p=1), story(CONTESTED)).unfounded == ["a/2"]
    assert judge(plan({"a": 0, "b": 1}, p=1), story(CONTESTED)).is_good


def test_a_request_that_is_read_when_its_sender_is_dead_was_the_first():
    kept = "    receiver | kept | by=a/1 | ids=p | answer=200\n"
    assert verdict(KILLED.replace(kept, "") + NAMED + kept).is_good


def test_a_report_covers_as_many_points_as_it_counts():
    both = (NO_ANSWER + NAMED).replace("ids=p", "ids=p,q")
    assert verdict(both, p=1, q=1).silent == ["q"]
    assert verdict(both.replace("text=1", "text=2"), p=1, q=1).is_good


def test_the_story_of_a_point_includes_all_its_senders():
    told = "\n".join(story_of("p", story(NO_ANSWER + AGAIN.replace("a/2", "b/1") + "z/1 | opened")))
    assert told.count("<- p") == 2
    assert "b/1" in told
    assert "z/1" not in told


def test_a_plan_depends_on_its_seed_alone():
    one, two = Plan(7), Plan(7)
    assert (one.points, one.runs) == (two.points, two.runs)
    assert Plan(8).points != one.points


def test_a_journal_is_in_chronological_order(tmp_path):
    journal = Journal(tmp_path / "journal")
    journal.write("a/1", "opened", window="x")
    journal.write("a/1", "closed")
    assert [event.what for event in journal.read()] == ["opened", "closed"]
