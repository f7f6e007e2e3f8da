"""`python -m benchmarks.accounts`: how long live windows wait when many apps share one account.

Simulates six hours of the budget of an account, by a clock of its own: each app makes two calls every quarter
hour, one for the newest window and one for the window an hour before it. Prints the share of the limit that
is used, and the time from settling to the newest window's call.
"""

from __future__ import annotations

import heapq
import itertools
import statistics

from airflow_provider_forge.gateway.budget import Budget, Priority, period_of

APPS = (1, 5, 20, 35, 40, 75)
CALLS, PERIOD = 5, period_of(60.0)
QUARTER, SPAN = 900, 21_600
CALL_SECONDS = 2.0


def simulate(apps: int) -> tuple[list[float], int]:
    """Return the delays of the newest windows' calls in seconds, and the number of calls not made."""
    budget, order, delays = Budget(CALLS, PERIOD), itertools.count(), []
    # Time, order, owner, settled at, calls left.
    waiting = [
        (float(at), next(order), f"{app} {at}", at, 2)
        for at in range(0, SPAN, QUARTER)
        for app in range(apps)
    ]
    heapq.heapify(waiting)
    while waiting and waiting[0][0] < SPAN:
        now, _, owner, settled, left = heapq.heappop(waiting)
        decision = budget.ask(f"{owner} {left}", now, priority=Priority.LIVE)
        if not decision.granted:
            heapq.heappush(waiting, (now + max(decision.seconds, 0.001), next(order), owner, settled, left))
            continue
        if left == 2:
            delays.append(now - settled)
        if left > 1:
            heapq.heappush(waiting, (now + CALL_SECONDS, next(order), owner, settled, left - 1))
    return delays, sum(left for *_, left in waiting)


def main() -> None:
    """Print a line for each number of apps."""
    for apps in APPS:
        delays, unmade = simulate(apps)
        made = 2 * apps * SPAN // QUARTER - unmade
        p50, p95 = (statistics.quantiles(delays, n=20)[at] for at in (9, 18))
        print(
            f"{apps:3} apps: {made / (CALLS * SPAN / PERIOD):4.0%} of the limit; newest window after"
            f" p50 {p50:5.0f} s, p95 {p95:5.0f} s, at most {max(delays):5.0f} s;"
            f" {unmade} calls not made"
        )


if __name__ == "__main__":
    main()
