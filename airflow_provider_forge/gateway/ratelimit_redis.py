"""The rate limit of several machines: the budget is in a Redis, which also has the clock."""

from __future__ import annotations

from importlib import resources
from typing import ClassVar

from airflow_provider_forge.exceptions import RateLimitUnavailable
from airflow_provider_forge.gateway.budget import (
    LONGEST_PAUSE,
    MAX_WAIT,
    REFUSED_FOR,
    Verdict,
    distance_of,
    period_of,
)
from airflow_provider_forge.redis_server import RedisServer

__all__ = ["RedisStore"]


class RedisStore:
    """Shares an account's budget among all processes that reach one Redis.

    One script does what `Budget` does, at one go and by the server's clock. What it keeps is one key, which
    expires when nothing of it matters any more. A server that was started again or replaced may have lost the
    last uses: then the whole budget counts as used now.

    Args:
        url: `redis://` or `rediss://`; where it has a password, it appears in no error.
        account: A name for the account that tells nobody who it is.
        calls: How many calls fit into `seconds`; 1 or more.
        seconds: The length of the span; more than 0.

    Raises:
        ConfigurationError: The URL is malformed, or the package redis is missing.
    """

    PRESENT: ClassVar[str] = """
local time = redis.call('TIME')
local server = redis.call('INFO', 'server')
local now = time[1] + time[2] / 1e6
local run, uptime = server:match('run_id:(%x+)'), tonumber(server:match('uptime_in_seconds:(%d+)'))
"""
    """What the script says first: the present, which run of the server this is, and for how long it is up."""

    def __init__(self, url: str, account: str, *, calls: int = 5, seconds: float = 60.0) -> None:
        self.key = f"airflow-provider-forge:{account}"
        self.calls = calls
        self.period = period_of(seconds)
        self._server = RedisServer(url, "the rate limit", RateLimitUnavailable)
        text = resources.files(__package__).joinpath("budget.lua").read_text(encoding="utf-8")
        self._script = self._server.script(self.PRESENT + text)

    def ask(self, holder: str, *, live: bool) -> Verdict:
        """Tell the holder how long to wait for its place, or that it is used now."""
        seconds, placed = self._run("ask", holder, int(live))
        return Verdict(float(seconds), placed=placed == "1")

    def pause(self, seconds: float | None) -> None:
        """Let nobody call for so long; None is one period."""
        self._run("pause", "" if seconds is None else seconds)

    def refuse(self, credentials: str) -> None:
        """Let nobody try these credentials again for a quarter of an hour."""
        self._run("refuse", credentials)

    def refused(self, credentials: str) -> float:
        """Return for how many seconds nobody may try these credentials; 0 if anybody may."""
        (seconds,) = self._run("refused", credentials)
        return float(seconds)

    def _run(self, verb: str, *what: str | float) -> list[str]:
        distance = distance_of(self.calls, self.period)
        limits = (self.calls, self.period, distance, MAX_WAIT, LONGEST_PAUSE, REFUSED_FOR)
        answer: list[str] = self._server.run(self._script, [self.key], [*limits, verb, *what])
        return answer
