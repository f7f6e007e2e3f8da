"""The commands on the archive: what they print, verify, delete and deliver."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from datetime import timedelta

import pendulum
import pytest

from airflow_provider_forge.cli.main import main
from airflow_provider_forge.cli.replay import _describe_gap
from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.sandbox import OtlpSink
from airflow_provider_forge.windows import MAX_WINDOW, Window, floor, format_time
from tests.archive.conftest import archived, run  # noqa: F401 - a fixture
from tests.archive.test_replay import HOUR, objects

PRUNE = ("archive", "prune", "--older-than", "1m")


@pytest.fixture
def filled(archived):  # noqa: F811 - pytest's way
    run(HOUR)
    return archived


def bounds():
    return ["--from", HOUR.start.isoformat(), "--to", HOUR.end.isoformat()]


def command(capsys, *arguments):
    """Run a command, and return its exit status and its JSON."""
    status = main([*arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_ls_shows_each_day_with_its_gaps(filled, capsys, tmp_path):
    objects(tmp_path)[1].unlink()
    status, days = command(capsys, "archive", "ls", *bounds())
    assert status == 0
    assert sum(day["quarters"] for day in days) == 3
    assert sum(day["objects"] for day in days) == 4
    [gap] = [gap for day in days for gap in day["gaps"]]
    assert gap.startswith(f"{HOUR.start.add(minutes=15):%Y-%m-%dT%H:%M}")
    assert main(["archive", "ls", *bounds()]) == 0
    header, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert header == ["DAY", "QUARTERS", "OBJECTS", "BYTES", "GAPS"]
    assert [(row[3], row[4].split()) for row in rows] == [(str(day["size"]), day["gaps"]) for day in days]


def test_verify_reads_every_object_and_counts_its_points_against_a_ledger(filled, sink, capsys):
    status, result = command(capsys, "archive", "verify", "--otlp-conn-id", "otlp_default")
    assert (status, result["problems"]) == (0, [])
    assert sum(day["points"] for day in result["days"]) == len(sink.points)
    assert sum(day["undelivered"] for day in result["days"]) == 0
    # Without a ledger, it is not known.
    _, result = command(capsys, "archive", "verify")
    assert all(set(day) == {"day", "objects", "points", "problems"} for day in result["days"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:70] + b"y" + path.read_bytes()[71:]),
        lambda path: path.unlink(),
        lambda path: path.with_name(path.name.replace(".json.gz", ".about.json")).write_text(
            '{"version": 2}'
        ),
    ],
    ids=["truncated", "flipped", "missing", "later version"],
)
def test_verify_names_what_is_damaged(filled, capsys, tmp_path, damage):
    damage(damaged := objects(tmp_path)[2])
    status, result = command(capsys, "archive", "verify", *bounds())
    assert status == 1
    [problem] = result["problems"]
    assert damaged.name.removesuffix(".json.gz") in problem


def test_prune_deletes_what_is_older_and_nothing_else(filled, capsys, tmp_path):
    status, result = command(capsys, "archive", "prune", "--older-than", "30d", "--yes")
    assert (status, result["deleted"], len(objects(tmp_path))) == (0, 0, 4)
    status, expected = command(capsys, *PRUNE, "--dry-run")
    assert (status, expected["deleted"], len(objects(tmp_path))) == (0, 4, 4)
    status, result = command(capsys, *PRUNE, "--yes")
    assert (status, result["deleted"], result["bytes"]) == (0, 4, expected["bytes"])
    assert objects(tmp_path) == []
    assert command(capsys, "archive", "ls", *bounds())[1][0]["objects"] == 0


@pytest.mark.parametrize("age", ["", "none", "0m", "-1d", "400", "1.5", "P1D"])
def test_prune_needs_an_age_with_its_unit(filled, tmp_path, capsys, age):
    assert main(["archive", "prune", f"--older-than={age}", "--yes"]) == 2
    assert "--older-than: " in capsys.readouterr().err
    assert len(objects(tmp_path)) == 4


def test_prune_deletes_nothing_unasked(filled, tmp_path, capsys):
    assert main(list(PRUNE)) == 2
    assert "--yes: is missing" in capsys.readouterr().err
    assert len(objects(tmp_path)) == 4


class Terminal(io.StringIO):
    """A terminal, with the answer that is typed or with what it shows."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("answer", "status", "left"), [("y\n", 0, 0), ("YES\n", 0, 0), ("\n", 1, 4), ("", 1, 4), ("400d\n", 1, 4)]
)
def test_prune_asks_on_a_terminal(filled, tmp_path, monkeypatch, answer, status, left):
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    monkeypatch.setattr("sys.stderr", shown := Terminal())
    assert main(list(PRUNE)) == status
    assert re.search(r"Delete 4 objects, [0-9.]+ kB, from before .* UTC\? \[y/N\] ", shown.getvalue())
    assert len(objects(tmp_path)) == left


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("prune --older-than 1m --yes --from today", "--from"),
        ("prune --older-than 1m --yes --to today", "--to"),
        ("verify --older-than 1m", "--older-than"),
        ("ls --dry-run", "--dry-run"),
        ("ls --yes", "--yes"),
    ],
)
def test_an_option_of_another_action_is_refused(filled, tmp_path, capsys, line, option):
    assert main(["archive", *line.split()]) == 2
    assert f"{option}: is not an option of archive" in capsys.readouterr().err
    assert len(objects(tmp_path)) == 4


def test_times_are_as_those_of_other_commands(filled, capsys):
    interval = ["--from=-6h", "--to", "now"]
    status, days = command(capsys, "archive", "ls", *interval)
    assert (status, sum(day["objects"] for day in days)) == (0, 4)
    status, result = command(capsys, "replay", *interval, "--dry-run")
    assert (status, sum(day["replayed"] for day in result["days"])) == (1, 4)
    assert command(capsys, "archive", "ls", "--from", "yesterday", "--to", "00:00")[0] == 0


@pytest.mark.parametrize("action", [["archive", "ls"], ["archive", "verify"], ["replay"]])
@pytest.mark.parametrize(
    ("start", "end", "says"),
    [
        ("0001-01-01T00:00:00Z", "now", "longer than 10 years"),
        ("2015-01-01T00:00:00Z", "now", "longer than 10 years"),
        ("yesterday", "9999-12-31T23:59:59Z", "--to: 9999-12-31 23:59 UTC is in the future"),
    ],
)
def test_an_interval_without_end_is_refused(filled, capsys, action, start, end, says):
    assert main([*action, f"--from={start}", f"--to={end}"]) == 2
    assert says in capsys.readouterr().err


def test_replay_delivers_an_interval_once_and_a_dry_run_nothing(filled, gateway, capsys):
    made = len(gateway.calls)
    expected = Counter(
        gateway.generated(HOUR.start, HOUR.end, environments=["production"], metrics=DEFAULT_METRICS)
    )
    with OtlpSink() as other:
        filled(other)
        status, result = command(capsys, "replay", *bounds(), "--dry-run")
        assert (status, other.points) == (0, [])
        assert main(["replay", *bounds(), "--dry-run"]) == 0
        assert capsys.readouterr().out.startswith("DAY\tWINDOWS\tPOINTS\tTO SEND\tUNCHANGED\t")
        assert sum(day["sent"] for day in result["days"]) == expected.total()
        status, result = command(capsys, "replay", *bounds())
        assert (status, Counter(other.points)) == (0, expected)
        assert sum(day["replayed"] for day in result["days"]) == 4
        assert sum(day["sent"] for day in command(capsys, "replay", *bounds())[1]["days"]) == 0
    assert len(gateway.calls) == made


def test_replay_names_each_gap_once_and_delivers_the_rest(filled, capfd, caplog, tmp_path):
    first, second, _, fourth = objects(tmp_path)
    for each in (first, second, fourth):
        each.unlink()
        each.with_name(each.name.replace(".json.gz", ".about.json")).unlink()
    quarters = [*HOUR.split()]
    capfd.readouterr()
    caplog.clear()
    with OtlpSink() as other:
        filled(other)
        assert main(["replay", *bounds()]) == 1
        assert other.points
    start, bound, last, end = map(format_time, (HOUR.start, quarters[1].end, quarters[3].start, HOUR.end))
    what = "not in the archive for these environments and metrics"
    both = Window(HOUR.start, quarters[1].end).humanize()
    assert capfd.readouterr().err == (
        f"2 windows, {both}, are {what}; `forge-metrics send --start {start} --end {bound}` delivers them\n"
        f"1 window, {quarters[3].humanize()}, is {what}; `forge-metrics send --start {last} --end {end}`"
        " delivers it\n"
    )
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("days", "minutes", "says"),
    [
        (20, 60, "4 windows, .*, are not in .*, and Atlassian no longer has them"),
        (0, 15, "1 window, .*, is not in .*, and Atlassian may not have all points yet"),
        (13.99, 60, r"`forge-metrics send --start \S+T06:00:00Z --end \S+T06:15:00Z` delivers those that"),
        (400, 15, r"1 window, 19 Oct 2025 05:45\u201306:00 UTC, is"),
    ],
)
def test_replay_sends_nobody_for_what_atlassian_cannot_have(days, minutes, says):
    now = pendulum.datetime(2026, 11, 23, 5, 59)
    end = floor(now - timedelta(days=days), MAX_WINDOW).add(minutes=15)
    gap = Window(end.subtract(minutes=minutes), end)
    assert re.match(f".*{says}", _describe_gap(gap, now))


def test_a_problem_is_printed_once(filled, capfd, caplog, tmp_path):
    damaged = objects(tmp_path)[2]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    capfd.readouterr()
    caplog.clear()
    assert main(["replay", *bounds(), "--dry-run"]) == 1
    assert capfd.readouterr().err.count(damaged.name) == 1
    assert caplog.messages == []


def test_replay_says_beforehand_what_the_destination_would_not_take(filled, capsys):
    filled(max_age="1h")
    status, result = command(capsys, "replay", *bounds())
    assert status == 3
    assert "discards points older than 1 hour" in result["error"]["message"]


def test_without_an_archive_the_field_is_named(connect, gateway, sink, capsys):
    connect(gateway, sink)
    for arguments in (["archive", "ls"], ["replay", *bounds()]):
        assert main(arguments) == 2
        assert "archive_url" in capsys.readouterr().err


def test_an_empty_archive_is_no_error(archived, capsys):  # noqa: F811 - pytest's way
    assert main(["archive", "ls"]) == 0
    assert "has no windows of this app" in capsys.readouterr().err
